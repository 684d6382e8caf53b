"""After a class has left: what the classes that stay tell of its records."""

import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy import stats
from sklearn.metrics import roc_auc_score
from torch import nn

from efface.errors import InputError
from efface.metrics.evaluation import evaluate
from efface.probes.linear_probe import (
    Nearest,
    agreement,
    neighbouring_class,
    neighbouring_class_cost,
    retained_log_probabilities,
)
from efface.testing import model_of_kind, records_of_kind
from efface.types import Records

sys.path.insert(0, str(Path(__file__).parent))
from probe_promises import passes_of, same, untouched


@pytest.fixture(scope="module")
def parts(digits):
    """The threes that the tiny net saw, and a hundred digits that it never saw."""
    rows = (digits.y[:300] == 3).nonzero()[:, 0]
    return digits.take(rows), digits.take(range(300, 400))


def test_the_given_model_is_untouched_and_the_same_seed_gives_the_same_numbers(
    tiny_net, parts, random_state_kept
):
    """Weights, buffers, gradients, flags, hooks and the host's random numbers."""

    def probe(model, seed=0):
        return neighbouring_class(model, *parts, forget_classes=(3,), seed=seed)

    found = untouched(probe, tiny_net, random_state_kept)
    assert not same(found, probe(tiny_net, seed=1))


def test_the_price_is_known_beforehand(tiny_net, parts):
    """Counted on the model; unseen records of classes that stay are not asked."""
    said = neighbouring_class_cost(*parts, forget_classes=(3,))
    assert passes_of(lambda m: neighbouring_class(m, *parts, forget_classes=(3,)), tiny_net) == said
    assert said.forward < len(parts[0]) + 20


def test_taking_a_class_out_is_conditioning_on_the_others(tiny_net, parts):
    """p_k / (1 - p_leaving), computed from the probabilities themselves."""
    measured = evaluate(tiny_net, parts[1])
    logs = retained_log_probabilities(measured, (3, 7))
    p = measured.probabilities
    kept = [0, 1, 2, 4, 5, 6, 8, 9]
    expected = p[:, kept] / p[:, kept].sum(1, keepdims=True)
    np.testing.assert_allclose(np.exp(logs), expected, rtol=1e-6)


def test_the_nearest_class_is_the_second_where_the_first_has_left(tiny_net, parts):
    """Ids are those of the model, not places among the classes that stay."""
    found = neighbouring_class(tiny_net, *parts, forget_classes=(3,))
    logits = evaluate(tiny_net, parts[0]).logits.copy()
    logits[:, 3] = -np.inf
    np.testing.assert_array_equal(found.forget.classes, logits.argmax(1))
    assert found.forget.classes.max() > 3
    assert (found.forget.confidence >= 1 / 9).all()


def test_a_high_score_of_the_class_that_left_does_not_hide_its_neighbours(tiny_net, parts):
    """A filter that adds to the logit of the class, or takes it away, changes nothing here."""
    filtered = nn.Sequential(*tiny_net, Shifted())
    one, other = (
        neighbouring_class(net, *parts, forget_classes=(3,)) for net in (tiny_net, filtered)
    )
    np.testing.assert_allclose(one.forget.confidence, other.forget.confidence, rtol=1e-4)
    assert one.by_confidence == other.by_confidence


class Shifted(nn.Module):
    """An output filter: the logit of class 3 is pushed down."""

    def forward(self, x):
        return x - 50 * nn.functional.one_hot(torch.tensor(3), 10)


def leaking(n, *, sure, seed):
    """Records of class 2 whose inputs are logits of three classes."""
    draw = np.random.default_rng(seed)
    logits = np.stack([sure + draw.normal(size=n), np.zeros(n), draw.normal(size=n)], 1)
    return Records(torch.tensor(logits, dtype=torch.float32), torch.full((n,), 2))


def test_members_whose_neighbour_is_surer_are_told_apart():
    """By both attackers; the area is that of scikit-learn."""
    ours, theirs = leaking(200, sure=2.0, seed=0), leaking(300, sure=0.0, seed=1)
    found = neighbouring_class(nn.Identity(), ours, theirs, forget_classes=(2,))
    assert found.by_confidence.recognised
    assert found.by_all.recognised
    confidences = np.concatenate([found.forget.confidence, found.unseen.confidence])
    expected = roc_auc_score(np.repeat([1, 0], [200, 300]), confidences)
    assert found.by_confidence.auc == pytest.approx(expected)
    alike = neighbouring_class(
        nn.Identity(), leaking(200, sure=0.0, seed=2), theirs, forget_classes=(2,)
    )
    assert not alike.by_confidence.sees
    assert not alike.by_all.sees


def test_two_models_are_compared_record_by_record():
    """Shares and means by hand, the distance by scipy."""
    one = Nearest(np.array([0, 1, 1, 4]), np.array([0.9, 0.8, 0.7, 0.6]))
    other = Nearest(np.array([0, 1, 2, 2]), np.array([0.5, 0.6, 0.4, 0.7]))
    found = agreement(one, other)
    assert (found.same, found.difference) == (0.5, pytest.approx(0.2))
    expected = stats.ks_2samp(one.confidence, other.confidence)
    assert (found.distance, found.p) == (expected.statistic, expected.pvalue)
    assert agreement(one, one).distance == agreement(one, one).difference == 0


def test_what_the_probe_does_not_serve_is_refused_in_words(tiny_net, parts, digits):
    """Records of other classes, no class left to compare with, none unseen, no classes at all."""
    forget, unseen = parts
    every = tuple(range(1, 10))
    said = [
        (
            (
                "forget records of the forgotten classes. Got 2 of others. "
                "Use this only where whole classes are forgotten."
            ),
            (tiny_net, digits.take([0, 1, 3]), unseen, (3,)),
        ),
        (
            (
                "two classes or more that remain. Got 1 of 10. "
                "With one class left there is no neighbour to compare it with."
            ),
            (tiny_net, forget, unseen, every),
        ),
        (
            "at least one record. Got none. Give the records to be probed.",
            (tiny_net, forget, unseen.take((unseen.y != 3).nonzero()[:, 0]), (3,)),
        ),
        (
            (
                "multiclass records, which this probe asks about. Got multilabel. "
                "Omit this probe, and say that it was not run."
            ),
            (model_of_kind("multilabel"), records_of_kind("multilabel"), unseen, (3,)),
        ),
    ]
    for words, (*given, forget_classes) in said:
        with pytest.raises(InputError) as error:
            neighbouring_class(*given, forget_classes=forget_classes)
        assert str(error.value) == f"Wanted {words}"
    with pytest.raises(InputError) as error:
        agreement(Nearest(np.array([1]), np.ones(1)), Nearest(np.array([1, 2]), np.ones(2)))
    assert str(error.value) == (
        "Wanted the same records, at least one, for both models. Got 1 and 2. "
        "Probe both models with the same forget records."
    )

"""The linear probe: knowledge behind a changed head, chance for what was never seen.

After a class has left: what the classes that stay tell of its records.
"""

import copy

import numpy as np
import pytest
import torch
from scipy import stats
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.preprocessing import StandardScaler
from torch import nn

from efface.metrics.evaluation import evaluate
from efface.probes.linear_probe import (
    Nearest,
    agreement,
    fitted_half,
    linear_attack,
    linear_probe,
    linear_probe_cost,
    neighbouring_class,
    neighbouring_class_cost,
    retained_log_probabilities,
)
from efface.testing import model_of_kind, records_of_kind, untrained_model
from efface.types import Records
from tests.probe_promises import passes_of, same, untouched
from tests.refusals import refusal


@pytest.fixture(scope="module")
def parts(digits):
    """Forty forget digits and a hundred that the tiny net never saw."""
    return digits.take(range(40)), digits.take(range(300, 400))


def test_the_given_model_is_untouched_and_the_same_seed_gives_the_same_numbers(
    tiny_net, parts, random_state_kept
):
    """Weights, buffers, gradients, flags, hooks and the host's random numbers."""
    found = untouched(lambda model: linear_probe(model, *parts), tiny_net, random_state_kept)
    assert not same(found, linear_probe(tiny_net, *parts, seed=1))


def test_the_price_is_known_beforehand(tiny_net, parts):
    """Counted on the model and on every copy of it."""
    said = linear_probe_cost(*parts)
    assert passes_of(lambda model: linear_probe(model, *parts), tiny_net) == said


def test_the_numbers_are_those_of_a_probe_written_by_hand(tiny_net, parts):
    """Features of the layers before the head, scikit-learn, the halves, counts by class."""
    forget, unseen = parts
    found = linear_probe(tiny_net, forget, unseen)
    with torch.no_grad():
        ours, theirs = (tiny_net[:-1](some.x).double().numpy() for some in parts)
    y, z = forget.y.numpy(), unseen.y.numpy()
    fit, fit_z = fitted_half(y, seed=0), fitted_half(z, seed=0)
    scale = StandardScaler().fit(np.concatenate([ours[fit], theirs[fit_z]]))
    reader = LogisticRegression(max_iter=10_000, class_weight="balanced").fit(
        scale.transform(np.concatenate([ours[fit], theirs[fit_z]])),
        np.concatenate([y[fit], z[fit_z]]),
    )
    right = reader.predict(scale.transform(ours[~fit])) == y[~fit]
    other = reader.predict(scale.transform(theirs[~fit_z])) == z[~fit_z]
    shares = [other[z[~fit_z] == label].mean() for label in y[~fit]]
    assert found.accuracy == right.mean()
    assert found.unseen_accuracy == pytest.approx(np.mean(shares))
    assert found.scored == (~fit).sum()
    assert found.interval[0] < found.accuracy <= found.interval[1]


def test_knowledge_behind_a_new_head_is_found(tiny_net, parts):
    """The outputs know nothing any more; the features know the classes as before."""
    net = copy.deepcopy(tiny_net)
    with torch.no_grad():
        nn.init.zeros_(net[-1].weight)
        nn.init.zeros_(net[-1].bias)
    assert evaluate(net, parts[0]).correct.mean() < 0.3
    found = linear_probe(net, *parts)
    assert found.accuracy > 0.8
    assert same(found, linear_probe(tiny_net, *parts))


def test_features_without_content_are_no_better_than_chance(parts):
    """A layer of zeros: nothing to read, and the probe says so."""
    net = untrained_model(0).eval()
    with torch.no_grad():
        for one in net[4].parameters():
            one.zero_()
    found = linear_probe(net, *parts)
    assert found.accuracy < 0.3
    assert found.membership.auc == 0.5


def rows(n, classes, draw, *, shift=0.0):
    """Normal numbers around a centre of their class, moved by ``shift`` in the last column."""
    y = np.arange(n) % classes
    x = draw.normal(size=(n, 5)) + 4 * y[:, None]
    x[:, -1] += shift
    return x, y


def test_a_leak_in_the_features_is_found_and_classes_are_no_leak():
    """Members moved in one direction; without it the area is near a half, by scikit-learn too."""
    draw = np.random.default_rng(0)
    theirs, unseen_classes = rows(400, 4, draw)
    for shift in (0.0, 1.5):
        ours, classes = rows(400, 2, draw, shift=shift)
        groups = {"classes": classes, "unseen_classes": unseen_classes}
        found = linear_attack(ours, theirs, **groups, seed=0)
        assert found.recognised is (shift > 0)
        assert found.unseen_n == 100
        assert found.forget_n == 200
    single = {"classes": np.zeros(400, int), "unseen_classes": np.zeros(400, int)}
    ours, theirs = draw.normal(size=(400, 3)) + 0.7, draw.normal(size=(400, 3))
    found, fit = (
        linear_attack(ours, theirs, **single, seed=0),
        fitted_half(np.zeros(400, int), seed=0),
    )
    known = np.concatenate([ours[fit], theirs[fit]])
    scale = StandardScaler().fit(known)
    attacker = LogisticRegression().fit(scale.transform(known), np.repeat([1, 0], 200))
    others = scale.transform(np.concatenate([ours[~fit], theirs[~fit]]))
    expected = roc_auc_score(np.repeat([1, 0], 200), attacker.decision_function(others))
    assert found.auc == pytest.approx(expected)


def test_an_attacker_is_not_judged_on_what_it_was_fitted_on():
    """Two hundred records in as many dimensions can be told apart; their other half cannot."""
    draw = np.random.default_rng(1)
    ours, theirs = draw.normal(size=(400, 200)), draw.normal(size=(400, 200))
    groups = {"classes": np.zeros(400, int), "unseen_classes": np.zeros(400, int)}
    assert not linear_attack(ours, theirs, **groups, seed=0).sees


def test_a_half_holds_half_of_each_class():
    """The odd record is learned from; another seed takes other records."""
    classes = np.repeat([3, 5, 9], [7, 10, 1])
    half = fitted_half(classes, seed=0)
    assert [int(half[classes == label].sum()) for label in (3, 5, 9)] == [4, 5, 1]
    assert not np.array_equal(half, fitted_half(classes, seed=1))


@pytest.mark.parametrize("kind", ["layer norm", "dropout", "one output", "table"])
def test_nets_of_other_kinds_are_served(kind):
    """Whatever has a linear head; a single unit too."""
    some = records_of_kind(kind)
    found = linear_probe(model_of_kind(kind), some.take(range(30)), some.take(range(30, 60)))
    assert 0 <= found.accuracy <= 1


class Twice(nn.Module):
    """A model whose outputs are not its last layer's."""

    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(64, 10)

    def forward(self, x):
        return 2 * self.layer(x.flatten(1))


def test_what_the_probe_does_not_serve_is_refused_in_words(tiny_net, parts):
    """No head, no classes, one class alone, too few records."""
    left_out = "Omit this probe, and say that it was not run."
    forget, unseen = parts
    zeros = [d.take((d.y == 0).nonzero()[:, 0]) for d in parts]
    broken = copy.deepcopy(tiny_net)
    with torch.no_grad():
        broken[0].weight.fill_(float("nan"))
    said = [
        (
            "a last linear layer whose answers are the outputs. Got another step after it. "
            + left_out,
            (Twice(), forget, unseen),
        ),
        (
            "multiclass records, which this probe asks about. Got regression. " + left_out,
            (
                model_of_kind("regression"),
                records_of_kind("regression"),
                records_of_kind("regression"),
            ),
        ),
        (
            (
                "records of two classes or more. Got class 0 alone. "
                "Give unseen records of the other classes too."
            ),
            (tiny_net, *zeros),
        ),
        (
            (
                "two forget and two unseen records or more of one class, one for each half. "
                "Got 1 and 10. Give more records of these classes."
            ),
            (tiny_net, forget.take([0]), unseen),
        ),
        (
            "a model of finite weights. Got nan or inf in 0.weight. Look at what broke it.",
            (broken, forget, unseen),
        ),
    ]
    for words, given in said:
        assert refusal(linear_probe, *given) == f"Wanted {words}"


@pytest.fixture(scope="module")
def threes(digits):
    """The threes that the tiny net saw, and a hundred digits that it never saw."""
    rows = (digits.y[:300] == 3).nonzero()[:, 0]
    return digits.take(rows), digits.take(range(300, 400))


def test_the_probe_of_neighbouring_classes_keeps_the_model_and_repeats_with_its_seed(
    tiny_net, threes, random_state_kept
):
    """Weights, buffers, gradients, flags, hooks and the host's random numbers."""

    def probe(model, seed=0):
        return neighbouring_class(model, *threes, forget_classes=(3,), seed=seed)

    found = untouched(probe, tiny_net, random_state_kept)
    assert not same(found, probe(tiny_net, seed=1))


def test_the_probe_of_neighbouring_classes_costs_the_passes_declared(tiny_net, threes):
    """Counted on the model; unseen records of classes that stay are not asked."""
    said = neighbouring_class_cost(*threes, forget_classes=(3,))
    assert (
        passes_of(lambda m: neighbouring_class(m, *threes, forget_classes=(3,)), tiny_net) == said
    )
    assert said.forward < len(threes[0]) + 20


def test_taking_a_class_out_is_conditioning_on_the_others(tiny_net, threes):
    """p_k / (1 - p_leaving), computed from the probabilities themselves."""
    measured = evaluate(tiny_net, threes[1])
    logs = retained_log_probabilities(measured, (3, 7))
    p = measured.probabilities
    kept = [0, 1, 2, 4, 5, 6, 8, 9]
    expected = p[:, kept] / p[:, kept].sum(1, keepdims=True)
    np.testing.assert_allclose(np.exp(logs), expected, rtol=1e-6)


def test_the_nearest_class_is_the_second_where_the_first_has_left(tiny_net, threes):
    """Ids are those of the model, not places among the classes that stay."""
    found = neighbouring_class(tiny_net, *threes, forget_classes=(3,))
    logits = evaluate(tiny_net, threes[0]).logits.copy()
    logits[:, 3] = -np.inf
    np.testing.assert_array_equal(found.forget.classes, logits.argmax(1))
    assert found.forget.classes.max() > 3
    assert (found.forget.confidence >= 1 / 9).all()


def test_a_high_score_of_the_class_that_left_does_not_hide_its_neighbours(tiny_net, threes):
    """A filter that adds to the logit of the class, or takes it away, changes nothing here."""
    filtered = nn.Sequential(*tiny_net, Shifted())
    one, other = (
        neighbouring_class(net, *threes, forget_classes=(3,)) for net in (tiny_net, filtered)
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


def test_records_without_neighbouring_classes_are_refused(tiny_net, threes, digits):
    """Records of other classes, no class left to compare with, none unseen, no classes at all."""
    forget, unseen = threes
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
        assert (
            refusal(neighbouring_class, *given, forget_classes=forget_classes) == f"Wanted {words}"
        )
    assert refusal(
        agreement, Nearest(np.array([1]), np.ones(1)), Nearest(np.array([1, 2]), np.ones(2))
    ) == (
        "Wanted the same records, at least one, for both models. Got 1 and 2. "
        "Probe both models with the same forget records."
    )

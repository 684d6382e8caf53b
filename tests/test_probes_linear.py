"""The linear probe: knowledge behind a changed head, chance for what was never seen."""

import copy
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.preprocessing import StandardScaler
from torch import nn

from efface.errors import InputError
from efface.metrics.evaluation import evaluate
from efface.probes.linear_probe import fitted_half, linear_attack
from efface.probes.linear_probe import linear_probe, linear_probe_cost
from efface.testing import model_of_kind, records_of_kind, untrained_model

sys.path.insert(0, str(Path(__file__).parent))
from probe_promises import passes_of, same, untouched


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
    found, fit = linear_attack(ours, theirs, **single, seed=0), fitted_half(np.zeros(400, int), seed=0)
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
            "multiclass records, which this probe asks about. Got regression. "
            + left_out,
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
        with pytest.raises(InputError) as error:
            linear_probe(*given)
        assert str(error.value) == f"Wanted {words}"

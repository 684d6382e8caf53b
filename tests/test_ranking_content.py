"""Information content: counted by hand, by scikit-learn's classifiers, by a linear model's tail."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy import stats
from sklearn.neighbors import KNeighborsClassifier, RadiusNeighborsClassifier
from torch import nn

from efface.metrics.evaluation import evaluate
from efface.ranking.content import calibrate_sigma, information_content, is_low, noise_stability
from efface.ranking.neighbours import nearest, within
from efface.testing import model_of_kind, records_of_kind
from efface.types import Records
from research.gradients import noise_stability_cost
from tests.probe_promises import passes_of, untouched
from tests.refusals import refusal

WEIGHTS = torch.tensor([[0.3, -0.2, 0.5], [-0.4, 0.1, 0.2]])


def draw(n=80, classes=3):
    """Points and classes that have nothing to do with each other."""
    rng = np.random.default_rng(0)
    return rng.normal(size=(n, 3)), rng.integers(0, classes, n)


def share(model, records, sigma, **to):
    """Zero-shot α at one σ."""
    return noise_stability(model, records, (sigma,), **to).share[0]


@pytest.fixture(scope="module")
def some(digits):
    """40 digits."""
    return digits.take(range(40))


SEARCHES = {
    "nearest": lambda points: nearest(points, neighbours=6),
    "within": lambda points: within(points, radius=0.8),
    "of some": lambda points: nearest(points, neighbours=6, of=np.array([5, 2, 70])),
}


@pytest.mark.parametrize("find", SEARCHES.values(), ids=SEARCHES)
def test_alpha_is_what_a_loop_counts(find):
    points, classes = draw()
    balls = find(points)
    found = information_content(balls, classes)
    assert len(found) == len(balls)
    for place, row in enumerate(balls.of):
        members = balls.rows[balls.starts[place] : balls.starts[place + 1]]
        assert found[place] == sum(classes[z] == classes[row] for z in members) / len(members)


def test_alpha_is_the_vote_of_a_classifier_for_the_records_own_class():
    """scikit-learn's shares of votes among as many neighbours, the record itself among them."""
    points, classes = draw(200)
    for classifier, balls in (
        (KNeighborsClassifier(7), nearest(points, neighbours=6)),
        (RadiusNeighborsClassifier(0.8), within(points, radius=0.8)),
    ):
        votes = classifier.fit(points, classes).predict_proba(points)
        found = information_content(balls, classes)
        assert found == pytest.approx(votes[np.arange(200), classes])


def test_a_record_counts_itself_and_alone_it_says_nothing():
    """Never 0: one of all in its ball. Alone: 1, which no threshold may read."""
    points, classes = np.array([[0.0], [1.0], [2.0], [90.0]]), np.array([0, 1, 0, 1])
    assert information_content(nearest(points, neighbours=2), classes)[1] == 1 / 3
    balls = within(points, radius=5.0)
    assert balls.sizes.tolist() == [3, 3, 3, 1]
    assert information_content(balls, classes)[3] == 1


def test_a_wrong_label_has_most_information_unless_the_predictions_of_a_model_missed_it():
    """The trap of labels and predictions: one record of class 0 among class 0, labelled 1."""
    points = np.concatenate([draw(50)[0], 20 + draw(50)[0]])
    true = np.repeat([0, 1], 50)
    labels = true.copy()
    labels[7] = 1
    balls = nearest(points, neighbours=9)
    by_label, memorised, missed = (information_content(balls, c) for c in (labels, labels, true))
    assert by_label[7] == memorised[7] == 1 / 10
    assert by_label[7] < np.delete(by_label, 7).min()
    assert missed[7] == missed.max() == 1


def test_the_order_of_the_records_and_the_names_of_the_classes_do_not_matter():
    points, classes = draw()
    order = np.random.default_rng(1).permutation(len(points))
    found = information_content(nearest(points, neighbours=9), classes)
    moved = information_content(nearest(points[order], neighbours=9), 7 - classes[order])
    assert (moved == found[order]).all()


def test_low_information_begins_at_tau():
    """At least, not above; a share of a ball that is written as a decimal is met to the bit."""
    assert is_low(np.array([0.5, 0.75, 1.0]), 0.75).tolist() == [False, True, True]
    assert is_low(np.arange(1, 11) / 10, 0.7).sum() == 4


def test_shares_that_cannot_be_counted_are_refused():
    balls = nearest(draw()[0], neighbours=3, of=np.array([1, 2]))
    text = (
        "Wanted classes of all 80 points that the balls were made among. Got 2. Give a label, or a"
    )
    assert text in refusal(information_content, balls, np.array([0, 1]))
    for tau in (0.0, 1.1, float("nan")):
        text = f"Wanted a tau above 0 and at most 1. Got {tau}. It is a share of a ball."
        assert refusal(is_low, np.ones(2), tau) == text
    assert "1 of 2 that are nan" in refusal(is_low, np.array([1.0, np.nan]), 0.5)


def line(weight=WEIGHTS, bias=(0.1, -0.1)):
    """Two classes with a plane between them."""
    net = nn.Linear(weight.shape[1], 2)
    net.load_state_dict({"weight": weight, "bias": torch.tensor(bias)})
    return net


def wide(n=80):
    """Points about 0 within bounds that no noise of a hundredth of their range reaches."""
    x = torch.as_tensor(np.random.default_rng(0).normal(size=(n, 3)), dtype=torch.float32)
    low, high = torch.tensor(-50.0), torch.tensor(50.0)
    return Records(x, torch.zeros(n, dtype=torch.int64), low=low, high=high)


def normal_share(records, sigma):
    """Phi(distance to the plane / noise)."""
    apart = (WEIGHTS[0] - WEIGHTS[1]).double()
    distance = ((records.x.double() @ apart + 0.2).abs() / apart.norm()).numpy()
    return stats.norm.cdf(distance / (sigma * 100))


def test_a_linear_model_keeps_the_normal_share_of_each_sigma():
    """Each within its binomial error, all together by a chi-square; many σ are each σ alone."""
    records, sigmas = wide(), (0.001, 0.01, 0.1)
    found = noise_stability(line(), records, sigmas, copies=250).share
    for row, sigma in zip(found, sigmas, strict=True):
        assert (row == share(line(), records, sigma, copies=250)).all()
        assert row.mean() == pytest.approx(normal_share(records, sigma).mean(), abs=0.03)
    expected = normal_share(records, 0.01)
    errors = (found[1] - expected) / np.sqrt(expected * (1 - expected) / 250)
    assert abs(errors).max() < 5
    assert 0.001 < stats.chi2(len(errors)).cdf((errors**2).sum()) < 0.999


def test_copies_stay_within_the_bounds_of_the_data():
    """A model that changes its prediction beyond the bounds alone never does."""
    x = torch.tensor([[0.0], [1.0]])
    net, records = line(x, (1.0001, 0.0)), Records(x, torch.tensor([0, 0]))
    assert (share(net, records, 3.0) == 1).all()
    assert (share(net, replace(records, high=torch.tensor(2.0)), 3.0) < 1).all()


def test_a_record_keeps_its_share_in_any_batch(tiny_net, some):
    """Its draws come from its id; another seed draws others."""
    found = share(tiny_net, some, 0.4)
    order = torch.randperm(len(some), generator=torch.Generator().manual_seed(0))
    assert (share(tiny_net, some.take(order), 0.4) == found[order]).all()
    assert [share(tiny_net, some.take([row]), 0.4)[0] for row in range(20)] == found[:20].tolist()
    assert 0 < found.mean() < 1
    assert (share(tiny_net, some, 0.4, seed=1) != found).any()


@pytest.mark.parametrize(("sigmas", "copies"), [((0.1, 0.5), 4), ((0.1,), 16)])
def test_the_passes_are_those_declared(tiny_net, some, sigmas, copies):
    found = passes_of(lambda m: noise_stability(m, some, sigmas, copies=copies), tiny_net)
    assert found == noise_stability_cost(some, copies, sigmas=len(sigmas))
    assert found.forward == 40 * (1 + len(sigmas) * copies)


def test_the_model_is_not_changed(tiny_net, some, random_state_kept):
    """Modes, flags, gradients, hooks, and the global random state; the same numbers twice."""
    untouched(lambda model: share(model, some, 0.4), tiny_net, random_state_kept)


def test_margins_come_from_the_same_passes(tiny_net, some):
    """What ``evaluate`` says of the records, and the log-odds of the predicted class."""
    some = replace(some, y=(some.y + 1) % 10)  # the net knows the right ones
    found, measured = noise_stability(tiny_net, some, (0.4,)), evaluate(tiny_net, some)
    assert found.evaluation.logits == pytest.approx(measured.logits, abs=1e-5)
    assert found.evaluation.logit_margin == pytest.approx(measured.logit_margin, abs=1e-4)
    p = measured.probabilities.max(axis=1)
    own = found.evaluation.labelled(found.evaluation.predicted)
    assert own.logit_margin == pytest.approx(np.log(p / (1 - p)), abs=1e-3)


def test_a_constant_model_ends_the_search_for_sigma(some):
    """It predicts one class, so no noise changes a prediction."""
    net = nn.Sequential(nn.Flatten(), nn.Linear(64, 10))
    nn.init.zeros_(net[1].weight)
    assert calibrate_sigma(net, some, 0.9, seed=0) == (0.05, 1.0)
    # a single sigmoid predicts two classes, class 1 above 0
    assert share(model_of_kind("one output"), records_of_kind("one output"), 0.5).mean() < 1


def test_noise_that_cannot_be_measured_is_refused(tiny_net, some):
    broken = nn.Linear(3, 2)
    nn.init.constant_(broken.weight, float("nan"))
    for sigmas, came in (((), "none"), ((0.1, 0.0), "0.1, 0.0"), ((float("nan"),), "nan")):
        text = f"Wanted every sigma above 0. Got {came}. Give it as a share of the data's range."
        assert refusal(noise_stability, tiny_net, some, sigmas) == text
    text = "Wanted one copy or more. Got 0. 16 give a standard error below 0.13."
    assert refusal(share, tiny_net, some, 0.1, copies=0) == text
    assert "Wanted at least one record." in refusal(share, tiny_net, some.take([]), 0.1)
    assert "for the model's outputs. Got 8 of 8 that are" in refusal(share, broken, wide(4), 0.1)
    for kind in ("regression", "multilabel"):
        text = f"Wanted multiclass records. Got {kind}."
        assert text in refusal(share, model_of_kind(kind), records_of_kind(kind), 0.1)

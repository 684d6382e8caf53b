"""Signals of the population attacks, each beside a loop in plain numbers, and their attacks."""

import math

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from efface.errors import InputError
from efface.metrics.evaluation import Evaluation, confidence, lead, modified_entropy
from efface.metrics.membership import (
    confidence_attack,
    loss_attack,
    margin_attack,
    modified_entropy_attack,
    signal_attack,
)


def _measured(n, k, seed, scale=2.0):
    draw = np.random.default_rng(seed)
    logits, y = draw.normal(0, scale, (n, k)).astype(np.float32), draw.integers(0, k, n)
    return Evaluation(logits=logits, y=y, ids=tuple(map(str, range(n))))


def test_each_signal_agrees_with_a_loop_over_the_probabilities():
    """Song and Mittal's formula (6) as it stands in the paper; the others by their definitions."""
    found = _measured(40, 5, 0)
    for row in range(40):
        p, y = [float(v) for v in found.probabilities[row]], int(found.y[row])
        others = [v for k, v in enumerate(p) if k != y]
        entropy = -(1 - p[y]) * math.log(p[y]) - sum(v * math.log(1 - v) for v in others)
        assert modified_entropy(found)[row] == pytest.approx(entropy, abs=1e-12)
        assert confidence(found)[row] == pytest.approx(math.log(max(p) / (1 - max(p))))
        assert lead(found)[row] == pytest.approx(math.log(p[y] / max(others)))


def test_the_modified_entropy_knows_right_from_wrong_where_the_entropy_does_not():
    """Both answers are as sure as can be; with p in the place of 1 - p both would be 0."""
    logits = np.array([[60.0, 0, 0], [60.0, 0, 0]], np.float32)
    right, wrong = modified_entropy(Evaluation(logits=logits, y=np.array([0, 1]), ids=("a", "b")))
    assert right == pytest.approx(0, abs=1e-12)
    # -(1 - p_y) ln p_y is 60; -p ln(1 - p) of the sure wrong class is 60 - ln 2
    assert wrong == pytest.approx(120 - math.log(2))


def test_with_two_classes_the_modified_entropy_has_a_closed_form():
    """-2 (1 - p) ln p: the order of the loss, so that no second attack comes of it."""
    found = _measured(30, 2, 1)
    p = np.exp(-found.loss)
    np.testing.assert_allclose(modified_entropy(found), -2 * (1 - p) * np.log(p), rtol=1e-9)


def test_sure_answers_keep_their_order():
    """Probabilities of 1 in double precision; the log-odds still rise."""
    logits = np.array([[100.0, 0, 0], [200.0, 0, 0], [0, 0, 300.0]], np.float32)
    sure = confidence(Evaluation(logits=logits, y=np.array([0, 1, 2]), ids=("a", "b", "c")))
    np.testing.assert_allclose(sure, np.array([100, 200, 300]) - math.log(2))


@pytest.mark.parametrize(
    ("attack", "score"),
    [
        (margin_attack, lead),
        (confidence_attack, confidence),
        (modified_entropy_attack, lambda one: -modified_entropy(one)),
    ],
)
def test_each_attack_is_a_mean_of_areas_class_by_class(attack, score):
    """scikit-learn's area in each class, weighted by the forget records there."""
    forget, unseen = _measured(60, 3, 2, scale=4), _measured(400, 3, 3)
    areas = []
    for label in range(3):
        ours, theirs = (score(one)[one.y == label] for one in (forget, unseen))
        truth = np.repeat([1, 0], [len(ours), len(theirs)])
        areas += [roc_auc_score(truth, np.concatenate([ours, theirs]))] * len(ours)
    found = attack(forget, unseen)
    assert found.auc == pytest.approx(np.mean(areas))
    assert [one.fpr for one in found.rates] == [0.01, 0.001]
    assert found.at(0.01).tpr is not None
    assert found.at(0.001).tpr is None


def test_loss_probability_and_log_odds_are_one_attack():
    """They rise and fall together, so one threshold finds the same records with each."""
    forget, unseen = _measured(80, 4, 4, scale=3), _measured(500, 4, 5)
    groups = {"forget_classes": forget.groups, "unseen_classes": unseen.groups}
    by_loss = loss_attack(forget.loss, unseen.loss, **groups)
    by_odds = signal_attack(forget.margin, unseen.margin, **groups)
    by_probability = signal_attack(np.exp(-forget.loss), np.exp(-unseen.loss), **groups)
    assert by_odds == by_loss == by_probability
    assert margin_attack(forget, unseen) != by_loss


def test_a_rate_that_was_asked_for_stands_beside_the_usual_two():
    """And the short names read it."""
    draw = np.random.default_rng(6)
    found = loss_attack(draw.exponential(0.1, 50), draw.exponential(1, 4000), fpr=0.05)
    assert [one.fpr for one in found.rates] == [0.05, 0.01, 0.001]
    assert found.tpr == found.at(0.05).tpr > found.at(0.001).tpr > 0
    assert found.tpr_interval == found.at(0.05).interval


def test_without_a_leak_the_area_is_off_chance_one_time_in_twenty():
    """200 draws of 80 forget and 400 unseen records in three classes of unlike difficulty."""
    draw, seen = np.random.default_rng(7), 0
    for _ in range(200):
        ours, theirs = draw.integers(0, 3, 80), draw.integers(0, 3, 400)
        losses = (draw.exponential(1.0 + 3 * c) for c in (ours, theirs))
        seen += loss_attack(*losses, forget_classes=ours, unseen_classes=theirs).sees
    assert 0.01 <= seen / 200 <= 0.1


def test_what_is_not_a_number_or_not_a_class_is_refused():
    """A net of nan must not come out as one at chance."""
    with pytest.raises(InputError) as error:
        loss_attack(np.array([0.1, np.nan]), np.ones(3))
    assert str(error.value) == (
        "Wanted numbers to compare. Got nan. See whether the model's outputs are nan."
    )
    flags = Evaluation(
        logits=np.zeros((2, 3), np.float32), y=np.zeros(2), ids=("a", "b"), own_loss=np.ones(2)
    )
    with pytest.raises(InputError) as error:
        margin_attack(flags, flags)
    assert str(error.value) == (
        "Wanted multiclass outputs. Got outputs of another task. "
        "Use the loss attack: it needs a loss alone."
    )

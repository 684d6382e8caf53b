"""One pass over the records: the same numbers in any batch and order, the model left as it was.

Signals of the population attacks, each next to a plain Python loop, and their attacks.
"""

import math

import numpy as np
import pytest
import torch
from scipy import stats
from sklearn.metrics import roc_auc_score
from torch import nn

from efface.errors import Hazard
from efface.metrics.evaluation import Evaluation, confidence, evaluate, lead, modified_entropy
from efface.metrics.membership import (
    confidence_attack,
    loss_attack,
    margin_attack,
    modified_entropy_attack,
    signal_attack,
)
from efface.types import Records
from tests.refusals import refusal


@pytest.mark.parametrize("batch_size", [1, 7, 1000])
def test_the_batch_size_changes_nothing_beyond_rounding(tiny_net, digits, batch_size):
    """A score that moved with the batch size would measure the batch."""
    some = digits.take(range(60))
    found = evaluate(tiny_net, some, batch_size=batch_size)
    np.testing.assert_allclose(found.logits, evaluate(tiny_net, some).logits, atol=1e-4)
    assert found.logits.dtype == np.float32
    assert found.ids == some.ids


def test_the_order_of_the_records_goes_with_them(tiny_net, digits):
    """Each record keeps its own numbers wherever it stands."""
    order = np.random.default_rng(0).permutation(60)
    some = digits.take(range(60))
    found, again = evaluate(tiny_net, some), evaluate(tiny_net, some.take(order.tolist()))
    np.testing.assert_allclose(again.logit_margin, found.logit_margin[order], atol=1e-4)
    assert again.ids == tuple(found.ids[row] for row in order)


def test_dropout_and_random_state_take_no_part_and_each_module_keeps_its_flag(
    digits, random_state_kept
):
    """A user may have frozen one BatchNorm in eval mode; after an error too."""
    net = nn.Sequential(nn.Flatten(), nn.BatchNorm1d(64), nn.Dropout(0.5), nn.Linear(64, 10))
    net.train()[1].eval()
    before = {name: tensor.clone() for name, tensor in net.state_dict().items()}
    with random_state_kept():
        first, second = (evaluate(net, digits.take(range(20))) for _ in range(2))
    np.testing.assert_array_equal(first.logits, second.logits)
    with pytest.raises(Hazard, match="RuntimeError in layer 1"):
        evaluate(net, Records(torch.zeros(2, 3), torch.zeros(2, dtype=torch.int64)))
    assert [part.training for part in net.modules()] == [True, True, False, True, True]
    assert all(tensor.equal(before[name]) for name, tensor in net.state_dict().items())


def test_the_derived_numbers_agree_with_torch_and_scipy(tiny_net, digits):
    """Loss, entropy and probabilities have twins in other libraries."""
    found = evaluate(tiny_net, digits)
    logits, y = torch.tensor(found.logits, dtype=torch.float64), torch.tensor(found.y)
    loss = nn.functional.cross_entropy(logits, y, reduction="none")
    np.testing.assert_allclose(found.loss, loss.numpy(), atol=1e-9)
    np.testing.assert_allclose(found.probabilities, logits.softmax(1).numpy(), atol=1e-12)
    np.testing.assert_allclose(found.entropy, stats.entropy(found.probabilities, axis=1), atol=1e-9)
    own = found.probabilities[np.arange(len(found)), found.y]
    np.testing.assert_allclose(
        found.logit_margin, np.log(own) - np.log1p(-own), rtol=1e-4, atol=1e-4
    )


def of_logits(logits, *y):
    """Outputs and labels of a few records."""
    return Evaluation(np.array(logits, np.float32), np.array(y), tuple(map(str, range(len(y)))))


@pytest.mark.parametrize("constant", [0, 7])
def test_uniform_outputs_have_an_entropy_of_ln_k_and_a_known_logit_margin(constant):
    even = of_logits(np.full((2, 5), constant), 0, 3)
    np.testing.assert_allclose(even.entropy, np.log(5))
    np.testing.assert_allclose(even.logit_margin, -np.log(4))


def test_signals_of_confident_outputs_do_not_saturate():
    """The loss is 0 in double precision, the probability 1; the log-odds still rise."""
    sure = of_logits([[100, 0, 0], [200, 0, 0], [0, 0, 300]], 0, 0, 2)
    for signal in (sure.logit_margin, confidence(sure)):
        np.testing.assert_allclose(signal, np.array([100, 200, 300]) - np.log(2))
    np.testing.assert_array_equal(confidence(sure), confidence(sure.labelled(np.array([1, 2, 0]))))
    assert np.isfinite(sure.entropy).all()


def test_rows_are_taken_by_mask_and_by_number(tiny_net, digits):
    """Both forms are used; they must mean the same."""
    found = evaluate(tiny_net, digits.take(range(10)))
    mask = np.arange(10) % 3 == 0
    assert found.take(mask).ids == found.take([0, 3, 6, 9]).ids
    assert len(found.take([])) == 0


def _measured(n, k, seed, scale=2.0):
    draw = np.random.default_rng(seed)
    return of_logits(draw.normal(0, scale, (n, k)), *draw.integers(0, k, n))


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
    right, wrong = modified_entropy(of_logits([[60, 0, 0], [60, 0, 0]], 0, 1))
    assert right == pytest.approx(0, abs=1e-12)
    # -(1 - p_y) ln p_y is 60; -p ln(1 - p) of the sure wrong class is 60 - ln 2
    assert wrong == pytest.approx(120 - math.log(2))


def test_with_two_classes_the_modified_entropy_has_a_closed_form():
    """-2 (1 - p) ln p: the order of the loss, so that no second attack comes of it."""
    found = _measured(30, 2, 1)
    p = np.exp(-found.loss)
    np.testing.assert_allclose(modified_entropy(found), -2 * (1 - p) * np.log(p), rtol=1e-9)


SIGNALS = {margin_attack: lead, confidence_attack: confidence}
SIGNALS[modified_entropy_attack] = lambda one: -modified_entropy(one)


@pytest.mark.parametrize(("attack", "score"), SIGNALS.items())
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
    assert [one.tpr is None for one in found.rates] == [False, True]


def test_loss_probability_and_log_odds_are_one_attack():
    """They rise and fall together, so one threshold finds the same records with each."""
    forget, unseen = _measured(80, 4, 4, scale=3), _measured(500, 4, 5)
    groups = {"classes": (forget.groups, unseen.groups)}
    by_loss = loss_attack(forget.loss, unseen.loss, **groups)
    by_odds = signal_attack(forget.logit_margin, unseen.logit_margin, **groups)
    by_probability = signal_attack(np.exp(-forget.loss), np.exp(-unseen.loss), **groups)
    assert by_odds == by_loss == by_probability
    assert margin_attack(forget, unseen) != by_loss


def test_a_rate_that_was_asked_for_stands_beside_the_usual_two():
    """And the short names read it."""
    draw = np.random.default_rng(6)
    found = loss_attack(draw.exponential(0.1, 50), draw.exponential(1, 4000), fpr=0.05)
    assert [one.fpr for one in found.rates] == [0.05, 0.01, 0.001]
    assert found.tpr == found.at(0.05).tpr > found.at(0.001).tpr > 0


def test_without_a_leak_the_area_is_off_chance_one_time_in_twenty():
    """200 draws of 80 forget and 400 unseen records in three classes of unlike difficulty."""
    draw, seen = np.random.default_rng(7), 0
    for _ in range(200):
        ours, theirs = draw.integers(0, 3, 80), draw.integers(0, 3, 400)
        losses = (draw.exponential(1.0 + 3 * c) for c in (ours, theirs))
        seen += loss_attack(*losses, classes=(ours, theirs)).significant
    assert 0.01 <= seen / 200 <= 0.1


def test_what_is_not_a_number_or_not_a_class_is_refused():
    """A net of nan must not come out as one at chance."""
    text = "Wanted numbers to compare. Got nan. See whether the model's outputs are nan."
    assert refusal(loss_attack, np.array([0.1, np.nan]), np.ones(3)) == text
    flags = Evaluation(np.zeros((2, 3), np.float32), np.zeros(2), ("a", "b"), own_loss=np.ones(2))
    text = (
        "Wanted multiclass outputs. Got outputs of another task. Use the loss attack: it needs a "
    )
    assert refusal(margin_attack, flags, flags) == f"{text}loss alone."

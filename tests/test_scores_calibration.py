"""Confidence against accuracy, the worst class, and two models' answers side by side."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import accuracy_score, recall_score

from efface.errors import InputError
from efface.metrics.accuracy import agreement, calibration_error, worst_class_accuracy

ANSWERS = st.lists(st.tuples(st.integers(0, 3), st.integers(0, 3)), min_size=1, max_size=60)


def _answers(n, k, seed):
    draw = np.random.default_rng(seed)
    return draw.dirichlet(np.ones(k) / 2, n), draw.integers(0, k, n)


def _by_bins(probabilities, y, bins):
    """The definition, one bin and one record at a time."""
    sure, right = probabilities.max(1), probabilities.argmax(1) == y
    total = 0.0
    for b in range(bins):
        inside = [i for i, c in enumerate(sure) if b / bins < c <= (b + 1) / bins]
        if inside:
            gap = abs(np.mean([right[i] for i in inside]) - np.mean([sure[i] for i in inside]))
            total += len(inside) / len(y) * gap
    return total


@pytest.mark.parametrize("bins", [1, 10, 15])
def test_the_calibration_error_is_the_sum_over_bins_written_out(bins):
    """Brute force over bins and records."""
    for seed in range(5):
        probabilities, y = _answers(200, 4, seed)
        found = calibration_error(probabilities, y, bins=bins)
        assert found == pytest.approx(_by_bins(probabilities, y, bins))


def test_a_confidence_on_the_edge_of_a_bin_belongs_to_the_bin_below():
    """0.5 of two bins: right by 0.5 there, wrong by 0.9 above it; in one bin they would cancel."""
    probabilities = np.array([[0.5, 0.5], [0.9, 0.1]])
    y = np.array([0, 1])
    assert calibration_error(probabilities, y, bins=2) == pytest.approx((0.5 + 0.9) / 2)
    sure = np.array([[1.0, 0.0]])
    assert calibration_error(sure, np.array([0])) == 0
    assert calibration_error(sure, np.array([1])) == 1


def test_a_calibrated_model_is_near_0_and_a_sure_one_at_its_errors():
    """Labels drawn from the probabilities themselves; then the same labels and full confidence."""
    draw = np.random.default_rng(0)
    top = draw.uniform(0.5, 1, 20_000)
    y = (draw.random(20_000) > top).astype(np.int64)
    assert calibration_error(np.stack([top, 1 - top], 1), y) < 0.02
    sure = np.tile([1.0, 0.0], (20_000, 1))
    assert calibration_error(sure, y) == pytest.approx(y.mean())


@given(ANSWERS)
def test_the_worst_class_is_the_one_of_least_recall(answers):
    """A second library counts the same."""
    predicted, y = np.array(answers).T
    labels = sorted(set(y.tolist()))
    recalls = recall_score(y, predicted, labels=labels, average=None, zero_division=0)
    label, least = worst_class_accuracy(predicted, y)
    assert least == pytest.approx(min(recalls))
    assert label == labels[int(np.argmin(recalls))]


@given(ANSWERS)
def test_agreement_is_accuracy_with_the_other_model_as_the_label(answers):
    """It is the same from both sides, and says nothing of who is right."""
    ours, theirs = np.array(answers).T
    assert agreement(ours, theirs) == pytest.approx(accuracy_score(theirs, ours))
    assert agreement(ours, theirs) == agreement(theirs, ours)
    assert agreement(ours, ours) == 1


@pytest.mark.parametrize("score", [worst_class_accuracy, agreement])
def test_answers_that_do_not_pair_up_are_refused(score):
    """NumPy would compare one answer with all."""
    with pytest.raises(InputError) as error:
        score(np.zeros(3, np.int64), np.zeros(1, np.int64))
    assert " 3, " in str(error.value)
    assert "Wanted the same records on all sides. Got predicted 3, " in str(error.value)
    with pytest.raises(InputError) as error:
        score(np.zeros(0, np.int64), np.zeros(0, np.int64))
    assert str(error.value) == "Wanted values for predicted. Got none. Give at least one record."


def test_rows_that_are_no_probabilities_are_refused():
    """Logits in the place of probabilities would give a number all the same."""
    logits = np.array([[3.0, -1.0], [0.5, 0.5]])
    with pytest.raises(InputError) as error:
        calibration_error(logits, np.zeros(2, np.int64))
    assert str(error.value) == (
        "Wanted probabilities in each row of probabilities. "
        "Got 1 of 2 rows below 0 or with another sum than 1. Give the softmax of the outputs."
    )
    with pytest.raises(InputError) as error:
        calibration_error(logits * np.nan, np.zeros(2, np.int64))
    assert str(error.value) == (
        "Wanted finite numbers for probabilities. Got 4 of 4 that are nan or infinite. "
        "Look at the model: its answers cannot be scored."
    )
    with pytest.raises(InputError) as error:
        calibration_error(np.full((2, 2), 0.5), np.zeros(2, np.int64), bins=0)
    assert str(error.value) == (
        "Wanted at least one bin. Got 0. Take 15, as most of the field does."
    )

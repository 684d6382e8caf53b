"""Shares of right answers: total correct / total, class by class.

Confidence against accuracy, the worst class, and two models' answers side by side.
The tenth of those who stay whose risk rose most.
"""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import accuracy_score, recall_score

from efface.errors import InputError
from efface.metrics.accuracy import (
    accuracy,
    agreement,
    calibration_error,
    per_class_accuracy,
    worst_class_accuracy,
    worst_class_change,
    worst_decile_change,
)
from tests.refusals import refusal

ANSWERS = st.lists(st.tuples(st.integers(0, 3), st.integers(0, 3)), min_size=1, max_size=60)


@given(ANSWERS)
def test_accuracy_is_that_of_scikit_learn(answers):
    """A second library counts the same."""
    predicted, y = np.array(answers).T
    assert accuracy(predicted, y) == pytest.approx(accuracy_score(y, predicted))


@given(ANSWERS)
def test_the_accuracy_of_a_class_is_its_recall(answers):
    """Only classes that have records are named."""
    predicted, y = np.array(answers).T
    found = per_class_accuracy(predicted, y)
    labels = sorted(set(y.tolist()))
    recalls = recall_score(y, predicted, labels=labels, average=None, zero_division=0)
    assert found == pytest.approx(dict(zip(labels, recalls, strict=True)))


def test_a_small_last_batch_weighs_no_more_than_its_records():
    """The field's code averages batch accuracies: here that would say 0.75."""
    predicted, y = np.array([0] * 128 + [1] * 2), np.zeros(130, np.int64)
    assert accuracy(predicted, y) == 128 / 130


def test_the_worst_class_is_the_one_that_fell_most():
    """A class that was bad all along is not the one that suffered."""
    before, after = {0: 0.9, 1: 0.2, 2: 0.8}, {0: 0.9, 1: 0.2, 2: 0.5}
    assert worst_class_change(before, after) == (2, pytest.approx(-0.3))


def test_nothing_to_count_is_an_error_that_says_so():
    """A score of nothing must not be 0 or NaN."""
    none = np.zeros(0, np.int64)
    assert "Wanted at least one record. Got none." in refusal(accuracy, none, none)
    text = "Wanted a class that was measured before and after. Got classes [0] and [1]."
    assert text in refusal(worst_class_change, {0: 1.0}, {1: 1.0})


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
    text = "Wanted values for predicted. Got none."
    assert text in refusal(score, np.zeros(0, np.int64), np.zeros(0, np.int64))


def test_rows_that_are_no_probabilities_are_refused():
    """Logits in the place of probabilities would give a number all the same."""
    logits = np.array([[3.0, -1.0], [0.5, 0.5]])
    text = "Got 1 of 2 rows below 0 or with another sum than 1."
    assert text in refusal(calibration_error, logits, np.zeros(2, np.int64))
    text = "Wanted finite numbers for probabilities. Got 4 of 4 that are nan or infinite."
    assert text in refusal(calibration_error, logits * np.nan, np.zeros(2, np.int64))
    assert refusal(calibration_error, np.full((2, 2), 0.5), np.zeros(2, np.int64), bins=0) == (
        "Wanted at least one bin. Got 0. Take 15, as most of the field does."
    )


def _risks(n, seed, *, harmed=0.0):
    """Noise before and after; the first tenth is harmed on top of it."""
    before, after = np.random.default_rng(seed).normal(0, 1, (2, n))
    after[: n // 10] += harmed
    return before, after


def test_the_worst_tenth_is_found_by_sorting():
    """Rounded up: 3 of 25. Higher after is worse."""
    before, after = _risks(25, 0)
    found = worst_decile_change(before, after)
    change = sorted(after - before)
    assert found.worst == pytest.approx(np.mean(change[-3:]))
    assert found.mean == pytest.approx(np.mean(change))
    assert found.rose == np.mean(np.array(change) > 0)
    assert (found.worst_n, found.n) == (3, 25)


def test_noise_alone_has_a_worst_tenth_unless_it_is_chosen_by_another_measurement():
    """Changes of standard deviation 1.41: the mean of the top tenth of a normal is 1.755 of it."""
    before, after = _risks(5000, 1)
    other = np.subtract(*_risks(5000, 2))
    assert worst_decile_change(before, after).worst == pytest.approx(1.755 * 2**0.5, rel=0.05)
    honest = worst_decile_change(before, after, chosen_by=other)
    assert honest.interval[0] < 0 < honest.interval[1]
    assert abs(honest.worst) < 0.2


def test_harm_to_a_tenth_is_seen_where_the_mean_hides_it():
    """Chosen by a second measurement of the same harm, read from the first."""
    before, after = _risks(2000, 3, harmed=4)
    other_before, other_after = _risks(2000, 4, harmed=4)
    found = worst_decile_change(before, after, chosen_by=other_after - other_before)
    assert found.interval[0] > 2
    assert found.mean < 0.5


def test_the_interval_covers_the_truth_in_most_draws():
    """100 draws of 400 records against the normal's own tail mean: at least 85 of 100."""
    truth, hits = 1.755 * 2**0.5, 0
    for seed in range(100):
        low, high = worst_decile_change(*_risks(400, seed), resamples=400).interval
        hits += low <= truth <= high
    assert 85 <= hits <= 100


def test_a_seed_repeats_the_interval_and_leaves_the_global_state(random_state_kept):
    """Another seed moves it a little."""
    risks = _risks(60, 0)
    with random_state_kept():
        first = worst_decile_change(*risks, seed=1)
    assert first == worst_decile_change(*risks, seed=1)
    assert first.interval != worst_decile_change(*risks, seed=2).interval
    assert first.interval[0] < first.worst < first.interval[1]


def test_few_records_or_others_are_refused():
    """With ten records the worst tenth is one of them."""
    before, after = _risks(10, 0)
    text = "Wanted at least 20 records and a share above 0, at most 1."
    assert text in refusal(worst_decile_change, before, after)
    text = "Wanted the same records on all sides. Got before 10, after 4, chosen_by 4."
    assert text in refusal(worst_decile_change, before, after[:4])
    with pytest.raises(InputError):
        worst_decile_change(before, after * np.nan)

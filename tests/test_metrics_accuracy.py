"""Shares of right answers: total correct / total, class by class.

Confidence against accuracy, the worst class, and two models' answers side by side.
The tenth of those who stay whose risk rose most.
"""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import accuracy_score, recall_score

from efface.metrics import accuracy as acc
from tests.refusals import refusal

ANSWERS = st.lists(st.tuples(st.integers(0, 3), st.integers(0, 3)), min_size=1, max_size=60)


@given(ANSWERS)
def test_accuracies_of_all_of_each_class_and_of_the_worst_are_those_of_scikit_learn(answers):
    """Of classes that have records; agreement is accuracy with the other model as the label."""
    predicted, y = np.array(answers).T
    share, labels = accuracy_score(y, predicted), sorted(set(y.tolist()))
    recalls = recall_score(y, predicted, labels=labels, average=None, zero_division=0)
    assert acc.accuracy(predicted, y) == pytest.approx(share)
    assert acc.agreement(predicted, y) == acc.agreement(y, predicted) == pytest.approx(share)
    assert acc.per_class_accuracy(predicted, y) == pytest.approx(
        dict(zip(labels, recalls, strict=True))
    )
    worst = labels[int(np.argmin(recalls))], pytest.approx(min(recalls))
    assert acc.worst_class_accuracy(predicted, y) == worst


def test_a_small_last_batch_weighs_no_more_than_its_records():
    """The field's code averages batch accuracies: here that would say 0.75."""
    predicted, y = np.array([0] * 128 + [1] * 2), np.zeros(130, np.int64)
    assert acc.accuracy(predicted, y) == 128 / 130


def test_the_worst_class_is_the_one_that_fell_most():
    """A class that was bad all along is not the one that suffered."""
    before, after = {0: 0.9, 1: 0.2, 2: 0.8}, {0: 0.9, 1: 0.2, 2: 0.5}
    assert acc.worst_class_change(before, after) == (2, pytest.approx(-0.3))


def _answers(n, k, seed):
    draw = np.random.default_rng(seed)
    return draw.dirichlet(np.ones(k) / 2, n), draw.integers(0, k, n)


def _by_bins(probabilities, y, bins):
    """The definition, one bin and one record at a time."""
    excess = [0.0] * bins
    for row, label in zip(probabilities, y, strict=True):
        (inside,) = (b for b in range(bins) if b / bins < max(row) <= (b + 1) / bins)
        excess[inside] += (max(row) == row[label]) - max(row)
    return sum(map(abs, excess)) / len(y)


@pytest.mark.parametrize("bins", [1, 10, 15])
def test_the_calibration_error_is_the_sum_over_bins_written_out(bins):
    """Brute force over bins and records."""
    for seed in range(5):
        probabilities, y = _answers(200, 4, seed)
        found = acc.calibration_error(probabilities, y, bins=bins)
        assert found == pytest.approx(_by_bins(probabilities, y, bins))


def test_a_confidence_on_the_edge_of_a_bin_belongs_to_the_bin_below():
    """0.5 of two bins: right by 0.5 there, wrong by 0.9 above it; in one bin they would cancel."""
    probabilities = np.array([[0.5, 0.5], [0.9, 0.1]])
    assert acc.calibration_error(probabilities, np.arange(2), bins=2) == pytest.approx(
        (0.5 + 0.9) / 2
    )
    sure = np.array([[1.0, 0.0]])
    assert [acc.calibration_error(sure, np.array([label])) for label in (0, 1)] == [0, 1]


def test_a_calibrated_model_is_near_0_and_a_sure_one_at_its_errors():
    """Labels drawn from the probabilities themselves; then the same labels and full confidence."""
    draw = np.random.default_rng(0)
    top = draw.uniform(0.5, 1, 20_000)
    y = (draw.random(20_000) > top).astype(np.int64)
    assert acc.calibration_error(np.stack([top, 1 - top], 1), y) < 0.02
    sure = np.tile([1.0, 0.0], (20_000, 1))
    assert acc.calibration_error(sure, y) == pytest.approx(y.mean())


NONE, TWO = np.zeros(0, np.int64), np.zeros(2, np.int64)
LOGITS, ALIKE = np.array([[3.0, -1.0], [0.5, 0.5]]), "Measure all models on the same records, in th"
FEW = "Wanted at least 20 records. Got 10. Give the risks of more retained records."
OTHERS = f"Wanted the same records on all sides. Got before 10, after 4, chosen_by 4. {ALIKE}"


@pytest.mark.parametrize(
    ("score", "given", "text"),
    [
        (
            acc.accuracy,
            (NONE, NONE),
            "Wanted at least one record. Got none. Give the records to be sco",
        ),
        (
            acc.worst_class_change,
            ({0: 1.0}, {1: 1.0}),
            "before and after. Got classes [0] and [1]. Meas",
        ),
        (acc.worst_class_accuracy, (TWO, TWO[:1]), f"on all sides. Got predicted 2, y 1. {ALIKE}"),
        (
            acc.worst_class_accuracy,
            (NONE, NONE),
            "Wanted values for predicted. Got none. Give at least",
        ),
        (acc.agreement, (TWO, TWO[:1]), f"on all sides. Got predicted 2, others 1. {ALIKE}"),
        (
            acc.agreement,
            (NONE, NONE),
            "Wanted values for predicted. Got none. Give at least one record.",
        ),
        (
            acc.calibration_error,
            (LOGITS, TWO),
            "Got 1 of 2 rows below 0 or with another sum than 1. Gi",
        ),
        (
            acc.calibration_error,
            (LOGITS * np.nan, TWO),
            "Got 4 of 4 that are nan or infinite. Check t",
        ),
        (acc.worst_decile_change, (np.ones(10), np.ones(10)), FEW),
        (acc.worst_decile_change, (np.ones(10), np.ones(4)), OTHERS),
        (
            acc.worst_decile_change,
            (np.ones(30), np.full(30, np.nan)),
            "Got 30 of 30 that are nan or inf",
        ),
    ],
)
def test_what_cannot_be_counted_is_refused(score, given, text):
    """A score of nothing must not be 0 or nan, and NumPy would compare one answer with all."""
    assert text in refusal(score, *given)


def test_a_calibration_error_needs_a_bin():
    text = "Wanted at least one bin. Got 0. Take 15, as most of the field does."
    assert refusal(acc.calibration_error, np.full((2, 2), 0.5), TWO, bins=0) == text


def _risks(n, seed, *, harmed=0.0):
    """Noise before and after; the first tenth is harmed on top of it."""
    before, after = np.random.default_rng(seed).normal(0, 1, (2, n))
    after[: n // 10] += harmed
    return before, after


def test_the_worst_tenth_is_found_by_sorting():
    """Rounded up: 3 of 25. Higher after is worse."""
    before, after = _risks(25, 0)
    found, change = acc.worst_decile_change(before, after), np.sort(after - before)
    assert (found.worst, found.mean) == pytest.approx((change[-3:].mean(), change.mean()))
    assert (found.rose, found.worst_n, found.n) == ((change > 0).mean(), 3, 25)
    assert acc.worst_decile_change(*_risks(30, 0)).worst_n == 3


def test_noise_alone_has_a_worst_tenth_unless_it_is_chosen_by_another_measurement():
    """Changes of standard deviation 1.41: the mean of the top tenth of a normal is 1.755 of it."""
    before, after = _risks(5000, 1)
    other = np.subtract(*_risks(5000, 2))
    assert acc.worst_decile_change(before, after).worst == pytest.approx(1.755 * 2**0.5, rel=0.05)
    honest = acc.worst_decile_change(before, after, chosen_by=other)
    assert honest.interval[0] < 0 < honest.interval[1]
    assert abs(honest.worst) < 0.2


def test_harm_to_a_tenth_is_seen_where_the_mean_hides_it():
    """Chosen by a second measurement of the same harm, read from the first."""
    before, after = _risks(2000, 3, harmed=4)
    other_before, other_after = _risks(2000, 4, harmed=4)
    found = acc.worst_decile_change(before, after, chosen_by=other_after - other_before)
    assert found.interval[0] > 2
    assert found.mean < 0.5


def test_the_interval_covers_the_truth_in_most_draws():
    """100 draws of 400 records against the normal's own tail mean: at least 85 of 100."""
    draws = (acc.worst_decile_change(*_risks(400, seed), resamples=400) for seed in range(100))
    bounds = np.array([one.interval for one in draws]) - 1.755 * 2**0.5
    assert 85 <= ((bounds[:, 0] <= 0) & (bounds[:, 1] >= 0)).sum() <= 100


def test_a_seed_repeats_the_interval_and_leaves_the_global_state(random_state_kept):
    """Another seed moves it a little."""
    risks = _risks(60, 0)
    with random_state_kept():
        first = acc.worst_decile_change(*risks, seed=1)
    assert first == acc.worst_decile_change(*risks, seed=1)
    assert first.interval != acc.worst_decile_change(*risks, seed=2).interval
    assert first.interval[0] < first.worst < first.interval[1]

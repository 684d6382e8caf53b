"""The tenth of those who stay whose risk rose most."""

import numpy as np
import pytest

from efface.errors import InputError
from efface.metrics.accuracy import worst_decile_change


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
    with pytest.raises(InputError) as error:
        worst_decile_change(before, after)
    assert str(error.value) == (
        "Wanted at least 20 records and a share above 0, at most 1. "
        "Got 10 records and a share of 0.1. Give the risks of more retained records."
    )
    with pytest.raises(InputError) as error:
        worst_decile_change(before, after[:4])
    assert str(error.value) == (
        "Wanted the same records on all sides. Got before 10, after 4, chosen_by 4. "
        "Measure all models on the same records, in the same order."
    )
    with pytest.raises(InputError):
        worst_decile_change(before, after * np.nan)

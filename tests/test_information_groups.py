"""Groups of records, what their removal did, and the threshold that follows."""

import numpy as np
import pytest

from efface.errors import InputError
from efface.information.groups import (
    Removal,
    Threshold,
    calibrated_threshold,
    least_first,
    removal,
)

QUIET, LOUD = Removal(0.0, 0.1, like=1.0, unlike=0.0), Removal(2.0, 0.1, like=0.0, unlike=1.0)
UNKNOWN = Removal(0.2, 0.1, like=0.0, unlike=0.0)


def _models(count, n, seed, *, moved=0.0):
    rng = np.random.default_rng(seed)
    records = np.random.default_rng(99).normal(0, 2, n)
    return records + rng.normal(0, 0.2, (count, 1)) + rng.normal(0, 1, (count, n)) + moved


def test_records_are_ordered_from_the_least_informative_on_and_ties_by_the_margin():
    """Then by row."""
    alpha, margin = np.array([0.5, 1.0, 1.0, 0.2, 1.0]), np.array([9.0, 1.0, 3.0, 0.0, 1.0])
    assert least_first(alpha, margin).tolist() == [2, 1, 4, 0, 3]


def test_a_removal_that_changes_nothing_is_within_the_noise_and_one_that_does_shows():
    """Ten models with, four without; the second kind lower by five spreads."""
    with_it = _models(10, 400, 0)
    same, moved = (
        removal(with_it, _models(4, 400, 1)),
        removal(with_it, _models(4, 400, 2, moved=-1)),
    )
    assert same.within_noise
    assert not same.shows
    assert moved.shows
    assert not moved.within_noise
    assert moved.difference == pytest.approx(1, abs=0.3)


def test_the_numbers_of_a_removal_are_those_of_means_over_models():
    """By hand."""
    with_it, without = np.array([[0.0, 2.0], [2.0, 6.0]]), np.array([[0.0, 1.0]])
    found = removal(with_it, without)
    assert found.difference == pytest.approx((1 + 4) / 2 - 0.5)
    assert found.noise == pytest.approx(np.std([1, 4], ddof=1))


def test_the_threshold_is_that_of_the_greatest_low_group_within_the_noise_while_others_show():
    """The last record of the group has it."""
    alpha = np.linspace(1, 0, 101)
    others = {"random": LOUD, "high": LOUD}
    found = {
        10: {"low": QUIET, **others},
        30: {"low": QUIET, **others},
        60: {"low": LOUD, **others},
    }
    assert calibrated_threshold(alpha, np.arange(101), found) == Threshold(alpha[29], 30)


def test_a_group_too_small_to_show_anything_sets_no_threshold():
    """If removing as many random records does not show either, nothing was learned."""
    found = {10: {"low": QUIET, "random": QUIET, "high": LOUD}}
    assert calibrated_threshold(np.ones(20), np.arange(20), found) == Threshold(None, 0)


def test_what_cannot_be_told_sets_no_threshold():
    """Neither like nor unlike."""
    found = {10: {"low": UNKNOWN, "random": LOUD, "high": LOUD}}
    assert calibrated_threshold(np.ones(20), np.arange(20), found) == Threshold(None, 0)


def test_beyond_a_low_group_that_shows_no_greater_one_counts():
    """A larger group cannot be safer: if it looks so, that is luck."""
    others = {"random": LOUD, "high": LOUD}
    found = {10: {"low": LOUD, **others}, 30: {"low": QUIET, **others}}
    assert calibrated_threshold(np.ones(40), np.arange(40), found) == Threshold(None, 0)


def test_models_that_cannot_be_compared_are_refused():
    """One with the group has no spread."""
    with pytest.raises(InputError, match="at least two retrained models"):
        removal(np.zeros((1, 4)), np.zeros((2, 4)))

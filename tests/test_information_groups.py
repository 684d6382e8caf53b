"""Groups of records, what their removal did, and the threshold that follows."""

import numpy as np
import pytest

from efface.errors import InputError
from efface.ranking.groups import (
    Removal,
    Threshold,
    calibrated_threshold,
    least_first,
    removal,
)

QUIET, LOUD = Removal(0.0, 0.1, 0.2), Removal(2.0, 0.1, 0.2)
UNKNOWN = Removal(0.15, 0.1, 0.2)


def _models(count, n, seed, *, moved=0.0):
    rng = np.random.default_rng(seed)
    records = np.random.default_rng(99).normal(0, 2, n)
    return records + rng.normal(0, 0.2, (count, 1)) + rng.normal(0, 0.1, (count, n)) + moved


def test_records_are_ordered_from_the_least_informative_on_and_ties_by_the_margin():
    """Then by row."""
    alpha, margin = np.array([0.5, 1.0, 1.0, 0.2, 1.0]), np.array([9.0, 1.0, 3.0, 0.0, 1.0])
    assert least_first(alpha, margin).tolist() == [2, 1, 4, 0, 3]


def test_a_removal_that_changes_nothing_is_seldom_seen_and_one_that_does_always():
    """Eight models with, four without, 200 times; the second kind lower by ten spreads."""
    with_it = [_models(8, 50, seed) for seed in range(200)]
    same = [removal(one, _models(4, 50, 1000 + k)) for k, one in enumerate(with_it)]
    moved = [removal(one, _models(4, 50, 1000 + k, moved=-2)) for k, one in enumerate(with_it)]
    assert sum(found.within_noise for found in same) >= 180
    assert not any(found.shows for found in same)
    assert all(found.shows and not found.within_noise for found in moved)


def test_a_few_records_that_are_no_longer_known_show_in_the_mean():
    """One in ten falls from 1 to 0: a distance between distributions may not see it."""
    rng = np.random.default_rng(0)
    with_it, without = 1 - rng.random((8, 100)) / 100, 1 - rng.random((4, 100)) / 100
    without[:, ::10] = 0
    assert removal(with_it, without).shows


def test_the_numbers_of_a_removal_are_those_of_means_over_models():
    """By hand: the noise is that of the side that has more of it."""
    with_it = np.array([[0.0, 2.0], [2.0, 6.0], [1.0, 3.0]])
    without = np.array([[0.0, 1.0], [0.0, 2.0]])
    found = removal(with_it, without)
    assert found.difference == pytest.approx((1 + 4 + 2) / 3 - (0.5 + 1) / 2)
    assert found.noise == pytest.approx((3 + 1 + 2) / 3)
    assert found.most == pytest.approx(3)
    assert removal(without, with_it).noise == found.noise


def test_the_threshold_is_that_of_the_greatest_low_group_within_the_noise_while_others_show():
    """The last record of the group has it."""
    alpha = np.linspace(1, 0, 101)
    others = {"random": LOUD, "high": LOUD}
    found = {
        10: {"low": QUIET, **others},
        30: {"low": QUIET, **others},
        60: {"low": LOUD, **others},
    }
    assert calibrated_threshold(alpha, np.zeros(101), found) == Threshold(alpha[29], 0.0, 30)


def test_a_group_too_small_to_show_anything_sets_no_threshold():
    """If removing as many random records does not show either, nothing was learned."""
    found = {10: {"low": QUIET, "random": QUIET, "high": LOUD}}
    assert calibrated_threshold(np.ones(20), np.arange(20.0), found) == Threshold(None, None, 0)


def test_what_cannot_be_told_sets_no_threshold():
    """Neither like nor unlike."""
    found = {10: {"low": UNKNOWN, "random": LOUD, "high": LOUD}}
    assert calibrated_threshold(np.ones(20), np.arange(20.0), found) == Threshold(None, None, 0)


@pytest.mark.parametrize("first", [LOUD, UNKNOWN])
def test_beyond_a_low_group_that_was_not_quiet_no_greater_one_counts(first):
    """A larger group cannot be safer: if it looks so, that is luck."""
    others = {"random": LOUD, "high": LOUD}
    found = {10: {"low": first, **others}, 30: {"low": QUIET, **others}}
    chosen = calibrated_threshold(np.ones(40), np.arange(40.0), found)
    assert chosen == Threshold(None, None, 0)


def test_a_threshold_says_where_it_lies_among_records_of_the_same_content():
    """Of 40 records of α = 1 the ten of the greatest margin were tested, not all."""
    found = {10: {"low": QUIET, "random": LOUD, "high": LOUD}}
    chosen = calibrated_threshold(np.ones(40), np.arange(40.0), found)
    assert chosen == Threshold(1.0, 30.0, 10)


@pytest.mark.parametrize(("s", "r", "side"), [(1, 2, "with"), (2, 1, "without")])
def test_one_model_alone_shows_no_noise(s, r, side):
    """Refused, on either side."""
    with pytest.raises(InputError) as error:
        removal(np.zeros((s, 4)), np.zeros((r, 4)))
    assert str(error.value) == (
        f"Wanted two models or more trained {side} the group. Got 1. "
        "Train with another seed: one model alone shows no seed noise."
    )

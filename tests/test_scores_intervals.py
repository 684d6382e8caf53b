"""Intervals and power: checked by closed forms, by a second library and by drawing."""

import math

import numpy as np
import pytest
from scipy import stats
from sklearn.metrics import roc_auc_score

from efface.metrics.intervals import (
    auc_interval,
    clopper_pearson,
    paired_change,
    smallest_auc,
    smallest_share,
)


@pytest.mark.parametrize(("hits", "n"), [(0, 10), (3, 10), (10, 10), (50, 1000)])
def test_a_share_has_the_exact_interval_of_the_beta_distribution(hits, n):
    """Clopper and Pearson's closed form."""
    low, high = clopper_pearson(hits, n)
    assert low == pytest.approx(stats.beta.ppf(0.025, hits, n - hits + 1) if hits else 0)
    assert high == pytest.approx(stats.beta.ppf(0.975, hits + 1, n - hits) if hits < n else 1)


def test_nothing_counted_leaves_everything_possible():
    """No record, no knowledge."""
    assert clopper_pearson(0, 0) == (0.0, 1.0)
    assert smallest_share(0) == 1.0


@pytest.mark.parametrize("shift", [0.0, 0.8, 2.5])
def test_the_interval_of_the_area_holds_the_true_area_as_often_as_it_says(shift):
    """Drawn 400 times from two normals, whose true area has a closed form; 95 % nominal."""
    draw, held = np.random.default_rng(1), 0
    truth, m, n = stats.norm.cdf(shift / math.sqrt(2)), 15, 60
    for _ in range(400):
        values = np.concatenate([draw.normal(shift, 1, m), draw.normal(0, 1, n)])
        found = roc_auc_score([1] * m + [0] * n, values)
        low, high = auc_interval(found, m, n)
        held += low <= truth <= high
    assert 0.92 <= held / 400 <= 0.99


def test_the_interval_of_the_area_is_nearly_delongs_where_that_one_works():
    """DeLong's variance by brute force over all pairs, on a sample large enough for it."""
    draw = np.random.default_rng(2)
    ours, theirs = draw.normal(0.7, 1, 150), draw.normal(0, 1, 400)
    wins = (ours[:, None] > theirs[None]) * 1.0
    variance = wins.mean(1).var(ddof=1) / 150 + wins.mean(0).var(ddof=1) / 400
    low, high = auc_interval(wins.mean(), 150, 400)
    assert high - low == pytest.approx(2 * 1.96 * math.sqrt(variance), rel=0.1)


@pytest.mark.parametrize(("m", "n"), [(1, 5), (1, 1000), (30, 30), (500, 5000)])
def test_the_interval_of_the_area_has_a_width_at_its_ends_and_mirrors(m, n):
    """A perfect separation of a few records is no certainty; which side is first is a choice."""
    low, high = auc_interval(1.0, m, n)
    assert high == 1
    assert 0 < low < 1
    for area in (0.0, 0.2, 0.5, 0.97):
        low, high = auc_interval(area, m, n)
        assert 0 <= low <= area <= high <= 1
        assert auc_interval(1 - area, m, n) == pytest.approx((1 - high, 1 - low), abs=1e-9)


def test_the_smallest_area_is_found_four_times_in_five():
    """Drawn 300 times at just this area: the two-sided Mann-Whitney test finds it in 80 %."""
    m, n = 40, 200
    shift = math.sqrt(2) * stats.norm.ppf(smallest_auc(m, n))
    draw = np.random.default_rng(3)
    found = [
        stats.mannwhitneyu(draw.normal(shift, 1, m), draw.normal(0, 1, n)).pvalue < 0.05
        for _ in range(300)
    ]
    assert 0.73 <= np.mean(found) <= 0.87


def test_one_record_can_show_no_leak_at_all():
    """An area of 1 says that nothing smaller would have been seen."""
    assert smallest_auc(1, 10_000) == 1.0


def test_no_hit_in_n_leaves_three_in_n_possible():
    """The rule of three."""
    assert smallest_share(300) == pytest.approx(3 / 300, rel=0.01)
    assert 1 - smallest_share(20) == pytest.approx(0.05 ** (1 / 20))


def test_the_interval_of_a_change_holds_the_true_change_as_often_as_it_says():
    """Drawn 500 times: 6 % lost and 2 % gained, so the truth is -4 points."""
    draw, held = np.random.default_rng(4), 0
    for _ in range(500):
        gained, lost, _ = draw.multinomial(250, [0.02, 0.06, 0.92])
        _, low, high = paired_change(int(gained), int(lost), 250)
        held += low <= -0.04 <= high
    assert 0.92 <= held / 500 <= 0.985


def test_a_change_of_nothing_is_still_not_certain():
    """No record changed sides: the interval is small and not empty."""
    change, low, high = paired_change(0, 0, 100)
    assert change == 0
    assert -0.05 < low < 0 < high < 0.05
    assert paired_change(0, 0, 0) == (0.0, -1.0, 1.0)

"""Intervals and power: checked by closed forms, by a second library and by drawing.

The share detected at low FPR: a second library, closed forms and draws without a leak.
"""

import math

import numpy as np
import pytest
from scipy import stats
from sklearn.metrics import roc_auc_score, roc_curve

from efface.metrics import intervals


@pytest.mark.parametrize(("hits", "n"), [(0, 10), (3, 10), (10, 10), (50, 1000)])
def test_a_share_has_the_exact_interval_of_the_beta_distribution(hits, n):
    """Clopper and Pearson's closed form."""
    low, high = intervals.clopper_pearson(hits, n)
    assert low == pytest.approx(stats.beta.ppf(0.025, hits, n - hits + 1) if hits else 0)
    assert high == pytest.approx(stats.beta.ppf(0.975, hits + 1, n - hits) if hits < n else 1)


def test_nothing_counted_leaves_everything_possible():
    """No record, no knowledge; an AUC of 1 says that nothing smaller would have been detected."""
    assert intervals.clopper_pearson(0, 0) == (0.0, 1.0)
    assert intervals.paired_change(0, 0, 0) == (0.0, -1.0, 1.0)
    assert intervals.smallest_share(0) == intervals.smallest_auc(1, 10_000) == 1.0


@pytest.mark.parametrize("shift", [0.0, 0.8, 2.5])
def test_the_interval_of_the_area_holds_the_true_area_as_often_as_it_says(shift):
    """Drawn 400 times from two normals, whose true area has a closed form; 95 % nominal."""
    draw, truth, sides = np.random.default_rng(1), stats.norm.cdf(shift / math.sqrt(2)), (15, 60)
    values = draw.normal(0, 1, (400, 75)) + shift * (np.arange(75) < 15)
    found = [roc_auc_score(np.arange(75) < 15, row) for row in values]
    low, high = np.array([intervals.auc_interval(one, *sides) for one in found]).T
    assert 0.92 <= ((low <= truth) & (truth <= high)).mean() <= 0.99


def test_the_interval_of_the_area_is_nearly_delongs_where_that_one_works():
    """DeLong's variance by brute force over all pairs, on a sample large enough for it."""
    draw = np.random.default_rng(2)
    ours, theirs = draw.normal(0.7, 1, 150), draw.normal(0, 1, 400)
    wins = (ours[:, None] > theirs[None]) * 1.0
    variance = wins.mean(1).var(ddof=1) / 150 + wins.mean(0).var(ddof=1) / 400
    low, high = intervals.auc_interval(wins.mean(), 150, 400)
    assert high - low == pytest.approx(2 * 1.96 * math.sqrt(variance), rel=0.1)


@pytest.mark.parametrize(("m", "n"), [(1, 5), (1, 1000), (30, 30), (500, 5000)])
def test_the_interval_of_the_area_has_a_width_at_its_ends_and_mirrors(m, n):
    """A perfect separation of a few records is no certainty; which side is first is a choice."""
    assert 0 < intervals.auc_interval(1.0, m, n)[0] < 1
    for area in (0.0, 0.2, 0.5, 0.97, 1.0):
        low, high = intervals.auc_interval(area, m, n)
        assert 0 <= low <= area <= high <= 1
        mirrored = intervals.auc_interval(1 - area, m, n)
        assert mirrored == pytest.approx((1 - high, 1 - low), abs=1e-9)


def test_the_smallest_area_is_found_four_times_in_five():
    """Drawn 300 times at just this area: the two-sided Mann-Whitney test finds it in 80 %."""
    m, n = 40, 200
    shift = math.sqrt(2) * stats.norm.ppf(intervals.smallest_auc(m, n))
    draw = np.random.default_rng(3)
    draws = ((draw.normal(shift, 1, m), draw.normal(0, 1, n)) for _ in range(300))
    assert 0.73 <= np.mean([stats.mannwhitneyu(*both).pvalue < 0.05 for both in draws]) <= 0.87


def test_no_hit_in_n_leaves_three_in_n_possible():
    """The rule of three."""
    assert intervals.smallest_share(300) == pytest.approx(3 / 300, rel=0.01)
    assert 1 - intervals.smallest_share(20) == pytest.approx(0.05 ** (1 / 20))


def test_the_interval_of_a_change_holds_the_true_change_as_often_as_it_says():
    """Drawn 500 times: 6 % lost and 2 % gained, so the truth is -4 points."""
    draws = np.random.default_rng(4).multinomial(250, [0.02, 0.06, 0.92], 500)[:, :2].tolist()
    _, low, high = np.array([intervals.paired_change(*draw, 250) for draw in draws]).T
    assert 0.92 <= ((low <= -0.04) & (high >= -0.04)).mean() <= 0.985


def test_a_change_of_nothing_is_still_not_certain():
    """No record changed sides: the interval is small and not empty."""
    change, low, high = intervals.paired_change(0, 0, 100)
    assert change == 0
    assert -0.05 < low < 0 < high < 0.05


def test_the_share_is_the_one_on_scikit_learns_curve():
    """The highest point of the curve that is not above the false-positive rate."""
    draw = np.random.default_rng(0)
    members, others = draw.normal(1, 1, 300), draw.normal(0, 1, 4000)
    truth, scores = np.repeat([1, 0], [300, 4000]), np.concatenate([members, others])
    fprs, found, _ = roc_curve(truth, scores, drop_intermediate=False)
    for fpr in (0.01, 0.001):
        ours = intervals.rate(members, others, fpr=fpr)
        assert ours.tpr == pytest.approx(found[fprs <= fpr].max())
        low, high = stats.binomtest(round(300 * ours.tpr), 300).proportion_ci()
        assert ours.interval == pytest.approx((low, high))


@pytest.mark.parametrize(("fpr", "needed"), [(0.01, 300), (0.001, 3000)])
def test_with_fewer_non_members_than_needed_nothing_is_said(fpr, needed):
    """Two false positives are too few to set a threshold by."""
    values = np.linspace(0, 1, needed)
    assert intervals.rate(values, values[1:], fpr=fpr) == intervals.Rate(fpr)
    assert intervals.rate(values, values, fpr=fpr).tpr is not None
    assert (intervals.Rate(fpr).needed, intervals.Rate(fpr).above) == (needed, False)
    # ties with the threshold are not detected: the non-members would be flagged too
    assert intervals.rate(np.ones(50), np.ones(needed), fpr=fpr).tpr == 0


@pytest.mark.parametrize(("members", "others", "fpr"), [(2000, 300, 0.01), (800, 3500, 0.001)])
def test_without_a_leak_the_share_exceeds_its_chance_range_as_rarely_as_said(members, others, fpr):
    """1,500 draws of uniform numbers; a threshold from 3 false positives moves far by itself."""
    draw, place = np.random.default_rng(1), -1 - int(fpr * others)
    high = intervals.chance_range(members, others, fpr=fpr)[1]
    draws = ((draw.random(members), draw.random(others)) for _ in range(1500))
    shares = np.array([(ours > np.partition(all_, place)[place]).mean() for ours, all_ in draws])
    assert np.mean(shares > high) <= 0.035
    assert np.mean(shares >= high) >= 0.015


def test_the_interval_of_the_share_alone_cries_wolf():
    """2,000 members against a threshold from 300 non-members: why ``above`` reads ``chance``."""
    draw = np.random.default_rng(5)
    drawn = [intervals.rate(draw.random(2000), draw.random(300), fpr=0.01) for _ in range(200)]
    assert np.mean([one.interval[0] > 0.01 for one in drawn]) > 0.3
    assert np.mean([one.above for one in drawn]) <= 0.06


def test_the_chance_range_is_beta_binomial():
    """Written out: 4 of 401 places are above the threshold of 3 false positives in 400."""
    below = stats.betabinom(60, 4, 400 - 3).cdf(np.arange(61))
    high = np.flatnonzero(below >= 0.975)[0] / 60
    assert intervals.chance_range(60, 399, fpr=0.008)[1] == pytest.approx(high)


def test_the_smallest_share_is_found_four_times_in_five():
    """Drawn 2,000 times at just this share."""
    values = np.random.default_rng(2).normal(size=2000)
    found = intervals.rate(values[:200], values, fpr=0.01)
    hits = np.random.default_rng(3).binomial(200, found.smallest, 2000) / 200
    assert 0.77 <= np.mean(hits > found.chance[1]) <= 0.83


def test_one_member_can_show_no_leak():
    """Finding it is no rarer than chance at this level of doubt allows."""
    found = intervals.rate(np.ones(1), np.linspace(0, 0.5, 300), fpr=0.01)
    assert (found.tpr, found.above, found.smallest) == (1, True, pytest.approx(0.8))


def test_fewer_independent_counts_widen_everything():
    """Ten looks at the same record are not ten records."""
    draw = np.random.default_rng(4)
    members, others = draw.normal(1, 1, 1000), draw.normal(0, 1, 5000)
    all_of_them = intervals.rate(members, others, fpr=0.01)
    few = intervals.rate(members, others, fpr=0.01, counts=(50.5, 400))
    assert few.tpr == all_of_them.tpr
    assert few.interval[0] < all_of_them.interval[0] < all_of_them.interval[1] < few.interval[1]
    assert few.smallest > all_of_them.smallest
    assert intervals.rate(members, others, fpr=0.01, counts=(50, 100)).tpr is None
    assert intervals.MIN_FALSE_POSITIVES == 3

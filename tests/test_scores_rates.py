"""The share found at few false alarms: a second library, closed forms and draws without a leak."""

import numpy as np
import pytest
from scipy import stats
from sklearn.metrics import roc_curve

from efface.metrics.intervals import MIN_FALSE_POSITIVES, Rate, chance_range, rate


def test_the_share_is_the_one_on_scikit_learns_curve():
    """The highest point of the curve that is not beyond the rate of false alarms."""
    draw = np.random.default_rng(0)
    members, others = draw.normal(1, 1, 300), draw.normal(0, 1, 4000)
    truth, scores = np.repeat([1, 0], [300, 4000]), np.concatenate([members, others])
    alarms, found, _ = roc_curve(truth, scores, drop_intermediate=False)
    for fpr in (0.01, 0.001):
        ours = rate(members, others, fpr=fpr)
        assert ours.tpr == pytest.approx(found[alarms <= fpr].max())
        low, high = stats.binomtest(round(300 * ours.tpr), 300).proportion_ci()
        assert ours.interval == pytest.approx((low, high))


@pytest.mark.parametrize(("fpr", "needed"), [(0.01, 300), (0.001, 3000)])
def test_with_fewer_non_members_than_needed_nothing_is_said(fpr, needed):
    """Two false alarms are too few to set a threshold by."""
    values = np.linspace(0, 1, needed)
    assert rate(values, values[1:], fpr=fpr) == Rate(fpr)
    assert rate(values, values, fpr=fpr).tpr is not None
    assert Rate(fpr).needed == needed
    assert not Rate(fpr).above


def test_ties_with_the_threshold_are_not_found():
    """An attacker who cannot tell them apart would flag the non-members too."""
    assert rate(np.ones(50), np.ones(500), fpr=0.01).tpr == 0


@pytest.mark.parametrize(("members", "others", "fpr"), [(2000, 300, 0.01), (800, 3500, 0.001)])
def test_without_a_leak_the_share_exceeds_its_chance_range_as_rarely_as_said(members, others, fpr):
    """1,500 draws of uniform numbers; a threshold from 3 false alarms moves far by itself."""
    draw, place = np.random.default_rng(1), -1 - int(fpr * others)
    high = chance_range(members, others, fpr=fpr)[1]
    shares = np.array(
        [
            (draw.random(members) > np.partition(draw.random(others), place)[place]).mean()
            for _ in range(1500)
        ]
    )
    assert np.mean(shares > high) <= 0.035
    assert np.mean(shares >= high) >= 0.015


def test_the_interval_of_the_share_alone_cries_wolf():
    """2,000 members against a threshold from 300 non-members: why ``above`` reads ``chance``."""
    draw = np.random.default_rng(5)
    drawn = [rate(draw.random(2000), draw.random(300), fpr=0.01) for _ in range(200)]
    assert np.mean([one.interval[0] > 0.01 for one in drawn]) > 0.3
    assert np.mean([one.above for one in drawn]) <= 0.06


def test_the_chance_range_is_beta_binomial():
    """Written out: 4 of 401 places are above the threshold of 3 false alarms in 400."""
    below = stats.betabinom(60, 4, 400 - 3).cdf(np.arange(61))
    high = np.flatnonzero(below >= 0.975)[0] / 60
    assert chance_range(60, 399, fpr=0.008)[1] == pytest.approx(high)


def test_the_smallest_share_is_found_four_times_in_five():
    """Drawn 2,000 times at just this share."""
    values = np.random.default_rng(2).normal(size=2000)
    found = rate(values[:200], values, fpr=0.01)
    hits = np.random.default_rng(3).binomial(200, found.smallest, 2000) / 200
    assert 0.77 <= np.mean(hits > found.chance[1]) <= 0.83


def test_one_member_can_show_no_leak():
    """Finding it is no rarer than chance at this level of doubt allows."""
    found = rate(np.ones(1), np.linspace(0, 0.5, 300), fpr=0.01)
    assert found.tpr == 1
    assert found.above
    assert found.smallest == pytest.approx(0.8)


def test_fewer_independent_counts_widen_everything():
    """Ten looks at the same record are not ten records."""
    draw = np.random.default_rng(4)
    members, others = draw.normal(1, 1, 1000), draw.normal(0, 1, 5000)
    all_of_them = rate(members, others, fpr=0.01)
    few = rate(members, others, fpr=0.01, counts=(50.5, 400))
    assert few.tpr == all_of_them.tpr
    assert few.interval[0] < all_of_them.interval[0] < all_of_them.interval[1] < few.interval[1]
    assert few.smallest > all_of_them.smallest
    assert rate(members, others, fpr=0.01, counts=(50, 100)).tpr is None
    assert MIN_FALSE_POSITIVES == 3

"""A model among retrained ones: who passes, who does not, and how often that is wrong."""

import math

import numpy as np
import pytest
from scipy import stats

from efface.errors import InputError
from efface.metrics.equivalence import (
    a12,
    ks,
    ks_between,
    likeness,
    outlier_p,
    compare_with_retrained,
    tost,
    wilcoxon_p,
)


def _models(s, n, seed, *, shift=0.0, spread=0.2):
    """One model and s retrained ones: hard and easy records, a level a seed, noise; then skewed."""
    draw = np.random.default_rng(seed)
    models = draw.normal(0, 1.5, n) + draw.normal(0, spread, (s + 1, 1))
    models += draw.normal(0, 0.5, (s + 1, n))
    models[0] += shift
    return np.exp(models[0]), np.exp(models[1:])


def test_every_pair_has_scipys_distance():
    """A second library, pair by pair; rounded, so that there are ties."""
    models = _models(4, 60, 0)[1].round(1)
    expected = [[stats.ks_2samp(a, b).statistic for b in models] for a in models]
    np.testing.assert_allclose(ks_between(models), expected)


def test_each_number_is_the_one_that_its_name_says():
    """Written out with scipy, one retrained model at a time."""
    ours, others = _models(5, 80, 1, shift=0.3)
    found = likeness(ours, others)
    each = np.array([ks(ours, other)[0] for other in others])
    pairs = np.array([ks(others[i], others[j])[0] for i in range(5) for j in range(i)])
    np.testing.assert_allclose(found.comparison.ks_to_each, each)
    assert found.comparison.ks_mean == pytest.approx(each.mean())
    assert found.comparison.floor == pytest.approx(pairs.mean())
    assert found.comparison.percentile == np.mean(pairs < each.mean())
    wins = [(ours[:, None] > o).mean() + (ours[:, None] == o).mean() / 2 for o in others]
    assert found.a12 == pytest.approx(np.mean(wins))
    assert found.wilcoxon_p == np.median([stats.wilcoxon(ours, o).pvalue for o in others])
    assert found.mann_whitney_p == np.median([stats.mannwhitneyu(ours, o).pvalue for o in others])
    assert (found.comparison.n, found.comparison.retrained, found.comparison.poorly_known) == (80, 5, True)


def test_theoutlier_p_of_one_shifted_number_is_the_t_test_of_a_new_value():
    """Distances of points on a line: F(1, s - 1) is the square of t for a prediction."""
    points = np.array([1.9, 0.1, -0.4, 0.6, 0.2])
    own, others = points[0], points[1:]
    t = (own - others.mean()) / others.std(ddof=1) / math.sqrt(1 + 1 / 4)
    expected = 2 * stats.t.sf(abs(t), 3)
    assert outlier_p(np.abs(points[:, None] - points)) == pytest.approx(expected)


def test_the_rank_p_counts_models_at_least_as_far_out():
    """Never below one in s + 1: four retrained models cannot make a model rarer than that."""
    ours, others = _models(4, 100, 0, shift=4)
    assert compare_with_retrained(ours, others).rank_p == pytest.approx(1 / 5)
    apart = ks_between(np.vstack([ours, others])).sum(axis=1)
    middle = int(np.argsort(apart)[2])
    models = np.vstack([ours, others])
    found = compare_with_retrained(models[middle], np.delete(models, middle, axis=0))
    assert found.rank_p == pytest.approx(3 / 5)


def test_any_rising_transform_leaves_the_verdict_and_its_numbers():
    """Entropies are skewed: logarithms must not change what is said."""
    ours, others = _models(8, 100, 2)
    one, other = likeness(ours, others), likeness(np.log(ours), np.log(others))
    for name in ("ks_mean", "percentile", "outlier_p", "difference", "margin", "tost_p"):
        assert getattr(one.comparison, name) == pytest.approx(getattr(other.comparison, name)), name
    for name in ("a12", "energy", "energy_p", "mann_whitney_p"):
        assert getattr(one, name) == pytest.approx(getattr(other, name)), name


@pytest.mark.parametrize(("margin", "inside"), [(0.5, True), (0.17, False), (0.01, False)])
def test_equivalence_is_that_the_90_per_cent_interval_lies_inside_the_margin(margin, inside):
    """The closed form of two one-sided tests."""
    values = np.random.default_rng(0).normal(0.1, 0.5, 40)
    low, high = stats.t.interval(0.9, 39, values.mean(), stats.sem(values))
    assert bool(-margin < low and high < margin) is inside
    assert (tost(values, margin=margin) <= 0.05) is inside
    t = (margin - abs(values.mean())) / stats.sem(values)
    assert tost(values, margin=margin) == pytest.approx(stats.t.sf(t, 39))


def test_equal_values_are_equivalent_and_not_different():
    """No variance must not become nan."""
    values = np.arange(9.0)
    assert tost(np.zeros(5), margin=0.1) == 0
    assert tost(np.full(5, 0.2), margin=0.1) == 1
    assert wilcoxon_p(values, values) == 1
    assert a12(values, values)[0] == 0.5
    assert a12(values + 100, values)[0] == 1


def _verdicts(s, n, cases, **settings):
    """Shares of True, False and None."""
    found = [compare_with_retrained(*_models(s, n, seed, **settings)).like_retrained for seed in range(cases)]
    return [np.mean([verdict is wanted for verdict in found]) for wanted in (True, False, None)]


@pytest.mark.parametrize("spread", [0.0, 0.2])
def test_an_exchangeable_model_is_called_unlike_at_most_once_in_twenty(spread):
    """Eight retrained models and a ninth of the same kind, 200 times: levels differ or do not."""
    alike, unlike, _ = _verdicts(8, 60, 200, spread=spread)
    assert unlike <= 0.05
    assert 0.85 <= alike <= 0.98


def test_few_retrained_models_raise_no_false_alarm_and_pass_few():
    """With three the answer is mostly that they are too few."""
    alike, unlike, untold = _verdicts(3, 60, 100)
    assert unlike <= 0.05
    assert untold >= 0.7
    assert alike <= 0.3


@pytest.mark.parametrize("shift", [1.5, -1.5])
def test_a_model_far_off_on_either_side_is_unlike(shift):
    """Remembering and over-forgetting are both off target."""
    alike, unlike, _ = _verdicts(8, 60, 40, shift=shift)
    assert unlike >= 0.95
    assert alike == 0


def test_a_model_of_the_right_mean_and_the_wrong_spread_is_unlike():
    """Noise on every answer keeps the mean rank: only the distribution tells."""
    ours, others = _models(8, 300, 0, spread=0.02)
    noisy = np.exp(np.log(ours) + np.random.default_rng(9).normal(0, 4, 300))
    found = compare_with_retrained(noisy, others)
    assert abs(found.difference) < 0.1
    assert found.like_retrained is False


def test_a_great_sample_makes_p_tiny_where_the_verdict_stands():
    """A level of its own is what each seed has: with 2,000 records p finds it, rightly unheeded."""
    found = likeness(*_models(8, 2000, 3))
    assert found.wilcoxon_p < 1e-6
    assert found.like_retrained is True


def test_what_cannot_be_compared_is_refused():
    """One retrained model has no spread, nor have two of the same seed."""
    ours, others = _models(3, 20, 0)
    with pytest.raises(InputError) as error:
        compare_with_retrained(ours, others[:1])
    assert str(error.value) == (
        "Wanted at least two retrained models. Got 1. "
        "Retrain with another seed: one model shows no variability."
    )
    with pytest.raises(InputError) as error:
        compare_with_retrained(ours, np.stack([others[0], others[0]]))
    assert str(error.value) == (
        "Wanted retrained models that differ. Got 2 with the same values. Retrain with other seeds."
    )
    with pytest.raises(InputError) as error:
        compare_with_retrained(ours[:5], others)
    assert "Got unlearned 5, retrained 20." in str(error.value)
    with pytest.raises(InputError) as error:
        tost(np.zeros(1), margin=1.0)
    assert str(error.value) == (
        "Wanted at least two differences. Got 1. Give more records or models."
    )
    for score in (a12, wilcoxon_p):
        with pytest.raises(InputError):
            score(ours * np.nan, others[0])

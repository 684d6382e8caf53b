"""Equivalence to unseen records, one by one and as a whole.

A model among retrained ones: who passes, who does not, and how often that is wrong.
Energy distance and shuffled labels, unpaired and within records.
"""

import math
from itertools import product

import numpy as np
import pytest
from scipy import stats

from efface.metrics import equivalence as eq
from tests.refusals import refusal


def _drawn(n, m, *, shift=0.0, seed=0):
    draw = np.random.default_rng(seed)
    classes, theirs = draw.integers(0, 3, n), draw.integers(0, 3, m)
    return draw.normal(shift, 1, n) + classes, classes, draw.normal(0, 1, m) + theirs, theirs


def test_a_placement_is_scipys_percentile_within_the_class():
    """A second library, one record at a time; values are rounded so that there are ties."""
    values, classes, unseen, theirs = _drawn(40, 300)
    values, unseen = values.round(1), unseen.round(1)
    pairs = zip(values, classes, strict=True)
    each = [stats.percentileofscore(unseen[theirs == c], v, kind="mean") for v, c in pairs]
    found = eq.placements(values, unseen, classes=classes, unseen_classes=theirs)
    np.testing.assert_allclose(found, np.array(each) / 100)


def test_a_class_without_unseen_records_has_no_placement():
    """Without anything to compare with nothing is said of it."""
    groups = {"classes": np.array([0, 7]), "unseen_classes": np.zeros(5, np.int64)}
    places = eq.placements(np.zeros(2), np.ones(5), **groups)
    np.testing.assert_array_equal(places, [0, np.nan])
    text = (
        "Wanted unseen records of the same classes as the forget records. Got none. Give a holdout"
    )
    assert text in refusal(eq.central_share, places[1:])


@pytest.mark.parametrize(("shift", "low", "high"), [(0.0, 0.93, 0.97), (2, 0, 0.65), (-2, 0, 0.65)])
def test_unseen_records_are_like_unseen_and_shifted_ones_are_not(shift, low, high):
    """The chance level is 0.95, and both sides count."""
    values, classes, unseen, theirs = _drawn(2000, 6000, shift=shift)
    places = eq.placements(values, unseen, classes=classes, unseen_classes=theirs)
    assert low <= eq.central_share(eq.two_sided(places, classes, theirs)) <= high


def test_no_record_can_be_rarer_than_the_unseen_ones_allow():
    """With 10 unseen records the least two-sided p-value is 2/11: a small holdout is never sure."""
    classes, theirs = np.zeros(1, np.int64), np.zeros(10, np.int64)
    places = eq.placements(
        np.array([99.0]), np.arange(10.0), classes=classes, unseen_classes=theirs
    )
    assert eq.two_sided(places, classes, theirs) == pytest.approx([2 / 11])


def test_the_expected_mean_weighs_classes_as_the_records_do():
    """Three quarters of the records are of class 0, so is the expectation."""
    unseen, theirs = np.array([1.0, 3.0, 10.0]), np.array([0, 0, 1])
    assert eq.expected_from_unseen(np.array([0, 0, 0, 1]), unseen, theirs) == pytest.approx(4.0)
    assert np.isnan(eq.expected_from_unseen(np.array([5]), unseen, theirs))


def test_the_same_values_have_no_distance():
    """And apart ones the distance 1."""
    values = np.arange(20.0)
    assert eq.ks(values, values) == (0.0, pytest.approx(1.0))
    assert eq.ks(values, values + 100)[0] == 1.0
    text = (
        "Wanted values on both sides. Got 20 and 0. Give forget records and unseen records of the"
    )
    assert text in refusal(eq.ks, values, values[:0])


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
    np.testing.assert_allclose(eq.ks_between(models), expected)


def test_each_number_is_the_one_that_its_name_says():
    """Written out with scipy, one retrained model at a time."""
    ours, others = _models(5, 80, 1, shift=0.3)
    found = eq.likeness(ours, others)
    each = np.array([eq.ks(ours, other)[0] for other in others])
    pairs = np.array([eq.ks(others[i], others[j])[0] for i in range(5) for j in range(i)])
    np.testing.assert_allclose(found.comparison.ks_to_each, each)
    means = found.comparison.ks_mean, found.comparison.floor
    assert means == pytest.approx((each.mean(), pairs.mean()))
    assert found.comparison.percentile == np.mean(pairs < each.mean())
    wins = [(ours[:, None] > o).mean() + (ours[:, None] == o).mean() / 2 for o in others]
    assert found.a12 == pytest.approx(np.mean(wins))
    assert found.wilcoxon_p == np.median([stats.wilcoxon(ours, o).pvalue for o in others])
    assert found.mann_whitney_p == np.median([stats.mannwhitneyu(ours, o).pvalue for o in others])
    assert (found.comparison.n, found.comparison.retrained) == (80, 5)


def test_theoutlier_p_of_one_shifted_number_is_the_t_test_of_a_new_value():
    """Distances of points on a line: F(1, s - 1) is the square of t for a prediction."""
    points = np.array([1.9, 0.1, -0.4, 0.6, 0.2])
    t = (points[0] - points[1:].mean()) / points[1:].std(ddof=1) / math.sqrt(1 + 1 / 4)
    found = eq.outlier_p(np.abs(points[:, None] - points))
    assert found == pytest.approx(2 * stats.t.sf(abs(t), 3))


def test_the_rank_p_counts_models_at_least_as_far_out():
    """Never below one in s + 1: four retrained models cannot make a model rarer than that."""
    ours, others = _models(4, 100, 0, shift=4)
    assert eq.compare_with_retrained(ours, others).rank_p == pytest.approx(1 / 5)
    models = np.vstack([ours, others])
    middle = int(np.argsort(eq.ks_between(models).sum(axis=1))[2])
    found = eq.compare_with_retrained(models[middle], np.delete(models, middle, axis=0))
    assert found.rank_p == pytest.approx(3 / 5)


def test_any_rising_transform_leaves_the_verdict_and_its_numbers():
    """Entropies are skewed: logarithms must not change what is said."""
    ours, others = _models(8, 100, 2)
    one, other = eq.likeness(ours, others), eq.likeness(np.log(ours), np.log(others))
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
    assert (eq.tost(values, margin=margin) <= 0.05) is inside
    t = (margin - abs(values.mean())) / stats.sem(values)
    assert eq.tost(values, margin=margin) == pytest.approx(stats.t.sf(t, 39))


def test_equal_values_are_equivalent_and_not_different():
    """No variance must not become nan."""
    values = np.arange(9.0)
    assert [eq.tost(np.full(5, one), margin=0.1) for one in (0.0, 0.2)] == [0, 1]
    assert eq.wilcoxon_p(values, values) == 1
    assert [eq.a12(values + shift, values)[0] for shift in (0, 100)] == [0.5, 1]


def _verdicts(s, n, cases, **settings):
    """Shares of True, False and None."""
    models = (_models(s, n, seed, **settings) for seed in range(cases))
    found = [eq.compare_with_retrained(*some).like_retrained for some in models]
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
    found = eq.compare_with_retrained(noisy, others)
    assert abs(found.difference) < 0.1
    assert found.like_retrained is False


def test_a_great_sample_makes_p_tiny_where_the_verdict_stands():
    """A level of its own is what each seed has: with 2,000 records p finds it, rightly unheeded."""
    found = eq.likeness(*_models(8, 2000, 3))
    assert found.wilcoxon_p < 1e-6
    assert found.comparison.like_retrained is True


def test_what_cannot_be_compared_is_refused():
    """One retrained model has no spread, nor have two of the same seed."""
    ours, others = _models(3, 20, 0)
    text = "Wanted at least two retrained models. Got 1."
    assert text in refusal(eq.compare_with_retrained, ours, others[:1])
    assert refusal(eq.compare_with_retrained, ours, np.stack([others[0], others[0]])) == (
        "Wanted retrained models that differ. Got 2 with the same values. Retrain with other seeds."
    )
    assert "Got unlearned 5, retrained 20." in refusal(eq.compare_with_retrained, ours[:5], others)
    text = "Wanted at least two differences. Got 1. Give more records or models."
    assert refusal(eq.tost, np.zeros(1), margin=1.0) == text
    for score in (eq.a12, eq.wilcoxon_p, eq.energy_test):
        assert "Got 20 of 20 that are nan or inf" in refusal(score, ours * np.nan, others[0])
    text = "Wanted at least 2000 permutations. Got 100. With fewer p depends on the seed."
    assert refusal(eq.energy_test_paired, ours, others, permutations=100) == text
    text = "Wanted two values or more on both sides. Got 20 and 1. Give more records."
    assert refusal(eq.energy_test, ours, ours[:1]) == text
    assert "Got values 5, others 20." in refusal(eq.energy_test_paired, ours[:5], others)


def _models_permutation(s, n, seed, shift=0.0):
    draw = np.random.default_rng(seed)
    models = draw.normal(0, 1, n) + draw.normal(0, 0.5, (s + 1, n))
    return models[0] + shift, models[1:]


def test_the_paired_distance_is_that_of_scipy_to_the_pooled_models():
    """Rounded, so that there are ties."""
    for s, seed in product((1, 4), range(4)):
        ours, others = (values.round(1) for values in _models_permutation(s, 30, seed, shift=0.3))
        expected = stats.energy_distance(ours, others.ravel()) ** 2
        assert eq.energy_test_paired(ours, others)[0] == pytest.approx(expected)


def test_the_paired_p_is_the_share_of_all_swaps_within_records():
    """Six records and one other model: all 64 swaps, counted out."""
    ours, others = _models_permutation(1, 6, 3, shift=0.4)
    swaps = [np.array(swap) for swap in product((False, True), repeat=6)]
    swapped = [(np.where(w, others[0], ours), np.where(w, ours, others[0])) for w in swaps]
    each = np.array([stats.energy_distance(*both) for both in swapped])
    found = eq.energy_test_paired(ours, others, permutations=20_000, seed=1)[1]
    assert found == pytest.approx(np.mean(each >= each[0] - 1e-12), abs=0.02)


def test_pairing_sees_what_the_spread_of_the_records_hides():
    """Records differ far more than models: the unpaired test is blind to a small shift."""
    difficulty = np.linspace(-5, 5, 60)
    ours, others = (0.1 * one + difficulty for one in _models_permutation(1, 60, 0, shift=1.0))
    assert eq.energy_test_paired(ours, others)[1] < 0.01
    assert eq.energy_test(ours, others[0])[1] > 0.5


def test_values_drawn_alike_have_even_p_values():
    """Of 300 draws about one in ten has a p of 0.1 or less, and none is 0."""
    draws = ((*_models_permutation(3, 12, seed), seed) for seed in range(300))
    p_values = np.array([eq.energy_test_paired(*both, seed=seed)[1] for *both, seed in draws])
    assert 0.06 <= (p_values <= 0.1).mean() <= 0.15
    assert p_values.min() >= 1 / 2001


def test_the_unpaired_distance_is_the_integral_and_a_seed_repeats_it(random_state_kept):
    """Twice the integral of the squared difference of the shares below: here 2 * 10 * 1."""
    values, others = np.zeros(8), np.full(8, 10.0)
    with random_state_kept():
        distance, p = eq.energy_test(values, others, seed=4)
        assert eq.energy_test_paired(values, others[None], seed=4)[0] == pytest.approx(20)
    assert distance == pytest.approx(20)
    assert p < 0.01
    assert eq.energy_test(values, others, seed=4) == (distance, p)

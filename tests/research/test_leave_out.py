"""What leaving records out changes: gains, memorisation, removal of groups, and a threshold."""

import numpy as np
import pytest
from scipy.stats import entropy

from research.leave_out import (
    Removal,
    Threshold,
    answer_floor,
    answer_gain,
    calibrated_threshold,
    correct_from,
    information_gain,
    least_informative_first,
    memorisation,
    removal,
)
from tests.refusals import refusal

QUIET, LOUD, UNKNOWN = Removal(0.0, 0.1, 0.2), Removal(2.0, 0.1, 0.2), Removal(0.15, 0.1, 0.2)


def halves(models, n, seed):
    """Random halves, as the models of an ensemble are trained on."""
    rng = np.random.default_rng(seed)
    return np.stack([rng.permutation(models) < models // 2 for _ in range(n)], axis=1)


def models(count, n, seed, *, shift=0.0):
    """Values of so many models that differ by their seed."""
    rng, records = np.random.default_rng(seed), np.random.default_rng(99).normal(0, 2, n)
    return records + rng.normal(0, 0.2, (count, 1)) + rng.normal(0, 0.1, (count, n)) + shift


def test_a_gain_is_the_mean_over_all_pairs_of_models_with_and_without_the_record():
    """Record by record, with the standard error of a difference of means."""
    rng = np.random.default_rng(0)
    log_p, member = -rng.exponential(1, (12, 7)), halves(12, 7, 1)
    found = information_gain(log_p, member)
    for record in range(7):
        inside, outside = (log_p[side[:, record], record] for side in (member, ~member))
        pairs = inside[:, None] - outside[None]
        assert found.value[record] == pytest.approx(pairs.mean())
        error = np.sqrt(np.var(inside, ddof=1) / 6 + np.var(outside, ddof=1) / 6)
        assert found.standard_error[record] == pytest.approx(error)


def test_the_stated_error_is_the_deviation_of_the_estimate_over_ensembles():
    """Models drawn 400 times: their gains lie around the truth as far as the error says."""
    rng, member = np.random.default_rng(4), halves(16, 50, 5)
    errors = []
    for _ in range(400):
        found = information_gain(rng.normal(0, 1, (16, 50)) + 2 * member, member)
        errors.append((found.value - 2) / found.standard_error)
    assert np.std(errors) == pytest.approx(np.sqrt(14 / 12), rel=0.03)  # Student's t of 14


def test_memorisation_is_accuracy_with_minus_accuracy_without_the_record():
    """1 where only those who saw the record know it, 0 where all do, below 0 is possible."""
    member = halves(10, 4, 6)
    correct = np.stack([member[:, 0], np.ones(10, bool), np.zeros(10, bool), ~member[:, 3]], axis=1)
    np.testing.assert_allclose(memorisation(correct, member).value, [1, 0, 0, -1])
    assert correct_from(np.array([[-0.1, 0.0, 0.1]])).tolist() == [[False, False, True]]


def test_an_answer_gain_is_the_divergence_of_the_two_mean_answers():
    rng, member = np.random.default_rng(7), halves(6, 5, 8)
    p = rng.dirichlet(np.ones(4), (6, 5))
    found = answer_gain(p, member)
    for record in range(5):
        inside, outside = (p[side[:, record], record].mean(0) for side in (member, ~member))
        assert found[record] == pytest.approx(entropy(inside, outside))


def test_an_impossible_class_adds_nothing_to_an_answer_gain():
    """0 ln 0 is 0."""
    p = np.array([[[1.0, 0.0]], [[1.0, 0.0]], [[0.5, 0.5]], [[0.5, 0.5]]])
    member = np.array([[True], [True], [False], [False]])
    assert answer_gain(p, member)[0] == pytest.approx(np.log(2))


def test_without_any_effect_the_answer_gain_is_below_its_floor_and_both_shrink_with_models():
    """Noise alone: half as many models on a side show more of it."""
    found = {}
    for count in (16, 64):
        rng, member = np.random.default_rng(9), halves(count, 300, 10)
        p = rng.dirichlet(np.ones(5), (count, 300))
        found[count] = answer_gain(p, member).mean(), answer_floor(p, member).mean()
    for gain, floor in found.values():
        assert 1.7 * gain < floor < 2.4 * gain
    assert found[64][0] < 0.35 * found[16][0]


def test_the_floor_reads_no_model_that_was_trained_on_the_record():
    rng, member = np.random.default_rng(11), halves(12, 9, 12)
    p = rng.dirichlet(np.ones(3), (12, 9))
    other = np.where(member[..., None], rng.dirichlet(np.ones(3), (12, 9)), p)
    np.testing.assert_array_equal(answer_floor(p, member), answer_floor(other, member))


def test_arrays_that_cannot_be_read_are_refused_by_name():
    member, one, two = halves(4, 1, 0), np.zeros((1, 4)), np.zeros((2, 4))
    uneven = np.array([[1, 0], [1, 0], [0, 1]], bool)
    few = "Wanted at least 2 models trained on it for each record. Got 1 of 2 records with fewer."
    assert refusal(information_gain, np.zeros((3, 2)), uneven).startswith(few)
    infinite = "Wanted finite ln p(y|x). Got nan or inf in 4 of 4 rows: 0, 1, 2, 3."
    assert refusal(information_gain, np.full((4, 1), np.nan), member).startswith(infinite)
    assert "Wanted 0 or 1 for each answer." in refusal(memorisation, np.full((4, 1), 0.5), member)
    for p, text in ((0.4, "that sum to 1. Got a sum of 0.8."), (-0.5, "of 0 to 1. Got nan, inf")):
        assert f"probabilities {text}" in refusal(answer_gain, np.full((4, 1, 2), p), member)
    assert "two models or more trained with the group. Got 1." in refusal(removal, one, two)
    assert "two models or more trained without the group. Got 1." in refusal(removal, two, one)


def test_records_are_ordered_from_the_least_informative_on_and_ties_by_the_margin():
    alpha, margin = np.array([0.5, 1.0, 1.0, 0.2, 1.0]), np.array([9.0, 1.0, 3.0, 0.0, 1.0])
    assert least_informative_first(alpha, margin).tolist() == [2, 1, 4, 0, 3]


def test_a_removal_that_changes_nothing_is_seldom_seen_and_one_that_does_always():
    """Eight models with, four without, 200 times; the second kind lower by ten deviations."""
    pairs = [(models(8, 50, seed), 1000 + seed) for seed in range(200)]
    same = [removal(one, models(4, 50, seed)) for one, seed in pairs]
    moved = [removal(one, models(4, 50, seed, shift=-2)) for one, seed in pairs]
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


GROUPS = [
    ({10: QUIET, 30: QUIET, 60: LOUD}, LOUD, 30),
    ({10: QUIET}, QUIET, 0),  # too small to show anything
    ({10: UNKNOWN}, LOUD, 0),  # neither like nor unlike
    ({10: LOUD, 30: QUIET}, LOUD, 0),  # a larger one cannot be safer
    ({10: UNKNOWN, 30: QUIET}, LOUD, 0),
]


@pytest.mark.parametrize(("low", "random", "size"), GROUPS)
def test_the_threshold_is_that_of_the_largest_low_group_within_the_noise_while_others_show(
    low, random, size
):
    """The last record of the group has it; groups that show nothing or too much set none."""
    alpha = np.linspace(1, 0, 101)
    removals = {n: {"low": one, "random": random, "high": LOUD} for n, one in low.items()}
    wanted = Threshold(alpha[size - 1], 0.0, size) if size else Threshold(None, None, 0)
    assert calibrated_threshold(alpha, np.zeros(101), removals) == wanted


def test_a_threshold_says_where_it_lies_among_records_of_the_same_content():
    """Of 40 records of α = 1 the ten of the largest margin were tested, not all."""
    removals = {10: {"low": QUIET, "random": LOUD, "high": LOUD}}
    chosen = calibrated_threshold(np.ones(40), np.arange(40.0), removals)
    assert chosen == Threshold(1.0, 30.0, 10)

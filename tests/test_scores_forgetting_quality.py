"""The challenge's forgetting quality against its published rule, threshold by threshold."""

import math

import numpy as np
import pytest

from efface.errors import InputError
from efface.metrics.retrain_gap import challenge_score, epsilon_each, forgetting_quality


def _margins(models, n, seed, *, shift=0.0, scale=1.0):
    return np.random.default_rng(seed).normal(shift, scale, (models, n))


def _epsilon(fpr, fnr):
    """Of one threshold, as published: None where the threshold is dropped."""
    if fpr == fnr == 0:
        return 50.0
    if fpr * fnr == 0:
        return None
    first = math.log(1 - 1e-5 - fpr) - math.log(fnr) if fpr < 1 - 1e-5 else -math.inf
    second = math.log(1 - 1e-5 - fnr) - math.log(fpr) if fnr < 1 - 1e-5 else -math.inf
    return max(0.0, first, second)


def _by_loops(ours, theirs):
    """One record: each threshold and each interval of the grid, as published."""
    upper, lower = (ours, theirs) if np.median(ours) >= np.median(theirs) else (theirs, ours)
    rates = [(np.mean(lower >= t), np.mean(upper < t)) for t in (*ours, *theirs)]
    narrow, wide = (ours, theirs) if np.ptp(ours) < np.ptp(theirs) else (theirs, ours)
    width = np.ptp(narrow)
    for right in np.linspace(narrow.min() + width - 2, narrow.max() + 2, 400):
        left = np.linspace(right - width - 2, right - width + 2, 400)[:, None]
        inside = [((left <= side) & (side <= right)).mean(axis=1) for side in (wide, narrow)]
        rates += zip(inside[0], 1 - inside[1], strict=True)
    found = [_epsilon(*both) for both in set(rates)]
    return min(50.0, max(epsilon for epsilon in found if epsilon is not None))


@pytest.mark.parametrize(("shift", "scale"), [(0.0, 1.0), (1.0, 1.0), (0.0, 4.0)])
def test_epsilon_is_the_best_of_all_published_thresholds(shift, scale):
    """Brute force; the third case is one that only an interval can tell apart."""
    ours, theirs = _margins(12, 1, 3, shift=shift, scale=scale), _margins(14, 1, 4)
    assert epsilon_each(ours, theirs)[0] == pytest.approx(_by_loops(ours[:, 0], theirs[:, 0]))


def test_the_same_models_are_told_apart_by_nothing():
    """Full marks, at any shift."""
    ours = _margins(64, 20, 0)
    np.testing.assert_allclose(epsilon_each(ours, ours), 0, atol=1e-9)
    assert forgetting_quality(ours, ours) == 1


def test_a_narrow_gap_tells_apart_for_certain():
    """The published grid of 0.01 steps over a gap of 0.001 and drops every threshold."""
    ours = np.linspace(0, 1, 30)[:, None]
    assert epsilon_each(ours, ours + 1.001)[0] == 50
    assert forgetting_quality(ours, ours + 1.001) == 0


def test_constant_sides_have_an_answer():
    """One side a hundred times narrower is at the cap; two equal constants are at 0."""
    constant, spread = np.zeros((8, 1)), _margins(8, 1, 0)
    assert epsilon_each(constant, spread)[0] == 50
    assert epsilon_each(constant, constant)[0] == 0
    assert epsilon_each(constant, constant + 1)[0] == 50
    narrow = np.linspace(0, 0.008, 8)[:, None]
    around = np.array([-1, -0.5, 0.5, 1, 0.001, 0.003, 0.005, 0.007])[:, None]
    assert epsilon_each(narrow, around)[0] == 50
    assert epsilon_each(narrow * 10, around)[0] < 3


def test_points_halve_with_each_half_of_epsilon_and_end_with_what_models_can_show(monkeypatch):
    """With 64 models ceil(ln 63) = 5: below 5 there are points, from 5 on there are none."""
    epsilons = np.array([0.0, 0.49, 0.5, 1.2, 4.99, 5.0, 50.0])
    monkeypatch.setattr("efface.metrics.retrain_gap.epsilon_each", lambda *_: epsilons)
    expected = np.mean([1, 1, 1 / 2, 1 / 4, 2.0**-9, 0, 0])
    assert forgetting_quality(np.zeros((64, 7)), np.zeros((90, 7))) == pytest.approx(expected)


def test_two_sets_of_models_of_one_kind_are_below_1():
    """The best of many thresholds always finds something: what a number is compared with."""
    same = forgetting_quality(_margins(64, 30, 0), _margins(64, 30, 1))
    other = forgetting_quality(_margins(64, 30, 0, shift=1), _margins(64, 30, 1))
    assert other < 0.8 * same < same < 1


def test_the_final_score_multiplies_the_accuracies_kept():
    """Written out."""
    found = challenge_score(
        0.5,
        retain_accuracy=0.9,
        test_accuracy=0.6,
        retrained_retain_accuracy=1.0,
        retrained_test_accuracy=0.8,
    )
    assert found == pytest.approx(0.5 * 0.9 * 0.75)


def test_too_few_models_are_refused():
    """With two models there is no bucket at all."""
    margins = _margins(5, 4, 0)
    with pytest.raises(InputError) as error:
        epsilon_each(margins, margins[:2])
    assert str(error.value) == (
        "Wanted at least 3 unlearned and 3 retrained models. Got 5 and 2. "
        "Repeat both with other seeds; the challenge took 512 of each."
    )
    with pytest.raises(InputError) as error:
        epsilon_each(margins, margins[:, :2])
    assert "Got unlearned 4, retrained 2." in str(error.value)
    with pytest.raises(InputError) as error:
        challenge_score(
            1.0,
            retain_accuracy=1.0,
            test_accuracy=1.0,
            retrained_retain_accuracy=0.0,
            retrained_test_accuracy=1.0,
        )
    assert str(error.value) == (
        "Wanted retrained accuracies above 0. Got 0 and 1. "
        "Give the accuracies of the retrained models as shares."
    )

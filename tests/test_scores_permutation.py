"""Energy distance and shuffled labels, unpaired and within records."""

from itertools import product

import numpy as np
import pytest
from scipy import stats

from efface.errors import InputError
from efface.metrics.equivalence import energy_test, energy_test_paired


def _models(s, n, seed, shift=0.0):
    draw = np.random.default_rng(seed)
    models = draw.normal(0, 1, n) + draw.normal(0, 0.5, (s + 1, n))
    models[0] += shift
    return models[0], models[1:]


def test_the_paired_distance_is_that_of_scipy_to_the_pooled_models():
    """Rounded, so that there are ties."""
    for s, seed in product((1, 4), range(4)):
        ours, others = (values.round(1) for values in _models(s, 30, seed, shift=0.3))
        expected = stats.energy_distance(ours, others.ravel()) ** 2
        assert energy_test_paired(ours, others)[0] == pytest.approx(expected)


def test_the_paired_p_is_the_share_of_all_swaps_within_records():
    """Six records and one other model: all 64 swaps, counted out."""
    ours, others = _models(1, 6, 3, shift=0.4)
    own = stats.energy_distance(ours, others[0])
    swaps = [np.array(swap) for swap in product((False, True), repeat=6)]
    greater = [
        stats.energy_distance(np.where(w, others[0], ours), np.where(w, ours, others[0]))
        >= own - 1e-12
        for w in swaps
    ]
    found = energy_test_paired(ours, others, permutations=20_000, seed=1)[1]
    assert found == pytest.approx(np.mean(greater), abs=0.02)


def test_pairing_sees_what_the_spread_of_the_records_hides():
    """Records differ far more than models: the unpaired test is blind to a small shift."""
    ours, others = _models(1, 60, 0)
    ours, others = ours * 0.1, others * 0.1
    difficulty = np.linspace(-5, 5, 60)
    ours, others = ours + difficulty + 0.1, others + difficulty
    assert energy_test_paired(ours, others)[1] < 0.01
    assert energy_test(ours, others[0])[1] > 0.5


def test_values_drawn_alike_have_even_p_values():
    """Of 300 draws about one in ten has a p of 0.1 or less, and none is 0."""
    p_values = []
    for seed in range(300):
        ours, others = _models(3, 12, seed)
        p_values.append(energy_test_paired(ours, others, seed=seed)[1])
    assert 0.06 <= np.mean(np.array(p_values) <= 0.1) <= 0.15
    assert min(p_values) >= 1 / 2001


def test_the_unpaired_distance_is_the_integral_and_a_seed_repeats_it():
    """Twice the integral of the squared difference of the shares below: here 2 * 10 * 1."""
    values, others = np.zeros(8), np.full(8, 10.0)
    distance, p = energy_test(values, others, seed=4)
    assert distance == pytest.approx(20)
    assert p < 0.01
    assert energy_test(values, others, seed=4) == (distance, p)
    assert energy_test_paired(values, others[None], seed=4)[0] == pytest.approx(20)


def test_no_global_random_state_moves(random_state_kept):
    """Seeds are arguments."""
    with random_state_kept():
        energy_test(np.arange(5.0), np.arange(5.0))
        energy_test_paired(np.arange(5.0), np.arange(5.0)[None])


def test_too_few_permutations_or_values_are_refused():
    """A p-value that depends on the seed is none."""
    values = np.arange(5.0)
    with pytest.raises(InputError) as error:
        energy_test_paired(values, values[None], permutations=100)
    assert str(error.value) == (
        "Wanted at least 2000 permutations. Got 100. With fewer p depends on the seed."
    )
    with pytest.raises(InputError) as error:
        energy_test(values, values[:1])
    assert str(error.value) == (
        "Wanted two values or more on both sides. Got 5 and 1. Give more records."
    )
    with pytest.raises(InputError) as error:
        energy_test_paired(values, np.zeros((2, 4)))
    assert "Got values 5, others 4." in str(error.value)
    with pytest.raises(InputError):
        energy_test(values, values * np.nan)

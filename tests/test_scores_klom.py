"""KLoM: histograms of margins over models, record by record."""

import math

import numpy as np
import pytest
from scipy import stats

from efface.errors import InputError
from efface.metrics.divergence import klom, klom_each, klom_floor


def _margins(models, n, seed, *, shift=0.0):
    return np.random.default_rng(seed).normal(shift, 1, (models, n)) + np.arange(n)


def _by_counting(ours, theirs, bins):
    """The definition for one record: every value put into its bin by hand."""
    low, high = min(*ours, *theirs), max(*ours, *theirs)
    p, q = np.zeros(bins), np.zeros(bins)
    for side, counts in ((ours, p), (theirs, q)):
        for value in side:
            place = int((value - low) / (high - low) * bins)
            counts[min(place, bins - 1)] += 1 / len(side)
    q = np.where(p > 0, np.maximum(q, 1e-5), q)
    return sum(a * math.log(a / (b / q.sum())) for a, b in zip(p, q, strict=True) if a)


def test_each_record_has_the_divergence_counted_by_hand():
    """The greatest margin counts too: the public code loses it beyond its last bin."""
    ours, theirs = _margins(30, 12, 0, shift=0.5), _margins(25, 12, 1)
    expected = [_by_counting(a, b, 20) for a, b in zip(ours.T, theirs.T, strict=True)]
    np.testing.assert_allclose(klom_each(ours, theirs), expected)
    assert klom(ours, theirs) == pytest.approx(np.quantile(expected, 0.95))


def test_with_many_models_it_is_the_divergence_of_the_normals_that_they_were_drawn_from():
    """Closed form: (shift)^2 / 2 for equal variances."""
    ours, theirs = _margins(200_000, 1, 0, shift=0.7), _margins(200_000, 1, 1)
    assert klom_each(ours, theirs)[0] == pytest.approx(0.7**2 / 2, rel=0.05)


def test_equal_margins_are_0_apart_and_disjoint_ones_at_the_bound():
    """No bin in common: ln of 1e5, but for the floors' own share."""
    ours = _margins(20, 3, 0)
    np.testing.assert_allclose(klom_each(ours, ours), 0, atol=1e-12)
    assert (klom_each(np.zeros((5, 2)), np.zeros((4, 2))) == 0).all()
    apart = klom_each(np.zeros((5, 1)), np.full((5, 1), 9.0))[0]
    assert apart == pytest.approx(math.log(1e5), abs=1e-3)


def test_margins_are_clipped_so_that_one_wild_model_does_not_make_the_bins():
    """At 100, as published."""
    ours, theirs = _margins(20, 1, 0), _margins(20, 1, 1)
    ours[0], theirs[0] = 1e6, 100
    clipped = np.where(ours > 100, 100, ours)
    assert klom(ours, theirs) == klom(clipped, theirs)


def test_the_floor_is_far_above_0_with_few_models():
    """Two halves of models of one kind: what a number has to be compared with."""
    retrained = _margins(16, 40, 2)
    assert klom_floor(retrained) == klom(retrained[:8], retrained[8:])
    assert klom_floor(retrained) > 2
    assert klom_floor(_margins(4000, 40, 2)) < 0.05
    assert stats.entropy([0.5, 0.5], [0.5, 0.5]) == 0


def test_one_model_or_other_records_are_refused():
    """A distribution over models needs models."""
    margins = _margins(5, 4, 0)
    with pytest.raises(InputError) as error:
        klom_each(margins[:1], margins)
    assert str(error.value) == (
        "Wanted at least two unlearned and two retrained models, and two bins. "
        "Got 1 and 5, 20 bins. Repeat both with other seeds; the field takes 100 of each."
    )
    with pytest.raises(InputError) as error:
        klom_floor(margins[:3])
    assert str(error.value) == (
        "Wanted at least four retrained models. Got 3. "
        "Retrain with other seeds, or say that the floor is not known."
    )
    with pytest.raises(InputError) as error:
        klom(margins, margins[:, :3])
    assert "Got unlearned 4, retrained 3." in str(error.value)
    with pytest.raises(InputError):
        klom(margins * np.nan, margins)

"""Like unseen, record by record and as a whole."""

import numpy as np
import pytest
from scipy import stats

from efface.errors import InputError
from efface.metrics.equivalence import (
    expected_from_unseen,
    ks,
    central_share,
    placements,
    two_sided,
)


def _drawn(n, m, *, shift=0.0, seed=0):
    draw = np.random.default_rng(seed)
    classes, theirs = draw.integers(0, 3, n), draw.integers(0, 3, m)
    return draw.normal(shift, 1, n) + classes, classes, draw.normal(0, 1, m) + theirs, theirs


def test_a_placement_is_scipys_percentile_within_the_class():
    """A second library, one record at a time; values are rounded so that there are ties."""
    values, classes, unseen, theirs = _drawn(40, 300)
    values, unseen = values.round(1), unseen.round(1)
    expected = [
        stats.percentileofscore(unseen[theirs == c], v, kind="mean") / 100
        for v, c in zip(values, classes, strict=True)
    ]
    np.testing.assert_allclose(
        placements(values, unseen, classes=classes, unseen_classes=theirs), expected
    )


def test_a_class_without_unseen_records_has_no_placement():
    """It is not called like unseen for want of anything to compare with."""
    places = placements(
        np.zeros(2),
        np.ones(5),
        classes=np.array([0, 7]),
        unseen_classes=np.zeros(5, np.int64),
    )
    assert places[0] == 0
    assert np.isnan(places[1])
    with pytest.raises(InputError):
        central_share(np.array([np.nan]))


@pytest.mark.parametrize(("shift", "low", "high"), [(0.0, 0.93, 0.97), (2, 0, 0.65), (-2, 0, 0.65)])
def test_unseen_records_are_like_unseen_and_shifted_ones_are_not(shift, low, high):
    """The chance level is 0.95, and both sides count."""
    values, classes, unseen, theirs = _drawn(2000, 6000, shift=shift)
    p = two_sided(
        placements(values, unseen, classes=classes, unseen_classes=theirs), classes, theirs
    )
    assert low <= central_share(p) <= high


def test_no_record_can_be_rarer_than_the_unseen_ones_allow():
    """With 10 unseen records the least two-sided p-value is 2/11: a small holdout is never sure."""
    classes, theirs = np.zeros(1, np.int64), np.zeros(10, np.int64)
    places = placements(np.array([99.0]), np.arange(10.0), classes=classes, unseen_classes=theirs)
    p = two_sided(places, classes, theirs)
    assert p[0] == pytest.approx(2 / 11)


def test_the_expected_mean_weighs_classes_as_the_records_do():
    """Three quarters of the records are of class 0, so is the expectation."""
    unseen, theirs = np.array([1.0, 3.0, 10.0]), np.array([0, 0, 1])
    assert expected_from_unseen(np.array([0, 0, 0, 1]), unseen, theirs) == pytest.approx(4.0)
    assert np.isnan(expected_from_unseen(np.array([5]), unseen, theirs))


def test_the_same_values_have_no_distance():
    """And apart ones the distance 1."""
    values = np.arange(20.0)
    assert ks(values, values) == (0.0, pytest.approx(1.0))
    assert ks(values, values + 100)[0] == 1.0
    with pytest.raises(InputError):
        ks(values, np.zeros(0))

"""Aggregates beside their floors."""

import math

import pytest

from efface.errors import InputError
from efface.metrics.retrain_gap import against_floor, floor, nomus, tug_of_war

TARGET = {"forget": 0.6, "retain": 1.0, "test": 0.7}


def test_the_tug_of_war_is_the_product_of_what_each_column_kept():
    """1 for the retrained model itself; both sides of the target cost alike."""
    assert tug_of_war(TARGET, TARGET) == 1
    values = {"forget": 0.9, "retain": 0.9, "test": 0.6}
    assert tug_of_war(values, TARGET) == pytest.approx(0.7 * 0.9 * 0.9)
    assert tug_of_war({**TARGET, "forget": 0.3}, TARGET) == pytest.approx(0.7)
    assert tug_of_war({"a": 1.0, "b": 0.5}, {"a": 0.0, "b": 0.5}) == 0


def test_nomus_gives_the_number_of_its_authors_table():
    """Test accuracy 0.5951; their attack column, 0.2136, is the distance from one half."""
    found = nomus(test_accuracy=0.5951, attack_accuracy=0.5 + 0.2136)
    assert found == pytest.approx(0.5839, abs=1e-4)
    below = nomus(test_accuracy=0.5951, attack_accuracy=0.5 - 0.2136)
    assert below == pytest.approx(found)
    assert nomus(test_accuracy=1.0, attack_accuracy=0.5) == 1
    assert nomus(test_accuracy=0.0, attack_accuracy=1.0) == 0


def test_a_model_of_one_answer_is_near_a_good_one_by_nomus():
    """Ten classes: 0.55, where a model of accuracy 0.6 with a weak leak has 0.6."""
    collapsed = nomus(test_accuracy=0.1, attack_accuracy=0.5)
    assert collapsed == pytest.approx((1 + 1 / 10) / 2)
    assert nomus(test_accuracy=0.6, attack_accuracy=0.7) == pytest.approx(0.6)


RETRAINED = [
    {"forget": 0.60, "attack": 0.5},
    {"forget": 0.64, "attack": 0.5},
    {"forget": 0.60, "attack": 0.58},
]


def test_an_aggregate_stands_beside_that_of_retrained_pairs():
    """Three models make three targets and three pairs; every column counts alike."""
    found = against_floor({"forget": 0.9, "attack": 0.6}, RETRAINED)
    gaps = [(0.3 + 0.1) / 2, (0.26 + 0.1) / 2, (0.3 + 0.02) / 2]
    assert found.value == pytest.approx(sum(gaps) / 3)
    assert found.floor == pytest.approx(floor(RETRAINED))
    assert found.floor == pytest.approx((0.02 + 0.04 + 0.06) / 3)
    assert found.pair_range == pytest.approx((0.02, 0.06))
    assert (found.retrained, found.columns) == (3, ("forget", "attack"))


def test_the_tug_of_war_has_a_floor_below_1():
    """What two retrained models reach against each other."""
    found = against_floor(RETRAINED[0], RETRAINED[1:], aggregate=tug_of_war)
    assert found.floor == pytest.approx(0.96 * 0.92)
    assert found.value == pytest.approx((0.96 + 0.92) / 2)


def test_what_cannot_be_aggregated_is_refused():
    """Per cent, missing columns, columns that were not measured, a single retrained model."""
    with pytest.raises(InputError) as error:
        tug_of_war({"forget": 60.0}, {"forget": 0.6})
    assert str(error.value) == ("Wanted shares from 0 to 1. Got forget 60. Divide per cent by 100.")
    with pytest.raises(InputError) as error:
        tug_of_war({"forget": 0.6}, TARGET)
    assert str(error.value) == (
        "Wanted the same columns on both sides. Got forget and forget, retain, test. "
        "Score both models in the same way."
    )
    with pytest.raises(InputError) as error:
        nomus(test_accuracy=math.nan, attack_accuracy=0.5)
    assert "Got test_accuracy nan." in str(error.value)
    with pytest.raises(InputError) as error:
        against_floor(TARGET, [TARGET])
    assert str(error.value) == (
        "Wanted at least two retrained models. Got 1. "
        "Retrain with another seed, or say that the floor is not known."
    )
    with pytest.raises(InputError) as error:
        against_floor({**TARGET, "test": math.nan}, [TARGET, TARGET])
    assert str(error.value) == (
        "Wanted a finite number in each column. Got none for test. "
        "Omit a column that was not measured, for all models."
    )
    with pytest.raises(InputError):
        against_floor(TARGET, [TARGET, {"forget": 0.5}])

"""Shares of right answers: total correct / total, class by class."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import accuracy_score, recall_score

from efface.errors import InputError
from efface.metrics.accuracy import accuracy, per_class_accuracy, worst_class_change

ANSWERS = st.lists(st.tuples(st.integers(0, 3), st.integers(0, 3)), min_size=1, max_size=60)


@given(ANSWERS)
def test_accuracy_is_that_of_scikit_learn(answers):
    """A second library counts the same."""
    predicted, y = np.array(answers).T
    assert accuracy(predicted, y) == pytest.approx(accuracy_score(y, predicted))


@given(ANSWERS)
def test_the_accuracy_of_a_class_is_its_recall(answers):
    """Only classes that have records are named."""
    predicted, y = np.array(answers).T
    found = per_class_accuracy(predicted, y)
    labels = sorted(set(y.tolist()))
    recalls = recall_score(y, predicted, labels=labels, average=None, zero_division=0)
    assert found == pytest.approx(dict(zip(labels, recalls, strict=True)))


def test_a_small_last_batch_weighs_no_more_than_its_records():
    """The field's code averages batch accuracies: here that would say 0.75."""
    predicted, y = np.array([0] * 128 + [1] * 2), np.zeros(130, np.int64)
    assert accuracy(predicted, y) == 128 / 130


def test_the_worst_class_is_the_one_that_fell_most():
    """A class that was bad all along is not the one that suffered."""
    before, after = {0: 0.9, 1: 0.2, 2: 0.8}, {0: 0.9, 1: 0.2, 2: 0.5}
    assert worst_class_change(before, after) == (2, pytest.approx(-0.3))


def test_nothing_to_count_is_an_error_that_says_so():
    """A score of nothing must not be 0 or NaN."""
    none = np.zeros(0, np.int64)
    with pytest.raises(InputError) as error:
        accuracy(none, none)
    assert (
        str(error.value) == "Wanted at least one record. Got none. Give the records to be scored."
    )
    with pytest.raises(InputError) as error:
        worst_class_change({0: 1.0}, {1: 1.0})
    assert str(error.value) == (
        "Wanted a class that was measured before and after. Got classes [0] and [1]. "
        "Measure both models on the same records."
    )

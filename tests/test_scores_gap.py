"""The paper's three columns and the distance over them."""

import numpy as np
import pytest

from efface.errors import InputError
from efface.metrics.evaluation import Evaluation
from efface.metrics.membership import entropy_attack
from efface.metrics.retrain_gap import columns, floor, gap


def _measured(n, seed, sure=3.0):
    draw = np.random.default_rng(seed)
    logits, y = draw.normal(0, 1, (n, 4)).astype(np.float32), draw.integers(0, 4, n)
    logits[np.arange(n), y] += sure
    return Evaluation(logits=logits, y=y, ids=tuple(map(str, range(n))))


FORGET, HOLDOUT, RETAIN = _measured(40, 0), _measured(200, 1, sure=1.0), _measured(300, 2)


def test_random_forgetting_reads_the_forget_records_and_the_whole_holdout():
    """D_f is measured on the forget records themselves, D_r on all test records."""
    found = columns(FORGET, HOLDOUT, RETAIN)
    assert found == {
        "retain": HOLDOUT.correct.mean(),
        "forget": FORGET.correct.mean(),
        "attack": entropy_attack(RETAIN.entropy, HOLDOUT.entropy, FORGET.entropy),
    }


def test_a_leaving_class_is_read_on_the_holdout():
    """Both accuracies are of unseen records; the attack's non-members are the whole holdout."""
    found, left = columns(FORGET, HOLDOUT, RETAIN, forget_classes=(2,)), HOLDOUT.y == 2
    assert found["retain"] == HOLDOUT.correct[~left].mean()
    assert found["forget"] == HOLDOUT.correct[left].mean()
    assert found["attack"] == entropy_attack(RETAIN.entropy, HOLDOUT.entropy, FORGET.entropy)


def test_the_gap_is_the_mean_distance_and_nothing_at_the_target():
    """Below the target counts as much as above it."""
    target = {"retain": 0.6, "forget": 0.5, "attack": 0.4}
    assert gap(target, target) == 0
    assert gap({"retain": 0.5, "forget": 0.6, "attack": 0.4}, target) == pytest.approx(0.2 / 3)


def test_the_floor_is_the_mean_gap_of_all_pairs():
    """Three retrained models make three pairs."""
    models = [{"retain": value} for value in (0.1, 0.2, 0.5)]
    assert floor(models) == pytest.approx((0.1 + 0.4 + 0.3) / 3)


def test_columns_that_do_not_match_are_refused():
    """A gap over the shared columns alone would flatter."""
    with pytest.raises(InputError) as error:
        gap({"retain": 1.0}, {"retain": 1.0, "attack": 0.5})
    assert str(error.value) == (
        "Wanted the same columns on both sides. Got retain and attack, retain. "
        "Score both models in the same way."
    )
    with pytest.raises(InputError) as error:
        floor([{"retain": 1.0}])
    assert str(error.value) == (
        "Wanted at least two retrained models. Got 1. "
        "Retrain with another seed, or say that the floor is not known."
    )

"""One table of promises, over every method; and that each promise can be broken."""

import copy
import sys
from pathlib import Path

import pytest
import torch

from efface.methods import METHODS
from efface.runtime import PassCounter, Passes
from efface.testing import PROMISES, Broken, Refused
from efface.testing.traps import Sprung, TrappedLabels, trapped
from efface.types import Records, Split

sys.path.insert(0, str(Path(__file__).parent))
from method_promises import CASES, EXCEPTIONS, EXPECTED_FAILURES, REFUSED

KEPT = [(name, p) for name in METHODS for p in PROMISES if (name, p) not in EXCEPTIONS]


@pytest.mark.parametrize(("name", "promise"), KEPT)
def test_every_method_keeps_every_promise(name, promise):
    """The table: methods by promises, but for the exceptions, each of which has its reason."""
    if (name, promise) in REFUSED:
        with pytest.raises(Refused):
            PROMISES[promise](CASES[name])
    elif (name, promise) in EXPECTED_FAILURES:
        with pytest.raises(Broken) as broken:
            PROMISES[promise](CASES[name])
        assert EXPECTED_FAILURES[name, promise] in str(broken.value)
    else:
        PROMISES[promise](CASES[name])


def test_expected_failures_are_few():
    """A contract that many do not keep is none."""
    assert len({name for name, _ in EXPECTED_FAILURES}) <= 5


def test_every_exception_is_of_a_method_that_there_is():
    """A reason that outlives its method hides the next one's fault."""
    assert {name for name, _ in EXCEPTIONS} <= METHODS.keys()
    own_tests = {"region", "blank", "trainable", "processes"}
    assert {promise for _, promise in EXCEPTIONS} <= PROMISES.keys() | own_tests


def test_a_trap_springs():
    """The traps must be able to fail a method."""
    records = Records(torch.zeros(2, 3), torch.tensor([0, 1]))
    split = trapped(Split(records, retain=records), frozenset({"model", "retain"}))
    for touch in (
        lambda: len(split.forget),
        lambda: bool(split.forget_classes),
        lambda: split.fresh(0),
        lambda: split.holdout.x,
        split.retain.y.max,
    ):
        with pytest.raises(Sprung, match="the method"):
            touch()
    assert isinstance(split.retain.y, TrappedLabels)
    assert len(split.retain.take([1])) == 1


def test_the_counter_counts_copies_too_until_they_are_released(tiny_net, digits):
    """A twin by hand: five records forward through a copy, three of them backward."""
    counted = PassCounter(tiny_net)
    twin = copy.deepcopy(counted.model)
    twin(digits.x[:3]).sum().backward()
    with torch.no_grad():
        twin(digits.x[:2])
    assert counted.passes == Passes(forward=5, backward=3)
    counted.detach(twin)(digits.x[:2])
    assert counted.passes == Passes(forward=5, backward=3)

"""One table of promises, over every method; and that each promise can be broken."""

import copy

import pytest
import torch
from method_promises import CASES, EXCEPTIONS, EXPECTED_FAILURES, REFUSED

from efface.methods import METHODS
from efface.runtime import PassCounter, Passes
from efface.testing import PROMISES, BrokenPromise, TrappedLabels, TrapSprung, set_traps
from efface.types import Records, Split

# method by method: promises of one method share its runs
KEPT = [(name, p) for name in METHODS for p in PROMISES if (name, p) not in EXCEPTIONS]


@pytest.mark.parametrize(("name", "promise"), KEPT)
def test_every_method_keeps_every_promise(name, promise):
    """The table: methods by promises, but for the exceptions, each of which has its reason."""
    if (name, promise) in EXPECTED_FAILURES:
        with pytest.raises(BrokenPromise, match=EXPECTED_FAILURES[name, promise]):
            PROMISES[promise](CASES[name])
    else:
        refusal = PROMISES[promise](CASES[name])
        assert bool(refusal) == ((name, promise) in REFUSED), refusal


def test_exceptions_are_of_methods_and_promises_that_exist_and_failures_are_few():
    """A reason that outlives its method hides the next one's fault."""
    assert {name for name, _ in EXCEPTIONS} <= METHODS.keys()
    own_tests = {"region", "blank", "trainable", "processes"}
    assert {promise for _, promise in EXCEPTIONS} <= PROMISES.keys() | own_tests
    assert len({name for name, _ in EXPECTED_FAILURES}) <= 5


def test_a_trap_springs():
    """The traps must be able to fail a method."""
    records = Records(torch.zeros(2, 3), torch.tensor([0, 1]))
    split = set_traps(Split(records, retain=records), frozenset({"model", "retain"}))
    touches = [lambda: len(split.forget), lambda: bool(split.forget_classes)]
    touches += [lambda: split.fresh(0), lambda: split.holdout.x, split.retain.y.max]
    for touch in touches:
        with pytest.raises(TrapSprung, match="the method"):
            touch()
    assert isinstance(split.retain.y, TrappedLabels)
    assert len(split.retain.take([1])) == 1


def test_the_counter_counts_copies_until_they_are_detached(tiny_net, digits):
    """Five records forward through a copy, three of them backward."""
    counter = PassCounter(tiny_net)
    twin = copy.deepcopy(counter.model)
    twin(digits.x[:3]).sum().backward()
    with torch.no_grad():
        twin(digits.x[:2])
    assert counter.passes == Passes(forward=5, backward=3)
    counter.detach(twin)(digits.x[:2])
    assert counter.passes == Passes(forward=5, backward=3)

"""One table of promises, over every method."""

import copy
import inspect
import json
import sys
from pathlib import Path

import pytest
import torch
from torch import nn

from efface.errors import InputError
from efface.methods import METHODS
from efface.methods.parts.entry import PARTS
from efface.methods.parts.needs import NEEDED
from efface.passes import Counted, Passes
from efface.types import Records, Split, Verdict

sys.path.insert(0, str(Path(__file__).parent))
from method_promises import (
    EVERY_METHOD,
    EXCEPTIONS,
    TrappedLabels,
    keeping,
    numbers_for,
    run,
    split_for,
    trapped,
)


def _weights(model: nn.Module) -> torch.Tensor:
    return torch.cat([weight.detach().reshape(-1) for weight in model.parameters()])


@pytest.fixture
def forget(digits: Records) -> Records:
    """Twenty digits that the net has learned."""
    return digits.take(range(20))


@pytest.fixture
def split(name, forget, digits, tiny_net) -> Split:
    """These twenty, and of the rest what the method works from."""
    return split_for(name, forget, digits.take(range(20, 60)), model=tiny_net)


def test_every_exception_is_of_a_method_that_there_is():
    """A reason that outlives its method hides the next one's fault."""
    assert {name for name, _ in EXCEPTIONS} <= METHODS.keys()


@EVERY_METHOD
def test_needs_and_sees_in_the_words_of_a_split(name):
    """What is misspelled in the table is never trapped."""
    entry = METHODS[name]
    assert entry.needs <= entry.sees <= set(PARTS)
    assert entry.needs <= NEEDED.keys()
    assert all(part.removesuffix(" labels") in entry.sees for part in entry.sees)


@EVERY_METHOD
def test_refuses_by_name_without_what_it_needs(name, tiny_net, split):
    """Before anything happens, and in words that say how to give it."""
    for part in METHODS[name].needs:
        what, remedy = NEEDED[part]
        lacking = copy.copy(split)
        object.__setattr__(lacking, part, () if part == "leaving" else None)
        with pytest.raises(InputError) as error:
            run(name, tiny_net, lacking)
        wanted = f"Wanted {part} for {name}: {what}. Got a split without it. {remedy}"
        assert str(error.value) == wanted


@EVERY_METHOD
def test_leaves_the_model_it_was_given_alone(name, tiny_net, split):
    """The old checkpoint must stand when a request fails (law 1)."""
    model = copy.deepcopy(tiny_net).train()
    before = copy.deepcopy(model.state_dict())
    run(name, model, split)
    assert all(torch.equal(before[key], value) for key, value in model.state_dict().items())
    assert model.training
    assert all(weight.grad is None and weight.requires_grad for weight in model.parameters())
    assert not any(module._forward_hooks for module in model.modules())


@EVERY_METHOD
def test_gives_back_a_model_of_the_same_form(name, tiny_net, split):
    """Whoever loads the result must notice no difference in keys, shapes or dtypes."""
    result = run(name, tiny_net, split)
    assert result is not tiny_net
    given, new = tiny_net.state_dict(), result.state_dict()
    assert list(given) == list(new)
    assert all(given[k].shape == new[k].shape and given[k].dtype == new[k].dtype for k in given)
    assert all(torch.isfinite(value).all() for value in new.values())
    assert not result.training
    assert all(weight.grad is None and weight.requires_grad for weight in result.parameters())
    assert not any(module._forward_hooks for module in result.modules())


@keeping("changes")
def test_changes_the_weights(name, tiny_net, split):
    """A method that does nothing would keep every other promise."""
    assert not torch.equal(_weights(run(name, tiny_net, split)), _weights(tiny_net))


@keeping("buffers")
def test_leaves_buffers_bit_identical(name, tiny_net, split):
    """BatchNorm statistics move in train mode alone, where a paper has it, and not else."""
    result = run(name, tiny_net, split, training_mode=False)
    given = dict(tiny_net.named_buffers())
    assert given
    assert all(torch.equal(given[key], value) for key, value in result.named_buffers())


@keeping("seed")
def test_same_seed_is_bit_equal_and_another_is_not(name, tiny_net, split, random_state_kept):
    """Law 3: a run can be remade, and leaves its host's random numbers alone."""
    with random_state_kept():
        first, second = (_weights(run(name, tiny_net, split)) for _ in range(2))
    assert torch.equal(first, second)
    assert not torch.equal(first, _weights(run(name, tiny_net, split, seed=6)))


@EVERY_METHOD
def test_dropout_draws_from_the_seed_and_not_from_the_host(name, digits, random_state_kept):
    """In train mode too: a mask that the host draws cannot be drawn again."""
    model = _net("dropout").eval()
    split = split_for(name, digits.take(range(20)), digits.take(range(20, 60)), model=model)
    with random_state_kept():
        first, second = (_weights(run(name, model, split)) for _ in range(2))
    assert torch.equal(first, second)


@keeping("identity")
def test_a_step_of_nothing_is_the_identity(name, tiny_net, split):
    """Neutral settings must not move a weight."""
    own = inspect.signature(METHODS[name].function).parameters
    neutral = {"learning_rate": 0.0, "steps": 0, "epochs": 0}
    assert own.keys() & neutral
    for setting in own.keys() & neutral:
        result = run(name, tiny_net, split, **{setting: neutral[setting]})
        torch.testing.assert_close(_weights(result), _weights(tiny_net), rtol=0, atol=1e-6)


@EVERY_METHOD
def test_touches_only_what_it_says_it_sees(name, tiny_net, split):
    """Zero-shot must mean zero-shot: everything else is booby-trapped."""
    run(name, tiny_net, trapped(split, METHODS[name].sees))


@EVERY_METHOD
def test_takes_the_passes_that_its_cost_says(name, tiny_net, forget, digits):
    """Counted on the model itself and on every copy of it."""
    counted = Counted(tiny_net)
    split = split_for(name, forget, digits.take(range(20, 60)), model=counted.model)
    result = run(name, counted.model, split)
    cost = METHODS[name].cost
    passes, said = counted.passes, cost.passes(numbers_for(name, split))
    assert result is not counted.model
    if cost.at_most:
        assert passes.forward <= said.forward
        assert passes.backward <= said.backward
    else:
        assert passes == said


@keeping("order")
def test_the_order_of_the_records_does_not_matter(name, tiny_net, forget, digits):
    """A full batch is a set: its order is nobody's business."""
    retain = digits.take(range(20, 60))
    one = split_for(name, forget, retain, model=tiny_net)
    backwards = forget.take(range(19, -1, -1)), retain.take(range(39, -1, -1))
    other = split_for(name, *backwards, model=tiny_net)
    object.__setattr__(other, "leaving", one.leaving)
    settings = {"records_per_step": 60, "training_mode": False}
    results = (run(name, tiny_net, given, **settings) for given in (one, other))
    torch.testing.assert_close(*map(_weights, results), rtol=0, atol=1e-5)


@keeping("guard")
def test_the_guard_is_asked_after_each_step_and_obeyed(name, tiny_net, split):
    """A guard that is not asked cannot save a model."""
    asked = []

    def watch(student: nn.Module, loss: float) -> Verdict:  # noqa: ARG001
        asked.append(loss)
        return Verdict.END if len(asked) == 3 else Verdict.GO_ON

    run(name, tiny_net, split, watch=watch)
    assert len(asked) == 3
    assert all(isinstance(loss, float) for loss in asked)


@EVERY_METHOD
def test_every_setting_is_keyword_only_with_a_default_that_json_can_hold(name):
    """The signature is the only home of a default; records and the command line read it."""
    parameters = list(inspect.signature(METHODS[name].function).parameters.values())
    assert [p.name for p in parameters[:2]] == ["model", "split"]
    assert {"seed", "watch"} <= {p.name for p in parameters}
    assert "strength" in {p.name for p in parameters} or (name, "strength") in EXCEPTIONS
    for parameter in parameters[2:]:
        assert parameter.kind is parameter.KEYWORD_ONLY
        if parameter.name != "watch":
            json.dumps(parameter.default)


NETS = {"layer norm": 10, "dropout": 10, "tied": 10, "one output": 1, "table": 10}


@EVERY_METHOD
@pytest.mark.parametrize("kind", NETS)
def test_works_on_nets_of_other_kinds(name, kind, digits):
    """What people bring is not always a VGG."""
    records = digits.take(range(60))
    y = records.y % 2 if kind == "one output" else records.y
    x = records.x.flatten(1) if kind == "table" else records.x
    records = Records(x, y, records.ids, records.low, records.high)
    model = _net(kind).eval()
    parts = records.take(range(20)), records.take(range(20, 60))
    result = run(name, model, split_for(name, *parts, model=model))
    assert all(torch.isfinite(value).all() for value in result.state_dict().values())


def _net(kind: str) -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        middle = nn.Linear(16, 16)
        extra = {
            "layer norm": [nn.LayerNorm(16)],
            "dropout": [nn.Dropout(0.5)],
            "tied": [middle, nn.ReLU(), middle],
        }.get(kind, [])
        head = nn.Linear(16, NETS[kind])
        return nn.Sequential(nn.Flatten(), nn.Linear(64, 16), *extra, nn.ReLU(), head)


def test_a_trap_springs():
    """The traps must be able to fail a method."""
    records = Records(torch.zeros(2, 3), torch.tensor([0, 1]))
    split = trapped(Split(records, retain=records), frozenset({"model", "retain"}))
    for touch in (
        lambda: len(split.forget),
        lambda: bool(split.leaving),
        lambda: split.fresh(0),
        lambda: split.holdout.x,
        split.retain.y.max,
    ):
        with pytest.raises(AssertionError, match="the method"):
            touch()
    assert isinstance(split.retain.y, TrappedLabels)
    assert len(split.retain.take([1])) == 1


def test_the_counter_counts_copies_too(tiny_net, digits):
    """A twin by hand: five records forward through a copy, three of them backward."""
    counted = Counted(tiny_net)
    twin = copy.deepcopy(counted.model)
    twin(digits.x[:3]).sum().backward()
    with torch.no_grad():
        twin(digits.x[:2])
    assert counted.passes == Passes(forward=5, backward=3)

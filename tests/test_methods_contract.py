"""One table of promises, over every method."""

import copy
import inspect
import json

import pytest
import torch
from torch import nn

from efface.methods import METHODS
from efface.types import Records, Split, Verdict

EVERY_METHOD = pytest.mark.parametrize("name", METHODS)
QUICK = {"steps": 6, "records_per_step": 6, "perturbations": 3}

EXCEPTIONS = {
    ("jit_paper", "order"): "one update a record: the next starts where the last one ended",
    ("jit_reference", "order"): "the authors' noise goes by a record's place in its batch",
}
"""Promises that a method does not keep, each with the reason."""


def _kept(promise: str):
    """The methods that make the promise; each exception stands in the table above."""
    kept = [name for name in METHODS if (name, promise) not in EXCEPTIONS]
    return pytest.mark.parametrize("name", kept)


class Trap:
    """Stands for what a method says that it does not see: touching it raises."""

    def __init__(self, part: str) -> None:
        object.__setattr__(self, "part", part)

    def _sprung(self, *_: object) -> None:
        raise AssertionError(f"the method touched {object.__getattribute__(self, 'part')}")

    __getattribute__ = __len__ = __iter__ = __bool__ = __call__ = __getitem__ = _sprung


def _trap(*_: object) -> None:
    raise AssertionError("the method called what it says it does not see")


class TrappedLabels(torch.Tensor):
    """Labels that may be carried along, but whose values may not be looked at."""

    @classmethod
    def __torch_function__(cls, func, types, args=(), kwargs=None):
        if func.__name__ not in {"__get__", "__len__", "__getitem__", "to", "size", "dim"}:
            raise AssertionError(f"the method looked at the labels: {func.__name__}")
        return super().__torch_function__(func, types, args, kwargs)


def _run(name: str, model: nn.Module, split: Split, **settings) -> nn.Module:
    own = inspect.signature(METHODS[name].function).parameters
    chosen = {key: value for key, value in {**QUICK, **settings}.items() if key in own}
    return METHODS[name].function(model, split, **{"seed": 5, **chosen})


def _weights(model: nn.Module) -> torch.Tensor:
    return torch.cat([weight.detach().reshape(-1) for weight in model.parameters()])


@pytest.fixture
def forget(digits: Records) -> Records:
    """Twenty digits that the net has learned."""
    return digits.take(range(20))


@EVERY_METHOD
def test_leaves_the_model_it_was_given_alone(name, tiny_net, forget):
    """The old checkpoint must stand when a request fails (law 1)."""
    model = copy.deepcopy(tiny_net).train()
    before = copy.deepcopy(model.state_dict())
    _run(name, model, Split(forget))
    assert all(torch.equal(before[key], value) for key, value in model.state_dict().items())
    assert model.training
    assert all(weight.grad is None and weight.requires_grad for weight in model.parameters())
    assert not any(module._forward_hooks for module in model.modules())


@EVERY_METHOD
def test_gives_back_a_model_of_the_same_form(name, tiny_net, forget):
    """Whoever loads the result must notice no difference in keys, shapes or dtypes."""
    result = _run(name, tiny_net, Split(forget))
    assert result is not tiny_net
    given, new = tiny_net.state_dict(), result.state_dict()
    assert list(given) == list(new)
    assert all(given[k].shape == new[k].shape and given[k].dtype == new[k].dtype for k in given)
    assert all(torch.isfinite(value).all() for value in new.values())
    assert not result.training


@EVERY_METHOD
def test_changes_the_weights(name, tiny_net, forget):
    """A method that does nothing would keep every other promise."""
    assert not torch.equal(_weights(_run(name, tiny_net, Split(forget))), _weights(tiny_net))


@EVERY_METHOD
def test_leaves_buffers_bit_identical(name, tiny_net, forget):
    """BatchNorm statistics of the forget records must not enter the model."""
    result = _run(name, tiny_net, Split(forget))
    given = dict(tiny_net.named_buffers())
    assert given
    assert all(torch.equal(given[key], value) for key, value in result.named_buffers())


@EVERY_METHOD
def test_same_seed_is_bit_equal_and_another_is_not(name, tiny_net, forget, random_state_kept):
    """Law 3: a run can be remade, and leaves its host's random numbers alone."""
    with random_state_kept():
        first, second = (_weights(_run(name, tiny_net, Split(forget))) for _ in range(2))
    assert torch.equal(first, second)
    assert not torch.equal(first, _weights(_run(name, tiny_net, Split(forget), seed=6)))


@EVERY_METHOD
def test_a_step_of_nothing_is_the_identity(name, tiny_net, forget):
    """Neutral settings must not move a weight."""
    own = inspect.signature(METHODS[name].function).parameters
    neutral = {"learning_rate": 0.0, "steps": 0}
    assert own.keys() & neutral
    for setting in own.keys() & neutral:
        result = _run(name, tiny_net, Split(forget), **{setting: neutral[setting]})
        torch.testing.assert_close(_weights(result), _weights(tiny_net), rtol=0, atol=1e-6)


@EVERY_METHOD
def test_touches_only_what_it_says_it_sees(name, tiny_net, forget):
    """Zero-shot must mean zero-shot: everything else is booby-trapped."""
    sees = METHODS[name].sees
    traps = {"holdout": Trap("holdout"), "retain": Trap("retain"), "fresh": _trap, "train": _trap}
    parts = {part: trap for part, trap in traps.items() if part not in sees}
    if "forget labels" not in sees:
        labels = forget.y.as_subclass(TrappedLabels)
        forget = Records(forget.x, labels, forget.ids, forget.low, forget.high)
    _run(name, tiny_net, Split(forget, **parts))


@_kept("order")
def test_the_order_of_the_records_does_not_matter(name, tiny_net, forget):
    """A full batch is a set: its order is nobody's business."""
    settings = {"records_per_step": 20}
    one = _run(name, tiny_net, Split(forget), **settings)
    other = _run(name, tiny_net, Split(forget.take(range(19, -1, -1))), **settings)
    torch.testing.assert_close(_weights(one), _weights(other), rtol=0, atol=1e-6)


@EVERY_METHOD
def test_the_guard_is_asked_after_each_step_and_obeyed(name, tiny_net, forget):
    """A guard that is not asked cannot save a model."""
    asked = []

    def watch(student: nn.Module, loss: float) -> Verdict:  # noqa: ARG001
        asked.append(loss)
        return Verdict.END if len(asked) == 3 else Verdict.GO_ON

    _run(name, tiny_net, Split(forget), watch=watch)
    assert len(asked) == 3
    assert all(isinstance(loss, float) for loss in asked)


@EVERY_METHOD
def test_every_setting_is_keyword_only_with_a_default_that_json_can_hold(name):
    """The signature is the only home of a default; records and the command line read it."""
    parameters = list(inspect.signature(METHODS[name].function).parameters.values())
    assert [p.name for p in parameters[:2]] == ["model", "split"]
    assert {"strength", "seed", "watch"} <= {p.name for p in parameters}
    for parameter in parameters[2:]:
        assert parameter.kind is parameter.KEYWORD_ONLY
        if parameter.name != "watch":
            json.dumps(parameter.default)


@EVERY_METHOD
@pytest.mark.parametrize("layer", ["layer norm", "dropout", "tied"])
def test_works_on_nets_of_other_kinds(name, layer, forget):
    """What people bring is not always a VGG."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = _net(layer).eval()
    result = _run(name, model, Split(forget))
    assert all(torch.isfinite(value).all() for value in result.state_dict().values())


def _net(kind: str) -> nn.Module:
    middle = nn.Linear(16, 16)
    extra = {
        "layer norm": [nn.LayerNorm(16)],
        "dropout": [nn.Dropout(0.5)],
        "tied": [middle, nn.ReLU(), middle],
    }[kind]
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 16), *extra, nn.ReLU(), nn.Linear(16, 10))

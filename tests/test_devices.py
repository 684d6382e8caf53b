"""A device is chosen or found, and every kind that a machine has serves a whole request."""

import copy

import pytest
import torch

from efface.errors import InputError
from efface.runtime import resolve_device
from efface.types import Split
from efface.unlearn import forget


def test_the_best_device_is_found(monkeypatch):
    """Nobody should have to know what is in the machine."""
    assert resolve_device("cpu") == torch.device("cpu")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert resolve_device("auto") == torch.device("cuda")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)
    assert resolve_device("auto") == torch.device("mps")
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    assert resolve_device("auto") == torch.device("cpu")


@pytest.mark.parametrize("name", ["cuda:99", "tpu", "", "mps:1:2", "meta"])
def test_a_device_that_is_not_here_is_refused_with_those_that_are(name, monkeypatch):
    """A run that falls back in silence would take a week."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    with pytest.raises(InputError) as error:
        resolve_device(name)
    assert str(error.value) == (
        f"Wanted a device that torch has here: cpu. Got {name!r}. "
        "Use --device auto, or one of these."
    )


@pytest.mark.parametrize(
    "kind",
    [
        "cpu",
        pytest.param("cuda", marks=pytest.mark.cuda),
        pytest.param("mps", marks=pytest.mark.mps),
    ],
)
@pytest.mark.parametrize("method", ["jit", "neighbourhood"])
def test_a_request_runs_on_each_device(kind, method, tiny_net, digits):
    """Guard and evidence need double precision, which not every device has."""
    here = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    if not here.get(kind, True):
        pytest.skip(f"NOT RUN: torch has no {kind} device here")
    model = copy.deepcopy(tiny_net).to(resolve_device(kind))
    split = Split(digits.take(range(10)), digits.take(range(300, 400)))
    result = forget(model, split, method=method, settings={"steps": 4})
    assert next(result.model.parameters()).device.type == kind
    assert not [row.key for row in result.report.rows if row.status == "error"]


class WithoutDouble(torch.Tensor):
    """A tensor as on a device without float64: in double precision only after ``cpu()``."""

    @classmethod
    def __torch_function__(cls, func, types, args=(), kwargs=None):
        asked = any(word is torch.float64 for word in (*args, *(kwargs or {}).values()))
        if asked or func is torch.Tensor.double:
            raise TypeError("this device has no float64")
        found = super().__torch_function__(func, types, args, kwargs)
        return found.as_subclass(torch.Tensor) if func is torch.Tensor.cpu else found

    def __deepcopy__(self, memo):
        copied = torch.nn.Parameter(self.detach().clone(), self.requires_grad)
        memo[id(self)] = copied
        return copied


@pytest.mark.parametrize("method", ["jit", "neighbourhood"])
def test_a_request_asks_no_double_precision_of_the_device(method, tiny_net, digits):
    """Apple's MPS has none, and no machine of ours has MPS."""
    model = copy.deepcopy(tiny_net)
    for module in model.modules():
        for name, weight in list(module.named_parameters(recurse=False)):
            bare = weight.detach().clone().as_subclass(WithoutDouble)
            setattr(module, name, torch.nn.Parameter(bare))
    with pytest.raises(TypeError, match="no float64"):
        next(model.parameters()).double()
    split = Split(digits.take(range(10)), digits.take(range(300, 400)), digits.take(range(50, 90)))
    result = forget(model, split, method=method, settings={"steps": 2})
    assert isinstance(next(result.model.parameters()), WithoutDouble)
    assert [row.note for row in result.report.rows if row.status == "error"] == []

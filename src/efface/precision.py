"""Half precision: weights change in float32, and are judged as they will be written.

A step that is small beside a weight is lost when the weight has 8 bits (bfloat16) or 11 (float16):
the sum rounds back to where it was.
"""

import copy
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

HALF = {torch.float16, torch.bfloat16}

LOOKED_AT = 2**20
"""Numbers that are looked at together: to look at all at once would take their size again."""


def upcast_to_fp32(model: nn.Module) -> nn.Module:
    """The model itself or, where a weight is of half precision, a float32 copy."""
    kinds = {tensor.dtype for tensor in model.state_dict().values()}
    return copy.deepcopy(model).float() if kinds & HALF else model


@torch.no_grad()
def as_written(
    student: nn.Module, model: nn.Module, stored: Mapping[str, torch.dtype] | None = None
) -> nn.Module:
    """The student with each tensor in the given model's dtype, rounded as ``stored`` says.

    What did not move keeps the given model's exact bits.
    """
    given = model.state_dict()
    moved = {name: (old, _dtype(name, old, stored)) for name, old in given.items()}
    if all(
        new.dtype == moved[name][0].dtype == moved[name][1]
        for name, new in student.state_dict().items()
    ):
        return student
    written = copy.deepcopy(model).eval()
    for name, tensor in written.state_dict().items():
        tensor.copy_(student.state_dict()[name].to(moved[name][1]))
    return written


def _dtype(name: str, old: Tensor, stored: Mapping[str, torch.dtype] | None) -> torch.dtype:
    return (stored or {}).get(name, old.dtype)


def in_dtype_of(old: Tensor, new: Tensor) -> Tensor:
    """``new`` on the CPU in the dtype of ``old``; what did not move keeps its exact bits.

    A float64 weight goes through a float32 model rounded: only where it moved is that written.
    """
    new = new.detach().cpu()
    if exact(old, new):
        return new.to(old.dtype)
    kept = old.detach()
    return torch.where(new == kept.to(new.dtype), kept, new.to(old.dtype))


def tied_as(old: Mapping[str, Tensor], new: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """``new``, where names that share their numbers in ``old`` share them again if they agree."""
    first: dict[tuple[Any, ...], Tensor] = {}
    tied = {}
    for name, tensor in new.items():
        was = old[name]
        place = (was.data_ptr(), was.dtype, was.shape, was.stride())
        twin = first.setdefault(place, tensor) if was.data_ptr() else tensor
        tied[name] = twin.detach() if twin is not tensor and twin.equal(tensor) else tensor
    return tied


def exact(old: Tensor, new: Tensor) -> bool:
    """Whether every number of the dtype of ``old`` comes back from the dtype of ``new``."""
    if old.dtype == new.dtype:
        return True
    kinds = (old.dtype, new.dtype)
    narrow, wide = (torch.finfo(kind).bits if kind.is_floating_point else 0 for kind in kinds)
    return 0 < narrow < wide


def not_finite(state: Mapping[str, Tensor]) -> list[str]:
    """Names of the tensors that hold nan or inf."""
    return [name for name, tensor in state.items() if not _is_finite(tensor)]


def _is_finite(tensor: Tensor) -> bool:
    if not (tensor.is_floating_point() or tensor.is_complex()) or tensor.is_quantized:
        return True
    wide = tensor.float() if tensor.element_size() == 1 else tensor
    return all(bool(some.isfinite().all()) for some in wide.reshape(-1).split(LOOKED_AT))

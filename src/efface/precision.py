"""Half precision: weights change in float32, and are judged as they will be written.

A step that is small beside a weight is lost when the weight has 8 bits (bfloat16) or 11 (float16):
the sum rounds back to where it was.
"""

import copy
from collections.abc import Mapping

import torch
from torch import Tensor, nn

HALF = {torch.float16, torch.bfloat16}


def widened(model: nn.Module) -> nn.Module:
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


def not_finite(model: nn.Module) -> list[str]:
    """Names of the tensors that hold nan or inf."""
    state = model.state_dict().items()
    return [n for n, t in state if t.is_floating_point() and not t.isfinite().all()]

"""Arithmetic on a model's weights and buffers."""

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor, nn

State = dict[str, Tensor]


def norm(tensors: Iterable[Tensor]) -> float:
    """Euclidean norm over all tensors together."""
    sizes = [torch.linalg.vector_norm(tensor.detach()).cpu().double() for tensor in tensors]
    return float(torch.stack(sizes).norm()) if sizes else 0.0


def finite_buffers(model: nn.Module) -> bool:
    """Whether every number in every buffer is finite."""
    return all(bool(torch.isfinite(b).all()) for b in model.buffers() if b.is_floating_point())


@contextmanager
def looked_at(model: nn.Module) -> Iterator[None]:
    """Eval mode without gradients; afterwards each module is in the mode that it was in."""
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        with torch.no_grad():
            yield
    finally:
        for module, mode in modes:
            module.training = mode


@torch.no_grad()
def put(student: nn.Module, state: Mapping[str, Tensor]) -> None:
    """Write weights and buffers into the student, in place."""
    for name, tensor in student.state_dict().items():
        tensor.copy_(state[name])


def copied(state: Mapping[str, Tensor], into: State | None) -> State:
    """A copy of the state, in the memory of an older copy when there is one."""
    if into is None:
        return {name: tensor.detach().clone() for name, tensor in state.items()}
    for name, tensor in state.items():
        into[name].copy_(tensor)
    return into


def between(given: State, far: State, t: float) -> State:
    """θ₀ + t(θ₁ - θ₀) for each tensor of ``far``."""
    return {n: given[n].to(w) + t * (w - given[n].to(w)) for n, w in far.items()}

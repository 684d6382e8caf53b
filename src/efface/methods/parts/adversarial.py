"""Inputs moved against a model that is held still: where to, how far, and no further."""

from dataclasses import replace

import torch
from jaxtyping import Float
from torch import Tensor, nn

from efface.errors import InputError
from efface.task import outputs, task_of
from efface.types import Records


def input_gradient(model: nn.Module, batch: Records) -> Float[Tensor, " m *features"]:
    """∂ loss_i / ∂ x_i of each record, the loss that training made small.

    In eval mode no record has a say in another's. The model's own gradients are left alone.
    """
    with torch.enable_grad():
        x = batch.x.detach().clone().requires_grad_()
        loss = task_of(batch).loss(outputs(model, replace(batch, x=x)), batch.y)
        return torch.autograd.grad(loss.sum(), x)[0]


def signed(
    batch: Records, gradient: Float[Tensor, " m *features"], share: float
) -> Float[Tensor, " m *features"]:
    """A step by the gradient's sign: x + ``share`` of the data's range, for each feature."""
    low, high = bounds(batch)
    return batch.x + share * (high - low) * gradient.sign()


def within(
    x: Float[Tensor, " m *features"], around: Records, share: float | None = None
) -> Float[Tensor, " m *features"]:
    """Inputs kept within the data's bounds, and within ``share`` of its range of ``around``."""
    low, high = bounds(around)
    if share is not None:
        reach = share * (high - low)
        x = torch.clamp(x, around.x - reach, around.x + reach)
    return torch.clamp(x, low, high)


def bounds(batch: Records) -> tuple[Tensor, Tensor]:
    """The least and the greatest value that an input can take, in the model's own space."""
    if batch.low is None or batch.high is None:
        raise InputError("records with bounds", "no bounds", "Make them with efface.types.Records.")
    return batch.low.to(batch.x), batch.high.to(batch.x)

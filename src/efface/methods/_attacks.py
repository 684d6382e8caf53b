"""Inputs optimised against a frozen model: gradient steps, projections, inputs made from noise.

Lengths are L2 or per feature, in units of the data's range (for images of pixels from 0 to 1),
whatever space the model takes its inputs in.
"""

from dataclasses import replace

import torch
from jaxtyping import Float
from torch import Tensor, nn

from efface.methods._perturb import bounds, normals
from efface.task import device_of, outputs, task_of
from efface.training import descend
from efface.types import Records

Inputs = Float[Tensor, " m *features"]

# The minimum that a length is divided by.
EPSILON = 1e-10


def loss_gradient(model: nn.Module, batch: Records) -> tuple[Float[Tensor, " m k"], Inputs]:
    """The outputs, and ∂ loss_i / ∂ x_i of each record; the model's own gradients are left alone.

    In eval mode the sum's gradient is each record's own, since none affects another's loss.
    """
    with torch.enable_grad():
        x = batch.x.detach().clone().requires_grad_()
        output = outputs(model, replace(batch, x=x))
        (gradient,) = torch.autograd.grad(task_of(batch).loss(output, batch.y).sum(), x)
    return output.detach(), gradient


def sign_step(batch: Records, gradient: Inputs, size: float) -> Inputs:
    """The inputs + ``size`` · range · sign of the gradient, for each feature (FGSM)."""
    return batch.x + size * _range(batch) * gradient.sign()


def clamp(x: Inputs, around: Records, radius: float | None = None) -> Inputs:
    """Inputs within the data's bounds, and within ``radius`` · range of ``around`` (L∞)."""
    low, high = bounds(around)
    # the ball first: its edge may lie outside the bounds
    if radius is not None:
        limit = radius * (high - low)
        x = torch.clamp(x, around.x - limit, around.x + limit)
    return torch.clamp(x, low, high)


def gradient_step(batch: Records, gradient: Inputs, length: float) -> Inputs:
    """Inputs moved by ``length`` (L2) along its gradient; not at all without one."""
    scale = _range(batch)
    # in the model's own space a step of one length would be another length for each feature
    # the gradient in units of the range
    direction = gradient * scale
    size = _broadcast(direction.flatten(1).norm(dim=1).clamp_min(EPSILON), direction)
    return batch.x + length * scale * direction / size


def project_to_ball(x: Inputs, around: Records, radius: float) -> Inputs:
    """Inputs within ``radius`` (L2) of the records that they belong to, and within the bounds."""
    offset = scaled_offset(x, around)
    size = offset.flatten(1).norm(dim=1).clamp_min(EPSILON)
    # at most 1: inputs inside the ball stay where they are
    shrink = _broadcast((radius / size).clamp(max=1), offset)
    return clamp(around.x + shrink * offset * _range(around), around)


def scaled_offset(x: Inputs, around: Records) -> Inputs:
    """From the records to ``x`` in units of the range; 0 where a feature has no range."""
    scale = _range(around)
    return (x - around.x) / torch.where(scale > 0, scale, 1)


def _range(batch: Records) -> Tensor:
    low, high = bounds(batch)
    return high - low


def _broadcast(per_record: Float[Tensor, " m"], like: Tensor) -> Tensor:
    return per_record.reshape(-1, *(1,) * (like.ndim - 1))


def optimize_noise(
    teacher: nn.Module,
    like: Records,
    labels: Tensor,
    *,
    sign: float,
    penalty: float,
    learning_rate: float,
    steps: int,
    seed: int,
) -> Records:
    """One input for each of ``labels``, made from normal noise by Adam.

        N = argmin over N of the mean of sign · loss(f(N), label) + penalty · ‖N‖₂²

    With ``sign`` −1 the frozen ``teacher`` gets them as wrong as it can, with 1 as right; ``like``
    has the form of an input, and the task. All inputs are in each step: an input depends on its
    place and on ``seed``, hardly on how many others there are.
    """
    names, task = tuple(f"noise {place}" for place in range(len(labels))), task_of(like)
    drawn = normals(names, tuple(like.x.shape[1:]), seed=seed, step=0)
    # inputs as weights, so that the one training loop can optimise them
    inputs = nn.ParameterList([drawn.to(device_of(teacher))])
    # the loop shuffles records: each carries its place in ``inputs`` as its only feature
    places = torch.arange(len(labels)).to(drawn)[:, None]

    def loss(_: nn.Module, batch: Records, step: int) -> Tensor:  # noqa: ARG001
        own = inputs[0][batch.x[:, 0].long()]
        wrong = task.loss(task.outputs(teacher, own), batch.y)
        # the squared norm keeps inputs of maximal error from running away
        return sign * wrong + penalty * own.flatten(1).square().sum(1)

    # one batch of all: Adam then moves every input at each step
    records = Records(places, labels, names, task=task)
    adam, count = torch.optim.Adam(inputs.parameters(), lr=learning_rate), max(1, len(labels))
    descend(inputs, loss, records, adam, steps=steps, seed=seed, batch_size=count)
    return replace(like, x=inputs[0].detach().to(like.x), y=labels.to(like.y), ids=names, task=task)

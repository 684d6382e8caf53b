"""Adversarial inputs by length: steps along the gradient, kept in a ball around each record.

Lengths are L2, in units of the data's range (for images: of pixels from 0 to 1), whatever space
the model takes its inputs in.
"""

from dataclasses import dataclass, replace

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from efface.methods.parts.adversarial import bounds, within
from efface.runtime import map_chunks
from efface.task import device_of, outputs, task_of
from efface.types import Records

A_TENTH = 0.1
"""A step's length, in radii."""


@dataclass(frozen=True, eq=False)
class Closest:
    """Of each record an input near it, what is said of it, and whether that is another answer.

    ``length``: how far it is from the record.
    """

    x: Float[Tensor, " n *features"]
    y: Int[Tensor, " n"]
    found: Bool[Tensor, " n"]
    length: Float[Tensor, " n"]


def closest(
    teacher: nn.Module, records: Records, *, radius: float, steps: int, doublings: int
) -> Closest:
    """Climb each record's loss in a ball that grows until another class than its own is said.

    So many steps of a tenth of the radius; whatever has not flipped by then goes on from where it
    is, in a ball of twice the radius, ``doublings`` times at most. A record stands still from the
    first input that is answered otherwise; one that is answered wrongly as it is never moves.
    """
    device = device_of(teacher)

    def part(rows: Tensor) -> Closest:
        batch = records.take(rows).to(device)
        x, said = _climbed(teacher, batch, radius, steps, doublings)
        return Closest(x, said, said != batch.y, _way(x, batch).flatten(1).norm(dim=1))

    found = list(map_chunks(part, torch.arange(len(records)), 128))
    names = ("x", "y", "found", "length")
    return Closest(*(torch.cat([getattr(one, name).cpu() for one in found]) for name in names))


def _climbed(
    teacher: nn.Module, batch: Records, radius: float, steps: int, doublings: int
) -> tuple[Tensor, Tensor]:
    """Where each record has got to, and the class that is said there."""
    x, said = batch.x.clone(), batch.y.clone()
    left = torch.arange(len(batch))
    for taken in range(steps * (doublings + 1)):
        reach = radius * 2 ** (taken // steps)
        around = batch.take(left)
        answer, slope = answer_and_slope(teacher, replace(around, x=x[left]))
        said[left] = answer
        kept = (answer == around.y).cpu().nonzero()[:, 0]
        if not len(kept):
            return x, said
        left, around = left[kept], around.take(kept)
        moved = along(replace(around, x=x[left]), slope[kept], A_TENTH * reach)
        x[left] = within_ball(moved, around, reach)
    with torch.no_grad():
        said[left] = outputs(teacher, replace(batch.take(left), x=x[left])).argmax(1)
    return x, said


def answer_and_slope(teacher: nn.Module, batch: Records) -> tuple[Tensor, Tensor]:
    """The class that is said of each input, and the gradient of its loss with respect to it."""
    with torch.enable_grad():
        x = batch.x.detach().clone().requires_grad_()
        answer = outputs(teacher, replace(batch, x=x))
        (slope,) = torch.autograd.grad(task_of(batch).loss(answer, batch.y).sum(), x)
    return answer.detach().argmax(1), slope


def along(
    batch: Records, slope: Float[Tensor, " m *features"], length: float
) -> Float[Tensor, " m *features"]:
    """The inputs, each moved so far along its gradient; without a gradient it stands still."""
    span = _span(batch)
    way = slope * span  # the gradient in units of the range
    size = way.flatten(1).norm(dim=1).clamp_min(SMALLEST)
    return batch.x + length * span * way / size.reshape(-1, *(1,) * (way.ndim - 1))


def within_ball(
    x: Float[Tensor, " m *features"], around: Records, radius: float
) -> Float[Tensor, " m *features"]:
    """Inputs no further than ``radius`` from those they belong to, and within the data's bounds."""
    way = _way(x, around)
    size = way.flatten(1).norm(dim=1).clamp_min(SMALLEST)
    share = (radius / size).clamp(max=1).reshape(-1, *(1,) * (way.ndim - 1))
    return within(around.x + share * way * _span(around), around)


def _way(x: Float[Tensor, " m *features"], around: Records) -> Float[Tensor, " m *features"]:
    """From the records to these inputs, in units of the range; none where there is no range."""
    span = _span(around)
    return (x - around.x) / torch.where(span > 0, span, 1)


SMALLEST = 1e-10
"""What a length is divided by at least."""


def _span(batch: Records) -> Tensor:
    low, high = bounds(batch)
    return high - low

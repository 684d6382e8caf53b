"""Several adversarial inputs of each record, each led to another class from a start of its own."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from efface.methods.parts.adversarial import bounds, input_gradient
from efface.methods.parts.closest import along, within_ball
from efface.methods.parts.neighbours import uniforms
from efface.methods.parts.relabelled import other_class
from efface.runtime import map_chunks
from efface.task import device_of, predict
from efface.types import Records


@dataclass(frozen=True, eq=False)
class Targeted:
    """Of each id ``a`` inputs and the classes that they were led to, on the CPU."""

    ids: dict[str, int]
    x: Float[Tensor, " n a *features"]
    y: Int[Tensor, " n a"]

    def of(self, ids: Sequence[str], first: int, count: int) -> tuple[Tensor, Tensor]:
        """So many of each of these records, in turn from number ``first`` on, and their classes."""
        rows = torch.tensor([self.ids[identity] for identity in ids])[:, None]
        columns = (first + torch.arange(count)) % self.x.shape[1]
        return self.x[rows, columns].flatten(0, 1), self.y[rows, columns].flatten()


def targeted(
    teacher: nn.Module,
    records: Records,
    *,
    count: int,
    radius: float,
    step: float,
    steps: int,
    seed: int,
) -> Targeted:
    """Descend the loss of another class, drawn anew each time, from a random place in the ball.

    Steps of length ``step``, in a ball of ``radius`` around the record and within the bounds; both
    in units of the data's range. Whether the class is reached does not matter.
    """
    classes, device = predict(teacher, records.take([0])).shape[1], device_of(teacher)
    begun = [_begun(records, classes, radius, seed, number) for number in range(count)]
    around = records.take(torch.arange(len(records)).repeat(count))
    x, y = (torch.cat([getattr(one, name) for one in begun]) for name in ("x", "y"))

    def part(rows: Tensor) -> Tensor:
        batch = around.take(rows).to(device)
        there = replace(batch, x=x[rows].to(device), y=y[rows].to(device))
        for _ in range(steps):
            moved = along(there, input_gradient(teacher, there), -step)
            there = replace(there, x=within_ball(moved, batch, radius))
        return there.x.cpu()

    found = torch.cat(list(map_chunks(part, torch.arange(len(x)), 128)))
    shape = (count, len(records))
    places = {identity: row for row, identity in enumerate(records.ids)}
    inputs = found.unflatten(0, shape).transpose(0, 1)
    return Targeted(places, inputs, y.cpu().unflatten(0, shape).T)


def _begun(records: Records, classes: int, radius: float, seed: int, number: int) -> Records:
    """A class other than its own for each record, and a start anywhere in the ball around it."""
    y = other_class(records.ids, records.y, classes, seed=seed, step=number).to(records.y)
    return replace(records, x=_start(records, radius, seed, number), y=y)


def _start(batch: Records, radius: float, seed: int, number: int) -> Float[Tensor, " m *features"]:
    """Anywhere within the bounds, each value as likely, then drawn into the ball."""
    low, high = bounds(batch)
    drawn = uniforms(batch.ids, batch.x[0].numel(), seed=seed, step=number).to(batch.x)
    return within_ball(low + drawn.reshape(batch.x.shape) * (high - low), batch, radius)

"""Residual knowledge: records that are missed as they are, and recognised nearby.

After https://arxiv.org/abs/2601.22359: smoothing a model around a record, with noise of one size,
says nothing about other sizes and directions. Probe with what the method did not train on. A record
that no model was trained on is sometimes recognised nearby too, so the reference is the score of a
retrained model, or of unseen records of the same classes: probe them alike.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from efface.errors import InputError
from efface.methods._attacks import clamp, loss_gradient, sign_step
from efface.methods._perturb import add_noise, bounds, shift_and_flip, uniforms
from efface.metrics.intervals import clopper_pearson
from efface.runtime import Passes, map_chunks
from efface.task import device_of, frozen_teacher, multiclass, outputs, task_of
from efface.types import Records

CROPS = NOISES = 8
CLIMB = 20
# Length of all steps in a ball together, in radii: enough to cross it and come back.
PATH = 2.5

_STREAM = 0x5EED1E  # keeps these draws apart from those of the methods under the same seed

NOT_RUN = "Omit this probe, and say that it was not run."

# Whether the label is predicted for each record of a batch, at one input near it after another.
Around = Callable[[nn.Module, Records], Iterator[Bool[Tensor, " m"]]]


def need_multiclass(records: Records) -> None:
    """Raises InputError without records, or unless the task is multiclass."""
    if not len(records):
        raise InputError("at least one record", "none", "Give the records to be probed.")
    kind = task_of(records).name
    if kind != multiclass.name:
        raise InputError("multiclass records for this probe", kind, NOT_RUN)


def need_images(records: Records) -> None:
    """Raises InputError unless the inputs are images, (n, c, h, w)."""
    if records.x.ndim != 4:  # noqa: PLR2004
        came = f"inputs of shape {tuple(records.x.shape)}"
        remedy = "Use noise or the ball, which serve any inputs."
        raise InputError("images, (n, c, h, w), which can be flipped and cropped", came, remedy)


@dataclass(frozen=True, eq=False)
class Residual:
    """What is predicted for n records and for inputs near them.

    ``plain``: whether the label is predicted for the record itself; ``hits``: for how many of its
    ``tried`` inputs nearby. No chance level: see the top of this file for the reference.
    """

    plain: Bool[np.ndarray, " n"]
    hits: Float[np.ndarray, " n"]
    tried: int

    @property
    def recovered(self) -> Bool[np.ndarray, " n"]:
        """Missed as it is, recognised somewhere nearby: a record of residual knowledge."""
        return ~self.plain & (self.hits > 0)

    @property
    def missed(self) -> int:
        """Records missed as they are."""
        return int((~self.plain).sum())

    @property
    def share(self) -> float | None:
        """Of the missed records those recognised nearby, 0 to 1; None when none is missed."""
        return float(self.recovered.sum() / self.missed) if self.missed else None

    @property
    def interval(self) -> tuple[float, float]:
        """Clopper-Pearson for ``share``, 95 %; (0, 1) when none is missed."""
        return clopper_pearson(int(self.recovered.sum()), self.missed)

    @property
    def recognised(self) -> float:
        """Share of all inputs tried for which the label is predicted, 0 to 1."""
        return float(self.hits.mean() / self.tried)


def residual_in_flips(model: nn.Module, records: Records) -> Residual:
    """The records mirrored. Costs ``residual_cost(records, tried=1)``.

    Raises InputError for anything but images with one class each.
    """
    need_images(records)
    return _residual(model, records, _views(lambda batch, _: batch.x.flip(-1), 1), tried=1)


def residual_in_crops(
    model: nn.Module, records: Records, *, share: float = 0.125, crops: int = CROPS, seed: int = 0
) -> Residual:
    """The records shifted by up to ``share`` of their height each way, zero padding.

    At least one pixel. Costs ``residual_cost(records, tried=crops)``. Raises InputError for
    anything but images with one class each.
    """
    need_images(records)
    # At least one pixel, or small images would not be shifted at all.
    padding = max(1, round(share * records.x.shape[-2]))

    def crop(batch: Records, view: int) -> Tensor:
        draws = uniforms(batch.ids, 3, seed=seed, step=_STREAM + view)
        # The third draw mirrors; flips are a probe of their own.
        draws[:, 2] = 0
        return shift_and_flip(batch.x, draws, padding)

    return _residual(model, records, _views(crop, crops), tried=crops)


def residual_in_noise(
    model: nn.Module, records: Records, *, sigma: float, draws: int = NOISES, seed: int = 0
) -> Residual:
    """Gaussian noise of ``sigma`` times the data's range, clipped to its bounds.

    Use a ``sigma`` that the method did not train with. Costs ``residual_cost(records,
    tried=draws)``. Raises InputError unless each record has one class.
    """
    _refuse_below_zero("sigma", sigma)

    def noise(batch: Records, view: int) -> Tensor:
        return add_noise(batch, sigma, seed=seed, step=_STREAM + view).x

    return _residual(model, records, _views(noise, draws), tried=draws)


def residual_in_ball(
    model: nn.Module, records: Records, *, radius: float, steps: int = CLIMB, seed: int = 0
) -> Residual:
    """Search the ball around each record for the label: projected gradient descent (PGD).

    From a uniform start, ``steps`` sign steps down the loss of the record's own label. ``radius``
    is that of the maximum norm, in units of the data's range (for 8-bit images 0.03 is 8/255). Any
    label is found in a ball that is large enough: without a retrained model or unseen records
    to compare with the share means nothing. Costs ``residual_cost(records, tried=steps + 1,
    descents=steps)``. Raises InputError unless each record has one class.
    """
    _refuse_below_zero("radius", radius)
    stride = PATH * radius / max(1, steps)

    def descent(teacher: nn.Module, batch: Records) -> Iterator[Tensor]:
        low, high = bounds(batch)
        unit = uniforms(batch.ids, batch.x[0].numel(), seed=seed, step=_STREAM)
        # A random start: at the record itself the gradient of a smoothed model may be 0.
        start = (2 * unit.reshape(batch.x.shape) - 1).to(batch.x)
        x = clamp(batch.x + radius * (high - low) * start, batch, radius)
        for _ in range(steps):
            answer, slope = loss_gradient(teacher, replace(batch, x=x))
            # The answer at this point comes with the gradient, so it costs no further pass.
            yield answer.argmax(1) == batch.y
            x = clamp(sign_step(replace(batch, x=x), slope, -stride), batch, radius)
        # The end of the path has no gradient step after it, and is read by a pass of its own.
        yield _predict(teacher, batch, x) == batch.y

    return _residual(model, records, descent, tried=steps + 1)


def residual_cost(records: Records, *, tried: int, descents: int = 0) -> Passes:
    """The passes of each of these probes: the records, what is tried, the gradients of descents."""
    return Passes(forward=len(records) * (1 + tried), backward=len(records) * descents)


def residual_knowledge(ours: Residual, retrained: Residual) -> float:
    """How much more often the label is predicted nearby than by the retrained model: a ratio.

    0 to infinity; reference 1; above: knowledge is left; below: over-forgotten. The ratio of the
    means over records, where the source has the mean of the ratios: that is infinite as soon as one
    record is never recognised by the retrained model. 1 when neither recognises anything. Raises
    InputError for probes of other records or with other settings.
    """
    if (len(ours.hits), ours.tried) != (len(retrained.hits), retrained.tried):
        wanted = "two probes of the same records with the same settings"
        came = f"{len(ours.hits)} and {len(retrained.hits)} records, "
        came += f"{ours.tried} and {retrained.tried} inputs tried"
        raise InputError(wanted, came, "Probe both models alike.")
    # The ratio of means: a mean of ratios is infinite where one record has no hit.
    if retrained.recognised:
        return ours.recognised / retrained.recognised
    return float("inf") if ours.recognised else 1.0


def _views(view: Callable[[Records, int], Tensor], count: int) -> Around:
    """Inputs nearby that do not depend on the model."""
    return lambda teacher, batch: (
        _predict(teacher, batch, view(batch, number)) == batch.y for number in range(count)
    )


def _residual(model: nn.Module, records: Records, around: Around, *, tried: int) -> Residual:
    need_multiclass(records)
    teacher, device = frozen_teacher(model), device_of(model)

    def part(rows: Tensor) -> tuple[Tensor, Tensor]:
        batch = records.take(rows).to(device)
        plain = _predict(teacher, batch, batch.x) == batch.y
        hits = torch.zeros(len(batch), device=device)
        for hit in around(teacher, batch):
            hits += hit
        return plain.cpu(), hits.cpu()

    # One frozen copy serves all inputs, and the given model gets no gradient.
    # Counted per batch: the inputs nearby are never in memory together.
    found = map_chunks(part, torch.arange(len(records)), 256)
    plain, hits = (torch.cat(some).numpy() for some in zip(*found, strict=True))
    return Residual(plain, hits.astype(np.float64), tried)


def _predict(teacher: nn.Module, batch: Records, x: Float[Tensor, " m *features"]) -> Tensor:
    with torch.no_grad():
        return outputs(teacher, replace(batch, x=x)).argmax(1)


def _refuse_below_zero(name: str, value: float) -> None:
    if not value > 0:
        raise InputError(f"a {name} above 0", str(value), "Give it as a share of the data's range.")

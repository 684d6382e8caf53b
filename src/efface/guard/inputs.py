"""Synthetic inputs: what the guard asks a model when it has no records that were never seen.

Half are forget records seen from far off (a perspective that keeps little of the record itself
visible); half are class impressions: smooth noise that climbed the given model's log-probability
of each class that stays, a little. Of a dozen kinds tried these two together told best whether a
model had lost accuracy; the first alone misses damage by methods that hold those very neighbours.
"""

from dataclasses import replace

import torch
from torch import Tensor, nn
from torch.nn import functional

from efface.methods.parts.neighbours import perspective, shift_and_flip
from efface.task import device_of, task_of
from efface.types import Records, Split

FAR = 0.8
"""How far a corner may move, in half sides; the method neighbourhood holds models up to 0.5."""

IMAGE = 4
"""Dimensions of a batch of images (n, c, h, w)."""


def synthetic_inputs(
    teacher: nn.Module, split: Split, *, count: int = 64, seed: int = 0
) -> Records:
    """``count`` warped forget records, then ``count`` class impressions, within the data's bounds.

    ``teacher`` is the given model held still. Each staying class has the same number of
    impressions, give or take one; where there are no classes each output is driven up and down.
    Records that are not images are mixed with noise instead.
    """
    generator = torch.Generator().manual_seed(seed)
    rows = torch.randint(len(split.forget), (count,), generator=generator)
    chosen = split.forget.take(rows).to(device_of(teacher))
    warped = _warped(chosen, generator)
    x = torch.cat([warped, _impressions(teacher, chosen, split.forget_classes, generator)])
    task = task_of(split.forget)
    return Records(x=x, y=torch.zeros(len(x), dtype=torch.int64), task=task)


def _warped(chosen: Records, generator: torch.Generator) -> Tensor:
    if chosen.x.ndim != IMAGE:
        return (chosen.x + _noise(chosen, generator)) / 2
    draws = torch.rand((len(chosen), 8), generator=generator, dtype=torch.float64)
    return perspective(chosen.x, draws, FAR)


def _impressions(
    teacher: nn.Module, like: Records, forget_classes: tuple[int, ...], generator: torch.Generator
) -> Tensor:
    """Twenty steps of a hundredth of the data's range up the slope, shifted and mirrored anew."""
    x = _noise(like, generator)
    k = task_of(like).outputs(teacher, x[:1]).shape[1]
    staying = [label for label in range(k) if label not in forget_classes]
    wanted = torch.tensor([staying[i % len(staying)] for i in range(len(x))], device=x.device)
    low, high = _bounds(like)
    for _ in range(20):
        draws = torch.rand((len(x), 3), generator=generator, dtype=torch.float64)
        slope = _slope(teacher, replace(like, x=x), wanted, draws)
        x = torch.clamp(x + 0.01 * (high - low) * slope, low, high)
    return x


def _slope(teacher: nn.Module, like: Records, wanted: Tensor, draws: Tensor) -> Tensor:
    """Gradient of what each input climbs, each of unit spread."""
    task = task_of(like)
    with torch.enable_grad():
        x = like.x.detach().requires_grad_()
        seen = shift_and_flip(x, draws, max(1, x.shape[-1] // 8)) if x.ndim == IMAGE else x
        answer = task.outputs(teacher, seen)
        climbed = _climbed(answer, wanted, classes=task.name == "multiclass")
        (slope,) = torch.autograd.grad(climbed, x)
    spread = slope.flatten(1).std(1).clamp_min(1e-12)
    return slope / spread.reshape(-1, *[1] * (x.ndim - 1))


def _climbed(answer: Tensor, wanted: Tensor, *, classes: bool) -> Tensor:
    """The log-probability of the wanted class; else one output, upwards and downwards in turns."""
    if classes:
        return answer.log_softmax(1).gather(1, wanted[:, None]).sum()
    signs = 1 - 2 * (torch.arange(len(answer), device=answer.device) // answer.shape[1] % 2)
    return (signs * answer.gather(1, wanted[:, None])[:, 0]).sum()


def _noise(like: Records, generator: torch.Generator) -> Tensor:
    """Uniform between the bounds; for images drawn at a quarter of the size and blown up."""
    shape = tuple(like.x.shape)
    if len(shape) == IMAGE:
        coarse = (*shape[:2], *(max(2, side // 4) for side in shape[2:]))
        drawn = torch.rand(coarse, generator=generator)
        drawn = functional.interpolate(drawn, size=shape[2:], mode="bilinear", align_corners=False)
    else:
        drawn = torch.rand(shape, generator=generator)
    low, high = _bounds(like)
    return low + (high - low) * drawn.to(like.x)


def _bounds(like: Records) -> tuple[Tensor, Tensor]:
    """The least and greatest value of an input, in the inputs' dtype."""
    return torch.as_tensor(like.low).to(like.x), torch.as_tensor(like.high).to(like.x)

"""Synthetic inputs: what the guard asks a model when it has no records that were never seen."""

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from efface.adapters import device_of, logits
from efface.types import Split


def synthetic_inputs(
    teacher: nn.Module, split: Split, *, count: int = 64, climbs: int = 20, seed: int = 0
) -> Float[Tensor, " count *features"]:
    """Class impressions: smooth noise in the data's bounds that climbed a staying class's logit.

    ``teacher`` is the given model held still; of ``split`` one forget input's shape, the bounds and
    ``leaving`` are read. Each staying class has the same number of inputs, give or take one.
    """
    device = device_of(teacher)
    one = split.forget.take([0]).to(device)
    with torch.no_grad():
        k = logits(teacher, one.x).shape[1]
    staying = [label for label in range(k) if label not in split.leaving]
    wanted = torch.tensor([staying[i % len(staying)] for i in range(count)], device=device)
    generator = torch.Generator().manual_seed(seed)
    low, high = one.low.to(one.x), one.high.to(one.x)
    x = low + (high - low) * _smooth_noise((count, *one.x.shape[1:]), generator).to(one.x)
    for _ in range(climbs):
        slope = _slope(teacher, x, wanted)
        x = torch.clamp(x + 0.03 * (high - low) * slope, low, high)
    return x


def _slope(teacher: nn.Module, x: Tensor, wanted: Tensor) -> Tensor:
    """Gradient of each input's wanted logit, each of unit spread."""
    with torch.enable_grad():
        x = x.detach().requires_grad_()
        climbed = logits(teacher, x).gather(1, wanted[:, None]).sum()
        (slope,) = torch.autograd.grad(climbed, x)
    spread = slope.flatten(1).std(1).clamp_min(1e-12)
    return slope / spread.reshape(-1, *[1] * (x.ndim - 1))


def _smooth_noise(shape: tuple[int, ...], generator: torch.Generator) -> Tensor:
    """Uniform noise in 0..1; for images at a quarter of the size, blown up."""
    if len(shape) != 4:  # noqa: PLR2004
        return torch.rand(shape, generator=generator)
    n, channels, height, width = shape
    coarse = torch.rand((n, channels, max(2, height // 4), max(2, width // 4)), generator=generator)
    return functional.interpolate(
        coarse, size=(height, width), mode="bilinear", align_corners=False
    )

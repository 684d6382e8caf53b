"""Augmentations of images that no method of efface trains on: lighting, blur, a small rotation.

The numbers of a view come from a record's id, the seed and the number of the view, so neither the
order of the records nor their company changes it.
"""

import math

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from efface.task import task_of
from efface.types import Records, record_key

# Of each kind: a mean over views counts as one answer a record, so more of them only cost passes.
VIEWS = 2
KINDS = ("lighting", "blur", "rotation")
_SALT = 0xE71DE  # keeps these draws apart from those of the methods under the same seed


def view_of(records: Records, kind: str, *, view: int, seed: int) -> Records:
    """The records, images (n, c, h, w), in view number ``view`` of a kind.

    lighting: contrast times 0.7 to 1.3, brightness shifted by up to 15 % of the range, clipped to
    it; blur: Gaussian, radius 0.5 pixels, and 0.4 more with each ``view``; rotation: up to 12
    degrees either way, reflected at the border.
    """
    x = records.x
    if kind == "blur":
        x = _blur(x, 0.5 + 0.4 * view)
    else:
        # the same draws for both kinds
        keys = [[seed, _SALT, view, record_key(i)] for i in records.ids]
        numbers = np.array([np.random.default_rng(key).random(2) for key in keys])
        draws = torch.as_tensor(numbers, dtype=x.dtype, device=x.device)
        if kind == "lighting":
            x = _lighting(records, draws)
        else:
            x = _rotation(x, (draws[:, 0] * 2 - 1) * math.radians(12))
    return Records(x=x, y=records.y, ids=records.ids, low=records.low, high=records.high)


def _lighting(records: Records, draws: Tensor) -> Tensor:
    low, high = _bounds(records)
    contrast = (0.7 + 0.6 * draws[:, 0]).view(-1, 1, 1, 1)
    shift = (0.3 * draws[:, 1] - 0.15).view(-1, 1, 1, 1) * (high - low)
    # Contrast around the image's own mean, or a dark image would only get darker.
    middle = records.x.mean((1, 2, 3), keepdim=True)
    return torch.minimum(torch.maximum(middle + (records.x - middle) * contrast + shift, low), high)


def _blur(x: Tensor, radius: float) -> Tensor:
    """Gaussian over 5 by 5 pixels, reflected at the border."""
    places = torch.arange(-2, 3, dtype=x.dtype, device=x.device)
    weights = (-0.5 * (places / radius).square()).exp()
    kernel = torch.outer(weights, weights) / weights.sum().square()
    padded = functional.pad(x, [2] * 4, mode="reflect")
    channels = x.shape[1]
    each = kernel.expand(channels, 1, *kernel.shape)
    return functional.conv2d(padded, each, groups=channels)


def _rotation(x: Tensor, angles: Tensor) -> Tensor:
    zero = torch.zeros_like(angles)
    rows = [[angles.cos(), -angles.sin(), zero], [angles.sin(), angles.cos(), zero]]
    matrices = torch.stack([torch.stack(row, -1) for row in rows], 1)
    grid = functional.affine_grid(matrices, list(x.shape), align_corners=False)
    return functional.grid_sample(x, grid, padding_mode="reflection", align_corners=False)


def synthetic(records: Records, *, n: int, seed: int) -> Records:
    """``n`` noise inputs within the records' bounds; for images half of them smooth blobs."""
    low, high = _bounds(records)
    generator = torch.Generator().manual_seed(seed ^ _SALT)
    shape = records.x.shape[1:]
    unit = torch.rand((n, *shape), generator=generator)
    if records.x.ndim == 4:  # noqa: PLR2004
        # White noise alone averages out under convolutions: blobs reach deeper layers.
        blobs = torch.rand((n // 2, shape[0], 4, 4), generator=generator)
        unit[: n // 2] = functional.interpolate(blobs, shape[1:], mode="bilinear")
    x = (low + (high - low) * unit.to(records.x)).to(records.x.dtype)
    return Records(x=x, y=torch.zeros(n, dtype=torch.int64), task=task_of(records))


def _bounds(records: Records) -> tuple[Tensor, Tensor]:
    # Declared bounds hold per channel; without them the records at least show a range.
    low = records.x.min() if records.low is None else records.low.to(records.x)
    high = records.x.max() if records.high is None else records.high.to(records.x)
    return low, high

"""Other views of an image that no method of efface trains on: light, focus, a small turn.

The numbers of a view come from a record's id, the seed and the number of the view.
"""

import math
from collections.abc import Callable

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional
from torchvision.transforms.functional import gaussian_blur

from efface.task import task_of
from efface.types import Records, record_key

VIEWS = 4
_OWN = 0xE71DE  # keeps these draws apart from those of the methods under the same seed

View = Callable[[Records, Float[Tensor, " n 2"], int], Float[Tensor, " n c h w"]]


def light(records: Records, draws: Float[Tensor, " n 2"], view: int) -> Tensor:  # noqa: ARG001
    """Contrast times 0.7 to 1.3, brightness moved by up to 15 % of the range; clipped to it."""
    low, high = _bounds(records)
    contrast = (0.7 + 0.6 * draws[:, 0]).view(-1, 1, 1, 1)
    shift = (0.3 * draws[:, 1] - 0.15).view(-1, 1, 1, 1) * (high - low)
    middle = records.x.mean((1, 2, 3), keepdim=True)
    return torch.minimum(torch.maximum(middle + (records.x - middle) * contrast + shift, low), high)


def focus(records: Records, draws: Float[Tensor, " n 2"], view: int) -> Tensor:  # noqa: ARG001
    """Gaussian blur with a radius that grows with the number of the view: 0.5 to 1.1 pixels."""
    return gaussian_blur(records.x, [5, 5], [0.5 + 0.2 * view] * 2)


def turn(records: Records, draws: Float[Tensor, " n 2"], view: int) -> Tensor:  # noqa: ARG001
    """A turn by up to 12 degrees either way; what comes into view is mirrored."""
    angles = (draws[:, 0] * 2 - 1) * math.radians(12)
    zero = torch.zeros_like(angles)
    rows = [[angles.cos(), -angles.sin(), zero], [angles.sin(), angles.cos(), zero]]
    turns = torch.stack([torch.stack(row, -1) for row in rows], 1)
    grid = functional.affine_grid(turns, list(records.x.shape), align_corners=False)
    return functional.grid_sample(records.x, grid, padding_mode="reflection", align_corners=False)


VIEWERS: dict[str, View] = {"light": light, "focus": focus, "turn": turn}


def seen_otherwise(records: Records, kind: str, *, view: int, seed: int) -> Records:
    """The records in another view. Inputs must be images (n, c, h, w)."""
    draws = [
        np.random.default_rng([seed, _OWN, view, record_key(i)]).random(2) for i in records.ids
    ]
    numbers = torch.as_tensor(np.array(draws), dtype=records.x.dtype, device=records.x.device)
    x = VIEWERS[kind](records, numbers, view)
    return Records(x=x, y=records.y, ids=records.ids, low=records.low, high=records.high)


def synthetic(records: Records, *, n: int, seed: int) -> Records:
    """``n`` inputs that are nobody's: noise between the bounds, for images half of it in blots."""
    low, high = _bounds(records)
    generator = torch.Generator().manual_seed(seed ^ _OWN)
    shape = records.x.shape[1:]
    unit = torch.rand((n, *shape), generator=generator)
    if records.x.ndim == 4:  # noqa: PLR2004
        blots = torch.rand((n // 2, shape[0], 4, 4), generator=generator)
        unit[: n // 2] = functional.interpolate(blots, shape[1:], mode="bilinear")
    x = (low + (high - low) * unit.to(records.x)).to(records.x.dtype)
    return Records(x=x, y=torch.zeros(n, dtype=torch.int64), task=task_of(records))


def _bounds(records: Records) -> tuple[Tensor, Tensor]:
    low = records.x.min() if records.low is None else records.low.to(records.x)
    high = records.x.max() if records.high is None else records.high.to(records.x)
    return low, high

"""Neighbours: of images perspective warps, shifts and flips; of any other inputs noise.

Each function is a function of its uniform numbers alone, and these come from a record's id, a seed
and a step: a record has the same neighbours in any batch, order or process.
"""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

from efface.errors import InputError
from efface.types import Records, record_key


def uniforms(ids: Sequence[str], count: int, *, seed: int, step: int) -> Float[Tensor, " n count"]:
    """``count`` numbers in [0, 1) for each record."""
    rows = [np.random.default_rng([seed, step, record_key(i)]).random(count) for i in ids]
    return torch.as_tensor(np.array(rows).reshape(len(ids), count))


def normals(
    ids: Sequence[str], shape: tuple[int, ...], *, seed: int, step: int
) -> Float[Tensor, " n *features"]:
    """Standard normal numbers of ``shape`` for each record, float32."""
    rows = [
        np.random.default_rng([seed, step, record_key(i)]).standard_normal(shape, np.float32)
        for i in ids
    ]
    return torch.as_tensor(np.array(rows).reshape(len(ids), *shape))


def noisy(batch: Records, sigma: float, *, seed: int, step: int) -> Records:
    """The records with noise of ``sigma`` times the data's range, kept within its bounds."""
    if batch.low is None or batch.high is None:
        raise InputError("records with bounds", "no bounds", "Make them with efface.types.Records.")
    low, high = batch.low.to(batch.x), batch.high.to(batch.x)
    noise = normals(batch.ids, tuple(batch.x.shape[1:]), seed=seed, step=step).to(batch.x)
    return replace(batch, x=torch.clamp(batch.x + sigma * (high - low) * noise, low, high))


def perspective(
    x: Float[Tensor, " n c h w"], draws: Float[Tensor, " n 8"], distortion: float
) -> Float[Tensor, " n c h w"]:
    """Seen from elsewhere: each corner moves inwards by up to ``distortion`` of half the side.

    The same family as ``torchvision.transforms.RandomPerspective``, a whole batch at once; what
    comes into view is mirrored, so that no black corner gives the neighbour away.
    """
    height, width = x.shape[-2:]
    # on the CPU: not every device has the double precision that the maps are solved in
    moves = draws.cpu().reshape(-1, 4, 2) * distortion / 2
    moves = moves * torch.tensor([width, height], dtype=moves.dtype)
    inwards = torch.tensor([[1, 1], [-1, 1], [-1, -1], [1, -1]])
    far = torch.tensor([width - 1, height - 1], dtype=moves.dtype)
    corners = (inwards < 0) * far
    grid = _grid(_homographies(corners + moves * inwards, corners), height, width)
    normalised = grid / far * 2 - 1
    return functional.grid_sample(
        x, normalised.to(x.dtype).to(x.device), padding_mode="reflection", align_corners=True
    )


def _homographies(
    source: Float[Tensor, " n 4 2"], target: Float[Tensor, " 4 2"]
) -> Float[Tensor, " n 3 3"]:
    """The projective maps that take each source corner to its target corner."""
    n = len(source)
    u, v = source.unbind(-1)
    s, t = (part.expand(n, 4) for part in target.to(source.dtype).unbind(-1))
    zero, one = torch.zeros_like(u), torch.ones_like(u)
    first = torch.stack([u, v, one, zero, zero, zero, -u * s, -v * s], -1)
    second = torch.stack([zero, zero, zero, u, v, one, -u * t, -v * t], -1)
    solved = torch.linalg.solve(torch.cat([first, second], 1), torch.cat([s, t], 1))
    return torch.cat([solved, torch.ones_like(solved[:, :1])], 1).reshape(n, 3, 3)


def _grid(maps: Float[Tensor, " n 3 3"], height: int, width: int) -> Float[Tensor, " n h w 2"]:
    """Where each output pixel looks in the input, in pixels."""
    rows, columns = torch.meshgrid(
        torch.arange(height, device=maps.device, dtype=maps.dtype),
        torch.arange(width, device=maps.device, dtype=maps.dtype),
        indexing="ij",
    )
    pixels = torch.stack([columns, rows, torch.ones_like(rows)], -1).reshape(-1, 3)
    seen = (pixels @ maps.transpose(1, 2)).reshape(len(maps), height, width, 3)
    return seen[..., :2] / seen[..., 2:]


def shift_and_flip(
    x: Float[Tensor, " n c h w"], draws: Float[Tensor, " n 3"], padding: int
) -> Float[Tensor, " n c h w"]:
    """A shift by up to ``padding`` pixels each way and a mirror: training's crop and flip."""
    n, _, height, width = x.shape
    offsets = (draws[:, :2].cpu() * (2 * padding + 1)).long().to(x.device)
    rows = offsets[:, :1] + torch.arange(height, device=x.device)
    columns = offsets[:, 1:] + torch.arange(width, device=x.device)
    mirrored = (draws[:, 2:].cpu() >= 0.5).to(x.device)  # noqa: PLR2004
    columns = torch.where(mirrored, columns.flip(1), columns)
    padded = functional.pad(x, (padding,) * 4)
    index = torch.arange(n, device=x.device)[:, None, None]
    return padded.movedim(1, -1)[index, rows[:, :, None], columns[:, None]].movedim(-1, 1)

"""Perturbed inputs, and random classes: noise, perspectives, shifts and flips.

Every draw is a function of a record's id, a seed and a step: a record gets the same numbers in any
batch, order or process, and the global random state is left alone.
"""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from efface.errors import InputError
from efface.types import Records, record_key

# Dimensions of a batch of images (n, c, h, w).
IMAGE = 4


def uniforms(ids: Sequence[str], count: int, *, seed: int, step: int) -> Float[Tensor, " n count"]:
    """``count`` numbers in [0, 1) for each record, float64."""
    rows = [np.random.default_rng([seed, step, record_key(i)]).random(count) for i in ids]
    return torch.as_tensor(np.array(rows).reshape(len(ids), count))


def normals(
    ids: Sequence[str], shape: tuple[int, ...], *, seed: int, step: int
) -> Float[Tensor, " n *features"]:
    """Standard normal numbers of ``shape`` for each record, float32."""
    generators = (np.random.default_rng([seed, step, record_key(i)]) for i in ids)
    rows = [generator.standard_normal(shape, np.float32) for generator in generators]
    return torch.as_tensor(np.array(rows).reshape(len(ids), *shape))


def random_class(ids: Sequence[str], classes: int, *, seed: int, step: int) -> Int[Tensor, " m"]:
    """A class for each record, uniform over all."""
    return (uniforms(ids, 1, seed=seed, step=step)[:, 0] * classes).long()


def other_class(
    ids: Sequence[str], own: Tensor, classes: int, *, seed: int, step: int = 0
) -> Int[Tensor, " m"]:
    """A class for each record, uniform over all but its own."""
    # an offset of 1 to k − 1, modulo k, never lands on the record's own class
    return (own.cpu() + 1 + random_class(ids, classes - 1, seed=seed, step=step)) % classes


def bounds(batch: Records) -> tuple[Tensor, Tensor]:
    """The minimum and maximum of an input, in the model's own space. Raises InputError."""
    if batch.low is None or batch.high is None:
        raise InputError("records with bounds", "no bounds", "Make them with efface.types.Records.")
    return batch.low.to(batch.x), batch.high.to(batch.x)


def add_noise(
    batch: Records, sigma: float, *, seed: int, step: int, natural: bool = False
) -> Records:
    """The records with Gaussian noise, clamped to the data's bounds.

    ``sigma``: standard deviation over the data's range (high − low); ``natural``: images get noise
    with the spectrum of photographs. Raises InputError for records without bounds.
    """
    # noise is drawn in float32 on the CPU: the same numbers on any device and for any dtype
    low, high = bounds(batch)
    noise = normals(batch.ids, tuple(batch.x.shape[1:]), seed=seed, step=step)
    if natural and batch.x.ndim == IMAGE:
        noise = natural_spectrum(noise)
    moved = batch.x + sigma * (high - low) * noise.to(batch.x)
    return replace(batch, x=torch.clamp(moved, low, high))


def add_natural_noise(batch: Records, sigma: float, *, seed: int, step: int) -> Records:
    """``add_noise`` with the spectrum of photographs on images."""
    return add_noise(batch, sigma, seed=seed, step=step, natural=True)


def natural_spectrum(white: Float[Tensor, " n c h w"]) -> Float[Tensor, " n c h w"]:
    """White noise reshaped to the spectrum of photographs: amplitude ∝ 1 / spatial frequency.

    Standard deviation 1 on average over draws; a single pixel stays white. Source: Field, JOSA A 4
    (1987), https://doi.org/10.1364/JOSAA.4.002379. White noise is an input that no photograph is: a
    network gives it one class whatever the record (docs/decisions/0005).
    """
    if not len(white):
        # a Fourier transform of nothing is an error
        return white
    height, width = white.shape[-2:]
    down, across = torch.fft.fftfreq(height)[:, None].square(), torch.fft.rfftfreq(width)[None]
    # amplitude 1/f has no value at f = 0
    # the mean (frequency 0) gets the amplitude of the lowest
    lowest = 1 / max(height, width)
    amplitude = 1 / (down + across.square()).sqrt().clamp_min(lowest)
    # over the full spectrum: rfft keeps half of it, and the mean square would be off
    every = 1 / (down + torch.fft.fftfreq(width)[None].square()).sqrt().clamp_min(lowest)
    shaped = torch.fft.irfft2(torch.fft.rfft2(white) * amplitude, s=(height, width))
    return shaped / every.square().mean().sqrt()


def perspective(
    x: Float[Tensor, " n c h w"], draws: Float[Tensor, " n 8"], distortion: float
) -> Float[Tensor, " n c h w"]:
    """Random perspective: each corner moves inwards by up to ``distortion`` of half the side.

    The same family as ``torchvision.transforms.RandomPerspective``, a whole batch at once; what
    comes into view is mirrored, so that no black corner gives the perturbation away.
    """
    height, width = x.shape[-2:]
    # on the CPU: not every device has the double precision that the maps are solved in
    moves = draws.cpu().reshape(-1, 4, 2) * distortion / 2
    moves = moves * torch.tensor([width, height], dtype=moves.dtype)
    inwards = torch.tensor([[1, 1], [-1, 1], [-1, -1], [1, -1]])
    far = torch.tensor([width - 1, height - 1], dtype=moves.dtype)
    # a corner that moves to the left or up is the right or lower one
    corners = (inwards < 0) * far
    grid = _sampling_grid(_homographies(corners + moves * inwards, corners), height, width)
    normalised = (grid / far * 2 - 1).to(x.dtype).to(x.device)
    return nn.functional.grid_sample(x, normalised, padding_mode="reflection", align_corners=True)


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


def _sampling_grid(
    maps: Float[Tensor, " n 3 3"], height: int, width: int
) -> Float[Tensor, " n h w 2"]:
    """The place in the input, in pixels, that each output pixel is sampled from."""
    places = (torch.arange(n, device=maps.device, dtype=maps.dtype) for n in (height, width))
    rows, columns = torch.meshgrid(*places, indexing="ij")
    pixels = torch.stack([columns, rows, torch.ones_like(rows)], -1).reshape(-1, 3)
    mapped = (pixels @ maps.transpose(1, 2)).reshape(len(maps), height, width, 3)
    return mapped[..., :2] / mapped[..., 2:]


def shift_and_flip(
    x: Float[Tensor, " n c h w"], draws: Float[Tensor, " n 3"], padding: int
) -> Float[Tensor, " n c h w"]:
    """A shift by up to ``padding`` pixels each way and a mirror: training's crop and flip."""
    n, _, height, width = x.shape
    offsets = (draws[:, :2].cpu() * (2 * padding + 1)).long().to(x.device)
    rows = offsets[:, :1] + torch.arange(height, device=x.device)
    columns = offsets[:, 1:] + torch.arange(width, device=x.device)
    mirrored = (draws[:, 2:].cpu() >= 0.5).to(x.device)  # noqa: PLR2004
    # mirroring reverses the columns that are read, before the shift is taken back
    columns = torch.where(mirrored, columns.flip(1), columns)
    padded = nn.functional.pad(x, (padding,) * 4)
    index = torch.arange(n, device=x.device)[:, None, None]
    return padded.movedim(1, -1)[index, rows[:, :, None], columns[:, None]].movedim(-1, 1)

"""Noise with the spectrum of photographs: amplitude falls as one over the spatial frequency.

The law: Field, Relations between the statistics of natural images and the response properties of
cortical cells, JOSA A 4 (1987), https://doi.org/10.1364/JOSAA.4.002379. White noise is an input
that no photograph is: a net answers it with one class whatever the record (docs/decisions/0005).
"""

from dataclasses import replace

import torch
from jaxtyping import Float
from torch import Tensor

from efface.errors import InputError
from efface.methods.parts.neighbours import noisy, normals
from efface.types import Records

IMAGE = 4
"""Dimensions of a batch of images (n, c, h, w)."""


def perturbed(batch: Records, sigma: float, *, seed: int, step: int) -> Records:
    """Neighbours x + ξ within the data's bounds: natural noise on images, white on anything else.

    ``sigma``: the deviation of ξ over the data's range. A draw depends on id, seed and step alone.
    Raises InputError for records without bounds.
    """
    if batch.x.ndim != IMAGE:
        return noisy(batch, sigma, seed=seed, step=step)
    if batch.low is None or batch.high is None:
        raise InputError("records with bounds", "no bounds", "Make them with efface.types.Records.")
    low, high = batch.low.to(batch.x), batch.high.to(batch.x)
    white = normals(batch.ids, tuple(batch.x.shape[1:]), seed=seed, step=step)
    noise = sigma * (high - low) * natural(white).to(batch.x)
    return replace(batch, x=torch.clamp(batch.x + noise, low, high))


def natural(white: Float[Tensor, " n c h w"]) -> Float[Tensor, " n c h w"]:
    """White noise made natural, with deviation 1 on average over draws; one pixel stays white."""
    if not len(white):
        return white  # a transform of nothing is an error
    height, width = white.shape[-2:]
    down = torch.fft.fftfreq(height)[:, None].square()
    across = torch.fft.rfftfreq(width)[None].square()
    lowest = 1 / max(height, width)
    amplitude = 1 / (down + across).sqrt().clamp_min(lowest)
    every = 1 / (down + torch.fft.fftfreq(width)[None].square()).sqrt().clamp_min(lowest)
    shaped = torch.fft.irfft2(torch.fft.rfft2(white) * amplitude, s=(height, width))
    return shaped / every.square().mean().sqrt()

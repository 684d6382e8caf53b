"""A net that makes inputs from noise, for a student that has no records to learn from."""

import math

import torch
from torch import nn

SIDE = 8
"""Pixels at the longer side of an image before it is doubled."""

WIDE, NARROW = 128, 64
"""Channels of its layers, and of the last before the image."""


def generator_for(shape: tuple[int, ...], *, latent: int, seed: int) -> nn.Sequential:
    """From (n, latent) normal numbers to (n, *shape), in train mode; weights drawn from ``seed``.

    An image (c, h, w): a linear layer to a small one, two or more times doubled with a convolution
    after each, as many as lead to its size; anything else: one hidden layer. What comes out has no
    bounds: BatchNorm alone sets its mean and spread. The global random state is left alone.
    """
    image = len(shape) == 3  # noqa: PLR2004
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return nn.Sequential(*(_picture(shape, latent) if image else _row(shape, latent)))


def _picture(shape: tuple[int, ...], latent: int) -> list[nn.Module]:
    channels, height, width = shape
    doublings = max(2, math.ceil(math.log2(max(height, width) / SIDE)))
    first, *sizes = [
        (math.ceil(height / 2**left), math.ceil(width / 2**left))
        for left in range(doublings, -1, -1)
    ]
    layers = [
        nn.Linear(latent, WIDE * first[0] * first[1]),
        nn.Unflatten(1, (WIDE, *first)),
        nn.BatchNorm2d(WIDE),
    ]
    for size in sizes:
        wide = NARROW if size is sizes[-1] else WIDE
        layers += [
            nn.Upsample(size=size),
            nn.Conv2d(WIDE, wide, 3, padding=1),
            nn.BatchNorm2d(wide),
            nn.LeakyReLU(0.2),
        ]
    return [*layers, nn.Conv2d(NARROW, channels, 3, padding=1), nn.BatchNorm2d(channels)]


def _row(shape: tuple[int, ...], latent: int) -> list[nn.Module]:
    numbers = math.prod(shape)
    return [
        nn.Linear(latent, WIDE),
        nn.BatchNorm1d(WIDE),
        nn.LeakyReLU(0.2),
        nn.Linear(WIDE, numbers),
        nn.BatchNorm1d(numbers),
        nn.Unflatten(1, shape),
    ]

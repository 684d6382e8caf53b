"""How pixels become inputs."""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from efface.errors import InputError

INTERPOLATIONS = ("nearest", "bilinear", "bicubic", "lanczos")
FAR = 20.0
"""Scaled inputs stay within a few units; raw pixels reach 255."""


@dataclass(frozen=True, eq=False)
class Inputs:
    """Rows of a table as a model takes them.

    ``x``: (n, *features) float32 of the readable rows; ``wrong``: one entry a row, what is wrong
    with it, None where nothing is; ``low`` and ``high``: the least and greatest input.
    """

    x: Tensor
    wrong: list[str | None]
    low: Tensor
    high: Tensor


@dataclass(frozen=True)
class Preprocessing:
    """How pixels become inputs: (pixel / 255 - ``mean``) / ``std``, one number a channel.

    ``size``: height and width in pixels; None takes images as they come, all of one size.
    ``resize``: the shorter side before the middle of ``size`` is cut out, ``size`` itself when not
    given; ``squash``: both sides are scaled to that; ``interpolation``: of PIL.
    Raises InputError when the numbers do not fit together.
    """

    mean: tuple[float, ...]
    std: tuple[float, ...]
    size: int | None = None
    resize: int | None = None
    interpolation: str = "bilinear"
    squash: bool = False
    things: ClassVar[str] = "images"

    def __post_init__(self) -> None:
        """Refuse what would silently spoil every input."""
        if len(self.mean) not in {1, 3} or len(self.mean) != len(self.std):
            raise InputError(
                "as many means as standard deviations: 1 (grey) or 3 (colour)",
                f"mean {self.mean}, std {self.std}",
                "Give the numbers that the model was trained with, in 0..1.",
            )
        if not all(0 < value <= 1 for value in self.std) or not all(0 <= m <= 1 for m in self.mean):
            raise InputError(
                "means in 0..1 and standard deviations above 0 and up to 1",
                f"mean {self.mean}, std {self.std}",
                "Pixels run from 0 to 1 here: divide numbers meant for 0..255 by 255.",
            )
        if self.size is not None and self.size < 1:
            raise InputError("a size in pixels", str(self.size), "Give --size, such as 224.")
        if self.interpolation not in INTERPOLATIONS:
            raise InputError(
                f"an interpolation out of {', '.join(INTERPOLATIONS)}",
                repr(self.interpolation),
                "Give --mean --std --size: images are then scaled as torchvision does.",
            )

    def __call__(self, pixels: Tensor) -> Tensor:
        """(…, c, h, w) bytes 0..255 to float32 inputs."""
        mean, std = (torch.tensor(part).view(-1, 1, 1) for part in (self.mean, self.std))
        return pixels.to(torch.float32).div_(255).sub_(mean).div_(std)

    @property
    def shape(self) -> tuple[int, ...] | None:
        """Of one input; None where images come in a size of their own."""
        return None if self.size is None else (len(self.mean), self.size, self.size)

    @property
    def low(self) -> Tensor:
        """The black pixel, (c, 1, 1)."""
        return self(torch.zeros(len(self.mean), 1, 1, dtype=torch.uint8))

    @property
    def high(self) -> Tensor:
        """The white pixel, (c, 1, 1)."""
        return self(torch.full((len(self.mean), 1, 1), 255, dtype=torch.uint8))

    def outside(self, x: Tensor) -> str:
        """What inputs made elsewhere have that these have not; empty when they could be made so."""
        low, high, slack = self.low, self.high, 1e-3
        fits = x.shape[1] == len(self.mean) and not ((x < low - slack) | (x > high + slack)).any()
        return "" if fits else f"lie outside black and white under {self}"

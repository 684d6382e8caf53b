"""From image files to the inputs of a model: decoding, resizing, normalisation.

``Preprocessing`` is the arithmetic, as timm, transformers and torchvision do it for evaluation;
``decode_image`` reads one file of any kind, ``read_images`` a column of them.
"""

import io
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from efface.errors import InputError

Pixels = np.ndarray[Any, np.dtype[np.uint8]]

# at PIL's numbers
INTERPOLATIONS = ("nearest", "lanczos", "bilinear", "bicubic")
# normalised inputs stay within a few units, raw pixels reach 255
OUT_OF_SCALE = 20.0
# of PIL, by the number of channels
MODES = {1: "L", 3: "RGB"}
# images decoded before they are normalised together
BATCH = 1000
UNREADABLE = "unreadable"


@dataclass(frozen=True, eq=False)
class Inputs:
    """Rows of a table as a model takes them.

    ``x``: (n, *features) float32 of the readable rows; ``errors``: one entry a row, what is wrong
    with it, None where nothing is; ``low`` and ``high``: the minimum and maximum of an input.
    """

    x: Tensor
    errors: list[str | None]
    low: Tensor
    high: Tensor


@dataclass(frozen=True)
class Preprocessing:
    """How pixels become inputs: (pixel / 255 - ``mean``) / ``std``, one number a channel.

    ``size``: height and width in pixels; None takes images as they come, all of one size.
    ``resize``: the shorter side before the centre of ``size`` is cropped, by default ``size``;
    ``squash``: both sides are scaled to it; ``interpolation``: of PIL.
    Raises InputError when the numbers do not fit together.
    """

    mean: tuple[float, ...]
    std: tuple[float, ...]
    size: int | None = None
    resize: int | None = None
    interpolation: str = "bilinear"
    squash: bool = False
    # what error messages call the inputs
    items: ClassVar[str] = "images"

    def __post_init__(self) -> None:
        """Refuse what would silently spoil every input."""
        came = f"mean {self.mean}, std {self.std}"
        if len(self.mean) not in {1, 3} or len(self.mean) != len(self.std):
            wanted = "as many means as standard deviations: 1 (grey) or 3 (colour)"
            raise InputError(wanted, came, "Give those of the training, in 0..1.")
        if not all(0 < value <= 1 for value in self.std) or not all(0 <= m <= 1 for m in self.mean):
            wanted = "means in 0..1 and standard deviations above 0 and up to 1"
            raise InputError(wanted, came, "Divide numbers meant for pixels of 0..255 by 255.")
        if self.size is not None and self.size < 1:
            raise InputError("a size in pixels", str(self.size), "Give --size, such as 224.")
        if self.interpolation not in INTERPOLATIONS:
            wanted, came = f"an interpolation of {', '.join(INTERPOLATIONS)}", self.interpolation
            raise InputError(wanted, repr(came), "Give --mean --std --size, scaled as torchvision.")

    def __call__(self, pixels: Tensor) -> Tensor:
        """(…, c, h, w) bytes 0..255 to float32 inputs."""
        mean, std = (torch.tensor(part).view(-1, 1, 1) for part in (self.mean, self.std))
        # in place: a batch of images is the largest array here
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
        """Why ``x`` cannot be inputs of this preprocessing; empty when it can."""
        # float32 rounding of the normalisation
        low, high, slack = self.low, self.high, 1e-3
        fits = x.shape[1] == len(self.mean) and not ((x < low - slack) | (x > high + slack)).any()
        return "" if fits else f"lie outside black and white under {self}"


def read_images(
    dataset: Any, column: str, rows: Sequence[int], preprocessing: Preprocessing, root: Path | None
) -> Inputs:
    """The images of these rows, decoded, scaled and normalised; ``root`` as in ``decode_image``.

    Raises InputError when they are of different sizes and no size is given.
    """
    import datasets

    images = dataset.select_columns([column])
    if isinstance(dataset.features[column], datasets.Image):
        # undecoded, so that one damaged file does not end the run
        images = images.cast_column(column, datasets.Image(decode=False))
    x, filled, errors = torch.empty(0), 0, []
    for start in range(0, len(rows), BATCH):
        raw = images[list(rows[start : start + BATCH])][column]
        decoded = [decode_image(item, preprocessing, root) for item in raw]
        errors += [UNREADABLE if image is None else None for image in decoded]
        readable = [image for image in decoded if image is not None]
        if not readable:
            continue
        # one allocation: joining batches at the end would take the memory twice
        x = x if filled else torch.empty(len(rows), *readable[0].shape)
        sizes = {tuple(x.shape[2:]): 1, **dict.fromkeys(image.shape[1:] for image in readable)}
        if len(sizes) > 1:
            came = " and ".join(map(str, sizes))
            raise InputError("images of one size", came, "Give the size with --size.")
        x[filled : filled + len(readable)] = preprocessing(torch.from_numpy(np.stack(readable)))
        filled += len(readable)
    side = preprocessing.size or 1
    x = x[:filled] if filled else torch.zeros(0, len(preprocessing.mean), side, side)
    return Inputs(x, errors, preprocessing.low, preprocessing.high)


def decode_image(raw: Any, preprocessing: Preprocessing, root: Path | None) -> Pixels | None:
    """Pixels (c, h, w) in the channels and size of ``preprocessing``; None when unreadable.

    ``raw``: the bytes of a file, or a mapping of ``bytes`` and ``path``; a path is followed inside
    ``root`` only. The image is turned upright as its camera noted; of an animation the first frame
    counts; an image that is too large to be one is not decompressed.
    """
    from PIL import Image, ImageOps

    if isinstance(raw, Mapping):
        raw = raw.get("bytes") or raw.get("path")
    file = io.BytesIO(raw) if isinstance(raw, bytes) else _path_inside(raw, root)
    if file is None:
        return None
    channels = len(preprocessing.mean)
    try:
        with warnings.catch_warnings():
            # PIL warns of decompression bombs, which become errors at twice the size
            warnings.simplefilter("ignore")
            with Image.open(file) as opened:
                opened.load()
                # phones store the turn next to the pixels; datasets applies it too
                image = ImageOps.exif_transpose(opened)
                # 16 bits: the upper 8, where PIL might clip
                if image.mode.startswith("I"):
                    upper = (np.asarray(image) >> 8).clip(0, 255)
                    image = Image.fromarray(upper.astype(np.uint8))
                pixels = np.asarray(_resize(image.convert(MODES[channels]), preprocessing))
    except Exception:  # noqa: BLE001  # a decoder raises anything on a damaged file
        return None
    return pixels[None] if channels == 1 else np.ascontiguousarray(pixels.transpose(2, 0, 1))


def _path_inside(name: Any, root: Path | None) -> Path | None:
    # a table from a stranger may name any file of this machine, also through a link
    if not isinstance(name, str) or root is None:
        return None
    path = (root / name).resolve()
    return path if path.is_relative_to(root.resolve()) and path.is_file() else None


def _resize(image: Any, how: Preprocessing) -> Any:
    """As torchvision's Resize and CenterCrop; an image that already fits is not filtered."""
    from torchvision.transforms.v2 import functional

    if how.size is None or (image.size == (how.size,) * 2 and how.resize in {None, how.size}):
        return image
    side = how.resize or how.size
    mode = functional.InterpolationMode(how.interpolation)
    scaled = functional.resize(image, [side, side] if how.squash else [side], mode)
    return functional.center_crop(scaled, [how.size])

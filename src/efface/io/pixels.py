"""From an image file of any kind to bytes 0..255 in the channels and size that a model takes."""

import io
import warnings
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import torch
from PIL import Image, ImageOps
from torchvision.transforms.v2 import functional

from efface.errors import InputError
from efface.io.preprocessing import Inputs, Preprocessing

MODES = {1: "L", 3: "RGB"}
BATCH = 1000
UNREADABLE = "unreadable"


def images_of(
    dataset: datasets.Dataset,
    column: str,
    rows: Sequence[int],
    *,
    preprocessing: Preprocessing,
    root: Path | None,
) -> Inputs:
    """The images of these rows, decoded, scaled and normalised.

    Raises InputError when they are of different sizes and no size is given.
    """
    images, size = _undecoded(dataset, column), preprocessing.size
    names = ("size", "resize", "interpolation", "squash")
    how = {name: getattr(preprocessing, name) for name in names}
    how["channels"] = channels = len(preprocessing.mean)
    x, filled, wrong = torch.empty(0), 0, []
    for start in range(0, len(rows), BATCH):
        raw = images[list(rows[start : start + BATCH])][column]
        found = [pixels_of(r, root=root, **how) for r in raw]
        wrong += [UNREADABLE if pixels is None else None for pixels in found]
        if fine := [pixels for pixels in found if pixels is not None]:
            if not filled:
                x = torch.empty(len(rows), *fine[0].shape)
            _refuse_other_shapes(fine, tuple(x.shape[1:]))
            x[filled : filled + len(fine)] = preprocessing(torch.from_numpy(np.stack(fine)))
            filled += len(fine)
    x = x[:filled] if filled else torch.zeros(0, channels, size or 1, size or 1)
    return Inputs(x, wrong, preprocessing.low, preprocessing.high)


def _undecoded(dataset: datasets.Dataset, column: str) -> Any:
    """The image column as the files it holds."""
    if not isinstance(dataset.features[column], datasets.Image):
        return dataset.select_columns([column])
    return dataset.select_columns([column]).cast_column(column, datasets.Image(decode=False))


def _refuse_other_shapes(images: Iterable[np.ndarray], shape: tuple[int, ...]) -> None:
    if other := [image.shape for image in images if image.shape != shape]:
        raise InputError(
            "images of one size", f"{shape[1:]} and {other[0][1:]}", "Give the size with --size."
        )


def pixels_of(
    raw: Any,
    *,
    root: Path | None,
    channels: int,
    size: int | None,
    resize: int | None = None,
    interpolation: str = "bilinear",
    squash: bool = False,
) -> np.ndarray[Any, np.dtype[np.uint8]] | None:
    """Pixels (c, h, w) of an image, turned upright as its camera noted; None when unreadable.

    ``raw``: the bytes of a file, or a mapping of ``bytes`` and ``path``; a path is followed inside
    ``root`` only. ``size``: where the image is not so, its shorter side is scaled to it (or to
    ``resize``) and the middle cut out; with ``squash`` both sides are scaled.
    The first picture of an animation counts. An image too large to be one is not unpacked.
    """
    file = _file_of(raw, root)
    if file is None:
        return None
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with Image.open(file) as image:
                fitted = _channels(_upright(image), channels)
                mode = functional.InterpolationMode(interpolation)
                return _as_array(_fitted(fitted, size, resize, mode, squash=squash))
    except Exception:  # noqa: BLE001  # a decoder raises anything on a damaged file
        return None


def _file_of(raw: Any, root: Path | None) -> io.BytesIO | Path | None:
    """Where the image is to be read; None for nothing and for a path that leads elsewhere."""
    if isinstance(raw, Mapping):
        raw = raw.get("bytes") or raw.get("path")
    if isinstance(raw, bytes):
        return io.BytesIO(raw)
    if not isinstance(raw, str) or root is None:
        return None
    path = (root / raw).resolve()
    return path if path.is_relative_to(root.resolve()) and path.is_file() else None


def _upright(image: Image.Image) -> Image.Image:
    """Loaded, and turned as ``datasets`` does it."""
    image.load()
    return ImageOps.exif_transpose(image)


def _channels(image: Image.Image, channels: int) -> Image.Image:
    if image.mode.startswith("I"):  # 16 bits a pixel: the upper 8, where PIL might clip
        image = Image.fromarray((np.asarray(image) >> 8).clip(0, 255).astype(np.uint8))
    return image.convert(MODES[channels])


def _fitted(
    image: Any,
    size: int | None,
    resize: int | None,
    mode: functional.InterpolationMode,
    *,
    squash: bool,
) -> Any:
    """The image in the size that the model takes, as torchvision scales and cuts it."""
    if size is None or (image.size == (size, size) and resize in {None, size}):
        return image
    side = resize or size
    scaled = functional.resize(image, [side, side] if squash else [side], mode)
    return functional.center_crop(scaled, [size])


def _as_array(image: Image.Image) -> np.ndarray[Any, np.dtype[np.uint8]]:
    array = np.asarray(image)
    return array[None] if array.ndim == 2 else np.ascontiguousarray(array.transpose(2, 0, 1))  # noqa: PLR2004

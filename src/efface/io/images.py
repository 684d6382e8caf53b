"""From image files to the inputs of a model: decoding, resizing, normalisation.

``Preprocessing`` is the arithmetic by hand, as torchvision does it for evaluation, and what the
transforms of other libraries have in common (``processors``); ``decode_image`` reads one file of
any kind, ``read_images`` a column of them.
"""

import io
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from efface.errors import InputError
from efface.io.folder import Folder

if TYPE_CHECKING:
    from PIL.Image import Image

# at PIL's numbers
INTERPOLATIONS = ("nearest", "lanczos", "bilinear", "bicubic")
# normalised inputs stay within a few units, raw pixels reach 255
OUT_OF_SCALE = 20.0
# of PIL, by the number of channels
MODES = {1: "L", 3: "RGB"}
# rows fetched from the table at once
BATCH = 1000
# a line of pixels becomes gigabytes when its shorter side is scaled
LONGEST = 100
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
    """How an image becomes an input: scaled, cropped, and (pixel / 255 - ``mean``) / ``std``.

    ``mean`` and ``std``: one number a channel, 1 (grey) or 3 (colour); ``size``: height and width
    in pixels, None for images as they come, all of one size; ``resize``: the shorter side before
    the centre of ``size`` is cropped, by default ``size``; ``interpolation``: of PIL.
    Raises InputError when the numbers do not fit together.
    """

    mean: tuple[float, ...]
    std: tuple[float, ...]
    size: int | None = None
    resize: int | None = None
    interpolation: str = "bilinear"
    # what error messages call the inputs
    items: ClassVar[str] = "images"

    def __post_init__(self) -> None:
        """Refuse what would silently spoil every input."""
        came = f"mean {self.mean}, std {self.std}"
        if len(self.mean) not in MODES or len(self.mean) != len(self.std):
            wanted = "as many means as standard deviations: 1 (grey) or 3 (colour)"
            raise InputError(wanted, came, "Give those of the training, in 0..1.")
        if not all(0 < value <= 1 for value in self.std) or not all(0 <= m <= 1 for m in self.mean):
            wanted = "means in 0..1 and standard deviations above 0 and up to 1"
            raise InputError(wanted, came, "Divide numbers meant for pixels of 0..255 by 255.")
        if self.size is not None and self.size < 1:
            raise InputError("a size in pixels", str(self.size), "Give --size, such as 224.")
        if self.resize is not None and (self.size is None or self.resize < self.size):
            wanted, came = "a size that is cropped out of resize", f"{self.size} of {self.resize}"
            raise InputError(wanted, came, "Give a --resize of at least --size.")
        if self.interpolation not in INTERPOLATIONS:
            wanted, came = f"an interpolation of {', '.join(INTERPOLATIONS)}", self.interpolation
            raise InputError(wanted, repr(came), "Give --interpolation, by default bilinear.")

    def __call__(self, image: "Image") -> Tensor:
        """An image of any mode to its input, (c, h, w) float32."""
        image = self._scale(image.convert(MODES[len(self.mean)]))
        pixels = torch.from_numpy(np.array(image))
        return self.normalise(pixels[None] if pixels.ndim == 2 else pixels.permute(2, 0, 1))  # noqa: PLR2004

    def _scale(self, image: Any) -> Any:
        """As torchvision's Resize and CenterCrop; an image that already fits is not filtered."""
        side = self.resize or self.size
        if (
            self.size is None
            or side is None
            or image.size == (self.size, self.size) == (side, side)
        ):
            return image
        # only where something is scaled: torchvision loads all of its models
        from torchvision.transforms.v2 import functional

        mode = functional.InterpolationMode(self.interpolation)
        return functional.center_crop(functional.resize(image, [side], mode), [self.size])

    def normalise(self, pixels: Tensor) -> Tensor:
        """(…, c, h, w) bytes 0..255 to float32 inputs."""
        mean, std = (torch.tensor(part).view(-1, 1, 1) for part in (self.mean, self.std))
        # in place: a batch of images is the largest array here
        return pixels.to(torch.float32).div_(255).sub_(mean).div_(std)

    def pixels(self, x: Tensor) -> Tensor:
        """Inputs (…, c, h, w) back to bytes."""
        mean, std = (torch.tensor(part).view(-1, 1, 1) for part in (self.mean, self.std))
        return (x * std + mean).mul(255).round().clamp(0, 255).to(torch.uint8)

    @property
    def shape(self) -> tuple[int, ...] | None:
        """Of one input; None where images come in a size of their own."""
        return None if self.size is None else (len(self.mean), self.size, self.size)

    @property
    def low(self) -> Tensor:
        """The black pixel, (c, 1, 1)."""
        return self.normalise(torch.zeros(len(self.mean), 1, 1, dtype=torch.uint8))

    @property
    def high(self) -> Tensor:
        """The white pixel, (c, 1, 1)."""
        return self.normalise(torch.full((len(self.mean), 1, 1), 255, dtype=torch.uint8))

    def outside(self, x: Tensor) -> str:
        """Why ``x`` cannot be inputs of this preprocessing; empty when it can."""
        # float32 rounding of the normalisation
        low, high, slack = self.low, self.high, 1e-3
        fits = x.shape[1] == len(self.mean) and not ((x < low - slack) | (x > high + slack)).any()
        return "" if fits else f"lie outside black and white under {self}"


def read_images(
    dataset: Any,
    column: str,
    rows: Sequence[int],
    preprocessing: Preprocessing,
    folder: Folder | None,
    read: Callable[[int], Any] = lambda _: None,
) -> Inputs:
    """The inputs of these rows, and why a row has none; ``folder`` as in ``decode_image``.

    ``read`` is called with how many more were read.

    Raises InputError when they are of different sizes and no size is given.
    """
    import datasets

    images = dataset.select_columns([column])
    if isinstance(dataset.features[column], datasets.Image):
        # undecoded, so that one damaged file does not end the run
        images = images.cast_column(column, datasets.Image(decode=False))
    shape = preprocessing.shape or (len(preprocessing.mean), 1, 1)
    x, filled, errors = torch.zeros(0, *shape), 0, []
    for start in range(0, len(rows), BATCH):
        for raw in images[list(rows[start : start + BATCH])][column]:
            read(1)
            made = _make_input(raw, preprocessing, folder)
            errors.append(made if isinstance(made, str) else None)
            if isinstance(made, str):
                continue
            # one allocation: joining batches at the end would take the memory twice
            x = x if filled else torch.empty(len(rows), *made.shape)
            if made.shape != x.shape[1:]:
                came = " and ".join(str(tuple(part.shape[-2:])) for part in (x, made))
                raise InputError("images of one size", came, "Give the size with --size.")
            x[filled] = made
            filled += 1
    return Inputs(x[:filled], errors, preprocessing.low, preprocessing.high)


def _make_input(raw: Any, preprocessing: Preprocessing, folder: Folder | None) -> Tensor | str:
    """The input of a file, or why there is none."""
    image = decode_image(raw, folder)
    if isinstance(image, str):
        return image
    if preprocessing.shape and max(image.size) > LONGEST * min(image.size):
        return f"{image.width} by {image.height} pixels"
    try:
        return preprocessing(image)
    except Exception:  # noqa: BLE001  # PIL and other libraries, each with errors of its own
        return UNREADABLE


def decode_image(raw: Any, folder: Folder | None) -> "Image | str":
    """The image of a file, upright, or why it cannot be read.

    ``raw``: the bytes of a file, or a mapping of ``bytes`` and ``path``; a path is followed inside
    ``folder`` only. The image is turned upright as its camera noted, as datasets does; of an
    animation the first frame counts; an image that is too large to be one is not decompressed.
    """
    from PIL import Image, ImageOps

    if isinstance(raw, Mapping):
        raw = raw.get("bytes") or raw.get("path")
    if isinstance(raw, str) and folder:
        raw = folder.read_inside(raw)
    if not isinstance(raw, bytes):
        return UNREADABLE
    try:
        with warnings.catch_warnings():
            # PIL warns of decompression bombs, which become errors at twice the size
            warnings.simplefilter("ignore")
            with Image.open(io.BytesIO(raw)) as opened:
                opened.load()
                image = ImageOps.exif_transpose(opened)
    except Exception:  # noqa: BLE001  # a decoder raises anything on a damaged file
        return UNREADABLE
    # which number is white is not said, and every library takes another: PIL alone makes 255 of
    # all that is above, and 0 of what lies in 0..1
    deep = image.mode.startswith(("I", "F"))
    return f"mode {image.mode}, not 8 bits a channel" if deep else image

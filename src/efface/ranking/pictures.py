"""Records as people see them: pictures inside the page."""

import base64
import io

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from efface.io.features import FeatureSpec
from efface.io.preprocessing import Preprocessing
from efface.types import Records

IMAGE = 3
"""Dimensions of one image (c, h, w)."""

SIDE = 96
"""Pixels of the longer side in the page, at most."""


def pictures(
    records: Records, preprocessing: Preprocessing | FeatureSpec | None
) -> list[str | None]:
    """A PNG of each record as a data address, None where records are no pictures."""
    if records.x.ndim != IMAGE + 1 or records.x.shape[1] not in {1, 3}:
        return [None] * len(records)
    shown = _bytes(records, preprocessing)
    return [_address(pixels) for pixels in shown.permute(0, 2, 3, 1).numpy()]


def _bytes(records: Records, preprocessing: Preprocessing | FeatureSpec | None) -> Tensor:
    """(n, c, h, w) 0..255: the preprocessing undone, or black and white where it is not known."""
    x = records.x.detach().cpu()
    if isinstance(preprocessing, Preprocessing):
        mean, std = (
            torch.tensor(p).view(-1, 1, 1) for p in (preprocessing.mean, preprocessing.std)
        )
        return (x * std + mean).mul(255).round().clamp(0, 255).to(torch.uint8)
    low = x.min() if records.low is None else records.low.cpu()
    high = x.max() if records.high is None else records.high.cpu()
    return (
        ((x - low) / (high - low).clamp_min(1e-12)).mul(255).round().clamp(0, 255).to(torch.uint8)
    )


def _address(pixels: np.ndarray) -> str:
    image = Image.fromarray(pixels[..., 0] if pixels.shape[-1] == 1 else pixels)
    image.thumbnail((SIDE, SIDE))
    sink = io.BytesIO()
    image.save(sink, "PNG")
    return "data:image/png;base64," + base64.b64encode(sink.getvalue()).decode()

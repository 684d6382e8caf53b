"""What tests of reading share: thirty digits as rows of a table, and folders of small images."""

import io

import datasets
import numpy as np
import torch
from PIL import Image
from sklearn.datasets import load_digits

from efface.io.images import Preprocessing

GREY = Preprocessing((0.5,), (0.25,), 8)
NAMES = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
CLASSES = datasets.ClassLabel(names=NAMES)
PIXELS, TARGETS = load_digits().images[:30] * 15.9375, load_digits().target[:30].tolist()
IDS = [f"d{row:02d}" for row in range(30)]


def png(pixels):
    """An image as a table holds it."""
    file = io.BytesIO()
    Image.fromarray(pixels.astype(np.uint8)).save(file, "PNG")
    return {"bytes": file.getvalue(), "path": None}


DIGITS = [png(image) for image in PIXELS]


def columns(rows=slice(None), **more):
    """A table of the digits by column; ``more`` columns, None for a column that is not there."""
    table = {"image": DIGITS[rows], "label": TARGETS[rows], "id": IDS[rows], **more}
    return {name: value for name, value in table.items() if value is not None}


def table_of(columns, **kinds):
    """A data set of images, classes and texts, or of the types that are given."""
    kinds = {"image": datasets.Image(), "label": CLASSES, **kinds}
    kinds = {name: kinds.get(name, datasets.Value("string")) for name in columns}
    return datasets.Dataset.from_dict(columns, features=datasets.Features(kinds))


def cast(columns, **kinds):
    """A data set of the types that its values have, but for the ``kinds`` of some columns."""
    data = datasets.Dataset.from_dict(columns)
    for name, kind in kinds.items():
        data = data.cast_column(name, kind)
    return data


def same(old, new, omitted=()):
    """Equal in type, order, dtype and value, all the way down, but for what was omitted."""
    assert type(old) is type(new)
    if isinstance(old, dict):
        assert list(new) == [key for key in old if key not in omitted]
        for key in new:
            same(old[key], new[key], omitted)
    elif isinstance(old, torch.Tensor):
        assert (old.dtype, old.equal(new)) == (new.dtype, True)
    else:
        assert old == new

"""Data of jobs: named and pinned by their digest, decoded once for a store, memory-mapped after.

``digits`` are scikit-learn's, a third of them for testing. Any other name is a folder of the folder
that ``EFFACE_DATA`` names: no path stands in a record.
"""

import hashlib
import json
import os
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from filelock import FileLock

from efface.errors import InputError
from efface.grid import canonical, source_digest
from efface.io.atomic import atomic_folder
from efface.io.data import DataSource, load_data
from efface.io.images import Preprocessing
from efface.types import Records

PARTS = ("train", "test")
DIGITS = "digits"


def data_set(
    name: str, *, label_column: str | None = None, first: int | None = None
) -> dict[str, Any]:
    """What a job says of its data: name, label column, how many training records, digests.

    ``first``: only so many, from the first row; all when not given.
    """
    if name == DIGITS:
        digests = {part: _digest_of_digits(part) for part in PARTS}
    else:
        digests = {part: _table(name, part, label_column).digest for part in PARTS}
    return {"name": name, "label_column": label_column, "first": first, "digests": digests}


def num_classes_of(name: str, *, label_column: str | None = None) -> int:
    """How many classes the data have."""
    return 10 if name == DIGITS else _table(name, "train", label_column).num_classes


def load_part(
    data: Mapping[str, Any], part: str, preprocessing: Preprocessing, *, shared: Path
) -> Records:
    """The records of ``train`` or ``test`` as the model takes them.

    Decoded by the first process, under a lock; the others wait, and map the same file.
    Raises InputError when the data are not those that the digest names.
    """
    key = {
        "data": dict(data),
        "part": part,
        "preprocessing": repr(preprocessing),
        "sources": source_digest(["research.data:load_part"]),
    }
    folder = shared / hashlib.sha256(canonical(key).encode()).hexdigest()[:32]
    # two processes would otherwise decode the same data, and write one folder
    with FileLock(shared / f".{folder.name}.lock"):
        if not folder.exists():
            _write(folder, _decode(data, part, preprocessing))
    x = torch.from_numpy(np.load(folder / "x.npy", mmap_mode="c"))
    y = torch.from_numpy(np.load(folder / "y.npy"))
    ids = tuple(json.loads((folder / "ids.json").read_text()))
    return Records(x=x, y=y, ids=ids, low=preprocessing.low, high=preprocessing.high)


def _write(folder: Path, records: Records) -> None:
    with atomic_folder(folder) as scratch:
        np.save(scratch / "x.npy", records.x.numpy())
        np.save(scratch / "y.npy", records.y.numpy())
        (scratch / "ids.json").write_text(json.dumps(records.ids))


def _decode(data: Mapping[str, Any], part: str, preprocessing: Preprocessing) -> Records:
    name, first = data["name"], data["first"] if part == "train" else None
    if name == DIGITS:
        _refuse_other(data, part, _digest_of_digits(part))
        pixels, y, ids = _digits(part)
        x = preprocessing.normalise(torch.from_numpy(pixels))
        return Records(x=x, y=torch.from_numpy(y), ids=ids).take(range(first or len(y)))
    table = _table(name, part, data["label_column"])
    _refuse_other(data, part, table.digest)
    return table.records(range(first or len(table)), preprocessing)


def _refuse_other(data: Mapping[str, Any], part: str, digest: str) -> None:
    wanted = data["digests"][part]
    if digest != wanted:
        raise InputError(
            f"{data['name']}:{part} with digest {wanted[:12]}", digest[:12], "Give the same data."
        )


def _table(name: str, part: str, label_column: str | None) -> DataSource:
    folder = os.environ.get("EFFACE_DATA")
    if not folder:
        raise InputError(
            f"the folder that holds the data {name!r}",
            "no EFFACE_DATA in the environment",
            "Set EFFACE_DATA to that folder.",
        )
    return _open(f"{Path(folder, name)}:{part}", label_column)


@lru_cache(maxsize=8)
def _open(spec: str, label_column: str | None) -> DataSource:
    """Opened once: hundreds of jobs are described with the same data."""
    return load_data(spec, label_column=label_column)


@lru_cache(maxsize=2)
def _digits(part: str) -> tuple[np.ndarray, np.ndarray, tuple[str, ...]]:
    """Pixels (n, 1, 8, 8) as bytes, labels, ids."""
    from sklearn.datasets import load_digits

    pixels, y = load_digits(return_X_y=True)
    rows = np.flatnonzero((np.arange(len(y)) % 3 == 0) == (part == "test"))
    images = (pixels[rows].reshape(-1, 1, 8, 8) * 255 / 16).round().astype(np.uint8)
    return images, y[rows].astype(np.int64), tuple(f"digit-{row:04d}" for row in rows)


def _digest_of_digits(part: str) -> str:
    pixels, y, _ = _digits(part)
    return hashlib.sha256(pixels.tobytes() + y.tobytes()).hexdigest()

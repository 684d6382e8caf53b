"""What a run reads and keeps: sources of records, a shard at a time, and stores of shards' results.

Sources: records in memory, or a table whose files are read as they are needed. Stores: a plain
dict, or a folder from which a stopped run resumes.
"""

import io
import json
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor

from efface.errors import InputError
from efface.io.atomic import atomic_write
from efface.io.data import DataSource
from efface.io.features import FeatureSpec, Spec
from efface.io.images import Inputs
from efface.types import Records

# Rows of a table parsed at once to find the bounds of its columns.
BLOCK = 65_536

Arrays = Mapping[str, np.ndarray]
KEY = "key.json"


@dataclass(frozen=True, eq=False)
class MemorySource:
    """Records in memory."""

    records: Records

    @property
    def ids(self) -> Sequence[str]:
        """The id of each row."""
        return self.records.ids

    def read(self, rows: Sequence[int]) -> tuple[Records, tuple[int, ...]]:
        """The records of these rows that are readable and labelled, and their rows; in order."""
        return self.records.take(rows), tuple(rows)

    def values(self, row: int) -> dict[str, str]:
        """A record's values by column, as text; empty where it is an image."""
        x = self.records.x[row]
        return {} if x.ndim > 1 else {str(at): f"{v:.4g}" for at, v in enumerate(x.tolist())}


@dataclass(frozen=True, eq=False)
class TableSource:
    """Records of a table whose files are read a shard at a time; methods as ``MemorySource``."""

    table: DataSource
    preprocessing: Spec

    @property
    def ids(self) -> Sequence[str]:
        """The id of each row."""
        return self.table.ids

    def read(self, rows: Sequence[int]) -> tuple[Records, tuple[int, ...]]:
        """A row is read the same in any company: bounds are those of the whole table."""
        if not isinstance(self.preprocessing, FeatureSpec):
            records, omitted = self.table.readable(rows, self.preprocessing)
            # By id, since that is what the table reports.
            lost = set(omitted)
            return records, tuple(row for row in rows if self.table.ids[row] not in lost)
        labelled = [row for row in rows if self.table.labels[row] >= 0]
        found = self._inputs(labelled, self.preprocessing)
        pairs = zip(labelled, found.errors, strict=True)
        kept = tuple(row for row, error in pairs if error is None)
        ids, y = tuple(self.table.ids[row] for row in kept), self.table.labels[list(kept)]
        low, high = self._bounds
        return Records(x=found.x, y=torch.from_numpy(y), ids=ids, low=low, high=high), kept

    def values(self, row: int) -> dict[str, str]:
        """The cells of the columns that go into the model."""
        if not isinstance(self.preprocessing, FeatureSpec):
            return {}
        # the columns alone: another one of images would open what its cells name
        cells = self.table.dataset.select_columns(list(self.preprocessing.columns))[row]
        return {name: str(cells[name]) for name in self.preprocessing.columns}

    def _inputs(self, rows: Sequence[int], spec: FeatureSpec) -> Inputs:
        """Cut before parsing: else the whole table would be parsed again for each shard."""
        return spec.inputs(cast("Any", self.table.dataset.select(rows)), range(len(rows)))

    @cached_property
    def _bounds(self) -> tuple[Tensor, Tensor]:
        """Minimum and maximum of each column of the whole table."""
        spec, n = cast("FeatureSpec", self.preprocessing), len(self.table)
        parts = [self._inputs(range(s, min(s + BLOCK, n)), spec) for s in range(0, n, BLOCK)]
        low, high = [part.low for part in parts], [part.high for part in parts]
        return torch.stack(low).amin(0), torch.stack(high).amax(0)


Source = MemorySource | TableSource


class FolderStore:
    """Arrays of finished shards by name, one file each, whole or absent.

    Opening resumes from what an earlier run of the same ``key`` (all that the arrays depend on, as
    JSON) left in ``folder``, and else starts it empty. Raises InputError for a folder with anything
    that no such run writes.
    """

    def __init__(self, folder: Path, key: Mapping[str, Any]) -> None:
        self.folder = folder
        # Compared as text: what was written differently is another key.
        text, path = json.dumps(key, sort_keys=True, indent=1), folder / KEY
        if path.is_file() and path.read_text(encoding="utf-8") == text:
            return
        contents = folder.iterdir() if folder.is_dir() else [folder] if folder.exists() else []
        for other in contents:
            if not other.is_file() or not any(e in other.name for e in (".npz", ".npy", ".json")):
                wanted = f"a folder of a stopped inspection, or none, at {folder}"
                came = f"{other.name} in it"
                raise InputError(wanted, came, "Move it away; its contents are not touched.")
        # Shards of another key must not be mixed in.
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True, mode=0o700)  # it holds embeddings and labels
        atomic_write(path, text.encode())

    def __len__(self) -> int:
        return sum(1 for _ in self.folder.glob("[0-9]*.npz"))

    def __contains__(self, name: str) -> bool:
        return self._file(name).is_file()

    def __setitem__(self, name: str, arrays: Arrays) -> None:
        # Through memory: an interrupted savez would leave half an archive under the name.
        sink = io.BytesIO()
        np.savez(sink, **dict(arrays))  # type: ignore[arg-type]
        atomic_write(self._file(name), sink.getvalue())

    def __getitem__(self, name: str) -> Arrays:
        """Lazy: an array is read when it is taken, and the file is closed with the mapping."""
        return cast("Arrays", np.load(self._file(name), allow_pickle=False))

    def _file(self, name: str) -> Path:
        return self.folder / f"{name}.npz"


Store = dict[str, Arrays] | FolderStore


def join_embeddings(store: Store, parts: Sequence[str]) -> np.ndarray:
    """The embeddings of all parts; those of a folder go to a file: they may not fit in memory."""
    shapes = [store[part]["embeddings"].shape for part in parts]
    shape = (sum(rows for rows, _ in shapes), shapes[0][1])
    # A memory map holds as much in memory as there is room for.
    if isinstance(store, FolderStore):
        path = store.folder / "embeddings.npy"
        whole = np.lib.format.open_memmap(path, mode="w+", dtype=np.float32, shape=shape)
    else:
        whole = np.empty(shape, np.float32)
    end = 0
    for part, (rows, _) in zip(parts, shapes, strict=True):
        begin, end = end, end + rows
        whole[begin:end] = store[part]["embeddings"]
    return whole


def remove(folder: Path) -> None:
    """Remove a store; the key goes first, so that half a folder is never taken for a whole one."""
    (folder / KEY).unlink(missing_ok=True)
    shutil.rmtree(folder, ignore_errors=True)

"""Records a shard at a time, from memory or from files that are read as they are needed."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Protocol, cast, runtime_checkable

import numpy as np
import torch
from datasets import Dataset
from torch import Tensor

from efface.errors import InputError
from efface.io.features import FeatureSpec
from efface.io.preprocessing import Preprocessing
from efface.io.table import Table
from efface.types import Records

BLOCK = 65_536
"""Rows of a table of numbers whose bounds are looked for at once."""


@runtime_checkable
class Reader(Protocol):
    """Records by the numbers of their rows."""

    @property
    def ids(self) -> Sequence[str]:
        """The id of each row."""

    def read(self, rows: Sequence[int]) -> tuple[Records, tuple[int, ...]]:
        """The records of these rows that can be read and have a label, and the rows that they are.

        In order; all rows are read alike in whatever company they are read.
        """

    def told(self, row: int) -> dict[str, str]:
        """What the record says in words and numbers, by column; empty where it is a picture."""


@dataclass(frozen=True, eq=False)
class InMemory:
    """Records that are there already."""

    records: Records

    @property
    def ids(self) -> Sequence[str]:
        """The id of each row."""
        return self.records.ids

    def read(self, rows: Sequence[int]) -> tuple[Records, tuple[int, ...]]:
        """See ``Reader``."""
        return self.records.take(rows), tuple(rows)

    def told(self, row: int) -> dict[str, str]:
        """See ``Reader``."""
        x = self.records.x[row]
        return {} if x.ndim > 1 else {str(at): f"{v:.4g}" for at, v in enumerate(x.tolist())}


@dataclass(frozen=True, eq=False)
class FromTable:
    """Records of a table whose files are read a shard at a time."""

    table: Table
    preprocessing: Preprocessing | FeatureSpec

    @property
    def ids(self) -> Sequence[str]:
        """The id of each row."""
        return self.table.ids

    def read(self, rows: Sequence[int]) -> tuple[Records, tuple[int, ...]]:
        """See ``Reader``."""
        if isinstance(self.preprocessing, FeatureSpec):
            return self._numbers(rows, self.preprocessing)
        records, lost = self.table.readable(rows, self.preprocessing)
        gone = set(lost)
        return records, tuple(row for row in rows if self.table.ids[row] not in gone)

    def told(self, row: int) -> dict[str, str]:
        """See ``Reader``."""
        if not isinstance(self.preprocessing, FeatureSpec):
            return {}
        cells = self.table.dataset[row]
        return {name: str(cells[name]) for name in self.preprocessing.columns}

    def _numbers(self, rows: Sequence[int], how: FeatureSpec) -> tuple[Records, tuple[int, ...]]:
        """The whole table would be parsed anew for each shard, were it not cut first."""
        labelled = [row for row in rows if self.table.labels[row] >= 0]
        found = how.inputs(self._cut(labelled), range(len(labelled)))
        pairs = zip(labelled, found.wrong, strict=True)
        kept = tuple(row for row, wrong in pairs if wrong is None)
        low, high = self._bounds
        return Records(
            x=found.x,
            y=torch.from_numpy(self.table.labels[list(kept)]),
            ids=tuple(self.table.ids[row] for row in kept),
            low=low,
            high=high,
        ), kept

    def _cut(self, rows: list[int]) -> Dataset:
        return cast("Dataset", self.table.dataset.select(rows))

    @cached_property
    def _bounds(self) -> tuple[Tensor, Tensor]:
        """The least and the greatest of each column of the whole table."""
        how, low, high = cast("Features", self.preprocessing), [], []
        for start in range(0, len(self.table), BLOCK):
            rows = range(start, min(start + BLOCK, len(self.table)))
            found = how.inputs(self._cut(list(rows)), range(len(rows)))
            low.append(found.low)
            high.append(found.high)
        return torch.stack(low).amin(0), torch.stack(high).amax(0)


def sample_of(reader: Reader, count: int) -> Records:
    """Up to ``count`` readable records, spread evenly over all rows."""
    rows = np.unique(np.linspace(0, len(reader.ids) - 1, count).round().astype(np.int64))
    return reader.read(rows.tolist())[0]


def refuse_other_kinds(kind: str) -> None:
    """Raises InputError unless ``kind`` (an adapter's name) is one class of several."""
    if kind != "multiclass":
        raise InputError(
            "records of one class of several each",
            kind,
            "Information content counts the neighbours of a record's class, and these have none.",
        )

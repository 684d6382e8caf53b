"""A table with labels and ids: rows by id, class or expression, records for a model."""

import math
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import datasets
import numpy as np
import pyarrow as pa
import torch

from efface.errors import InputError, UnknownRecords
from efface.io.checkpoint import some_of
from efface.io.columns import Columns, find_columns, nearest
from efface.io.expression import select
from efface.io.features import FeatureSpec
from efface.io.files import Source
from efface.io.labels import Labels, labels_of
from efface.io.pixels import UNREADABLE, images_of
from efface.io.preprocessing import Inputs, Preprocessing
from efface.task import refuse_other_kinds
from efface.types import Records

UNLABELLED = "has no label"


@dataclass(frozen=True, eq=False)
class Table:
    """n records that are still files: nothing is decoded before it is asked for.

    ``ids``: n distinct strings; ``source``: the files that it came from, None for a table in
    memory.
    """

    dataset: datasets.Dataset
    columns: Columns
    _labels: Labels
    ids: tuple[str, ...]
    source: Source | None = None

    def __len__(self) -> int:
        return len(self.ids)

    @cached_property
    def digest(self) -> str:
        """SHA-256 of the files; empty for a table in memory."""
        return self.source.digest() if self.source else ""

    @property
    def labels(self) -> np.ndarray:
        """(n,) class ids, in the order of ``classes``, -1 for none; other kinds: see ``Labels``."""
        return self._labels.y

    @property
    def classes(self) -> tuple[str, ...] | None:
        """Names of the classes or of the many labels, if they have any."""
        return self._labels.classes

    @property
    def kind(self) -> str:
        """``one label``, ``many labels`` or ``values``."""
        return self._labels.kind

    @property
    def num_classes(self) -> int:
        """How many classes have a name or, where none has, the highest class id and one."""
        refuse_other_kinds(self.kind)
        return len(self.classes) if self.classes else int(self.labels.max(initial=-1)) + 1

    @property
    def numbered(self) -> bool:
        """Whether the ids are the numbers of the rows, because nothing else names the records."""
        return self.columns.id is None and self.ids == _row_numbers(len(self))

    def rows_of(self, ids: Iterable[str]) -> list[int]:
        """The rows of these ids, in their order, each once.

        Raises UnknownRecords, naming all, and InputError for numbers of rows beside a column that
        could be the one of the ids.
        """
        places = {identity: row for row, identity in enumerate(self.ids)}
        wanted = list(dict.fromkeys(ids))
        if unknown := [identity for identity in wanted if identity not in places]:
            kind = repr(self.columns.id) if self.columns.id else "file name or row number"
            raise UnknownRecords(
                f"ids that the data hold (by {kind}, such as {self.ids[0]!r})",
                f"{len(unknown)} unknown: {', '.join(unknown)}",
                "Name the split that holds them, as in DATA:test, or give --id-column.",
            )
        if wanted and self.numbered and (like := self.columns.like_ids):
            raise InputError(
                "a column of ids, or a table without one, whose ids are row numbers",
                f"the column {like[0]!r}, which nobody named",
                "Name it with --id-column, or call the column that holds the ids 'id'.",
            )
        return [places[identity] for identity in wanted]

    def rows_where(self, expression: str) -> list[int]:
        """The rows of which an expression such as ``label=dog and age>=30`` is true."""
        return np.flatnonzero(select(expression, self.dataset)).tolist()

    def class_id(self, name: str) -> int:
        """The number of a class by its name or, where there are no names, by its number."""
        refuse_other_kinds(self.kind)
        known = self.classes or tuple(str(label) for label in sorted(set(self.labels.tolist())))
        if name not in known:
            raise InputError(f"a class of {some_of(known)}", repr(name), nearest(name, known))
        return known.index(name) if self.classes else int(name)

    def rows_of_class(self, name: str) -> list[int]:
        """The rows with this label. Raises InputError where records have no one class."""
        return np.flatnonzero(self.labels == self.class_id(name)).tolist()

    def nearly_whole_classes(self, rows: Sequence[int], share: float = 0.95) -> tuple[str, ...]:
        """Classes of which these rows hold at least this share (and ten records)."""
        if self.kind != "multiclass":
            return ()
        everywhere, here = Counter(self.labels.tolist()), Counter(self.labels[list(rows)].tolist())
        whole = [k for k, count in here.items() if count >= max(10, share * everywhere[k])]
        return tuple(self.classes[k] if self.classes else str(k) for k in sorted(whole))

    def records(
        self, rows: Sequence[int] | None, preprocessing: Preprocessing | FeatureSpec
    ) -> Records:
        """These rows (None: all) as the model takes them.

        Raises InputError when one is unreadable or has no label: what was not read is not
        forgotten.
        """
        records, unreadable = self._read(rows, preprocessing)
        if bare := [identity for identity, why in unreadable.items() if why == UNLABELLED]:
            raise InputError(
                f"a label for each record in {', '.join(map(repr, self.columns.label))}",
                f"none for {some_of(bare)}",
                "Leave these records out, or give them labels.",
            )
        if unreadable:
            told = [i if why == UNREADABLE else f"{i} ({why})" for i, why in unreadable.items()]
            what = preprocessing.things
            raise InputError(
                f"{what} that can be read",
                f"{len(told)} that cannot: {', '.join(told)}",
                f"Nothing was changed. Mend these {what}, or leave their ids out of the request.",
            )
        return records

    def readable(
        self, rows: Sequence[int] | None, preprocessing: Preprocessing | FeatureSpec
    ) -> tuple[Records, tuple[str, ...]]:
        """As ``records``, but what is unreadable or without a label is left out, its ids listed."""
        records, unreadable = self._read(rows, preprocessing)
        return records, tuple(unreadable)

    def _read(
        self, rows: Sequence[int] | None, preprocessing: Preprocessing | FeatureSpec
    ) -> tuple[Records, dict[str, str]]:
        """The readable rows, and by the id of any other what is wrong with it."""
        rows = list(range(len(self)) if rows is None else rows)
        labelled = [row for row in rows if self._labels.there[row]]
        found = self._inputs(labelled, preprocessing)
        reasons = dict(zip(labelled, found.wrong, strict=True))
        kept = [row for row in labelled if reasons[row] is None]
        wrong = {self.ids[row]: reasons.get(row, UNLABELLED) for row in rows}
        return Records(
            x=found.x,
            y=torch.from_numpy(self.labels[kept]),
            ids=tuple(self.ids[row] for row in kept),
            low=found.low,
            high=found.high,
            task=self._labels.task(),
        ), {identity: why for identity, why in wrong.items() if why}

    def _inputs(self, rows: Sequence[int], preprocessing: Preprocessing | FeatureSpec) -> Inputs:
        if isinstance(preprocessing, FeatureSpec):
            return preprocessing.inputs(self.dataset, rows)
        root = self.source.root if self.source else None
        column = self.columns.image
        return images_of(self.dataset, column, rows, preprocessing=preprocessing, root=root)


def table_of(
    dataset: datasets.Dataset,
    *,
    source: Source | None = None,
    image_column: str | None = None,
    label_column: str | Sequence[str] | None = None,
    id_column: str | None = None,
    classes: Sequence[str] | None = None,
    num_classes: int | None = None,
) -> Table:
    """Find the columns, number labels as the model does, and see that ids are distinct.

    ``classes`` and ``num_classes`` are the model's. Raises InputError when a column is not to be
    found, an id stands twice, or class names do not fit the model's.
    """
    dataset = dataset.with_format(None)
    if not len(dataset):
        raise InputError("at least one record in the data", "none", "Check the path and the split.")
    columns = find_columns(
        dataset.features,
        image=image_column,
        label=[label_column] if isinstance(label_column, str) else label_column or (),
        identity=id_column,
        num_classes=num_classes if classes is None else len(classes),
    )
    labels = labels_of(dataset, columns.label, classes=classes, num_classes=num_classes)
    return Table(dataset, columns, labels, _ids(dataset, columns), source)


def _ids(dataset: datasets.Dataset, columns: Columns) -> tuple[str, ...]:
    """From the id column, else the names of the image files, else the numbers of the rows."""
    if columns.id is None:
        return _file_names(dataset, columns.images) or _row_numbers(len(dataset))
    cells = dataset[columns.id][:]
    if missing := [str(row) for row, cell in enumerate(cells) if cell is None or _nan(cell)]:
        raise InputError(
            f"an id in each row of {columns.id!r}", f"none in row {some_of(missing)}", "Add them."
        )
    ids = tuple(map(written, cells))
    if twice := [identity for identity, count in Counter(ids).items() if count > 1]:
        raise InputError(
            f"ids in {columns.id!r} that each stand once",
            f"more than once: {some_of(twice)}",
            "Make them distinct, or name another column with --id-column.",
        )
    return ids


def _nan(cell: Any) -> bool:
    return isinstance(cell, float) and math.isnan(cell)


def written(identity: Any) -> str:
    """An id as people write it: bytes are text, and 7.0 is 7.

    Raises InputError for bytes that are no text.
    """
    if isinstance(identity, float) and identity.is_integer():
        return str(int(identity))  # pandas makes 7.0 of a 7 as soon as one is missing
    if not isinstance(identity, bytes):
        return str(identity)
    try:
        return identity.decode()
    except UnicodeDecodeError as error:
        raise InputError(
            "ids as text or whole numbers",
            f"bytes that are no text: {identity.hex()[:40]}",
            "Write them as text, such as identity.hex().",
        ) from error


def _row_numbers(count: int) -> tuple[str, ...]:
    return tuple(map(str, range(count)))


def _file_names(dataset: datasets.Dataset, images: Sequence[str]) -> tuple[str, ...]:
    """The names that the images had as files; empty when one has none or two share one."""
    if len(images) != 1:
        return ()
    kind = dataset.features[images[0]]
    table: pa.Table = dataset.select_columns([images[0]]).with_format("arrow")[:]
    cells = table[images[0]]
    if isinstance(kind, datasets.Image):
        paths = [p for chunk in cells.chunks for p in chunk.field("path").to_pylist()]
    else:
        text = pa.types.is_string(cells.type) or pa.types.is_large_string(cells.type)
        paths = cells.to_pylist() if text else [None]
    return tuple(paths) if None not in paths and len(set(paths)) == len(paths) else ()

"""A data set with labels and ids: rows by id, class or expression, records for a model.

``load_data`` opens files, ``DataSource.from_dataset`` a ``datasets.Dataset`` in memory. Columns are
found by their type and the usual names, or given; between two candidates nothing is guessed.
``read_ids`` and ``read_record_weights`` read the lists that go with a request.
"""

import csv
import io
import math
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from efface.errors import InputError, UnknownRecords, abbreviate, did_you_mean
from efface.io.features import FeatureSpec
from efface.io.images import UNREADABLE, Inputs, Preprocessing, read_images
from efface.task import refuse_other_kinds
from efface.types import Records

# datasets, pyarrow and pandas are loaded when a table is: they take longer than torch
if TYPE_CHECKING:
    import datasets

    from efface.io.labels import Labels
    from efface.io.tables import Source

IMAGE_NAMES = ("image", "img")
PATH_NAMES = ("image_path", "path", "file_name", "filename")
LABEL_NAMES = ("label", "labels", "fine_label", "target", "class")
ID_NAMES = ("id", "record_id", "file_name", "filename")
UNLABELLED = "has no label"

# the end of sample_id, image-key, PassengerId and ID, and not that of paid or monkey
LIKE_AN_ID = re.compile(r"(^|[\W_]|(?<=[a-z0-9])(?=[A-Z]))(?i:id|uid|uuid|key)$")


@dataclass(frozen=True)
class Columns:
    """Names of columns.

    ``images``: those that could hold the image, one where it is clear; ``label``: one, or several
    of multilabel or regression; ``id`` None: records have no column of their own for it.
    """

    images: tuple[str, ...]
    label: tuple[str, ...]
    id: str | None
    known: tuple[str, ...]

    @property
    def image(self) -> str:
        """The column of the image. Raises InputError when there is none, or more than one."""
        remedy = "Name it with --image-column."
        if not self.images:
            remedy += " For a tabular model say which columns go in: --feature-spec FILE.json."
        return _only("image", self.images, self.known, remedy)

    @property
    def like_ids(self) -> tuple[str, ...]:
        """Columns that by their names could hold ids, though they were not chosen."""
        used = {self.id, *self.images, *self.label}
        return tuple(name for name in self.known if LIKE_AN_ID.search(name) and name not in used)


def find_columns(
    features: "datasets.Features",
    *,
    image: str | None = None,
    label: Sequence[str] = (),
    identity: str | None = None,
    num_classes: int | None = None,
) -> Columns:
    """What is given, else what the types say, else the usual names.

    Of several label columns the one with ``num_classes`` names is taken.
    Raises InputError when a column is not there, or more than one could be the label.
    """
    import datasets

    for name in (image, *label, identity):
        if name is not None and name not in features:
            wanted = f"a column of the table: {', '.join(features)}"
            raise InputError(wanted, repr(name), did_you_mean(name, features))
    known = tuple(features)
    images = [name for name in known if isinstance(features[name], datasets.Image)]
    images = images or [name for name in IMAGE_NAMES if name in features]
    images = images or [name for name in PATH_NAMES if name in features]
    if not label:
        typed = [name for name in known if isinstance(features[name], datasets.ClassLabel)]
        if len(typed) > 1:
            typed = [n for n in typed if len(features[n].names) == num_classes] or typed
        found = typed or [name for name in LABEL_NAMES if name in features]
        label = [_only("label", found, known, "Name it with --label-column.")]
    images = [image] if image else images
    identity = identity or next((name for name in ID_NAMES if name in features), None)
    return Columns(tuple(images), tuple(label), identity, known)


def _only(what: str, found: Sequence[str], known: Sequence[str], remedy: str) -> str:
    if len(found) == 1:
        return found[0]
    came = f"{', '.join(found)}, any of which could be meant" if found else ""
    wanted = f"one column of the table that holds the {what}"
    raise InputError(wanted, came or f"the columns {', '.join(known)}", remedy)


@dataclass(frozen=True, eq=False)
class DataSource:
    """n records that are still files: nothing is decoded before it is read.

    ``ids``: n distinct strings; ``source``: the files that it came from, None for a data set in
    memory.
    """

    dataset: "datasets.Dataset"
    columns: Columns
    _labels: "Labels"
    ids: tuple[str, ...]
    source: "Source | None" = None

    @classmethod
    def from_dataset(
        cls,
        dataset: "datasets.Dataset",
        *,
        source: "Source | None" = None,
        image_column: str | None = None,
        label_column: str | Sequence[str] | None = None,
        id_column: str | None = None,
        classes: Sequence[str] | None = None,
        num_classes: int | None = None,
    ) -> "DataSource":
        """Find the columns, number labels as the model does, and check that ids are unique.

        ``classes`` and ``num_classes`` are the model's. Raises InputError when a column is not
        found, an id is repeated, or class names do not fit the model's.
        """
        from efface.io.labels import read_labels

        dataset = dataset.with_format(None)
        if not len(dataset):
            remedy = "Check the path and the split."
            raise InputError("at least one record in the data", "none", remedy)
        columns = find_columns(
            dataset.features,
            image=image_column,
            label=[label_column] if isinstance(label_column, str) else label_column or (),
            identity=id_column,
            num_classes=num_classes if classes is None else len(classes),
        )
        model = {"classes": classes, "num_classes": num_classes}
        labels = read_labels(dataset, columns.label, **model)
        return cls(dataset, columns, labels, _read_ids_of(dataset, columns), source)

    def __len__(self) -> int:
        return len(self.ids)

    @cached_property
    def digest(self) -> str:
        """SHA-256 of the files; empty for a data set in memory."""
        return self.source.digest() if self.source else ""

    @property
    def labels(self) -> np.ndarray:
        """(n,) class ids, in the order of ``classes``, -1 for none; other kinds: see ``Labels``."""
        return self._labels.y

    @property
    def classes(self) -> tuple[str, ...] | None:
        """Names of the classes, or of the labels of multilabel, if they have any."""
        return self._labels.classes

    @property
    def kind(self) -> str:
        """``multiclass``, ``multilabel`` or ``regression``."""
        return self._labels.kind

    @property
    def num_classes(self) -> int:
        """How many classes have a name or, where none has, the highest class id and one."""
        refuse_other_kinds(self.kind)
        return len(self.classes) if self.classes else int(self.labels.max(initial=-1)) + 1

    @property
    def ids_are_row_numbers(self) -> bool:
        """Whether nothing else names the records."""
        return self.columns.id is None and self.ids == _row_numbers(len(self))

    def rows_of(self, ids: Iterable[str]) -> list[int]:
        """The rows of these ids, in their order, each once.

        Raises UnknownRecords, naming all, and InputError for row numbers where a column could hold
        the ids.
        """
        places = {identity: row for row, identity in enumerate(self.ids)}
        requested = list(dict.fromkeys(ids))
        if unknown := [identity for identity in requested if identity not in places]:
            kind = repr(self.columns.id) if self.columns.id else "file name or row number"
            raise UnknownRecords(
                f"ids that the data hold (by {kind}, such as {self.ids[0]!r})",
                f"{len(unknown)} unknown: {', '.join(unknown)}",
                "Name the split that holds them, as in DATA:test, or give --id-column.",
            )
        # a 3 in a column sample_id is another record than row 3, and both are there
        if requested and self.ids_are_row_numbers and (like := self.columns.like_ids):
            raise InputError(
                "a column of ids, or a table without one, whose ids are row numbers",
                f"the column {like[0]!r}, which is not named",
                "Name it with --id-column, or call the column that holds the ids 'id'.",
            )
        return [places[identity] for identity in requested]

    def rows_where(self, expression: str) -> list[int]:
        """The rows of which an expression such as ``label=dog and age>=30`` is true."""
        from efface.io.expressions import select_rows

        return np.flatnonzero(select_rows(expression, self.dataset)).tolist()

    def rows_of_class(self, name: str) -> list[int]:
        """The rows with this label. Raises InputError where records have no one class."""
        return np.flatnonzero(self.labels == self.class_id(name)).tolist()

    def class_id(self, name: str) -> int:
        """The id of a class by its name or, where there are no names, by its number."""
        refuse_other_kinds(self.kind)
        known = self.classes or tuple(str(label) for label in sorted(set(self.labels.tolist())))
        if name not in known:
            wanted = f"a class of {abbreviate(known)}"
            raise InputError(wanted, repr(name), did_you_mean(name, known))
        return known.index(name) if self.classes else int(name)

    def requested_rows(self, request: Mapping[str, Any]) -> tuple[list[int], tuple[int, ...]]:
        """The rows of a request, and the classes that it removes altogether.

        ``request``: ``ids`` (a path), ``where`` and the name of a class under a third name; one of
        them is not None. Raises InputError otherwise.
        """
        given = {name: value for name, value in request.items() if value is not None}
        if len(given) != 1:
            flags = {name: f"--{name.replace('_', '-')}" for name in request}
            came = " and ".join(flags[name] for name in given) or "none"
            remedy = "Name the records in one way."
            raise InputError(f"one of {', '.join(flags.values())}", came, remedy)
        [(way, value)] = given.items()
        if way == "ids":
            return self.rows_of(read_ids(value, self.columns.id)), ()
        if way == "where":
            return self.rows_where(value), ()
        return self.rows_of_class(value), (self.class_id(value),)

    def nearly_whole_classes(self, rows: Sequence[int], share: float = 0.95) -> tuple[str, ...]:
        """Classes of which these rows hold at least this share (and ten records)."""
        if self.kind != "multiclass":
            return ()
        totals, counts = Counter(self.labels.tolist()), Counter(self.labels[list(rows)].tolist())
        whole = [k for k, count in counts.items() if count >= max(10, share * totals[k])]
        return tuple(self.classes[k] if self.classes else str(k) for k in sorted(whole))

    def records(
        self, rows: Sequence[int] | None, preprocessing: Preprocessing | FeatureSpec
    ) -> Records:
        """These rows (None: all) as the model takes them.

        Raises InputError when one is unreadable or has no label: what is not read is not forgotten.
        """
        records, unreadable = self._read(rows, preprocessing)
        if unlabelled := [i for i, reason in unreadable.items() if reason == UNLABELLED]:
            wanted = f"a label for each record in {', '.join(map(repr, self.columns.label))}"
            remedy = "Omit these records, or give them labels."
            raise InputError(wanted, f"none for {abbreviate(unlabelled)}", remedy)
        if unreadable:
            items = preprocessing.items
            bad = [i if why == UNREADABLE else f"{i} ({why})" for i, why in unreadable.items()]
            came = f"{len(bad)} that cannot: {', '.join(bad)}"
            remedy = f"Nothing was changed. Fix these {items}, or omit their ids from the request."
            raise InputError(f"{items} that can be read", came, remedy)
        return records

    def readable(
        self, rows: Sequence[int] | None, preprocessing: Preprocessing | FeatureSpec
    ) -> tuple[Records, tuple[str, ...]]:
        """As ``records``, but what is unreadable or unlabelled is omitted, its ids listed."""
        records, unreadable = self._read(rows, preprocessing)
        return records, tuple(unreadable)

    def _read(
        self, rows: Sequence[int] | None, preprocessing: Preprocessing | FeatureSpec
    ) -> tuple[Records, dict[str, str]]:
        """The readable rows, and by the id of any other what is wrong with it."""
        rows = list(range(len(self)) if rows is None else rows)
        present = self._labels.present
        labelled = [row for row in rows if present[row]]
        inputs = self._inputs(labelled, preprocessing)
        reasons = dict(zip(labelled, inputs.errors, strict=True))
        readable = [row for row in labelled if reasons[row] is None]
        errors = {self.ids[row]: reasons.get(row, UNLABELLED) for row in rows}
        records = Records(
            x=inputs.x,
            y=torch.from_numpy(self.labels[readable]),
            ids=tuple(self.ids[row] for row in readable),
            low=inputs.low,
            high=inputs.high,
            task=self._labels.task(),
        )
        return records, {identity: error for identity, error in errors.items() if error}

    def _inputs(self, rows: Sequence[int], preprocessing: Preprocessing | FeatureSpec) -> Inputs:
        if isinstance(preprocessing, FeatureSpec):
            return preprocessing.inputs(self.dataset, rows)
        root = self.source.root if self.source else None
        return read_images(self.dataset, self.columns.image, rows, preprocessing, root)


def load_data(
    spec: str | Path,
    *,
    id_column: str | None = None,
    image_column: str | None = None,
    label_column: str | Sequence[str] | None = None,
    classes: Sequence[str] | None = None,
    num_classes: int | None = None,
) -> DataSource:
    """Open ``DATA`` or ``DATA:split``; no image is decoded yet.

    Args:
        spec: a table as parquet, arrow or CSV, a folder of them, a folder with one folder of images
            a class, or ``hub:owner/name``; without a split it is train.
        id_column: else ``id``, ``record_id`` or ``file_name``, the image's file name, the row.
        image_column: of images or their paths; else the one of type image, or named so.
        label_column: one, or several of multilabel or regression; else the one of type class label,
            or named so; of several the one that has as many names as the model has classes.
        classes: the model's class names; labels are renumbered by name.
        num_classes: how many classes the model has, when their names are not known.

    Raises:
        InputError: no such data or column, ids that are not unique, labels of no kind.
    """
    from efface.io.tables import read_split

    source = read_split(spec, (id_column,) if id_column else ID_NAMES)
    return DataSource.from_dataset(
        source.dataset,
        source=source,
        id_column=id_column,
        image_column=image_column,
        label_column=label_column,
        classes=classes,
        num_classes=num_classes,
    )


def _read_ids_of(dataset: "datasets.Dataset", columns: Columns) -> tuple[str, ...]:
    """From the id column, else the names of the image files, else the row numbers."""
    if columns.id is None:
        return _file_names(dataset, columns.images) or _row_numbers(len(dataset))
    cells = dataset[columns.id][:]
    empty = [cell is None or (isinstance(cell, float) and math.isnan(cell)) for cell in cells]
    if any(empty):
        came = f"none in row {abbreviate(np.flatnonzero(empty))}"
        raise InputError(f"an id in each row of {columns.id!r}", came, "Add them.")
    ids = tuple(map(id_as_text, cells))
    if repeated := [identity for identity, count in Counter(ids).items() if count > 1]:
        came = f"more than once: {abbreviate(repeated)}"
        remedy = "Make them unique, or name another column with --id-column."
        raise InputError(f"unique ids in {columns.id!r}", came, remedy)
    return ids


def _row_numbers(count: int) -> tuple[str, ...]:
    return tuple(map(str, range(count)))


def _file_names(dataset: "datasets.Dataset", images: Sequence[str]) -> tuple[str, ...]:
    """The names that the images had as files; empty when one has none or two share one."""
    import datasets
    import pyarrow as pa

    if len(images) != 1:
        return ()
    cells: pa.ChunkedArray = dataset.select_columns([*images]).with_format("arrow")[:][images[0]]
    paths: list[Any] = [None]
    if isinstance(dataset.features[images[0]], datasets.Image):
        paths = [path for chunk in cells.chunks for path in chunk.field("path").to_pylist()]
    elif pa.types.is_string(cells.type) or pa.types.is_large_string(cells.type):
        paths = cells.to_pylist()
    return tuple(paths) if None not in paths and len(set(paths)) == len(paths) else ()


def id_as_text(identity: Any) -> str:
    """An id as people write it: bytes are text, and 7.0 is 7.

    Raises InputError for bytes that are not text.
    """
    if isinstance(identity, float) and identity.is_integer():
        return str(int(identity))  # pandas makes 7.0 of a 7 as soon as one is missing
    if not isinstance(identity, bytes):
        return str(identity)
    try:
        return identity.decode()
    except UnicodeDecodeError as error:
        came = f"bytes that are not text: {identity.hex()[:40]}"
        remedy = "Write them as text, such as identity.hex()."
        raise InputError("ids as text or integers", came, remedy) from error


def read_ids(path: str | Path, id_column: str | None = None) -> tuple[str, ...]:
    """The ids in a text file (one a line) or a CSV: its column of ids by name, else its first.

    Raises InputError when the file is not there, is not text, or holds no id.
    """
    path = Path(path)
    text = _read_text(path, "a text file or CSV of ids", "Write one id a line, UTF-8.")
    if path.suffix.lower() == ".csv":
        names = [id_column, *ID_NAMES] if id_column else ID_NAMES
        ids = _id_column([row for row in csv.reader(io.StringIO(text)) if any(row)], names)
    else:
        ids = text.splitlines()
    ids = [identity.strip() for identity in ids if identity.strip()]
    if not ids:
        raise InputError(f"at least one id in {path}", "none", "Write one id a line.")
    return tuple(ids)


def _read_text(path: Path, what: str, remedy: str) -> str:
    try:
        return path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{what} at {path}", type(error).__name__, remedy) from error


def _id_column(rows: list[list[str]], names: Sequence[str]) -> list[str]:
    head = [cell.strip() for cell in rows[0]] if rows else []
    column = next((head.index(name) for name in names if name in head), None)
    if column is not None:
        return [row[column] for row in rows[1:] if len(row) > column]
    # with another separator the line of the column names would be the first id
    if len(head) == 1 and set(re.split(r"[;\t|]", head[0])) & set(names):
        remedy = "Write it separated by commas, UTF-8."
        raise InputError("ids in a CSV with a column of ids", repr(head[0]), remedy)
    return [row[0] for row in rows]


def read_record_weights(path: Path) -> dict[str, float]:
    """The columns ``id`` and ``weight`` of a CSV, by id.

    Raises InputError for a file that is not there, lacks a column, names a record twice, or has a
    weight that is no number.
    """
    text = _read_text(path, "a CSV of weights", "Columns id and weight, UTF-8.")
    weights: dict[str, float] = {}
    for row in csv.DictReader(io.StringIO(text)):
        name, cell = (row.get("id") or "").strip(), (row.get("weight") or "").strip()
        try:
            weight = float(cell)
        except ValueError:
            weight = None
        if not name or weight is None or name in weights:
            came = f"{name!r} twice" if name in weights else f"id {name!r} and weight {cell!r}"
            wanted = f"in {path} columns id and weight, each record once and with a number"
            raise InputError(wanted, came, "Write one line a record, under the header id,weight.")
        weights[name] = weight
    if not weights:
        raise InputError(f"at least one weight in {path}", "none", "Write a line for each record.")
    return weights

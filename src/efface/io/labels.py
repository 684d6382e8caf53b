"""Labels out of one column or several: multiclass, multilabel or regression.

| columns | labels |
|---|---|
| one of names, classes, integers, yes and no | (n,) class ids, -1 for none |
| several of 0 and 1; one of lists of them, or of lists of names | (n, k) of 0 and 1, -1 for none |
| one or several of numbers; one of lists of them | (n,) or (n, d) values, nan for none |

Integers other than 0 and 1 are values where they cannot be classes: in several columns, and for a
model with one output.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import datasets
import numpy as np
import pyarrow as pa

from efface.errors import InputError, abbreviate
from efface.task import ENOUGH, regression
from efface.types import Task

Names = tuple[str, ...] | None
OTHER_COLUMN = "Name others with --label-column."


@dataclass(frozen=True, eq=False)
class Labels:
    """``y``: as above; ``classes``: names of the classes or of the labels, if there are."""

    y: np.ndarray
    classes: Names

    @property
    def kind(self) -> str:
        """The name of the task."""
        if self.y.dtype.kind == "f":
            return "regression"
        return "multilabel" if self.y.ndim > 1 else "multiclass"

    @property
    def present(self) -> np.ndarray:
        """(n,) of which rows have a label."""
        rows = self.y.reshape(len(self.y), -1)
        known = np.isfinite(rows) if self.kind == "regression" else rows >= 0
        return np.array(known.all(axis=1))

    def task(self) -> Task | None:
        """Regression at the scale of the whole table; None where no scale is needed.

        Of fewer than ten rows the standard deviation is not known; other records may have it.
        """
        known = self.y[self.present]
        if self.kind != "regression" or len(known) < ENOUGH:
            return None
        std = known.reshape(len(known), -1).astype(np.float64).std(0, ddof=1)
        return regression(scale=[float(value) or 1.0 for value in std])


def read_labels(
    dataset: datasets.Dataset,
    columns: Sequence[str],
    *,
    classes: Sequence[str] | None = None,
    num_classes: int | None = None,
) -> Labels:
    """The labels of every row, numbered as the model numbers its classes.

    ``classes`` and ``num_classes`` are the model's. Raises InputError when the columns hold no
    labels of one kind, or names that the model does not know.
    """
    if classes is not None and len(columns) > 1 and set(classes) == set(columns):
        columns = tuple(classes)
    num_classes = num_classes if classes is None else len(classes)
    cells = [dataset.select_columns([n]).with_format("arrow")[:][n] for n in columns]
    if len(columns) > 1:
        return _several(columns, cells, classes)
    column, kind = columns[0], dataset.features[columns[0]]
    if _is_list(cells[0].type):
        return _lists(column, kind, cells[0], classes)
    if isinstance(kind, datasets.Value) and _is_fractional(cells[0].type):
        return Labels(_values(columns, cells)[:, 0], None)
    y, own = _class_ids(column, kind, cells[0].to_pylist())
    one_output = num_classes == 1
    if one_output and own is None and not np.isin(y, (-1, 0, 1)).all():
        return Labels(_values(columns, cells)[:, 0], None)
    return _renumber(y, own, classes, 2 if one_output else num_classes)


def _is_fractional(kind: pa.DataType) -> bool:
    return pa.types.is_floating(kind) or pa.types.is_decimal(kind)


def _is_number(kind: pa.DataType) -> bool:
    return pa.types.is_integer(kind) or pa.types.is_boolean(kind) or _is_fractional(kind)


def _is_list(kind: pa.DataType) -> bool:
    tests = (pa.types.is_list, pa.types.is_large_list, pa.types.is_fixed_size_list)
    return any(test(kind) for test in tests)


def _values(columns: Sequence[str], cells: Sequence[Any]) -> np.ndarray:
    """(n, d) float32, nan for none. Raises InputError for 0 and 1 alone, which are ambiguous."""
    rows = [[np.nan if v is None else float(v) for v in part.to_pylist()] for part in cells]
    values = np.array(rows, dtype=np.float64).T.reshape(-1, len(columns))
    finite = values[np.isfinite(values)]
    if len(finite) and np.isin(finite, (0, 1)).all():
        named = ", ".join(map(repr, dict.fromkeys(columns)))
        wanted = f"labels as integers, or values, in {named}"
        raise InputError(wanted, "0 and 1 as floats: ambiguous", "Write them as 0 and 1.")
    with np.errstate(over="ignore"):
        return values.astype(np.float32)


def _class_ids(column: str, kind: Any, cells: list[Any]) -> tuple[np.ndarray, Names]:
    """Class ids (-1 for none) and the names of the classes, if they have any."""
    names = None
    if isinstance(kind, datasets.ClassLabel):
        names = tuple(kind.names)
        _refuse_unnamed(column, cells, range(-1, len(names)), "-1 or nothing for none")
    elif all(cell is None or isinstance(cell, str) for cell in cells):
        names = tuple(sorted({cell for cell in cells if cell is not None}))
        places = {name: place for place, name in enumerate(names)}
        cells = [None if cell is None else places[cell] for cell in cells]
    if not all(cell is None or (isinstance(cell, int) and abs(cell) < 2**62) for cell in cells):
        raise InputError(f"class names or numbers in {column!r}", str(kind), OTHER_COLUMN)
    return np.array([-1 if cell is None else int(cell) for cell in cells], dtype=np.int64), names


def _refuse_unnamed(column: str, cells: Iterable[Any], known: range, none: str) -> None:
    """A number without a name would be taken for another class, or for none."""
    if outside := sorted({cell for cell in cells if cell is not None and cell not in known}):
        wanted = f"class numbers 0..{known.stop - 1} in {column!r}, {none}"
        remedy = "Write the names of all classes into the data, or fix these labels."
        raise InputError(wanted, abbreviate(outside), remedy)


def _several(columns: Sequence[str], cells: Sequence[Any], classes: Sequence[str] | None) -> Labels:
    """A column each: of 0 and 1 multilabel, of other numbers regression."""
    for column, part in zip(columns, cells, strict=True):
        if not _is_number(part.type):
            wanted = f"numbers in each of the label columns {', '.join(map(repr, columns))}"
            remedy = "Several columns are labels of 0 and 1 each, or several values."
            raise InputError(wanted, f"{part.type} in {column!r}", remedy)
    rows = np.array([[-1 if v is None else v for v in part.to_pylist()] for part in cells]).T
    if any(_is_fractional(part.type) for part in cells) or not np.isin(rows, (-1, 0, 1)).all():
        return Labels(_values(columns, cells), None)
    return Labels(rows.astype(np.int64), tuple(classes or columns))


def _lists(column: str, kind: Any, cells: Any, classes: Sequence[str] | None) -> Labels:
    """A list a row: 0 and 1 or numbers, as many in each, or the names of the row's labels."""
    item, rows = cells.type.value_type, cells.to_pylist()
    inner = getattr(kind, "feature", None)
    present = [value for row in rows for value in row or () if value is not None]
    if isinstance(inner, datasets.ClassLabel):
        names = tuple(inner.names)
        _refuse_unnamed(column, present, range(len(names)), "an empty list for none")
        named = [row and [v if v is None else names[v] for v in row] for row in rows]
        return _multi_hot(column, named, names, classes)
    if pa.types.is_string(item) or pa.types.is_large_string(item):
        return _multi_hot(column, rows, tuple(sorted(set(present))), classes)
    widths = {len(row) for row in rows if row is not None}
    if len(widths) != 1 or not _is_number(item):
        wanted = f"lists of as many numbers in each row of {column!r}, or lists of names"
        came = f"lists of {item} of {abbreviate(sorted(map(str, widths)))} each"
        raise InputError(wanted, came, "Write 0 or 1 for each label that the model knows.")
    width, blank = widths.pop(), [np.nan if _is_fractional(item) else -1]
    full = [row if row is not None and None not in row else blank * width for row in rows]
    if _is_fractional(item):
        flat = [pa.chunked_array([[row[place] for row in full]]) for place in range(width)]
        return Labels(_values([column] * width, flat), None)
    y = np.array(full, dtype=np.int64).reshape(len(rows), width)
    if other := {str(value) for value in y.flatten().tolist()} - {"-1", "0", "1"}:
        remedy = "Write class ids as lists of 0 and 1, or as names."
        raise InputError(f"0 or 1 for each label in {column!r}", abbreviate(sorted(other)), remedy)
    return Labels(y, tuple(classes) if classes else None)


def _multi_hot(
    column: str, rows: list[Any], own: tuple[str, ...], classes: Sequence[str] | None
) -> Labels:
    """Lists of names as (n, k) of 0 and 1."""
    names = tuple(classes or own)
    _refuse_unknown(own, names)
    if not names:
        raise InputError(f"names of labels in {column!r}", "none", OTHER_COLUMN)
    places = {name: place for place, name in enumerate(names)}
    y = np.zeros((len(rows), len(names)), dtype=np.int64)
    for place, row in enumerate(rows):
        if row is None or None in row:  # half a label is none
            y[place] = -1
        else:
            y[place, [places[name] for name in row]] = 1
    return Labels(y, names)


def _renumber(
    y: np.ndarray, own: Names, classes: Sequence[str] | None, num_classes: int | None
) -> Labels:
    """Class ids renumbered by name where the model names its classes."""
    if own is None or (classes is None and num_classes in {None, len(own)}):
        return Labels(y, own if classes is None else tuple(classes))
    if classes is None:
        raise InputError(
            f"the {num_classes} classes of the model",
            f"{len(own)} class names: {abbreviate(own)}",
            "Without the model's own class names the numbers cannot be matched: give data with all "
            "classes, or with labels as numbers.",
        )
    _refuse_unknown(own, classes)
    # the last entry is that of -1, a row without a label
    ids = np.array([*(list(classes).index(name) for name in own), -1], dtype=np.int64)
    return Labels(ids[y], tuple(classes))


def _refuse_unknown(names: Iterable[str], classes: Sequence[str]) -> None:
    if unknown := [name for name in names if name not in classes]:
        wanted = f"class names that the model knows: {abbreviate(classes)}"
        remedy = "Rename the classes of the data, or choose another --label-column."
        raise InputError(wanted, abbreviate(unknown), remedy)

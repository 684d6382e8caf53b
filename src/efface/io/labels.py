"""Labels out of one column or several: one class of several, many labels, or values.

| columns | labels |
|---|---|
| one of names, classes, whole numbers, yes and no | (n,) class ids, -1 for none |
| several of 0 and 1; one of lists of them, or of lists of names | (n, k) of 0 and 1, -1 for none |
| one or several of numbers; one of lists of them | (n,) or (n, d) values, nan for none |

Whole numbers other than 0 and 1 are values where they cannot be classes: in several columns, and
for a model with one output.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import datasets
import numpy as np
import pyarrow as pa

from efface.errors import InputError
from efface.io.checkpoint import some_of
from efface.task import ENOUGH, regression
from efface.types import Task

Names = tuple[str, ...] | None
REMEDY = "Name others with --label-column."


@dataclass(frozen=True, eq=False)
class Labels:
    """``y``: as above; ``classes``: names of the classes or of the many labels, if there are."""

    y: np.ndarray
    classes: Names

    @property
    def kind(self) -> str:
        """What the labels are, as the adapters call it."""
        if self.y.dtype.kind == "f":
            return "regression"
        return "multilabel" if self.y.ndim > 1 else "multiclass"

    @property
    def there(self) -> np.ndarray:
        """(n,) of which rows have a label."""
        rows = self.y.reshape(len(self.y), -1)
        known = np.isfinite(rows) if self.kind == "regression" else rows >= 0
        return np.array(known.all(axis=1))

    def task(self) -> Task | None:
        """Values in the spread that they have in the whole table; None where no scale is needed.

        Of fewer than ten rows the spread is not known here: other records may tell it.
        """
        known = self.y[self.there]
        if self.kind != "regression" or len(known) < ENOUGH:
            return None
        spread = known.reshape(len(known), -1).astype(np.float64).std(0, ddof=1)
        return regression(scale=[float(one) or 1.0 for one in spread])


def labels_of(
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
    num_classes = num_classes if classes is None else len(classes)
    if len(columns) > 1:
        return _several(dataset, columns, classes)
    column, kind = columns[0], dataset.features[columns[0]]
    cells = _cells(dataset, column)
    if _is_list(cells.type):
        return _lists(column, kind, cells, classes)
    if isinstance(kind, datasets.Value) and _broken(cells.type):
        return Labels(_numbers(columns, [cells])[:, 0], None)
    y, own = _named(column, kind, cells.to_pylist())
    one_output = num_classes == 1
    if one_output and own is None and not np.isin(y, (-1, 0, 1)).all():
        return Labels(_numbers(columns, [cells])[:, 0], None)
    return Labels(*_as_the_model_numbers(y, own, classes, 2 if one_output else num_classes))


def _cells(dataset: datasets.Dataset, column: str) -> pa.ChunkedArray:
    return dataset.select_columns([column]).with_format("arrow")[:][column]


def _broken(kind: pa.DataType) -> bool:
    """Numbers that need not be whole."""
    return pa.types.is_floating(kind) or pa.types.is_decimal(kind)


def _is_list(kind: pa.DataType) -> bool:
    return (
        pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind)
    )


def _numbers(columns: Sequence[str], cells: Sequence[pa.ChunkedArray]) -> np.ndarray:
    """(n, d) float32, nan for none. Raises InputError for 0 and 1 alone, which say two things."""
    rows = [[np.nan if v is None else float(v) for v in part.to_pylist()] for part in cells]
    found = np.array(rows, dtype=np.float64).T.reshape(-1, len(columns))
    finite = found[np.isfinite(found)]
    if len(finite) and np.isin(finite, (0, 1)).all():
        raise InputError(
            f"labels as whole numbers, or values, in {_quoted(columns)}",
            "0 and 1 as broken numbers, which could be either",
            "Write them as 0 and 1.",
        )
    with np.errstate(over="ignore"):
        return found.astype(np.float32)


def _named(column: str, kind: Any, cells: list[Any]) -> tuple[np.ndarray, Names]:
    """Class ids (-1 for none) and the names of the classes, if they have any."""
    names = None
    if isinstance(kind, datasets.ClassLabel):
        names = tuple(kind.names)
        _refuse_outside(column, cells, range(-1, len(names)), "-1 or nothing for none")
    elif all(cell is None or isinstance(cell, str) for cell in cells):
        names = tuple(sorted({cell for cell in cells if cell is not None}))
        places = {name: place for place, name in enumerate(names)}
        cells = [None if cell is None else places[cell] for cell in cells]
    if not all(cell is None or (isinstance(cell, int) and abs(cell) < 2**62) for cell in cells):
        raise InputError(f"class names or numbers in {column!r}", str(kind), REMEDY)
    return np.array([-1 if cell is None else int(cell) for cell in cells], dtype=np.int64), names


def _refuse_outside(column: str, cells: list[Any], known: range, none: str) -> None:
    """A number without a name would be taken for another class, or for none."""
    if outside := sorted({cell for cell in cells if cell is not None and cell not in known}):
        raise InputError(
            f"class numbers 0..{known.stop - 1} in {column!r}, {none}",
            some_of(outside),
            "Write the names of all classes into the data, or mend these labels.",
        )


def _several(
    dataset: datasets.Dataset, columns: Sequence[str], classes: Sequence[str] | None
) -> Labels:
    """A column each: of 0 and 1 many labels, of other numbers values."""
    if classes is not None and set(classes) == set(columns):
        columns = tuple(classes)
    cells = [_cells(dataset, column) for column in columns]
    for column, part in zip(columns, cells, strict=True):
        plain = pa.types.is_integer(part.type) or pa.types.is_boolean(part.type)
        if not plain and not _broken(part.type):
            raise InputError(
                f"numbers in each of the label columns {_quoted(columns)}",
                f"{part.type} in {column!r}",
                "Several columns are many labels of 0 and 1, or several values.",
            )
    rows = np.array([[-1 if v is None else v for v in part.to_pylist()] for part in cells]).T
    if any(_broken(part.type) for part in cells) or not np.isin(rows, (-1, 0, 1)).all():
        return Labels(_numbers(columns, cells), None)
    return Labels(rows.astype(np.int64), tuple(classes or columns))


def _lists(column: str, kind: Any, cells: pa.ChunkedArray, classes: Sequence[str] | None) -> Labels:
    """A list a row: 0 and 1 or numbers, as many in each, or names of the labels that are there."""
    item, rows = cells.type.value_type, cells.to_pylist()
    inner = getattr(kind, "feature", None)
    if isinstance(inner, datasets.ClassLabel):
        found = [value for row in rows for value in row or ()]
        _refuse_outside(column, found, range(len(inner.names)), "an empty list for none")
        named = [row and [v if v is None else inner.names[v] for v in row] for row in rows]
        return _listed_names(column, named, tuple(inner.names), classes)
    if pa.types.is_string(item) or pa.types.is_large_string(item):
        own = tuple(sorted({name for row in rows for name in row or () if name is not None}))
        return _listed_names(column, rows, own, classes)
    widths = {len(row) for row in rows if row is not None}
    numbers = pa.types.is_integer(item) or pa.types.is_boolean(item) or _broken(item)
    if len(widths) != 1 or not numbers:
        raise InputError(
            f"lists of as many numbers in each row of {column!r}, or lists of names",
            f"lists of {item} of {some_of(sorted(map(str, widths)))} each",
            "Write 0 or 1 for each label that the model knows.",
        )
    width, blank = widths.pop(), [np.nan if _broken(item) else -1]
    full = [row if row is not None and None not in row else blank * width for row in rows]
    if _broken(item):
        flat = [pa.chunked_array([[row[place] for row in full]]) for place in range(width)]
        return Labels(_numbers([column] * width, flat), None)
    y = np.array(full, dtype=np.int64).reshape(len(rows), width)
    if not np.isin(y, (-1, 0, 1)).all():
        raise InputError(
            f"0 or 1 for each label in {column!r}",
            some_of(sorted({str(v) for v in y.flatten().tolist() if v not in {-1, 0, 1}})),
            "Write class ids as lists of 0 and 1, or as names.",
        )
    return Labels(y, tuple(classes) if classes else None)


def _listed_names(
    column: str, rows: list[Any], own: tuple[str, ...], classes: Sequence[str] | None
) -> Labels:
    """Many labels by their names."""
    names = tuple(classes or own)
    _refuse_strange([name for name in own if name not in names], names)
    places = {name: place for place, name in enumerate(names)}
    y = np.zeros((len(rows), len(names)), dtype=np.int64)
    for place, row in enumerate(rows):
        if row is None or None in row:
            y[place] = -1
        else:
            y[place, [places[name] for name in row]] = 1
    if not names:
        raise InputError(f"names of labels in {column!r}", "none", REMEDY)
    return Labels(y, names)


def _as_the_model_numbers(
    labels: np.ndarray, own: Names, classes: Sequence[str] | None, num_classes: int | None
) -> tuple[np.ndarray, Names]:
    """Labels renumbered by name where the model names its classes."""
    if own is None or (classes is None and num_classes in {None, len(own)}):
        return labels, own if classes is None else tuple(classes)
    if classes is None:
        raise InputError(
            f"the {num_classes} classes of the model",
            f"{len(own)} class names: {some_of(own)}",
            "Without the model's own class names the numbers cannot be matched: give data with all "
            "classes, or with labels as numbers.",
        )
    _refuse_strange([name for name in own if name not in classes], classes)
    numbers = np.array([*(list(classes).index(name) for name in own), -1], dtype=np.int64)
    return numbers[labels], tuple(classes)


def _refuse_strange(strange: Sequence[str], classes: Sequence[str]) -> None:
    if strange:
        raise InputError(
            f"class names that the model knows: {some_of(classes)}",
            some_of(strange),
            "Rename the classes of the data, or choose another --label-column.",
        )


def _quoted(columns: Sequence[str]) -> str:
    return ", ".join(repr(column) for column in dict.fromkeys(columns))

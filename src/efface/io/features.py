"""How rows of a table of numbers and categories become the inputs of a model: features.json."""

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from efface.errors import InputError, abbreviate, did_you_mean
from efface.io.files import read_json
from efface.io.images import OUT_OF_SCALE, Inputs, Preprocessing

if TYPE_CHECKING:
    import datasets

# a number as it is written; 007 is a name, and Python's 1_000 is none
NUMBER = r"^[-+]?((0|[1-9][0-9]*)(\.[0-9]*)?|\.[0-9]+)([eE][-+]?[0-9]+)?$"
ENCODINGS = '{}, {"mean": 50.1, "std": 9.0} or {"categories": ["f", "m"]}'
# a scaled number may be at least -2 to 2, however few rows show it
SCALED_RANGE = 2.0
# integers in JSON are unbounded, floating point is not
LARGEST = 1e300
USE_COMMAS = "Write it separated by commas, UTF-8."
AS_TRAINED = "Give the numbers that the model was trained with."
AMBIGUOUS = "0 and 1 as floats: ambiguous"

# (n, inputs of the column) float32, and what is wrong with each row
Column = tuple[np.ndarray, list[str | None]]


@dataclass(frozen=True)
class FeatureSpec:
    """The columns that go in, in the order of the model's inputs, and their encodings.

    By the name of a column: ``{}`` for a number as it is, ``{"mean": m, "std": s}`` for a number
    scaled to (value - m) / s, ``{"categories": [...]}`` for a one-hot encoding. Nothing is learned
    from the data: the model was trained with these. Raises InputError for anything else.
    """

    columns: Any
    # what error messages call the inputs
    items: ClassVar[str] = "rows"

    def __post_init__(self) -> None:
        """Refuse what would silently spoil every input."""
        if not isinstance(self.columns, Mapping) or not self.columns:
            raise _not_an_encoding("the features", self.columns)
        for name, encoding in self.columns.items():
            _check_encoding(name, encoding)

    @classmethod
    def read(cls, path: str | Path) -> "FeatureSpec":
        """From a JSON file. Raises InputError when it is none, or names a column twice."""
        wanted = f"a JSON object of columns in {path}, each with one of {ENCODINGS}"
        # the order of the JSON object is that of the model's inputs
        return cls(read_json(path, wanted, "Write it so.", _object_of_unique_names))

    def inputs(self, dataset: "datasets.Dataset", rows: Sequence[int]) -> Inputs:
        """These rows as the model takes them, (n, d); the bounds are those of the whole table.

        Raises InputError when a column is missing or of a type that holds neither.
        """
        if missing := [name for name in self.columns if name not in dataset.features]:
            wanted = f"the columns of the features in the table: {', '.join(self.columns)}"
            remedy = did_you_mean(missing[0], dataset.features)
            raise InputError(wanted, f"no {abbreviate(missing)}", remedy)
        # the whole table is encoded: the bounds must not depend on which rows are forgotten
        parts = [_encode(dataset, name, how) for name, how in self.columns.items()]
        x = torch.from_numpy(np.concatenate([part[0] for part in parts], 1))
        per_row = zip(*(part[1] for part in parts), strict=True)
        errors = [", ".join(filter(None, reasons)) or None for reasons in per_row]
        readable = torch.tensor([error is None for error in errors], dtype=torch.bool)
        low, high = self._bounds(x[readable])
        chosen = torch.as_tensor(rows, dtype=torch.int64)
        x = x[chosen[readable[chosen]]]
        return Inputs(x, [errors[row] for row in chosen.tolist()], low, high)

    def _bounds(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """The minimum and the maximum of each input, (d,)."""
        ranges = [part for encoding in self.columns.values() for part in _ranges(encoding)]
        low, high = torch.tensor(ranges).T.reshape(2, -1)
        if not len(x):
            return low.nan_to_num(0), high.nan_to_num(0)
        # fmin and fmax ignore the nan of a column whose range is unknown
        return torch.fmin(x.amin(0), low), torch.fmax(x.amax(0), high)

    @property
    def shape(self) -> tuple[int]:
        """Of one input."""
        return (sum(len(_ranges(encoding)) for encoding in self.columns.values()),)

    def outside(self, x: Tensor) -> str:
        """Which scaled column is far from where scaled numbers lie; empty when none is."""
        if tuple(x.shape[1:]) != self.shape:
            return f"are no rows of {self.shape[0]} numbers"
        place = 0
        for name, encoding in self.columns.items():
            largest = float(x[:, place].abs().max()) if len(x) else 0.0
            if "std" in encoding and largest > OUT_OF_SCALE:
                return f"reach {largest:.0f} in {name!r}: mean and std of other data?"
            place += len(_ranges(encoding))
        return ""


# How records become inputs: of images, or of rows of a table.
Spec = Preprocessing | FeatureSpec


def _ranges(encoding: Mapping[str, Any]) -> list[tuple[float, float]]:
    """For each input of a column the range it spans at least; nan where nothing is known."""
    if "categories" in encoding:
        return [(0.0, 1.0)] * len(encoding["categories"])
    return [(-SCALED_RANGE, SCALED_RANGE) if "std" in encoding else (math.nan, math.nan)]


def _check_encoding(name: str, how: Any) -> None:
    if not isinstance(how, Mapping) or set(how) not in (set(), {"mean", "std"}, {"categories"}):
        raise _not_an_encoding(repr(name), how)
    numbers = [how[part] for part in ("mean", "std") if part in how]
    finite = all(type(value) in {int, float} and abs(value) < LARGEST for value in numbers)
    if not finite or ("std" in how and not how["std"] > 0):
        came = f"{how['mean']!r} and {how['std']!r} for {name!r}"
        raise InputError("a finite mean and a standard deviation above 0", came, AS_TRAINED)
    if "categories" in how:
        given = how["categories"]
        plain = isinstance(given, list | tuple)
        plain = plain and all(isinstance(category, str | int | float) for category in given)
        words = [_word(category) for category in given] if plain else []
        if not words or len(set(words)) != len(words):
            wanted = f"a list of unique categories for {name!r}"
            raise InputError(wanted, str(given)[:100], "Give them in the model's order.")


def _not_an_encoding(what: str, came: Any) -> InputError:
    wanted, remedy = f"columns by name, each with one of {ENCODINGS}", "Keep the model's order."
    return InputError(wanted, f"{str(came)[:100]} for {what}", remedy)


def _object_of_unique_names(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    names = [name for name, _ in pairs]
    if repeated := [name for name in names if names.count(name) > 1]:
        raise InputError("unique names", f"{repeated[0]!r} twice", "Remove one of them.")
    return dict(pairs)


def _encode(dataset: "datasets.Dataset", name: str, encoding: Mapping[str, Any]) -> Column:
    """One column as inputs, over all rows."""
    import datasets
    import pyarrow as pa

    kind = dataset.features[name]
    cells = arrow_column(dataset, name)
    nested = pa.types.is_nested(cells.type) or pa.types.is_temporal(cells.type)
    if nested or not isinstance(kind, datasets.Value | datasets.ClassLabel):
        raise InputError(f"numbers or categories in {name!r}", f"{kind}", "Choose another column.")
    if "categories" in encoding:
        # a class outside of the names stays a number, and is reported as such
        values = cells.to_pylist()
        if isinstance(kind, datasets.ClassLabel):
            values = [kind.names[v] if v in range(len(kind.names)) else v for v in values]
        return _one_hot(name, values, encoding["categories"])
    if pa.types.is_integer(cells.type) or pa.types.is_floating(cells.type):
        # an empty cell becomes nan
        numbers = cells.cast(pa.float64(), safe=False).to_numpy()
    else:
        numbers = np.array([_number(value) for value in cells.to_pylist()], dtype=np.float64)
    # scaled in float64: a year minus its mean would lose digits in float32
    with np.errstate(over="ignore"):
        scaled = (numbers - float(encoding.get("mean", 0))) / float(encoding.get("std", 1))
        scaled = scaled.astype(np.float32)
    finite = np.isfinite(scaled)
    errors = [None if ok else _complaint(name, cells[n].as_py()) for n, ok in enumerate(finite)]
    return np.where(finite, scaled, np.float32(0))[:, None], errors


def unknown_column(name: str, features: Iterable[str]) -> InputError:
    """The error for a name that no column has."""
    wanted, remedy = f"a column of the table: {', '.join(features)}", did_you_mean(name, features)
    return InputError(wanted, repr(name), remedy)


def arrow_column(dataset: "datasets.Dataset", name: str) -> Any:
    """The cells of a column as pyarrow holds them: nothing is decoded, no format applied."""
    return dataset.select_columns([name]).with_format("arrow")[:][name]


def _number(value: Any) -> float:
    """A cell as a number; nan where it is none."""
    if isinstance(value, str):
        return float(value) if re.match(NUMBER, value := value.strip()) else math.nan
    try:
        return float(value)
    except (TypeError, ValueError, OverflowError):
        return math.nan


def _one_hot(name: str, values: list[Any], categories: Sequence[Any]) -> Column:
    places = {_word(category): place for place, category in enumerate(categories)}
    none = len(places)
    rows = [none if value is None else places.get(_word(value), none) for value in values]
    # an unknown category is never all zeros: the model has not seen that
    pairs = zip(rows, values, strict=True)
    errors = [_complaint(name, value) if row == none else None for row, value in pairs]
    return np.eye(none + 1, none, dtype=np.float32)[rows], errors


def _word(value: Any) -> str:
    """A category as a word: 1 and 1.0 are the same, and so are true and its JSON."""
    if isinstance(value, bool):
        return str(value).lower()
    return str(int(value) if isinstance(value, float) and value.is_integer() else value)


def _complaint(name: str, value: Any) -> str:
    shown = repr(value) if isinstance(value, str) else str(value)
    return f"{name} is empty" if value is None or value == "" else f"{name} is {shown[:40]}"

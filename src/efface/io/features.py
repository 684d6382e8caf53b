"""How rows of a table of numbers and categories become the inputs of a model: features.json."""

import json
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import datasets
import numpy as np
import pyarrow as pa
import torch
from torch import Tensor

from efface.errors import InputError
from efface.io.checkpoint import some_of
from efface.io.columns import nearest
from efface.io.formats import NUMBER
from efface.io.preprocessing import FAR, Inputs

WAYS = '{}, {"mean": 50.1, "std": 9.0} or {"categories": ["f", "m"]}'
USUAL = 2.0
"""A scaled number takes at least -2 to 2, however few rows show it."""

BEYOND = 1e300
"""Whole numbers in JSON have no end, floating point has."""

Cells = tuple[np.ndarray, list[str | None]]
"""(n, inputs of the column) float32, and what is wrong with each row."""


@dataclass(frozen=True)
class FeatureSpec:
    """The columns that go in, in the order of the model's inputs, and how.

    By the name of a column: ``{}`` for a number as it is, ``{"mean": m, "std": s}`` for a number
    scaled to (value - m) / s, ``{"categories": [...]}`` for one input a category, 1 where the cell
    is it and else 0. Nothing is learned from the data at hand: the model was trained with these.
    Raises InputError for anything else.
    """

    columns: Any
    things: ClassVar[str] = "rows"

    def __post_init__(self) -> None:
        """Refuse what would silently spoil every input."""
        if not isinstance(self.columns, Mapping) or not self.columns:
            raise _unknown("the features", self.columns)
        for name, how in self.columns.items():
            _refuse_other_ways(name, how)

    @classmethod
    def read(cls, path: str | Path) -> "Features":
        """From a JSON file. Raises InputError when it is none, or names a column twice."""
        try:
            text = Path(path).read_text(encoding="utf-8-sig")
            found = json.loads(text, object_pairs_hook=_each_once)
        except (OSError, ValueError, RecursionError) as error:
            if isinstance(error, InputError):
                raise
            raise InputError(
                f"a JSON object of columns in {path}",
                type(error).__name__,
                f"Write each column with one of {WAYS}.",
            ) from error
        return cls(found)

    def inputs(self, dataset: datasets.Dataset, rows: Sequence[int]) -> Inputs:
        """These rows as the model takes them, (n, d); the bounds are those of the whole table.

        Raises InputError when a column is missing or of a type that holds neither.
        """
        if missing := [name for name in self.columns if name not in dataset.features]:
            raise InputError(
                f"the columns of the features in the table: {', '.join(self.columns)}",
                f"no {some_of(missing)}",
                nearest(missing[0], dataset.features),
            )
        parts = [_cells(dataset, name, how) for name, how in self.columns.items()]
        x = torch.from_numpy(np.concatenate([part[0] for part in parts], 1))
        wrong = [_joined(reasons) for reasons in zip(*(part[1] for part in parts), strict=True)]
        fine = torch.tensor([reason is None for reason in wrong], dtype=torch.bool)
        low, high = self._bounds(x[fine])
        chosen = torch.as_tensor(rows, dtype=torch.int64)
        kept = chosen[fine[chosen]]
        return Inputs(x[kept], [wrong[row] for row in chosen.tolist()], low, high)

    def _bounds(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """The least and the greatest of each input, (d,)."""
        usual = [part for how in self.columns.values() for part in _usual(how)]
        known = torch.tensor(usual).T.reshape(2, -1)
        if not len(x):
            return known[0].nan_to_num(0), known[1].nan_to_num(0)
        return torch.fmin(x.amin(0), known[0]), torch.fmax(x.amax(0), known[1])

    @property
    def shape(self) -> tuple[int]:
        """Of one input."""
        return (sum(len(_usual(how)) for how in self.columns.values()),)

    def outside(self, x: Tensor) -> str:
        """Which scaled column is far from where scaled numbers lie; empty when none is."""
        if tuple(x.shape[1:]) != self.shape:
            return f"are no rows of {self.shape[0]} numbers"
        place = 0
        for name, how in self.columns.items():
            reach = float(x[:, place].abs().max()) if len(x) else 0.0
            if "std" in how and reach > FAR:
                return f"reach {reach:.0f} in {name!r}: mean and std of other data?"
            place += len(_usual(how))
        return ""


def _usual(how: Mapping[str, Any]) -> list[tuple[float, float]]:
    """For each input of a column between what it lies at least; nan where nothing is known."""
    if "categories" in how:
        return [(0.0, 1.0)] * len(how["categories"])
    return [(-USUAL, USUAL) if "std" in how else (math.nan, math.nan)]


def _refuse_other_ways(name: str, how: Any) -> None:
    if not isinstance(how, Mapping) or set(how) not in (set(), {"mean", "std"}, {"categories"}):
        raise _unknown(repr(name), how)
    numbers = [how[part] for part in ("mean", "std") if part in how]
    finite = all(type(value) in {int, float} and abs(value) < BEYOND for value in numbers)
    if not finite or ("std" in how and not how["std"] > 0):
        raise InputError(
            f"a finite mean and a standard deviation above 0 for {name!r}",
            f"{how['mean']!r} and {how['std']!r}",
            "Give the numbers that the model was trained with.",
        )
    if "categories" in how:
        _refuse_other_categories(name, how["categories"])


def _refuse_other_categories(name: str, given: Any) -> None:
    plain = isinstance(given, list | tuple) and all(isinstance(c, str | int | float) for c in given)
    words = [_word(category) for category in given] if plain else []
    if not words or len(set(words)) != len(words):
        raise InputError(
            f"a list of different categories for {name!r}",
            str(given)[:100],
            "Give them in the order that the model was trained with.",
        )


def _unknown(what: str, came: Any) -> InputError:
    return InputError(
        f"columns by name, each with one of {WAYS}",
        f"{str(came)[:100]} for {what}",
        "List them in the order of the model's inputs.",
    )


def _each_once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """A JSON object, whose order is that of the inputs."""
    names = [name for name, _ in pairs]
    if twice := [name for name in names if names.count(name) > 1]:
        raise InputError("names that each stand once", f"{twice[0]!r} twice", "Leave one away.")
    return dict(pairs)


def _joined(reasons: Sequence[str | None]) -> str | None:
    """What is wrong with a row, over all its columns."""
    return ", ".join(reason for reason in reasons if reason) or None


def _cells(dataset: datasets.Dataset, name: str, how: Mapping[str, Any]) -> Cells:
    """One column as inputs."""
    kind = dataset.features[name]
    cells: pa.ChunkedArray = dataset.select_columns([name]).with_format("arrow")[:][name]
    nested = pa.types.is_nested(cells.type) or pa.types.is_temporal(cells.type)
    if nested or not isinstance(kind, datasets.Value | datasets.ClassLabel):
        raise InputError(
            f"numbers or categories in {name!r}",
            f"{kind}",
            "Give the model's inputs as columns of numbers or words.",
        )
    if "categories" not in how:
        return _numbers(name, cells, float(how.get("mean", 0.0)), float(how.get("std", 1.0)))
    values = cells.to_pylist()
    if isinstance(kind, datasets.ClassLabel):
        values = [kind.names[v] if v in range(len(kind.names)) else v for v in values]
    return _one_hot(name, values, [_word(category) for category in how["categories"]])


def _numbers(name: str, cells: pa.ChunkedArray, mean: float, std: float) -> Cells:
    if pa.types.is_integer(cells.type) or pa.types.is_floating(cells.type):
        exact = cells.cast(pa.float64(), safe=False).to_numpy()  # an empty cell becomes nan
    else:
        exact = np.array([_number(value) for value in cells.to_pylist()], dtype=np.float64)
    with np.errstate(over="ignore"):
        scaled = ((exact - mean) / std).astype(np.float32)
    bad = np.flatnonzero(~np.isfinite(scaled)).tolist()
    wrong: list[str | None] = [None] * len(cells)
    for row in bad:
        wrong[row] = _told(name, cells[row].as_py())
    scaled[bad] = 0
    return scaled[:, None], wrong


def _number(value: Any) -> float:
    """A cell as a number; nan where it is none."""
    if isinstance(value, str):
        return float(value) if re.match(NUMBER, value := value.strip()) else math.nan
    try:
        return float(value)
    except (TypeError, ValueError, OverflowError):
        return math.nan


def _one_hot(name: str, values: list[Any], categories: list[str]) -> Cells:
    places = {category: place for place, category in enumerate(categories)}
    found = [None if value is None else places.get(_word(value)) for value in values]
    x = np.zeros((len(values), len(categories)), dtype=np.float32)
    wrong: list[str | None] = [None] * len(values)
    for row, place in enumerate(found):
        if place is None:
            wrong[row] = _told(name, values[row])
        else:
            x[row, place] = 1
    return x, wrong


def _word(value: Any) -> str:
    """A category as a word: 1 and 1.0 are the same, and so are true and its JSON."""
    if isinstance(value, bool):
        return str(value).lower()
    whole = isinstance(value, float) and value.is_integer()
    return str(int(value) if whole else value)


def _told(name: str, value: Any) -> str:
    shown = repr(value) if isinstance(value, str) else str(value)
    return f"{name} is empty" if value is None or value == "" else f"{name} is {shown[:40]}"

"""Input checks of metrics: empty arrays, non-finite numbers, records that do not match."""

from collections.abc import Mapping

import numpy as np
from jaxtyping import Bool, Float, Shaped

from efface.errors import InputError, abbreviate

# How far the sum of a row of probabilities may be from 1.
TOLERANCE = 1e-3

ALIKE = "Measure all models on the same records, in the same order."


def need_numbers(**arrays: Shaped[np.ndarray, "..."]) -> None:
    """Raises InputError for an array, by its name, that is empty or not finite."""
    for name, values in arrays.items():
        if not values.size:
            raise InputError(f"values for {name}", "none", "Give at least one record.")
        if bad := int((~np.isfinite(values)).sum()):
            came = f"{bad} of {values.size} that are nan or infinite"
            remedy = "Check the model: no metric can be computed from its outputs."
            raise InputError(f"finite numbers for {name}", came, remedy)


def need_same_records(axis: int = -1, **arrays: Shaped[np.ndarray, "..."]) -> None:
    """``need_numbers``, and InputError unless all have one entry a record along the axis."""
    need_numbers(**arrays)
    counts = {name: values.shape[axis] for name, values in arrays.items()}
    _need_equal("the same records on all sides", counts, ALIKE)


def need_probabilities(**arrays: Shaped[np.ndarray, "_ _"]) -> None:
    """Raises InputError unless rows are probabilities of the same classes and the same records."""
    need_same_records(0, **arrays)
    need_same_classes(**arrays)


def need_same_classes(**arrays: Shaped[np.ndarray, "_ _"]) -> None:
    """Raises InputError for rows below 0 or with another sum than 1, or of other classes."""
    counts = {name: rows.shape[1] for name, rows in arrays.items()}
    _need_equal("the same classes on all sides", counts, ALIKE)
    for name, rows in arrays.items():
        # Loose: float32 softmax over many classes misses 1 by more than rounding of one sum.
        wrong = (rows < 0).any(axis=1) | (np.abs(rows.sum(axis=1) - 1) > TOLERANCE)
        if bad := int(wrong.sum()):
            came = f"{bad} of {len(rows)} rows below 0 or with another sum than 1"
            remedy = "Give the softmax of the outputs."
            raise InputError(f"probabilities in each row of {name}", came, remedy)


def _need_equal(wanted: str, values: Mapping[str, object], remedy: str) -> None:
    if len(set(values.values())) > 1:
        raise InputError(wanted, ", ".join(f"{k} {v}" for k, v in values.items()), remedy)


def need_at_least(least: int, what: str, count: int, remedy: str) -> None:
    """Raises InputError when there are fewer of ``what`` than ``least``."""
    if count < least:
        word = {2: "two", 4: "four"}.get(least, str(least))
        raise InputError(f"at least {word} {what}", str(count), remedy)


def need_classes(count: int) -> None:
    """Raises InputError when ``count``, of forget records with unseen ones of their class, is 0."""
    if not count:
        wanted = "unseen records of the same classes as the forget records"
        remedy = "Give a holdout that has the classes of the forget records."
        raise InputError(wanted, "none", remedy)


def sound(values: Shaped[np.ndarray, "s n"], what: str) -> Float[np.ndarray, "s n"]:
    """The values in double precision; raises InputError that names the models of nan or inf."""
    found = np.asarray(values, np.float64)
    # The whole model is named: one nan in its outputs makes its other numbers doubtful too.
    broken = np.flatnonzero(~np.isfinite(found).all(axis=1))
    if len(broken):
        came = f"nan or inf in {len(broken)} of {len(found)} rows: {abbreviate(broken)}"
        remedy = "Omit these models, and say how many there were."
        raise InputError(f"finite {what}", came, remedy)
    return found


def enough(chosen: Bool[np.ndarray, "s n"], least: int, what: str) -> None:
    """Raises InputError when a record has fewer than ``least`` models in the group ``what``."""
    counts = chosen.sum(axis=0)
    few = int((counts < least).sum())
    if few or not counts.size:
        came = f"{few} of {counts.size} records with fewer" if counts.size else "no record"
        wanted = f"at least {least} {what} for each record"
        raise InputError(wanted, came, "Make more of them, or omit these records.")


def same_shape(**tables: np.ndarray) -> None:
    """Raises InputError when the arrays do not have one shape."""
    shapes = {name: table.shape for name, table in tables.items()}
    _need_equal("arrays of one shape", shapes, "Give the same models and records in each.")

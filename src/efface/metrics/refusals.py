"""What no metric may count: nothing, numbers that are not finite, records that do not pair up."""

import numpy as np
from jaxtyping import Bool, Float, Shaped

from efface.errors import InputError, abbreviate

# How far the sum of a row of probabilities may be from 1.
TOLERANCE = 1e-3


def need_numbers(**arrays: Shaped[np.ndarray, "..."]) -> None:
    """Raises InputError for an array, by its name, that is empty or not finite."""
    for name, values in arrays.items():
        if not values.size:
            raise InputError(f"values for {name}", "none", "Give at least one record.")
        if bad := int((~np.isfinite(values)).sum()):
            came = f"{bad} of {values.size} that are nan or infinite"
            remedy = "Look at the model: its answers cannot be scored."
            raise InputError(f"finite numbers for {name}", came, remedy)


def need_same_records(**arrays: Shaped[np.ndarray, "..."]) -> None:
    """Raises InputError unless all have one entry for each of the same records (last axis)."""
    _need_one_count("records", {name: values.shape[-1] for name, values in arrays.items()})


def need_same_rows(**arrays: Shaped[np.ndarray, "..."]) -> None:
    """Raises InputError unless all have one row for each of the same records (first axis)."""
    _need_one_count("records", {name: len(values) for name, values in arrays.items()})


def need_probabilities(**arrays: Shaped[np.ndarray, "_ _"]) -> None:
    """Raises InputError unless rows are probabilities of the same classes and the same records."""
    need_numbers(**arrays)
    need_same_rows(**arrays)
    need_same_classes(**arrays)


def need_same_classes(**arrays: Shaped[np.ndarray, "_ _"]) -> None:
    """Raises InputError for rows below 0 or with another sum than 1, or of other classes."""
    _need_one_count("classes", {name: rows.shape[1] for name, rows in arrays.items()})
    for name, rows in arrays.items():
        # Loose: float32 softmax over many classes misses 1 by more than rounding of one sum.
        wrong = (rows < 0).any(axis=1) | (np.abs(rows.sum(axis=1) - 1) > TOLERANCE)
        if bad := int(wrong.sum()):
            came = f"{bad} of {len(rows)} rows below 0 or with another sum than 1"
            remedy = "Give the softmax of the outputs."
            raise InputError(f"probabilities in each row of {name}", came, remedy)


def _need_one_count(what: str, counts: dict[str, int]) -> None:
    if len(set(counts.values())) > 1:
        came = ", ".join(f"{name} {count}" for name, count in counts.items())
        remedy = "Measure all models on the same records, in the same order."
        raise InputError(f"the same {what} on all sides", came, remedy)


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
    if len(set(shapes.values())) > 1:
        came = ", ".join(f"{name} {shape}" for name, shape in shapes.items())
        raise InputError("arrays of one shape", came, "Give the same models and records in each.")

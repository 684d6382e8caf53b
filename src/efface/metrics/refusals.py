"""What no score may count: nothing, numbers that are none, records that do not pair up."""

import numpy as np
from jaxtyping import Bool, Float, Shaped

from efface.errors import InputError


def need_numbers(**arrays: Shaped[np.ndarray, "..."]) -> None:
    """Refuse, by its name, an array that is empty or holds nan or an infinity."""
    for name, values in arrays.items():
        if not values.size:
            raise InputError(f"values for {name}", "none", "Give at least one record.")
        bad = int((~np.isfinite(values)).sum())
        if bad:
            raise InputError(
                f"finite numbers for {name}",
                f"{bad} of {values.size} that are nan or infinite",
                "Look at the model: its answers cannot be scored.",
            )


def need_same_records(**arrays: Shaped[np.ndarray, "..."]) -> None:
    """Refuse arrays that do not have one entry for each of the same records (their last axis)."""
    counts = {name: values.shape[-1] for name, values in arrays.items()}
    _need_one_count("the same records on all sides", counts)


def need_same_rows(**arrays: Shaped[np.ndarray, "..."]) -> None:
    """Refuse arrays that do not have one row for each of the same records (their first axis)."""
    counts = {name: len(values) for name, values in arrays.items()}
    _need_one_count("the same records on all sides", counts)


def need_probabilities(**arrays: Shaped[np.ndarray, "_ _"]) -> None:
    """Refuse rows that are no probabilities of one set of classes, or of other records."""
    need_numbers(**arrays)
    need_same_rows(**arrays)
    need_same_classes(**arrays)


def need_same_classes(**arrays: Shaped[np.ndarray, "_ _"]) -> None:
    """Refuse rows below 0 or of another sum than 1, and sides with other numbers of classes."""
    counts = {name: rows.shape[1] for name, rows in arrays.items()}
    _need_one_count("the same classes on all sides", counts)
    for name, rows in arrays.items():
        bad = int(((rows < 0).any(axis=1) | (np.abs(rows.sum(axis=1) - 1) > 1e-3)).sum())  # noqa: PLR2004
        if bad:
            raise InputError(
                f"probabilities in each row of {name}",
                f"{bad} of {len(rows)} rows below 0 or with another sum than 1",
                "Give the softmax of the outputs.",
            )


def _need_one_count(wanted: str, counts: dict[str, int]) -> None:
    if len(set(counts.values())) > 1:
        raise InputError(
            wanted,
            ", ".join(f"{name} {count}" for name, count in counts.items()),
            "Measure all models on the same records, in the same order.",
        )


def sound(values: Shaped[np.ndarray, "s n"], what: str) -> Float[np.ndarray, "s n"]:
    """The values in double precision. Raises InputError that names the models of nan or inf."""
    found = np.asarray(values, np.float64)
    broken = np.flatnonzero(~np.isfinite(found).all(axis=1))
    if len(broken):
        named = ", ".join(str(row) for row in broken[:10]) + ", …" * (len(broken) > 10)  # noqa: PLR2004
        raise InputError(
            f"finite {what}",
            f"nan or inf in {len(broken)} of {len(found)} rows: {named}",
            "Leave these models out, and say how many there were.",
        )
    return found


def enough(chosen: Bool[np.ndarray, "s n"], least: int, what: str) -> None:
    """Raises InputError when a record has fewer than ``least`` models in the group ``what``."""
    counts = chosen.sum(axis=0)
    few = int((counts < least).sum())
    if few or not counts.size:
        raise InputError(
            f"at least {least} {what} for each record",
            f"{few} of {counts.size} records with fewer" if counts.size else "no record",
            "Make more of them, or leave these records out.",
        )


def same_shape(**tables: np.ndarray) -> None:
    """Raises InputError when the arrays do not have one shape."""
    shapes = {name: table.shape for name, table in tables.items()}
    if len(set(shapes.values())) > 1:
        raise InputError(
            "arrays of one shape",
            ", ".join(f"{name} {shape}" for name, shape in shapes.items()),
            "Give the same models and records in each.",
        )

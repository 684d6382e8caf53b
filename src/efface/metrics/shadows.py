"""What the attacks with shadow models share: sound arrays, and moments over the models of a record.

Shapes: s models (or pipelines) · n records (targets).
"""

from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float

from efface.errors import InputError

Table = Float[np.ndarray, "s n"]

LEAST_SPREAD = 1e-6
"""Models that all say the same have no spread; their values must not become 0 / 0."""


class Moments(NamedTuple):
    """Of each record over the models of one group: how many, their mean, the squares around it."""

    count: np.ndarray
    mean: np.ndarray
    squares: np.ndarray

    def without(self, values: Table) -> "Moments":
        """The moments with one of the values of each record left out, for each row of ``values``.

        Exact and in one step, so that no fit is done again for each model.
        """
        count = np.broadcast_to(self.count - 1, values.shape)
        mean = self.mean - (values - self.mean) / (self.count - 1)
        less = self.count / (self.count - 1) * (values - self.mean) ** 2
        return Moments(count, mean, np.maximum(self.squares - less, 0))

    def spread(self, floor: float) -> np.ndarray:
        """Standard deviation (n - 1), never below ``floor`` times the one that records share."""
        return np.maximum(np.sqrt(self.squares / (self.count - 1)), floor * self.shared_spread())

    def shared_spread(self) -> np.ndarray:
        """One standard deviation around each record's own mean, over all records of a row."""
        count = np.broadcast_to(self.count, self.squares.shape)
        free = (count - 1).sum(axis=-1, keepdims=True)
        shared = np.sqrt(self.squares.sum(axis=-1, keepdims=True) / free)
        return np.maximum(shared, LEAST_SPREAD)


def moments(values: Table, chosen: Bool[np.ndarray, "s n"]) -> Moments:
    """Of each record over the models that are chosen for it; at least one each."""
    count = chosen.sum(axis=0)
    mean = np.where(chosen, values, 0).sum(axis=0) / count
    squares = np.where(chosen, (values - mean) ** 2, 0).sum(axis=0)
    return Moments(count, mean, squares)


def sound(values: Table, what: str) -> Float[np.ndarray, "s n"]:
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


def with_judged(
    judged: Float[np.ndarray, " n"], table: Table, member: Bool[np.ndarray, "s n"], *, what: str
) -> tuple[Float[np.ndarray, " n"], Float[np.ndarray, "s n"]]:
    """The judged model's values and the other models', sound and of one length; else InputError."""
    same_shape(shadow=table, member=member)
    same_shape(judged=judged, record=np.empty(table.shape[1]))
    return sound(judged[None], f"{what} of the judged model")[0], sound(table, what)

"""How far points of the plane lie from a decision boundary."""

import numpy as np
from jaxtyping import Float
from scipy.spatial import cKDTree
from torch import nn

from efface.errors import InputError
from efface.geometry import blobs as two

FINE = 301
"""Points of the grid on whose edges the boundary is looked for; 0.03 apart."""


def crossings(field: Float[np.ndarray, "up across"]) -> Float[np.ndarray, "m 2"]:
    """Where a field is 0 on the edges of the grid of the blobs' box, by straight lines between."""
    across, up = (
        np.linspace(low, high, side)
        for low, high, side in zip(two.LOW, two.HIGH, field.shape[::-1], strict=True)
    )
    found = []
    for axis in (0, 1):
        one = np.take(field, range(field.shape[axis] - 1), axis)
        other = np.take(field, range(1, field.shape[axis]), axis)
        rows, columns = np.nonzero((one > 0) != (other > 0))
        share = one[rows, columns] / (one[rows, columns] - other[rows, columns])
        x, y = across[columns], up[rows]
        step = (across[1] - across[0]) * (axis == 1), (up[1] - up[0]) * (axis == 0)
        found.append(np.stack([x + share * step[0], y + share * step[1]], 1))
    return np.concatenate(found)


def distance_to_boundary(
    model: nn.Module, x: Float[np.ndarray, "n 2"], *, side: int = FINE
) -> Float[np.ndarray, " n"]:
    """Of each point the distance to the nearest crossing, in units of the inputs; off by 0.02.

    Raises InputError for a model whose answer is the same all over the box.
    """
    field = two.sureness(model, two.grid(side)).numpy().reshape(side, side)
    boundary = crossings(field)
    if not len(boundary):
        raise InputError(
            "a model with a boundary inside the box",
            "one that answers alike everywhere",
            "Train it on both blobs.",
        )
    return cKDTree(boundary).query(x)[0]

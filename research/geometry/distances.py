"""How far points of the plane lie from a decision boundary."""

import numpy as np
import torch
from jaxtyping import Float
from scipy.spatial import KDTree
from torch import Tensor, nn

from efface.errors import InputError
from efface.task import logits
from research.geometry import blobs as two

# Points of the grid on whose edges the boundary is searched; 0.03 apart.
FINE = 301


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


def boundary_of(model: nn.Module, *, side: int = FINE) -> Float[np.ndarray, "m 2"]:
    """Points of a model's decision boundary within the blobs' box, about 0.03 apart.

    Raises InputError for a model whose prediction is the same all over the box.
    """
    field = two.sureness(model, two.grid(side)).numpy().reshape(side, side)
    found = crossings(field)
    if not len(found):
        raise InputError(
            "a model with a boundary inside the box",
            "the same prediction everywhere",
            "Train it on both blobs.",
        )
    return found


def across(
    model: nn.Module, offsets: Float[np.ndarray, " t"], *, places: int = 60
) -> Float[Tensor, "places t 2"]:
    """Points on the normals of the boundary, ``offsets`` away from it; above 0 towards class 1.

    ``places``: about so many points of the boundary, evenly out of all.
    """
    foot = boundary_of(model)
    # evenly along the list of edges, which runs over the grid row by row
    foot = foot[:: max(1, len(foot) // places)]
    at = torch.tensor(foot, dtype=torch.float32, requires_grad=True)
    answer = logits(model, at)
    (slope,) = torch.autograd.grad((answer[:, 1] - answer[:, 0]).sum(), at)
    normal = slope / slope.norm(dim=1, keepdim=True)
    steps = torch.tensor(offsets, dtype=torch.float32)[None, :, None]
    return at.detach()[:, None] + steps * normal[:, None]


def distance_to_boundary(
    model: nn.Module, x: Float[np.ndarray, "n 2"], *, side: int = FINE
) -> Float[np.ndarray, " n"]:
    """Of each point the distance to the boundary, in units of the inputs; off by 0.02.

    Raises InputError as ``boundary_of``.
    """
    return KDTree(boundary_of(model, side=side)).query(x)[0]

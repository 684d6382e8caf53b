"""Distances between all points and some of them, in blocks: who may be near, and how near exactly.

Shapes: n points, d numbers each, m rows asked about, b of them in a block, c candidates.
"""

from collections.abc import Callable, Iterator

import numpy as np
from jaxtyping import Float, Int64

BLOCK = 4_000_000
"""Numbers held at once, where that leaves enough rows for a fast matrix product."""
LEAST_ROWS = 32

Reach = Callable[[Float[np.ndarray, "b n"]], Float[np.ndarray, " b"]]
"""From squared distances, a row of the block to all points, to the greatest that matters."""
Candidates = tuple[Int64[np.ndarray, " c"], Int64[np.ndarray, " c"], Float[np.ndarray, " c"]]
"""Place of the ball in its block, row of the point, squared distance."""


def candidates(
    points: Float[np.ndarray, "n d"],
    middles: Int64[np.ndarray, " m"],
    reach: Reach,
) -> Iterator[tuple[np.ndarray, Candidates]]:
    """Block by block: every point that may be in a ball, with its squared distance.

    A matrix product finds them fast; it rounds, so all within twice its error of ``reach`` stay
    candidates, and their distances are taken anew from differences.
    """
    centre = points.mean(axis=0, dtype=np.float64)
    norms = np.concatenate([np.square(part - centre).sum(axis=1) for part in parts(points)])
    error = 4 * (points.shape[1] + 4) * np.finfo(np.float64).eps * (norms + norms.max())
    step = max(LEAST_ROWS, BLOCK // len(points))
    for start in range(0, len(middles), step):
        own = middles[start : start + step]
        asked = points[own] - centre
        squared = np.empty((len(own), len(points)))
        begin = 0
        for part in parts(points):
            end = begin + len(part)
            np.matmul(asked, (part - centre).T, out=squared[:, begin:end])
            begin = end
        squared *= -2
        squared += norms
        squared += norms[own, None]
        near = squared <= (reach(squared) + 2 * error[own])[:, None]
        place, row = (one.astype(np.int64) for one in np.nonzero(near))
        yield own, (place, row, squared_distances(points, own[place], row))


def squared_distances(
    points: Float[np.ndarray, "n d"], left: Int64[np.ndarray, " c"], right: Int64[np.ndarray, " c"]
) -> Float[np.ndarray, " c"]:
    """Of each pair of rows, in double precision, from differences."""
    step, found = max(1, BLOCK // points.shape[1]), np.empty(len(left))
    for start in range(0, len(left), step):
        some = slice(start, start + step)
        apart = points[left[some]].astype(np.float64) - points[right[some]]
        found[some] = np.square(apart, out=apart).sum(axis=1)
    return found


def parts(points: Float[np.ndarray, "n d"]) -> Iterator[Float[np.ndarray, "b d"]]:
    """The points in blocks, in order."""
    step = max(1, BLOCK // points.shape[1])
    return (points[start : start + step] for start in range(0, len(points), step))

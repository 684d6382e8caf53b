"""Who lies near each record: its ball B_r(x), the record itself included.

Points are one row of numbers a record: features, or inputs laid flat. Distances are Euclidean.
Shapes: n points, d numbers each, m balls (as many as points, or as the rows that were asked about).
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from jaxtyping import Float, Int, Int64, Shaped

from efface.errors import InputError
from efface.scores.refusals import need_numbers

NEIGHBOURS = 20
BLOCK = 4_000_000
"""Numbers held at once, where that leaves enough rows for a fast matrix product."""
LEAST_ROWS = 32

Candidates = tuple[Int64[np.ndarray, " c"], Int64[np.ndarray, " c"], Float[np.ndarray, " c"]]
"""Place of the ball in its block, row of the point, squared distance."""


@dataclass(frozen=True, eq=False)
class Balls:
    """Which of n points lie in each of m balls.

    ``rows[starts[i] : starts[i + 1]]`` are the points in ball i: **the record in the middle is in
    its own ball**, and first; the others follow by distance, and by row where that is equal. ``of``
    (m,) is the row in the middle of each ball, ``radius`` (m,) how far it reaches, ``among`` is n.
    ``recall``: of a search that may miss neighbours the share found, on a sample; else None.
    """

    rows: Int64[np.ndarray, " entries"]
    starts: Int64[np.ndarray, " ends"]
    of: Int64[np.ndarray, " m"]
    radius: Float[np.ndarray, " m"]
    among: int
    recall: float | None = None

    def __len__(self) -> int:
        return len(self.of)

    @cached_property
    def sizes(self) -> Int64[np.ndarray, " m"]:
        """Points in each ball, at least 1: the record itself."""
        return np.diff(self.starts)


def nearest(
    points: Float[np.ndarray, "n d"],
    *,
    neighbours: int = NEIGHBOURS,
    of: Int[np.ndarray, " m"] | None = None,
) -> Balls:
    """The record itself and its ``neighbours`` nearest others: a radius of its own for each record.

    ``of``: the rows asked about, all when not given. Exact: distances are differences, squared and
    summed in double precision; of equal ones the lower row comes first, and the record itself
    before all. Works in blocks: at most 4 million numbers, or 32 a point, are held two times over.
    Raises InputError for points that are none, not finite or no more than ``neighbours``.
    """
    middles = _needed(points, of)
    need_neighbours(neighbours, points)

    def reach(squared: Float[np.ndarray, "b n"]) -> Float[np.ndarray, " b"]:
        return np.partition(squared, neighbours, axis=1)[:, neighbours]

    def keep(place: Int64[np.ndarray, " c"], _: Float[np.ndarray, " c"]) -> np.ndarray:
        first = np.searchsorted(place, place)
        return np.arange(len(place)) - first <= neighbours

    rows, squared, sizes = _gathered(points, middles, reach, keep)
    starts = starts_of(sizes)
    return Balls(rows, starts, middles, np.sqrt(squared[starts[1:] - 1]), len(points))


def within(
    points: Float[np.ndarray, "n d"], *, radius: float, of: Int[np.ndarray, " m"] | None = None
) -> Balls:
    """All points no farther than ``radius``: the ball of the definition, one radius for all.

    A record with nobody near has itself alone in its ball: look at ``sizes`` before you read a
    share of them. ``of``, order, blocks and exactness as in ``nearest``. Raises InputError for
    points that are none or not finite, or a radius that is not above 0.
    """
    middles = _needed(points, of)
    if not 0 < radius < np.inf:
        raise InputError("a radius above 0", str(radius), "Give it in the unit of the points.")

    def reach(squared: Float[np.ndarray, "b n"]) -> Float[np.ndarray, " b"]:
        return np.full(len(squared), float(radius) ** 2)

    def keep(_: Int64[np.ndarray, " c"], squared: Float[np.ndarray, " c"]) -> np.ndarray:
        return np.sqrt(squared) <= radius

    rows, _, sizes = _gathered(points, middles, reach, keep)
    return Balls(rows, starts_of(sizes), middles, np.full(len(middles), radius), len(points))


def need_neighbours(neighbours: int, points: Shaped[np.ndarray, "n d"]) -> None:
    """Raises InputError for fewer neighbours than one, or as many as there are points."""
    if not 0 < neighbours < len(points):
        raise InputError(
            f"1 to {len(points) - 1} neighbours, for {len(points)} points",
            str(neighbours),
            "Ask for fewer neighbours, or give more points.",
        )


def starts_of(sizes: Int64[np.ndarray, " m"]) -> Int64[np.ndarray, " ends"]:
    """Where each ball begins in ``rows``, and where the last one ends."""
    return np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64)


def _needed(
    points: Float[np.ndarray, "n d"], of: Int[np.ndarray, " m"] | None
) -> Int64[np.ndarray, " m"]:
    need_numbers(points=points)
    if of is None:
        return np.arange(len(points), dtype=np.int64)
    middles = np.asarray(of, np.int64)
    if not len(middles) or middles.min() < 0 or middles.max() >= len(points):
        came = f"{middles.min()} to {middles.max()}" if len(middles) else "none"
        raise InputError(f"rows from 0 to {len(points) - 1}", came, "Give rows of these points.")
    return middles


def _gathered(
    points: Float[np.ndarray, "n d"],
    middles: Int64[np.ndarray, " m"],
    reach: Callable[..., np.ndarray],
    keep: Callable[..., np.ndarray],
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Rows and squared distances of all balls in a line, and how many each ball has."""
    rows, distances, sizes = [], [], []
    for own, (place, row, squared) in _candidates(points, middles, reach):
        order = np.lexsort((row, squared, row != own[place], place))
        kept = order[keep(place[order], squared[order])]
        rows.append(row[kept])
        distances.append(squared[kept])
        sizes.append(np.bincount(place[kept], minlength=len(own)))
    return np.concatenate(rows), np.concatenate(distances), np.concatenate(sizes)


def _candidates(
    points: Float[np.ndarray, "n d"],
    middles: Int64[np.ndarray, " m"],
    reach: Callable[..., np.ndarray],
) -> Iterator[tuple[np.ndarray, Candidates]]:
    """Block by block: every point that may be in a ball, with its squared distance.

    A matrix product finds them fast; it rounds, so all within twice its error of ``reach`` stay
    candidates, and their distances are taken anew from differences.
    """
    centre = points.mean(axis=0, dtype=np.float64)
    norms = np.concatenate(
        [np.square(part - centre).sum(axis=1) for part in _parts(points, points.shape[1])]
    )
    error = 4 * (points.shape[1] + 4) * np.finfo(np.float64).eps * (norms + norms.max())
    step = max(LEAST_ROWS, BLOCK // len(points))
    for start in range(0, len(middles), step):
        own = middles[start : start + step]
        asked = points[own] - centre
        squared = np.empty((len(own), len(points)))
        begin = 0
        for part in _parts(points, points.shape[1]):
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


def _parts(points: Float[np.ndarray, "n d"], width: int) -> Iterator[Float[np.ndarray, "b d"]]:
    step = max(1, BLOCK // width)
    return (points[start : start + step] for start in range(0, len(points), step))

"""Balls B_r(x) of nearest neighbours: exact in blocks, or approximate (FAISS) for a million points.

``nearest`` takes k neighbours, ``within`` one radius for all, ``nearest_approximate`` misses some
and says how many. Points are one row of numbers a record: embeddings, or flattened inputs.
Distances are Euclidean. Shapes: n points of d numbers · m balls, one a point or a queried row.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
from jaxtyping import Float, Int, Int64

from efface.errors import InputError, import_extra
from efface.metrics.refusals import need_numbers

Points = Float[np.ndarray, "n d"]
Rows = Int[np.ndarray, " m"]

NEIGHBOURS = 20
RECALL, SAMPLE, MAX_PROBES = 0.95, 500, 256

# Numbers in memory at once, where that leaves enough rows for a fast matrix product.
BLOCK, MIN_ROWS = 4_000_000, 32

# Records in one call of the approximate search.
QUERIES = 16_384
# Points that each list's mean is trained on, and the fewest in a list on average.
LIST_SIZE = 64


@dataclass(frozen=True, eq=False)
class Balls:
    """Which of n points lie in each of m balls.

    ``rows[starts[i] : starts[i + 1]]`` are the points in ball i: **the centre is in its own ball**,
    and first; the others follow by distance, ties by row. ``of`` (m,): the row of each centre;
    ``radius`` (m,); ``among``: n. ``recall``: share of true neighbours that an approximate search
    found, on a sample; None where exact.
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
        """Points in each ball, at least 1: the centre."""
        return np.diff(self.starts)


def nearest(points: Points, *, neighbours: int = NEIGHBOURS, of: Rows | None = None) -> Balls:
    """Each record and its ``neighbours`` nearest others: a radius of its own for each record.

    ``of``: the queried rows, all by default. Exact: distances are differences, squared and summed
    in double precision; ties go to the lower row, and the centre comes before all. Memory: twice 4
    million numbers, or 32 a point. Raises InputError for points that are empty, not finite or no
    more than ``neighbours``.
    """
    centres = _centres(points, of, neighbours)
    rows, squared, starts = _search(points, centres, neighbours=neighbours)
    return Balls(rows, starts, centres, np.sqrt(squared[starts[1:] - 1]), len(points))


def within(points: Points, *, radius: float, of: Rows | None = None) -> Balls:
    """All points no farther than ``radius``: the ball of the definition, one radius for all.

    A record without neighbours is alone in its ball: check ``sizes`` before reading a share of it.
    ``of``, order, memory and exactness as in ``nearest``. Raises InputError for points that are
    empty or not finite, or a radius that is not above 0.
    """
    centres = _centres(points, of)
    if not 0 < radius < np.inf:
        raise InputError("a radius above 0", str(radius), "Give it in the unit of the points.")
    rows, _, starts = _search(points, centres, radius=float(radius))
    return Balls(rows, starts, centres, np.full(len(centres), radius), len(points))


def nearest_approximate(
    points: Points,
    *,
    neighbours: int = NEIGHBOURS,
    of: Rows | None = None,
    recall: float = RECALL,
    max_probes: int = MAX_PROBES,
    seed: int = 0,
) -> Balls:
    """As ``nearest``, for a million points; ``recall`` says how many neighbours are missed.

    FAISS sorts the points into about 2 √n lists around means (trained on a sample) and searches the
    lists nearest to each query: doubled until ``recall`` is reached on 500 of the queries, by two
    standard errors. A missed neighbour is replaced by one farther off (its effect on α:
    research/results/information_million.md). Memory: the points once more in single precision.
    Raises MissingExtra without FAISS, InputError as ``nearest`` and where ``max_probes`` lists do
    not reach ``recall``: points without structure need very many.
    """
    faiss = import_extra("faiss")
    centres, draw = _centres(points, of, neighbours), np.random.default_rng(seed)
    index, mean = _index(faiss, points, draw)
    sample = draw.choice(centres, min(SAMPLE, len(centres)), replace=False)
    true = nearest(points, neighbours=neighbours, of=sample)
    # Doubled from one list up: the search pays for no more lists than the recall needs.
    index.nprobe = 1
    while True:
        found = _query(index, points, sample, neighbours, mean)
        shares = ball_recall(points, found, true)
        if shares.mean() - 2 * shares.std() / np.sqrt(len(shares)) >= recall:
            break
        if index.nprobe >= min(max_probes, index.nlist):
            came = f"{shares.mean():.3f} from {index.nprobe} of {index.nlist} lists"
            remedy = "Lower recall, raise max_probes, or use nearest, which is exact."
            raise InputError(f"a recall of {recall} by two standard errors", came, remedy)
        index.nprobe = min(2 * index.nprobe, max_probes, index.nlist)
    balls = _query(index, points, centres, neighbours, mean)
    return replace(balls, recall=float(shares.mean()))


def ball_recall(points: Points, found: Balls, true: Balls) -> Float[np.ndarray, " m"]:
    """Share of the true neighbours in each ball, the centre not counted: 0 to 1.

    ``true``: balls of ``nearest``. Another point as near as the last of them is as good. Raises
    InputError for balls of other records, or with more points.
    """
    if not np.array_equal(found.of, true.of) or (found.sizes > true.sizes).any():
        points_of = f"up to {found.sizes.max()} and {true.sizes.max()} points"
        wanted = "balls of the same records, of no more points than the true ones"
        remedy = "Query both searches for as many neighbours of the same rows."
        raise InputError(wanted, f"{len(found)} and {len(true)} balls of {points_of}", remedy)
    apart = _squared_distances(points, np.repeat(found.of, found.sizes), found.rows)
    # The slack counts equals as found after rounding of the root.
    near = apart <= np.repeat(true.radius**2 * (1 + 1e-9), found.sizes)
    return (np.add.reduceat(near, found.starts[:-1], dtype=np.int64) - 1) / (true.sizes - 1)


def _centres(
    points: Points, of: Rows | None, neighbours: int | None = None
) -> Int64[np.ndarray, " m"]:
    """The rows of the centres; raises InputError for anything that has no balls."""
    need_numbers(points=points)
    centres = np.arange(len(points)) if of is None else np.asarray(of, np.int64)
    if not len(centres) or centres.min() < 0 or centres.max() >= len(points):
        came = f"{centres.min()} to {centres.max()}" if len(centres) else "none"
        raise InputError(f"rows from 0 to {len(points) - 1}", came, "Give rows of these points.")
    if neighbours is not None and not 0 < neighbours < len(points):
        wanted = f"1 to {len(points) - 1} neighbours, for {len(points)} points"
        raise InputError(wanted, str(neighbours), "Ask for fewer neighbours, or give more points.")
    return centres


def _search(
    points: Points, centres: Rows, *, neighbours: int | None = None, radius: float = 0.0
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Rows and squared distances of all balls in a line, and where each ball starts.

    A matrix product finds candidates fast, their distances are then taken from differences.
    """
    mean = points.mean(axis=0, dtype=np.float64)
    norms = np.concatenate([np.square(block - mean).sum(axis=1) for block in _blocks(points)])
    # The product rounds: what is within twice its error of the limit stays a candidate.
    error = 4 * (points.shape[1] + 4) * np.finfo(np.float64).eps * (norms + norms.max())
    rows, distances, sizes = [], [], []
    step = max(MIN_ROWS, BLOCK // len(points))
    for own in (centres[start : start + step] for start in range(0, len(centres), step)):
        centred, squared, end = points[own] - mean, np.empty((len(own), len(points))), 0
        for block in _blocks(points):
            begin, end = end, end + len(block)
            np.matmul(centred, (block - mean).T, out=squared[:, begin:end])
        squared *= -2
        squared += norms
        squared += norms[own, None]
        if neighbours is None:
            limit = np.full(len(own), radius**2)
        else:
            limit = np.partition(squared, neighbours, axis=1)[:, neighbours]
        place, row = np.nonzero(squared <= (limit + 2 * error[own])[:, None])
        exact = _squared_distances(points, own[place], row)
        # The centre first, even where other points are at distance 0 too.
        order = np.lexsort((row, exact, row != own[place], place))
        place, row, exact = place[order], row[order], exact[order]
        if neighbours is None:
            keep = np.sqrt(exact) <= radius
        else:  # the first of each ball: `place` is sorted, so searchsorted finds where each begins
            keep = np.arange(len(place)) - np.searchsorted(place, place) <= neighbours
        rows.append(row[keep])
        distances.append(exact[keep])
        sizes.append(np.bincount(place[keep], minlength=len(own)))
    return np.concatenate(rows), np.concatenate(distances), _starts(sizes)


def _starts(sizes: list[np.ndarray]) -> Int64[np.ndarray, " ends"]:
    return np.concatenate([[0], np.cumsum(np.concatenate(sizes))]).astype(np.int64)


def _squared_distances(points: Points, left: np.ndarray, right: np.ndarray) -> np.ndarray:
    """Of each pair of rows, in double precision, from differences: a product would cancel."""
    step, found = max(1, BLOCK // points.shape[1]), np.empty(len(left))
    for some in (slice(start, start + step) for start in range(0, len(left), step)):
        apart = points[left[some]].astype(np.float64) - points[right[some]]
        found[some] = np.square(apart, out=apart).sum(axis=1)
    return found


def _blocks(points: Points) -> Iterator[np.ndarray]:
    """The points in blocks, in order."""
    step = max(1, BLOCK // points.shape[1])
    return (points[start : start + step] for start in range(0, len(points), step))


def _index(faiss: Any, points: Points, draw: np.random.Generator) -> tuple[Any, np.ndarray]:
    """An IVF index, and the mean that was subtracted from every point."""
    n, d = points.shape
    mean = points.mean(axis=0, dtype=np.float64)
    lists = max(1, min(round(2 * np.sqrt(n)), n // LIST_SIZE))
    index = faiss.IndexIVFFlat(faiss.IndexFlatL2(d), d, lists)
    # Few iterations: the lists only have to be balanced, not converged.
    index.cp.niter, index.cp.seed = 10, int(draw.integers(2**31))
    # Sorted rows: reads of a memory map stay sequential.
    sample = np.sort(draw.choice(n, min(n, LIST_SIZE * lists), replace=False))
    index.train(_single(points[sample], mean))
    for block in _blocks(points):
        index.add(_single(block, mean))
    return index, mean


def _single(points: Points, mean: np.ndarray) -> np.ndarray:
    """Centred, since single precision has few digits left for points far from 0."""
    return np.ascontiguousarray(points - mean, dtype=np.float32)


def _query(index: Any, points: Points, centres: Rows, neighbours: int, mean: np.ndarray) -> Balls:
    """The centre first, then what the index finds nearest; fewer where lists are short."""
    rows, radius, sizes = [], [], []
    for start in range(0, len(centres), QUERIES):
        own = centres[start : start + QUERIES]
        squared, near = index.search(_single(points[own], mean), neighbours + 1)
        # Among many equal points the index may not return the centre itself: it is put first.
        others = (near != own[:, None]) & (near >= 0)
        others &= others.cumsum(axis=1) <= neighbours
        keep = np.concatenate([np.ones((len(own), 1), bool), others], axis=1)
        rows.append(np.concatenate([own[:, None], near], axis=1)[keep])
        sizes.append(keep.sum(axis=1))
        radius.append(np.sqrt(np.where(others, squared, 0).max(axis=1)))
    found = np.concatenate(radius).astype(np.float64)
    return Balls(np.concatenate(rows), _starts(sizes), centres, found, len(points))

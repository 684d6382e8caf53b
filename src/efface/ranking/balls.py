"""Who lies near each record: its ball B_r(x), the record itself included.

Points are one row of numbers a record: features, or inputs laid flat. Distances are Euclidean.
Shapes: n points, d numbers each, m balls (as many as points, or as the rows that were asked about).
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
from jaxtyping import Float, Int, Int64, Shaped

from efface.errors import InputError, MissingExtra
from efface.metrics.refusals import need_numbers
from efface.ranking.distances import Reach, candidates, parts, squared_distances

NEIGHBOURS = 20
RECALL, SAMPLE, MOST_PROBED = 0.95, 500, 256
QUERIES = 16_384
"""Records that are asked about at once in the search that may miss some."""
A_LIST = 64
"""Points that each list's mean is trained on, and the least that a list holds on average."""


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


def nearest_roughly(
    points: Float[np.ndarray, "n d"],
    *,
    neighbours: int = NEIGHBOURS,
    of: Int[np.ndarray, " m"] | None = None,
    recall: float = RECALL,
    most_probed: int = MOST_PROBED,
    seed: int = 0,
) -> Balls:
    """As ``nearest``, for a million points: some neighbours are missed, and it says how many.

    FAISS sorts the points into about 2 √n lists around means (trained on a sample) and looks into
    those nearest to each record. How many: doubled until ``recall``, the share of true neighbours
    found, is reached on 500 of the records, by two standard errors; ``Balls.recall`` is that share.
    What is as near as the last true neighbour counts as found; a missed one is replaced by one
    farther off (what that does to α: research/results/information_million.md). Holds the points once more
    in single precision. Raises MissingExtra without FAISS, InputError as ``nearest`` does and where
    ``most_probed`` lists do not reach ``recall``: points without structure need very many.
    """
    faiss = _faiss()
    middles = _needed(points, of)
    need_neighbours(neighbours, points)
    draw = np.random.default_rng(seed)
    index, centre = _index(faiss, points, draw)
    sample = draw.choice(middles, min(SAMPLE, len(middles)), replace=False)
    true = nearest(points, neighbours=neighbours, of=sample)
    index.nprobe = 1
    while True:
        found = _searched(index, points, sample, neighbours=neighbours, centre=centre)
        shares = recalls(points, found, true)
        if shares.mean() - 2 * shares.std() / np.sqrt(len(shares)) >= recall:
            break
        if index.nprobe >= min(most_probed, index.nlist):
            raise InputError(
                f"a recall of {recall} by two standard errors",
                f"{shares.mean():.3f} from {index.nprobe} of {index.nlist} lists",
                "Ask for less, allow more lists (most_probed), or take nearest, which is exact.",
            )
        index.nprobe = min(2 * index.nprobe, most_probed, index.nlist)
    balls = _searched(index, points, middles, neighbours=neighbours, centre=centre)
    return replace(balls, recall=float(shares.mean()))


def recalls(points: Float[np.ndarray, "n d"], found: Balls, true: Balls) -> Float[np.ndarray, " m"]:
    """Of each ball the share of true neighbours found, the record itself left out: 0 to 1.

    ``true`` are the balls of ``nearest``. Another point as near as the last of them is as good.
    Raises InputError for balls of other records, or of more points.
    """
    if not np.array_equal(found.of, true.of) or (found.sizes > true.sizes).any():
        raise InputError(
            "balls of the same records, of no more points than the true ones",
            f"{len(found)} and {len(true)} balls of up to "
            f"{found.sizes.max()} and {true.sizes.max()} points",
            "Ask both searches for as many neighbours of the same rows.",
        )
    apart = squared_distances(points, np.repeat(found.of, found.sizes), found.rows)
    near = apart <= np.repeat(true.radius**2 * (1 + 1e-9), found.sizes)
    return (np.add.reduceat(near, found.starts[:-1], dtype=np.int64) - 1) / (true.sizes - 1)


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
    reach: Reach,
    keep: Callable[..., np.ndarray],
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Rows and squared distances of all balls in a line, and how many each ball has."""
    rows, distances, sizes = [], [], []
    for own, (place, row, squared) in candidates(points, middles, reach):
        order = np.lexsort((row, squared, row != own[place], place))
        kept = order[keep(place[order], squared[order])]
        rows.append(row[kept])
        distances.append(squared[kept])
        sizes.append(np.bincount(place[kept], minlength=len(own)))
    return np.concatenate(rows), np.concatenate(distances), np.concatenate(sizes)


def _faiss() -> Any:
    try:
        import faiss
    except ImportError as error:
        raise MissingExtra(
            "the package faiss", "none installed", "Install it: pip install 'efface[faiss]'."
        ) from error
    return faiss


def _index(
    faiss: Any, points: Float[np.ndarray, "n d"], draw: np.random.Generator
) -> tuple[Any, Float[np.ndarray, " d"]]:
    """Lists around means, and what was taken from every point: single precision needs it small."""
    n, d = points.shape
    centre = points.mean(axis=0, dtype=np.float64)
    lists = max(1, min(round(2 * np.sqrt(n)), n // A_LIST))
    index = faiss.IndexIVFFlat(faiss.IndexFlatL2(d), d, lists)
    index.cp.niter, index.cp.seed = 10, int(draw.integers(2**31))
    sample = np.sort(draw.choice(n, min(n, A_LIST * lists), replace=False))
    index.train(_single(points[sample], centre))
    for part in parts(points):
        index.add(_single(part, centre))
    return index, centre


def _single(points: Float[np.ndarray, "b d"], centre: Float[np.ndarray, " d"]) -> np.ndarray:
    return np.ascontiguousarray(points - centre, dtype=np.float32)


def _searched(
    index: Any,
    points: Float[np.ndarray, "n d"],
    middles: Int64[np.ndarray, " m"],
    *,
    neighbours: int,
    centre: Float[np.ndarray, " d"],
) -> Balls:
    """The record itself first, then what the index finds nearest; fewer where lists are short."""
    rows, radius, sizes = [], [], []
    for start in range(0, len(middles), QUERIES):
        own = middles[start : start + QUERIES]
        squared, near = index.search(_single(points[own], centre), neighbours + 1)
        others = (near != own[:, None]) & (near >= 0)
        others &= others.cumsum(axis=1) <= neighbours
        block = np.concatenate([own[:, None], near], axis=1)
        kept = np.concatenate([np.ones((len(own), 1), bool), others], axis=1)
        rows.append(block[kept])
        sizes.append(kept.sum(axis=1))
        radius.append(np.sqrt(np.where(others, squared, 0).max(axis=1)))
    found = np.concatenate(radius).astype(np.float64)
    starts = starts_of(np.concatenate(sizes))
    return Balls(np.concatenate(rows), starts, middles, found, len(points))

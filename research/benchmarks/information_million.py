"""Information content of a million feature vectors, what the search misses, and the exact search.

    python -m research.benchmarks.information_million    # about ten minutes alone; research/results/information_million.md

Synthetic features, 64 numbers each in single precision. "Mixture": 500 clusters, 5 to a class; a cluster
has a mean (standard normal), 12 directions of its own along which its points vary (standard normal
over the square root of 12), and noise of 0.05 in all 64: trained models have such embeddings. "Round": the
same means, each cluster as wide in all 64 directions (0.5). "Without structure": standard normal,
no clusters; every point is about as far from all others, the worst there is. 2 % of the labels are
wrong. Each part runs in a process of its own, whose peak of memory is read at its end; queries are
other ones than those that the search tests itself on.
"""

import os
import resource
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from importlib.metadata import version
from multiprocessing import get_context
from typing import Any

import numpy as np

from efface.errors import InputError
from efface.manifest import versions
from efface.ranking.content import information_content
from efface.ranking.neighbours import Balls, ball_recall, nearest, nearest_approximate
from research import pages
from research.pages import origin, table
from research.tables import write_record

POINTS, NUMBERS, CLASSES, CLUSTERS, DIRECTIONS, WRONG = 1_000_000, 64, 100, 500, 12, 0.02
NEIGHBOURS, QUERIES, A_TENTH = 20, 2_000, 0.1
EXACT = ((50_000, 256),)
KINDS = ("round", "without structure")
LABELLED = tuple[np.ndarray, np.ndarray]


def mixture(count: int, numbers: int, *, kind: str = "mixture") -> LABELLED:
    """Points in single precision and their labels."""
    draw = np.random.default_rng(0)
    means = draw.normal(size=(CLUSTERS, numbers))
    axes = draw.normal(size=(CLUSTERS, DIRECTIONS, numbers)) / np.sqrt(DIRECTIONS)
    cluster = draw.integers(0, CLUSTERS, count)
    points = np.empty((count, numbers), np.float32)
    # in parts: the noise of a million points in double precision would be 512 MB
    for start in range(0, count, 50_000):
        own = cluster[start : start + 50_000]
        noise = draw.normal(size=(len(own), numbers))
        if kind == "mixture":
            along = np.einsum("nk,nkd->nd", draw.normal(size=(len(own), DIRECTIONS)), axes[own])
            noise = means[own] + along + 0.05 * noise
        elif kind == "round":
            noise = means[own] + 0.5 * noise
        points[start : start + 50_000] = noise
    labels = cluster % CLASSES
    wrong = draw.random(count) < WRONG
    return points, np.where(wrong, draw.integers(0, CLASSES, count), labels)


def timed(work: Callable[[], Any]) -> tuple[Any, dict[str, float]]:
    """What came of it; wall-clock, processor time, and the load of the machine around it."""
    # other processes share the machine: the load says how far wall-clock can be trusted
    loads, began, busy = [os.getloadavg()[0]], time.perf_counter(), time.process_time()
    try:
        found = work()
    except InputError as refused:
        found = str(refused)
    spent = {"seconds": time.perf_counter() - began, "cpu_seconds": time.process_time() - busy}
    loads.append(os.getloadavg()[0])
    return found, {**spent, "load_before": loads[0], "load_after": loads[1]}


def peak_mb() -> float:
    """The maximum memory of this process so far."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def some_of(balls: Balls, rows: np.ndarray) -> Balls:
    """The balls of these rows alone, of balls that are all of one size."""
    size = NEIGHBOURS + 1
    assert (balls.sizes == size).all()
    taken = balls.rows.reshape(-1, size)[rows].ravel()
    return Balls(taken, np.arange(0, len(taken) + 1, size), rows, balls.radius[rows], balls.among)


def million() -> dict:
    """α of every point of the mixture, its recall, and its α against that of the true balls."""
    points, labels = mixture(POINTS, NUMBERS)
    before = peak_mb()
    balls, search = timed(lambda: nearest_approximate(points, neighbours=NEIGHBOURS))
    alpha, count = timed(lambda: information_content(balls, labels))
    peak = peak_mb()
    # the search estimates its recall on a sample of its own; these queries are others
    queries = np.random.default_rng(1).choice(POINTS, QUERIES, replace=False)
    true, exact = timed(lambda: nearest(points, neighbours=NEIGHBOURS, of=queries))
    shares = ball_recall(points, some_of(balls, queries), true)
    off = information_content(true, labels) - alpha[queries]
    error = float(shares.std() / np.sqrt(QUERIES))
    recall = {"recall": float(shares.mean()), "recall_standard_error": error}
    over = {"mean": float(off.mean()), "share_over_a_tenth": float((abs(off) > A_TENTH).mean())}
    deciles = np.quantile(alpha, np.linspace(0, 1, 11)).tolist()
    memory = {"points_mb": points.nbytes / 2**20, "held_before_mb": before, "peak_mb": peak}
    times = {"search": search, "alpha": count, "exact_queries": exact}
    own = {"recall_of_its_own_sample": balls.recall, "alpha_deciles": deciles}
    return {**times, **recall, **own, "alpha_off": over, **memory}


def harder(kind: str) -> dict:
    """What the default reaches, and what it takes to find 95 %, for the queries alone."""
    points, _ = mixture(POINTS, NUMBERS, kind=kind)
    queries = np.random.default_rng(1).choice(POINTS, QUERIES, replace=False)
    search = partial(nearest_approximate, points, neighbours=NEIGHBOURS, of=queries)
    found, default = timed(search)
    reached: dict[str, object] = {"default": default}
    if isinstance(found, str):
        reached["default_says"] = found
        found, reached["all_lists_allowed"] = timed(partial(search, max_probes=POINTS))
    true = nearest(points, neighbours=NEIGHBOURS, of=queries)
    return {**reached, "recall": float(ball_recall(points, found, true).mean())}


def exact(count: int, numbers: int) -> dict:
    """The exact balls of all points, and α."""
    points, labels = mixture(count, numbers)
    before = peak_mb()
    balls, spent = timed(lambda: nearest(points, neighbours=NEIGHBOURS))
    alpha = {"mean_alpha": float(information_content(balls, labels).mean())}
    return {**spent, "held_before_mb": before, "peak_mb": peak_mb(), **alpha}


def apart(part: Callable[..., dict], *arguments: object) -> dict:
    """The part in a process of its own."""
    # spawn: a forked process would start with the memory, and the peak, of this one
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        return pool.submit(part, *arguments).result()


def main() -> None:
    """Time, count, and write record and page."""
    found = {
        "versions": {**versions(), "faiss-cpu": version("faiss-cpu")},
        "cores": os.cpu_count(),
        "threads": os.environ.get("OMP_NUM_THREADS", "as the libraries choose"),
        "points": POINTS,
        "numbers": NUMBERS,
        "neighbours": NEIGHBOURS,
        "queries": QUERIES,
        "million": apart(million),
        "harder": {kind: apart(harder, kind) for kind in KINDS},
        "exact": {f"{n} x {d}": apart(exact, n, d) for n, d in EXACT},
    }
    write_record("information_million", "information_million", found)


def spent(found: dict) -> tuple[str, str, str]:
    """Wall-clock, processor seconds and load, as cells of a row."""
    load = f"{found['load_before']:.1f} to {found['load_after']:.1f}"
    return f"{found['seconds']:.0f}", f"{found['cpu_seconds']:.0f}", load


def page(record: dict) -> str:
    """The tables from the record."""
    made, n = record["million"], record["points"]
    queries = f"{record['queries']:,} of them"
    all_of, recall = f"{n:,} balls of {record['neighbours']} neighbours", f"{made['recall']:.4f}"
    rows = [(f"mixture, {all_of}", *spent(made["search"]), recall)]
    rows += [("α from them", *spent(made["alpha"]), "")]
    rows += [(f"exact, {queries}", *spent(made["exact_queries"]), "1")]
    refusals = []
    for kind, found in record["harder"].items():
        reached, refused = f"{found['recall']:.4f}", found.get("default_says")
        last = "refused" if refused else reached
        rows += [(f"{kind}, {queries}", *spent(found["default"]), last)]
        if refused:
            rows += [("the same, all lists allowed", *spent(found["all_lists_allowed"]), reached)]
            refusals.append(f'Points {kind} are refused at first: "{refused}"')
    rows += [(f"exact, all of {k}", *spent(found), "1") for k, found in record["exact"].items()]
    return pages.page(
        f"Information content of {n:,} feature vectors",
        f"{origin(record)}, {record['cores']} cores, threads: {record['threads']}. "
        f"{record['numbers']} numbers each, synthetic: the head of the benchmark says how. The load is that of "
        "the whole machine, which others used too; processor seconds are those of this work alone.",
        table(" | seconds | processor seconds | load | recall", rows),
        f"Mixture: recall on {record['queries']:,} queries {recall} (standard error "
        f"{made['recall_standard_error']:.4f}); the search estimates {made['recall_of_its_own_sample']:.4f} itself. "
        f"α of the true ball minus α found: {made['alpha_off']['mean']:.5f} on average, over 0.1 for "
        f"{made['alpha_off']['share_over_a_tenth']:.1%} of the queries. Memory: {made['held_before_mb']:.0f} MB "
        f"before, of which the points {made['points_mb']:.0f} MB; peak {made['peak_mb']:.0f} MB.",
        *(
            f"Exact search, {name}: {found['held_before_mb']:.0f} MB before, peak {found['peak_mb']:.0f} MB."
            for name, found in record["exact"].items()
        ),
        *refusals,
    )


if __name__ == "__main__":
    main()

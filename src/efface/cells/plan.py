"""What a run will do and how long that may take, before it starts."""

import heapq
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

from efface.cells.cell import Cell, in_order
from efface.cells.store import failure, is_done, records


@dataclass(frozen=True)
class Kind:
    """Cells that take about as long: how many are to be made, and the seconds of each.

    ``known_from``: how many finished cells say so; with 0 the seconds are the cells' own guess.
    """

    cells: int
    seconds: float
    known_from: int


@dataclass(frozen=True, eq=False)
class Plan:
    """``cells`` by id, what is needed first; ``done``, ``failed`` and ``missing`` are ids of them.

    ``seconds``: estimated wall-clock time of making what is missing with ``processes``.
    """

    cells: Mapping[str, Cell]
    done: tuple[str, ...]
    failed: tuple[str, ...]
    missing: tuple[str, ...]
    kinds: Mapping[str, Kind]
    processes: int
    seconds: float

    def as_json(self) -> dict[str, Any]:
        """Counts and the estimate."""
        counts = {name: len(getattr(self, name)) for name in ("done", "failed", "missing")}
        facts = {"cells": len(self.cells), **counts, "processes": self.processes}
        return {**facts, "estimated_seconds": round(self.seconds, 1)}


def plan(
    cells: Iterable[Cell], store: str | Path, *, processes: int = 1, again: bool = False
) -> Plan:
    """Look at the store: what is done, what is missing, how long the missing may take.

    Seconds are the median of the finished cells of a kind, else the cells' own guess. ``again``
    counts what has failed before as missing.
    """
    ordered = in_order(cells)
    done = tuple(i for i in ordered if is_done(store, i))
    failed = () if again else tuple(i for i in ordered if failure(store, i))
    blocked = {*failed}
    for identity, cell in ordered.items():
        if identity not in done and any(need.id in blocked for need in cell.needs.values()):
            blocked.add(identity)
    missing = tuple(i for i in ordered if i not in blocked and i not in done)
    seconds, kinds = _seconds(ordered, missing, store)
    total = _makespan(ordered, seconds, processes)
    return Plan(ordered, done, failed, missing, kinds, processes, total)


def _seconds(
    cells: Mapping[str, Cell], missing: Iterable[str], store: str | Path
) -> tuple[dict[str, float], dict[str, Kind]]:
    """Estimated seconds of each missing cell, and the same by kind."""
    wanted = Counter(cells[identity].kind for identity in missing)
    known: dict[str, list[float]] = defaultdict(list)
    for record in records(store) if wanted else ():
        known[record.facts["kind"]].append(record.seconds)
    each = {
        identity: median(known[cells[identity].kind] or [cells[identity].guess_seconds])
        for identity in missing
    }
    of_kind: dict[str, list[float]] = defaultdict(list)
    for identity, seconds in each.items():
        of_kind[cells[identity].kind].append(seconds)
    return each, {k: Kind(n, sum(of_kind[k]) / n, len(known[k])) for k, n in wanted.items()}


def _makespan(cells: Mapping[str, Cell], seconds: Mapping[str, float], processes: int) -> float:
    """When the last cell ends if each free process takes the first cell whose needs are there."""
    ends: dict[str, float] = {}
    free = [0.0] * processes
    for identity in seconds:
        ready = max(
            (ends.get(need.id, 0.0) for need in cells[identity].needs.values()), default=0.0
        )
        ends[identity] = max(heapq.heappop(free), ready) + seconds[identity]
        heapq.heappush(free, ends[identity])
    return max(ends.values(), default=0.0)

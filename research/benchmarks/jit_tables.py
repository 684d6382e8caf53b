"""Three JiTs over requests and over settings, as cells: the quality table and the robustness grid.

    EFFACE_DATA=… python -m research.benchmarks.jit_tables STORE quality    # half an hour on two cores
    EFFACE_DATA=… python -m research.benchmarks.jit_tables STORE grid       # an hour; both go on where stopped
    EFFACE_DATA=… python -m research.benchmarks.jit_tables STORE records    # research/results/jit_cells.json

``jit`` with its defaults; ``jit_reference`` and ``jit_paper`` with the setting of a list that has the
smallest gap at a loss of at most one point on a request that nothing here is scored on.
"""

import sys
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from efface.grid import Job, is_done, read, run
from research.benchmarks.jit_requests import TASKS, Request, requests
from research.tables import write_record

# Three orders of magnitude around a variant's own setting.
SCALES = tuple(10.0 ** (power / 4) for power in (-6, -3, 0, 3, 6))

RATES = {
    "jit_reference": (1e-6, 3e-6, 1e-5, 3e-5, 1e-4, 3e-4, 1e-3, 3e-3),
    "jit_paper": (1e-6, 1e-5, 3e-5, 1e-4, 3e-4, 1e-3),
}
SIGMAS = (0.05, 0.5)
STEP = {"jit": "step_size", "jit_reference": "learning_rate", "jit_paper": "learning_rate"}
VARIANTS = tuple(STEP)
BEARABLE = 0.01


@dataclass(frozen=True, eq=False)
class Entry:
    """One cell of a table: ``table`` is tuning, quality or grid."""

    table: str
    request: Request
    variant: str
    settings: dict[str, Any]
    guard: bool
    scales: tuple[float, float] | None = None

    @property
    def job(self) -> Job:
        """With a holdout for what reads it: the guard, and jit for the expected accuracy."""
        how = {"holdout": True, "guard": self.guard, **self.settings}
        return self.request.unlearned(self.variant, **how)


def tuning(task: str) -> list[Entry]:
    """Every setting of the lists, on the request that is kept for it."""
    return [
        Entry("tuning", request, variant, {"sigma": sigma, STEP[variant]: rate}, guard=False)
        for request in requests(task, tuning=True)
        for variant, rates in RATES.items()
        for sigma in SIGMAS
        for rate in rates
    ]


def quality(task: str, store: str) -> list[Entry]:
    """Each variant on the nine requests, without the guard: what the method itself does."""
    chosen: dict[str, dict[str, Any]] = {"jit": {}, **best(task, store)}
    return [
        Entry("quality", request, variant, chosen[variant], guard=False)
        for request in requests(task)
        for variant in VARIANTS
    ]


def grid(store: str) -> Iterator[Entry]:
    """Jit under the guard on four class requests and one of each other task; then the rest."""
    classes = requests("class")
    # their order: request by request of base 0, then of base 1 and 2
    four = [classes[0], classes[4], classes[8], classes[1]]  # each class, each base model
    tuned, one, own = best("class", store), classes[1], {"sigma": 0.15, "step_size": 0.1}
    for request in four:
        yield from _scaled("jit", request, own, guard=True)
    for guard in (False, True):
        yield from _scaled("jit_reference", one, tuned["jit_reference"], guard=guard)
    yield from _scaled("jit_paper", one, tuned["jit_paper"], guard=False)
    yield from _scaled("jit", one, own, guard=False)
    for task in ("sub-class", "random"):
        yield from _scaled("jit", requests(task)[0], own, guard=True)


def _scaled(
    variant: str, request: Request, around: dict[str, Any], *, guard: bool
) -> Iterator[Entry]:
    for sigma in SCALES:
        for step in SCALES:
            name = STEP[variant]
            settings = {"sigma": around["sigma"] * sigma, name: around[name] * step}
            yield Entry("grid", request, variant, settings, guard, (sigma, step))


def best(task: str, store: str) -> dict[str, dict[str, Any]]:
    """The setting of each variant with the smallest gap among those that lose a point at most."""
    found: dict[str, tuple[float, dict[str, Any]]] = {}
    for entry in tuning(task):
        scored = scores(entry, store)
        bearable = scored["finite"] and scored["lost"] <= BEARABLE
        # 2.0 is more than any gap
        if bearable and scored["gap"] < found.get(entry.variant, (2.0,))[0]:
            found[entry.variant] = scored["gap"], entry.settings
    return {variant: settings for variant, (_, settings) in found.items()}


def scores(entry: Entry, store: str) -> dict[str, Any]:
    """The columns and what they come to, what the method measured, and its cost."""
    result = read(store, entry.job)
    facts = {name: result.statistics[name] for name in ("outcome", "calibration", "seconds")}
    facts["cpu_seconds"] = result.facts["cpu_seconds"]
    return {**entry.request.scores(entry.job, store), **facts}


def entries(store: str) -> list[Entry]:
    """All that a store holds."""
    everything = [entry for task in TASKS for entry in tuning(task)]
    everything += [entry for task in TASKS for entry in quality(task, store)]
    return [entry for entry in (*everything, *grid(store)) if is_done(store, entry.job.id)]


def as_records(store: str) -> dict[str, Any]:
    """What the tables are built from: no weights, no margins, no pixels."""
    every = [r for task in TASKS for r in requests(task)]
    every += [r for task in TASKS for r in requests(task, tuning=True)]
    models = [
        {"task": r.task, "request": r.name, "seed": r.seed, "base": r.base.id}
        | {"retrained": r.retrained.id, "untouched": r.untouched(store)}
        | {"target": r.reference(store)}
        for r in every
    ]
    cells = [
        {"table": e.table, "task": e.request.task, "request": e.request.name}
        | {"seed": e.request.seed, "variant": e.variant, "settings": e.settings}
        | {"guard": e.guard, "scales": e.scales, "id": e.job.id, **scores(e, store)}
        for e in entries(store)
    ]
    return {"models": models, "cells": cells}


def main(store: str, what: str) -> None:
    """Make the cells of one table, or write the records of all."""
    if what == "quality":
        run([entry.job for task in TASKS for entry in tuning(task)], store)
        run([entry.job for task in TASKS for entry in quality(task, store)], store)
    elif what == "grid":
        run([entry.job for entry in grid(store)], store)
    else:
        found = as_records(store)
        write_record("jit_cells", "jit_tables STORE quality, grid and records", found, indent=None)


if __name__ == "__main__":
    main(*sys.argv[1:])

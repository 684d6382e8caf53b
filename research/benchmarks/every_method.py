"""Every method once on a class, a sub-class and random records, next to a true retrain, as cells.

    EFFACE_DATA=… python -m research.benchmarks.every_method STORE published   # as they come; goes on where stopped
    EFFACE_DATA=… python -m research.benchmarks.every_method STORE tuning      # other strengths, other requests
    EFFACE_DATA=… python -m research.benchmarks.every_method STORE tuned       # the best of these, scored
    EFFACE_DATA=… python -m research.benchmarks.every_method STORE records     # research/results/every_method.json

The models are those of jit_requests.py. Settings are chosen on base model 0 and on requests that
nothing is scored on; what is scored is the first request of each task on base model 1.
"""

import contextlib
import itertools
import os
import sys
from collections.abc import Generator, Iterator
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from efface.grid import Job, is_done, read, run
from efface.methods import METHODS
from research.benchmarks.jit_requests import FIRST, TASKS, Request, requests
from research.jobs import seen_by
from research.tables import write_record

# 0 or unset: as many as the grid chooses
PROCESSES = int(os.environ.get("PROCESSES", "0")) or None
SCORED_SEED = 1
# Records that go in the scored requests; those of the searched ones are about as many.
GOING = {"class": 1005, "sub-class": 93, "random": 500}
BEARABLE, COLLAPSE = 0.02, 0.1
# Not in this table: a benchmark of its own shows its curve.
LONG = {"gkt"}

# Nothing to set, or made to be set by nobody.
UNTUNED = {"baseline", "retrain", "jit", "assd"}

# Its published 2,001 passes a record before the first step are made for 16 records.
SCALED = {"l2ul": {"adversarials": 2, "adversarial_batch_size": 2, "attack_steps": 20}}

# What is searched for is the strength, 1 as it comes, but where a smaller step only takes longer.
KNOBS = {"l2ul": ("steps", 2000)}

# Searched without its repair, which no strength makes smaller and which takes what it repairs.
WITHOUT = {"emmn": {"repair_epochs": 0}}

# By which factor the strength goes, and cells at most: of methods that see few records, or all.
CHEAP, EXPENSIVE = (10**0.5, 6), (10.0, 3)


@dataclass(frozen=True, eq=False)
class Row:
    """One cell of the table: ``table`` is published, tuning or tuned."""

    table: str
    request: Request
    method: str
    settings: dict[str, Any] = field(default_factory=dict)

    @property
    def job(self) -> Job:
        """The method sees of the split what it says that it sees, and no guard stands over it."""
        return self.request.unlearned(
            self.method, **seen_by(self.method), guard=False, **self.settings
        )


def applicable(task: str) -> list[str]:
    """Methods whose needs the task meets: forget_classes exist only there."""
    return [
        name
        for name, entry in METHODS.items()
        if name not in LONG and (task == "class" or "forget_classes" not in entry.needs)
    ]


def scored(task: str) -> Request:
    """The request that the table is about."""
    return requests(task, seeds=(SCORED_SEED,))[0]


def published(task: str) -> list[Row]:
    """Each method as it comes."""
    request = scored(task)
    return [Row("published", request, n, own(n, request)) for n in applicable(task)]


def own(name: str, request: Request) -> dict[str, Any]:
    """Settings without a default: the number of retain records, and a smaller scale where the published is expensive."""
    if name == "source_free_newton":
        return {"retained_records": FIRST - GOING[request.task]}
    return SCALED.get(name, {})


def tuning(task: str, store: str) -> Iterator[list[Row]]:
    """Rounds of strengths on the request that is kept for it: down from 1 until it is bearable.

    What is bearable at 1 goes up instead, until it is no longer, or no longer nearer; of methods
    that train on what stays, which take a minute and more, it is left as published.
    """
    searches = [_search(task, name) for name in searched(task, store)]
    waiting = [(search, next(search)) for search in searches]
    while waiting:
        yield [row for _, row in waiting]
        further = []
        for search, row in waiting:
            if not is_done(store, row.job.id):
                continue  # a search that was stopped goes no further
            with contextlib.suppress(StopIteration):
                further.append((search, search.send(scores(row, store))))
        waiting = further


def searched(task: str, store: str) -> list[str]:
    """Methods whose strength is searched for: all of the class, else those that collapsed."""
    names = [name for name in applicable(task) if name not in UNTUNED]
    return names if task == "class" else [name for name in names if collapsed(task, name, store)]


def collapsed(task: str, name: str, store: str) -> bool:
    """As it comes it loses ten points and more of D_r, or all sense."""
    request = scored(task)
    row = Row("published", request, name, own(name, request))
    if not is_done(store, row.job.id):
        return False
    result = scores(row, store)
    return not result["finite"] or result["lost"] > COLLAPSE


def _search(task: str, name: str) -> Generator[Row, dict[str, Any], None]:
    """The strengths of one method, each chosen from what the last ones came to."""
    factor, at_most = EXPENSIVE if seen_by(name)["retain"] else CHEAP
    up = False
    knob, first = KNOBS.get(name, ("strength", 1.0))
    request, value, gaps = requests(task, tuning=True)[0], first, []
    for place in range(at_most):
        turned = {} if place == 0 else {knob: type(first)(round(value, 6))}
        settings = {**own(name, request), **WITHOUT.get(name, {}), **turned}
        result = yield Row("tuning", request, name, settings)
        bearable = result["finite"] and result["lost"] <= BEARABLE
        if place == 0:
            up = bearable
            if up and seen_by(name)["retain"]:
                return
        if (up and not bearable) or (not up and bearable):
            return
        # stronger and no longer nearer: the optimum is behind
        if up and gaps and result["gap"] >= gaps[-1]:
            return
        gaps.append(result["gap"])
        value *= factor if up else 1 / factor


def tuned(task: str, store: str) -> list[Row]:
    """The best strength of each method, where it is another than its own."""
    return [
        Row("tuned", scored(task), name, settings)
        for name, settings in best(task, store).items()
        if settings != own(name, scored(task))
    ]


def best(task: str, store: str) -> dict[str, dict[str, Any]]:
    """Of each method the strength of the least gap among those that lose two points at most."""
    found: dict[str, tuple[float, dict[str, Any]]] = {}
    for row in itertools.chain.from_iterable(tuning(task, store)):
        if not is_done(store, row.job.id):
            continue
        result = scores(row, store)
        bearable = result["finite"] and result["lost"] <= BEARABLE
        # 2.0 is more than any gap
        if bearable and result["gap"] < found.get(row.method, (2.0,))[0]:
            found[row.method] = result["gap"], row.settings
    return {name: settings for name, (_, settings) in found.items()}


def scores(row: Row, store: str) -> dict[str, Any]:
    """The columns and what they come to, and what the method measured, and its cost."""
    found = read(store, row.job).statistics
    facts = {name: found[name] for name in ("accuracy", "passes", "calibration")}
    seconds = found["seconds"]["method"]
    return {**row.request.scores(row.job, store), **facts, "seconds": seconds}


def rows(store: str) -> list[Row]:
    """All that a store holds."""
    everything = [row for task in TASKS for row in published(task)]
    everything += [row for task in TASKS for rows in tuning(task, store) for row in rows]
    everything += [row for task in TASKS for row in tuned(task, store)]
    return [row for row in everything if is_done(store, row.job.id)]


def as_records(store: str) -> dict[str, Any]:
    """What the table is built from: no weights, no margins, no pixels."""
    models = [
        {"task": r.task, "request": r.name, "base": r.base.id, "retrained": r.retrained.id}
        | {"untouched": r.untouched(store), "target": read(store, r.retrained).statistics}
        for r in map(scored, TASKS)
    ]
    cells = [
        {"table": row.table, "task": row.request.task, "request": row.request.name}
        | {"seed": row.request.seed, "method": row.method, "settings": row.settings}
        | {"id": row.job.id, **scores(row, store)}
        for row in rows(store)
    ]
    return {"models": models, "cells": cells}


def main(store: str, what: str) -> None:
    """Make the cells of one table, or write the records of all."""
    if what == "records":
        command = "every_method STORE published, tuning, tuned and records"
        write_record("every_method", command, as_records(store), indent=None)
    elif what == "tuning":
        for task in TASKS:
            for found in tuning(task, store):
                run([row.job for row in found], store, processes=PROCESSES)
    else:
        made = {"published": published, "tuned": partial(tuned, store=store)}[what]
        run([row.job for task in TASKS for row in made(task)], store, processes=PROCESSES)


if __name__ == "__main__":
    main(*sys.argv[1:])

"""The record of a task, made of the cells of a store, and the rows that pages and terminals show."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from efface.comparison.result import mean_interval
from efface.grid import is_done, read
from efface.methods import METHODS
from research.bench import protocol
from research.bench.protocol import Row
from research.bench.scores import Reference, costs, floors, score
from research.bench.tasks import Request, Task
from research.pages import mean_range, table
from research.tables import RESULTS, read_record, write_record

Cell = dict[str, Any]


def write(task: Task, store: str) -> None:
    """Write the record of a task whose every cell is made, the search included."""
    rows = [*protocol.published(task), *protocol.searched(task, store)]
    where = protocol.search_task(task)
    found = {
        "task": {
            name: getattr(task, name) for name in ("name", "title", "kind", "paper", "anchor")
        },
        "searched_on": where.name,
        "requests": [facts(one, store) for one in task.requests()],
        "cells": [cell(row, store) for row in rows if is_done(store, row.job.id)],
        "missing": sorted({f"{r.method}, {r.how}" for r in rows if not is_done(store, r.job.id)}),
        "search": list(_trials(where, store)) if where is task else [],
    }
    command = f"bench make {task.name} --store STORE and record"
    write_record(f"bench/{task.name}", command, found, indent=None)


def facts(request: Request, store: str) -> dict[str, Any]:
    """What a request is, what doing nothing comes to, and what a retrained model does."""
    reference = Reference.of(request, store)
    return {
        "name": request.name,
        "seed": request.seed,
        "turn": request.turn,
        "records": len(reference.rows),
        "base": request.base.id,
        "retrained": [one.id for one in request.retrained],
        "untouched": score(reference, reference.base),
        "floors": floors(reference),
        "target": reference.target,
    }


def cell(row: Row, store: str) -> Cell:
    """Everything that is said of one cell."""
    found, reference = read(store, row.job), Reference.of(row.request, store)
    named = {"request": row.request.name, "seed": row.request.seed, "turn": row.request.turn}
    named |= {"method": row.method, "how": row.how, "settings": row.settings, "id": row.job.id}
    return {**named, **score(reference, found.arrays), **costs(found, len(reference.rows))}


def _trials(task: Task, store: str) -> Iterable[dict[str, Any]]:
    for name in protocol.applicable(task):
        if name in protocol.UNTUNED:
            continue
        rows = protocol.trials(task, name, store)
        try:
            while is_done(store, next(rows).job.id):
                pass
        except StopIteration as end:
            yield from (
                {"method": name, "settings": s, "objective": value} for value, s in end.value
            )


HEAD = (
    "method | settings | requests | gap | above floor, 95 % | KS | AUC | retained, % | unseen, % "
    "| passes a record | seconds"
)


def rows_of(cells: list[Cell], requests: Sequence[Mapping[str, Any]]) -> list[list[str]]:
    """A row for each method and kind of setting, the nearest to retraining first."""
    groups: dict[tuple[str, str], list[Cell]] = {}
    for one in cells:
        groups.setdefault((one["method"], one["how"]), []).append(one)
    floor = {one["seed"]: mean_of(one["floors"], "gap") for one in requests}
    order = sorted(groups.items(), key=lambda item: mean_of(item[1], "gap", missing=9.0))
    return [[f"`{m}`", _how(found), *_row(found, floor)] for (m, _), found in order]


def _how(cells: list[Cell]) -> str:
    settings = cells[0]["settings"]
    return ", ".join(f"{name} {value:.3g}" for name, value in settings.items()) or cells[0]["how"]


def _row(cells: list[Cell], floor: Mapping[int, float | None]) -> list[str]:
    fit = [one for one in cells if one["gap"] is not None]
    broken = len(cells) - len(fit)
    count = f"{len(cells)}" + f", {broken} not finite" * bool(broken)
    spent = f"{np.mean([sum(one['passes'].values()) for one in cells]):,.0f}"
    seconds = f"{np.mean([one['seconds'] for one in cells]):.1f}"
    if not fit:
        return [count, *["–"] * 6, spent, seconds]
    over = [100 * (one["gap"] - (floor[one["seed"]] or 0.0)) for one in fit]
    _, low, high = mean_interval(over)
    return [
        count,
        mean_range([100 * one["gap"] for one in fit]),
        "–" if low is None else f"{low:.1f} to {high:.1f}",
        f"{mean_of(fit, 'ks'):.2f}",
        f"{mean_of(fit, 'auc'):.2f}",
        f"{100 * mean_of(fit, 'retained'):.1f}",
        f"{100 * mean_of(fit, 'unseen'):.1f}",
        spent,
        seconds,
    ]


def mean_of(cells: Iterable[Mapping[str, Any]], name: str, missing: float = float("nan")) -> float:
    """The mean of one column over the cells that have it."""
    found = [one[name] for one in cells if one.get(name) is not None]
    return float(np.mean(found)) if found else missing


def shown(task: Task, rows: list[Row], store: str) -> str:
    """A table in Markdown of rows that were just made, above those of the committed record."""
    here = {row.request.seed: row.request for row in rows}
    requests = [facts(one, store) for one in here.values()]
    cells = [cell(row, store) for row in rows if is_done(store, row.job.id)]
    parts = [f"{task.title}: {floor_line(requests)}", table(HEAD, rows_of(cells, requests))]
    path = RESULTS / "bench" / f"{task.name}.json"
    if path.exists():
        known = read_record(f"bench/{task.name}")
        theirs = [one for one in known["cells"] if one["seed"] in here]
        own = [one for one in known["requests"] if one["seed"] in here]
        parts += ["Published, on the same requests:", table(HEAD, rows_of(theirs, own))]
    return "\n\n".join(parts) + "\n"


def floor_line(requests: Sequence[Mapping[str, Any]]) -> str:
    """What a retrained model and doing nothing come to."""
    every = [one for request in requests for one in request["floors"]]
    nothing = [request["untouched"] for request in requests]
    floor = f"{100 * mean_of(every, 'gap'):.1f}" if every else "unknown (one retrained model)"
    return (
        f"{len(requests)} requests; a retrained model next to the others: gap {floor}, KS "
        f"{mean_of(every, 'ks'):.2f}, AUC {mean_of(every, 'auc'):.2f}; nothing done: gap "
        f"{100 * mean_of(nothing, 'gap'):.1f}, KS {mean_of(nothing, 'ks'):.2f}, AUC "
        f"{mean_of(nothing, 'auc'):.2f}"
    )


def zero_shot(method: str) -> bool:
    """The model and the forget records alone, with or without records that nobody trained on."""
    return method in METHODS and "retain" not in METHODS[method].reads - {"neighbourhood"}

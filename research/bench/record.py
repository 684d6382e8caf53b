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
from research.jobs import seen_by
from research.pages import mean_range, table
from research.tables import RESULTS, read_record, write_record

Cell = dict[str, Any]


def write(task: Task, store: str) -> None:
    """Write the record of a task whose every cell is made, the search included."""
    rows = [*protocol.published(task), *protocol.searched(task, store)]
    where = protocol.search_task(task)
    missing = sorted({f"`{r.method}`, {r.how}" for r in rows if not is_done(store, r.job.id)})
    searched = {row.method for row in rows if row.how == "searched"}
    tuned = set(protocol.applicable(task)) - protocol.UNTUNED - searched
    missing += [f"`{name}`, searched (no setting that did not break it)" for name in sorted(tuned)]
    found = {
        "task": {
            name: getattr(task, name) for name in ("name", "title", "kind", "paper", "anchor")
        },
        "searched_on": where.name,
        "requests": [facts(one, store) for one in task.requests()],
        "cells": [cell(row, store) for row in rows if is_done(store, row.job.id)],
        "missing": missing,
        "not_applicable": sorted({*METHODS} - {*protocol.applicable(task)} - protocol.ELSEWHERE),
        "untuned": sorted(protocol.UNTUNED - {"baseline"}),
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
    named: dict[str, Any] = {"request": row.request.name, "seed": row.request.seed}
    named |= {"turn": row.request.turn, "method": row.method, "how": row.how, "id": row.job.id}
    named["settings"] = {**protocol.SCALED.get(row.method, {}), **row.settings}
    return {**named, **score(reference, found.arrays), **costs(found, len(reference.rows))}


def _trials(task: Task, store: str) -> Iterable[dict[str, Any]]:
    for name in protocol.applicable(task):
        if name not in protocol.UNTUNED:
            found = protocol.ended_trials(task, name, store)
            yield from ({"method": name, "settings": s, "objective": value} for value, s in found)


HEAD = (
    "method | settings | requests | gap | above the floor, 95 % | KS | AUC | retained, % | seconds"
)


def groups_of(
    cells: Sequence[Cell], requests: Sequence[Mapping[str, Any]]
) -> list[tuple[tuple[str, str], list[Cell]]]:
    """The cells by method and kind of settings, the nearest to retraining first."""
    groups: dict[tuple[str, str], list[Cell]] = {}
    for one in cells:
        groups.setdefault((one["method"], one["how"]), []).append(one)

    def place(item: tuple[Any, list[Cell]]) -> float:
        fit = [one for one in item[1] if one["gap"] is not None]
        return above_floor(fit, requests)[0] if fit else float("inf")

    return sorted(groups.items(), key=place)


def above_floor(
    cells: Sequence[Cell], requests: Sequence[Mapping[str, Any]]
) -> tuple[float, float | None, float | None]:
    """Mean of gap minus the request's floor in points, and its 95 % interval by Student's t."""
    floor = {one["seed"]: mean_of(one["floors"], "gap", 0.0) for one in requests}
    return mean_interval([100 * (one["gap"] - floor[one["seed"]]) for one in cells])


def rows_of(cells: Sequence[Cell], requests: Sequence[Mapping[str, Any]]) -> list[list[str]]:
    """A row of the terminal's table for each method and kind of settings."""
    rows = []
    for (method, _), found in groups_of(cells, requests):
        fit = [one for one in found if one["gap"] is not None]
        count = f"{len(found)}" + f", {len(found) - len(fit)} not finite" * (len(fit) < len(found))
        numbers, seconds = ["–"] * 5, f"{mean_of(found, 'seconds'):.1f}"
        if fit:
            over, low, high = above_floor(fit, requests)
            numbers = [mean_range([100 * one["gap"] for one in fit])]
            numbers += [f"{over:.1f}" if low is None else f"{over:.1f} ({low:.1f} to {high:.1f})"]
            numbers += [f"{mean_of(fit, name):.2f}" for name in ("ks", "auc")]
            numbers += [f"{100 * mean_of(fit, 'retained'):.1f}"]
        rows.append([f"`{method}`", said(found), count, *numbers, seconds])
    return rows


def said(cells: Sequence[Cell]) -> str:
    """The settings of a row: published, or those that the search preferred."""
    settings = cells[0]["settings"]
    return ", ".join(f"{name} {value:.3g}" for name, value in settings.items()) or cells[0]["how"]


def mean_of(cells: Iterable[Mapping[str, Any]], name: str, missing: float = float("nan")) -> float:
    """The mean of one column over the cells that have it."""
    found = [one[name] for one in cells if one.get(name) is not None]
    return float(np.mean(found)) if found else missing


def stays_out(method: str) -> bool:
    """Zero-shot as it is run here: no record that was trained on and stays is seen."""
    return not seen_by(method)["retain"]


def shown(task: Task, rows: list[Row], store: str) -> str:
    """A table in Markdown of rows that were just made, above those of the committed record."""
    here = {row.request.seed: row.request for row in rows}
    requests = [facts(one, store) for one in here.values()]
    cells = [cell(row, store) for row in rows if is_done(store, row.job.id)]
    failed = sorted({row.method for row in rows if not is_done(store, row.job.id)})
    parts = [f"{task.title}: {floor_line(requests)}", table(HEAD, rows_of(cells, requests))]
    parts += [f"Not made: {', '.join(failed)}; see failed/ in the store."] * bool(failed)
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
    floor = "unknown (one retrained model a request)"
    if every:
        floor = f"gap {100 * mean_of(every, 'gap'):.1f} (the floor), KS {mean_of(every, 'ks'):.2f}, AUC {mean_of(every, 'auc'):.2f}"
        tpr = mean_of(every, "tpr")
        floor += "" if np.isnan(tpr) else f", TPR {100 * tpr:.1f} %"
    return (
        f"{len(requests)} requests; a retrained model next to the others: {floor}; nothing done: gap "
        f"{100 * mean_of(nothing, 'gap'):.1f}, KS {mean_of(nothing, 'ks'):.2f}, AUC "
        f"{mean_of(nothing, 'auc'):.2f}"
    )

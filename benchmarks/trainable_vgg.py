"""Less than full gradients on the nets of jit's tables: a class goes from a quarter VGG11, by jit.

    EFFACE_DATA=… python benchmarks/trainable_vgg.py STORE     # results/trainable_vgg.json and .md

STORE holds the models that jit_requests.py trained; 18 more cells, five minutes on two cores. This
net has no normalisation layers and one linear layer, its output: ``norm`` and ``adapter`` are refused.
"""

import json
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

from efface.cells import read, run
from efface.cells.cell import Cell
from efface.cells.describe import unlearning
from efface.cells.reduce import columns_of
from efface.record import versions
from efface.scores.gap import gap
from jit_requests import Request, requests
from jit_tables import untouched

WAYS = ("all", "last-layers")


def cell(request: Request, trainable: str) -> Cell:
    """Without the guard: what the method itself does."""
    return unlearning(
        request.base, "jit", forget=request.forget, leaving=request.leaving, holdout=True,
        guard=False, trainable=trainable, seed=request.seed,
    )  # fmt: skip


def rows(store: str) -> list[dict[str, Any]]:
    """One row a request and way."""
    found = []
    for request in requests("class"):
        target = columns_of(read(store, request.retrained).statistics, leaving=True)
        before = untouched(request, store)
        where = {"request": request.name, "seed": request.seed, "target": target}
        found.append({**where, "trainable": "nothing done", "columns": before,
                      "gap": gap(before, target), "lost": 0.0})  # fmt: skip
        for trainable in WAYS:
            one = cell(request, trainable)
            statistics = read(store, one).statistics
            columns = columns_of(statistics, leaving=True)
            found.append({
                **where, "trainable": trainable, "id": one.id, "columns": columns,
                "gap": gap(columns, target), "lost": before["retain"] - columns["retain"],
                "seconds": statistics["seconds"]["method"], **statistics["trainable"],
            })  # fmt: skip
    return found


def table(found: list[dict[str, Any]]) -> str:
    """Markdown."""
    lines = ["# Less than full gradients on a quarter VGG11", "",
             ("`python benchmarks/trainable_vgg.py STORE`, records in trainable_vgg.json. `jit` without "
              "guard on the nine class requests of [jit_quality](jit_quality.md), one retrained model each. "
              "Mean over the nine in %, gap and lost D_r in points with the least and the greatest; seconds of "
              "the method; weights: the share that may move. `norm` and `adapter` are refused here: no such layers."), "",
             "| trainable | D_r / D_f / MIA | gap | lost D_r | seconds | weights |",
             "|---|---|---|---|---|---|"]  # fmt: skip
    for way in ("nothing done", *WAYS):
        some = [row for row in found if row["trainable"] == way or row.get("name") == way]
        columns = " / ".join(
            f"{100 * np.mean([row['columns'][name] for row in some]):.1f}"
            for name in some[0]["columns"]
        )
        gaps, lost = (_spread([100 * row[name] for row in some]) for name in ("gap", "lost"))
        seconds = share = ""
        if "numbers" in some[0]:
            seconds = f"{np.median([row['seconds'] for row in some]):.0f}"
            share = f"{100 * some[0]['numbers'] / some[0]['of']:.0f} %"
        lines.append(f"| {way} | {columns} | {gaps} | {lost} | {seconds} | {share} |")
    return "\n".join(lines) + "\n"


def _spread(values: list[float]) -> str:
    return f"{np.mean(values):.1f} ({min(values):.1f} to {max(values):.1f})"


def main(store: str) -> None:
    """Make the cells, record, tabulate."""
    run([cell(request, way) for request in requests("class") for way in WAYS], store)
    found = rows(store)
    record = {"command": "python benchmarks/trainable_vgg.py STORE", "rows": found,
              "date": time.strftime("%Y-%m-%d"), "versions": versions()}  # fmt: skip
    Path("results/trainable_vgg.json").write_text(json.dumps(record, indent=1) + "\n")
    Path("results/trainable_vgg.md").write_text(table(found))


if __name__ == "__main__":
    main(*sys.argv[1:])

"""jit with less at hand: the last layers alone, and no holdout; a class goes from a quarter VGG11.

    EFFACE_DATA=… python -m research.benchmarks.jit_with_less STORE     # research/results/jit_with_less.json and .md

STORE holds the models that jit_requests.py trained; 27 more cells, eight minutes on two cores. This
net has no normalisation layers and one linear layer, its output, so that ``norm`` and ``task`` are
refused.
"""

import sys
from typing import Any

import numpy as np

from efface.grid import read, run
from efface.metrics.retrain_gap import gap
from research.benchmarks.jit_requests import requests
from research.tables import write_record

WAYS: dict[str, dict[str, Any]] = {
    "all weights": {"holdout": True, "guard": False},
    "last layers": {"holdout": True, "guard": False, "trainable": "last-layers"},
    "all weights, guarded, no holdout": {"holdout": False, "guard": True},
}


def rows(store: str) -> list[dict[str, Any]]:
    """One row a request and way, nothing done first."""
    found = []
    for request in requests("class"):
        target, before = request.reference(store), request.untouched(store)
        where = {"request": request.name, "seed": request.seed, "target": target}
        nothing = {"columns": before, "gap": gap(before, target), "lost": 0.0}
        found.append({**where, "way": "nothing done", **nothing})
        for way, how in WAYS.items():
            job = request.unlearned("jit", **how)
            facts = read(store, job).statistics
            took = {"outcome": facts["outcome"], "seconds": facts["seconds"]["method"]}
            took |= {"id": job.id, "moving": facts["trainable"]}
            found.append({**where, "way": way, **took, **request.scores(job, store)})
    return found


def page(record: dict[str, Any]) -> str:
    """One row a way, means of nine requests."""
    found = record["rows"]
    lines = ["# jit with less at hand", "",
             (f"`{record['command']}`, records in jit_with_less.json. The nine class "
              "requests of [jit_quality](jit_quality.md), one retrained model each, quarter VGG11. Mean over the "
              "nine in %, gap and lost D_r in points with the least and the greatest; seconds of the method; "
              "weights: the share that may move. This net has no layers for `norm` and `adapter`."), "",
             "| | D_r / D_f / MIA | gap | lost D_r | done | seconds | weights |",
             "|---|---|---|---|---|---|---|"]  # fmt: skip
    ways = ("nothing done", *WAYS)
    lines += [_line(way, [row for row in found if row["way"] == way]) for way in ways]
    return "\n".join(lines) + "\n"


def _line(way: str, some: list[dict[str, Any]]) -> str:
    columns = " / ".join(
        f"{100 * np.mean([row['columns'][name] for row in some]):.1f}"
        for name in some[0]["columns"]
    )
    gaps, lost = (_spread([100 * row[name] for row in some]) for name in ("gap", "lost"))
    done = seconds = share = ""
    if way in WAYS:
        done = f"{sum(row['outcome'] == 'done' for row in some)} of {len(some)}"
        seconds = f"{np.median([row['seconds'] for row in some]):.0f}"
        share = f"{100 * some[0]['moving']['numbers'] / some[0]['moving']['of']:.0f} %"
    return f"| {way} | {columns} | {gaps} | {lost} | {done} | {seconds} | {share} |"


def _spread(values: list[float]) -> str:
    return f"{np.mean(values):.1f} ({min(values):.1f} to {max(values):.1f})"


def main(store: str) -> None:
    """Make the cells, record, tabulate."""
    run([r.unlearned("jit", **how) for r in requests("class") for how in WAYS.values()], store)
    write_record("jit_with_less", "jit_with_less STORE", {"rows": rows(store)})


if __name__ == "__main__":
    main(*sys.argv[1:])

"""jit on the last layers alone, and without a holdout: a class is forgotten by a quarter VGG11.

    EFFACE_DATA=… python -m research.benchmarks.jit_with_less STORE     # research/results/jit_with_less.json and .md

STORE holds the models that jit_requests.py trained; 27 more cells, eight minutes on two cores. This
model has no normalisation layers and one linear layer, its output, so that ``norm`` and ``adapter``
are refused.
"""

import sys
from typing import Any

import numpy as np

from efface.grid import read, run
from efface.metrics.retrain_gap import gap
from research import pages
from research.benchmarks.jit_requests import requests
from research.pages import mean_range, percent, table, triple
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
    rows = [
        _row(way, [row for row in record["rows"] if row["way"] == way])
        for way in ("nothing done", *WAYS)
    ]
    return pages.page(
        "jit with fewer weights and without a holdout",
        f"`{record['command']}`, records in jit_with_less.json. The nine class "
        "requests of [jit_quality](jit_quality.md), one retrained model each, quarter VGG11. Mean over the "
        "nine in %, gap and lost D_r in points with the minimum and the maximum; seconds of the method; "
        "weights: the trainable share. This model has no layers for `norm` and `adapter`.",
        table(" | D_r / D_f / MIA | gap | lost D_r | done | seconds | weights", rows),
    )


def _row(way: str, some: list[dict[str, Any]]) -> tuple[str, ...]:
    columns = triple(*(row["columns"] for row in some))
    points = (mean_range([100 * row[name] for row in some]) for name in ("gap", "lost"))
    done = seconds = share = ""
    if way in WAYS:
        done = f"{sum(row['outcome'] != 'not met' for row in some)} of {len(some)}"
        seconds = f"{np.median([row['seconds'] for row in some]):.0f}"
        share = f"{percent(some[0]['moving']['numbers'] / some[0]['moving']['of'], 0)} %"
    return way, columns, *points, done, seconds, share


def main(store: str) -> None:
    """Make the cells, record, tabulate."""
    run([r.unlearned("jit", **how) for r in requests("class") for how in WAYS.values()], store)
    write_record("jit_with_less", "jit_with_less STORE", {"rows": rows(store)})


if __name__ == "__main__":
    main(*sys.argv[1:])

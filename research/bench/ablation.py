"""Noise against step: the paper's ablation of JiT, on a class of CIFAR-100, and that of ``jit``.

    EFFACE_DATA=… python -m research.bench.ablation STORE cells     # 109 cells, a quarter of an hour on two cores
    EFFACE_DATA=… python -m research.bench.ablation STORE records   # research/results/bench_ablation.json, .md and .svg

The first request of the task ``class``: no guard, seeds as there.
"""

import sys
from collections.abc import Iterator, Mapping
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.figure import Figure

from efface.grid import Job, is_done, read, run
from research import pages
from research.bench import protocol
from research.bench.paper import PAPER
from research.bench.scores import Reference, score
from research.bench.tasks import TASKS, Request
from research.pages import origin, percent, table
from research.tables import write_record

# the paper's own values of σ, and those of η between and around its own
SIGMAS = (0.01, 0.05, 0.1, 0.5, 1.0, 1.5)
RATES = (1e-5, 1e-4, 3e-4, 5e-4, 1e-3, 5e-3, 1e-2)
# of jit: around its own, 0.15 and 0.1
OWN_SIGMAS, OWN_STEPS = (0.05, 0.1, 0.15, 0.25, 0.5), (0.02, 0.05, 0.1, 0.2, 0.5)
GRIDS = {
    "jit_reference": ("learning_rate", SIGMAS, RATES),
    "jit_paper": ("learning_rate", SIGMAS, RATES),
    "jit": ("step_size", OWN_SIGMAS, OWN_STEPS),
}


def request() -> Request:
    """The one that all cells are of."""
    return TASKS["class"].requests()[0]


def cells() -> Iterator[tuple[str, float, float, Job]]:
    """Method, σ, step and job of each cell."""
    one = request()
    for method, (name, sigmas, steps) in GRIDS.items():
        for sigma in sigmas:
            for step in steps:
                yield method, sigma, step, one.unlearned(method, sigma=sigma, **{name: step})


def as_records(store: str) -> dict[str, Any]:
    """What each cell comes to."""
    reference = Reference.of(request(), store)
    found = []
    for method, sigma, step, job in cells():
        if is_done(store, job.id):
            result = read(store, job)
            about = {"method": method, "sigma": sigma, "step": step, "id": job.id}
            passes = result.statistics["passes"]
            found.append({**about, **score(reference, result.arrays), "passes": passes})
    untouched = score(reference, reference.base)
    return {
        "request": request().name,
        "untouched": untouched,
        "target": reference.target,
        "cells": found,
    }


def page(record: Mapping[str, Any]) -> str:
    """Where each form keeps the model, and where it is nearest to retraining."""
    rows = []
    for method, (name, _, _) in GRIDS.items():
        here = [one for one in record["cells"] if one["method"] == method]
        kept = record["untouched"]["columns"]["retain"]
        fit = [one for one in here if one["gap"] is not None]
        bearable = [one for one in fit if kept - one["columns"]["retain"] <= 0.02]  # noqa: PLR2004
        best = min(bearable or fit, key=lambda one: one["gap"])
        rows.append([
            f"`{method}`", name, f"{len(here)}", f"{len(here) - len(fit)}", f"{len(bearable)}",
            f"σ {best['sigma']:g}, {best['step']:g}", pages.triple(best["columns"]), f"{100 * best['gap']:.1f}",
        ])  # fmt: skip
    ablation = PAPER["ablation"]
    theirs = [
        [f"σ {o['sigma']:g}, η 1e-4", percent(o["D_r"] / 100), f"{o['MIA']:g}"]
        for o in ablation["sigma_at_eta_1e-4"]
    ]
    theirs += [
        [f"σ 0.5, η {o['eta']:g}", percent(o["D_r"] / 100), f"{o['MIA']:g}"]
        for o in ablation["eta_at_sigma_0.5"]
    ]
    return pages.page(
        "JiT: noise against step",
        f"{origin(record)}. The class {record['request']} of CIFAR-100, quarter-width VGG11, one base model, no guard. Nothing done: "
        f"{pages.triple(record['untouched']['columns'])} (D_r / D_f / MIA, %), retrained {pages.triple(record['target'])}.",
        table("method | step | cells | not finite | lose at most 2 points of D_r | nearest of these | D_r / D_f / MIA | gap", rows),
        "![D_r and gap over noise and step](bench_ablation.svg)",
        "## The paper's own",
        f"VGG11, a class ({PAPER['read']}). Its cliff: between η 3e-4 and 5e-4 D_r falls from 66 to 6.",
        table("setting | D_r, % | MIA, 0 to 1", theirs),
    )  # fmt: skip


def figure(record: Mapping[str, Any]) -> Figure:
    """For each form D_r and the gap as heat maps; white: not finite."""
    chart, axes = plt.subplots(2, len(GRIDS), figsize=(11, 6), layout="constrained")
    for column, (method, (name, sigmas, steps)) in enumerate(GRIDS.items()):
        here = {(c["sigma"], c["step"]): c for c in record["cells"] if c["method"] == method}
        for row, (title, of) in enumerate({"D_r, %": _retain, "gap, points": _gap}.items()):
            values = np.array([[of(here.get((s, t))) for t in steps] for s in sigmas])
            top = 100 * record["untouched"]["columns"]["retain"] if row == 0 else 60
            drawn = axes[row][column]
            drawn.imshow(
                values, vmin=0, vmax=top, cmap="viridis" if row == 0 else "viridis_r", aspect="auto"
            )
            for (y, x), value in np.ndenumerate(values):
                if np.isfinite(value):
                    dark = (value < top / 2) == (row == 0)
                    drawn.text(
                        x,
                        y,
                        f"{value:.0f}",
                        ha="center",
                        va="center",
                        fontsize=7,
                        color="white" if dark else "black",
                    )
            drawn.set_xticks(range(len(steps)), [f"{t:g}" for t in steps], fontsize=7)
            drawn.set_yticks(range(len(sigmas)), [f"{s:g}" for s in sigmas], fontsize=7)
            drawn.set(xlabel=name.replace("_", " "), ylabel="σ")
            drawn.set_title(f"{method}: {title}", fontsize=9)
    return chart


def _retain(cell: Mapping[str, Any] | None) -> float:
    return 100 * cell["columns"]["retain"] if cell and cell["gap"] is not None else np.nan


def _gap(cell: Mapping[str, Any] | None) -> float:
    return 100 * cell["gap"] if cell and cell["gap"] is not None else np.nan


def main(store: str, what: str) -> None:
    """Make the cells, or write the record."""
    if what == "cells":
        run(protocol.models([request()]), store)
        run([job for *_, job in cells()], store)
    else:
        write_record(
            "bench_ablation",
            "bench.ablation STORE cells and records",
            as_records(store),
            indent=None,
        )


if __name__ == "__main__":
    main(*sys.argv[1:])

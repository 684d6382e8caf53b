"""The page and the figure of jit_parts.py, from its records."""

from typing import Any

import numpy as np
from matplotlib import pyplot as plt
from matplotlib.figure import Figure

from research import pages
from research.pages import mean_range, table, triple

TASKS = ("class", "random")


def page(record: dict[str, Any]) -> str:
    """One table a task."""
    parts = [
        (
            f"`{record['command']}`, records in jit_parts.json, "
            "[gap against cost](jit_parts.svg). D_r / D_f / MIA in %, mean over three base models; gap to "
            "the retrained model in points, with the minimum and the maximum of the three; cost in "
            "forwards' worth a record and step."
        )
    ]
    for task in TASKS:
        found, rows = [row for row in record["rows"] if row["task"] == task], []
        target = triple(*(row["target"] for row in found if row["form"] == "jit"))
        for form in dict.fromkeys(row["form"] for row in found):
            some = [row for row in found if row["form"] == form]
            gaps = mean_range([100 * row["gap"] for row in some])
            columns = triple(*(row["columns"] for row in some))
            rows.append((form, columns, gaps, f"{some[0]['cost']:.2f}"))
        parts += [f"## {task}: {found[0]['request']} (retrained {target})"]
        parts += [table("form | D_r / D_f / MIA | gap | cost", rows)]
    return pages.page("What each part of jit does", *parts)


CURVES = {
    "independent draws": ("jit", "N = 2", "N = 4", "N = 8"),
    "antithetic pairs": ("antithetic, N = 2", "antithetic, N = 4"),
    "directional derivative (jvp)": tuple(f"directional derivative, N = {n}" for n in (1, 4)),
}


def figure(record: dict[str, Any]) -> Figure:
    """Gap against cost over N for each estimator, nothing done as a line; one panel a task."""
    found = record["rows"]
    plot, axes = plt.subplots(1, len(TASKS), figsize=(9, 3.6), layout="constrained")
    for axis, task in zip(axes, TASKS, strict=True):
        rows = [row for row in found if row["task"] == task]
        nothing = np.mean([100 * row["gap"] for row in rows if row["form"] == "nothing done"])
        axis.axhline(nothing, color="0.6", linestyle="--", label="nothing done")
        for name, forms in CURVES.items():
            points = [[row for row in rows if row["form"] == form] for form in forms]
            gaps = [[100 * row["gap"] for row in some] for some in points]
            means = [np.mean(one) for one in gaps]
            low, high = ([end(g) for g in gaps] for end in (min, max))
            error = [np.subtract(means, low), np.subtract(high, means)]
            costs = [some[0]["cost"] for some in points]
            axis.errorbar(costs, means, error, marker="o", capsize=3, label=name)
        axis.set(title=f"{task}: {rows[0]['request']}", xlabel="forwards' worth a record and step",
                 ylabel="gap to the retrained model, points", ylim=(0, None))  # fmt: skip
    axes[0].legend(frameon=False, fontsize=8)
    return plot

"""The page and the figure of jit_parts.py, from its records."""

from typing import Any

import numpy as np
from matplotlib import pyplot as plt
from matplotlib.figure import Figure

TASKS = ("class", "random")


def page(record: dict[str, Any]) -> str:
    """One table a task."""
    found = record["rows"]
    lines = ["# What each part of jit does", "",
             (f"`{record['command']}`, records in jit_parts.json, "
              "[gap against cost](jit_parts.svg). D_r / D_f / MIA in %, mean over three base models; gap to "
              "the retrained model in points, with the least and the greatest of the three; cost in "
              "forwards' worth a record and step."), ""]  # fmt: skip
    for task in TASKS:
        rows = [row for row in found if row["task"] == task]
        said = _columns([row["target"] for row in rows if row["form"] == "jit"])
        lines += [f"## {task}: {rows[0]['request']} (retrained {said})", "",
                  "| form | D_r / D_f / MIA | gap | cost |", "|---|---|---|---|"]  # fmt: skip
        for form in dict.fromkeys(row["form"] for row in rows):
            some = [row for row in rows if row["form"] == form]
            gaps = [100 * row["gap"] for row in some]
            spread = f"{np.mean(gaps):.1f} ({min(gaps):.1f} to {max(gaps):.1f})"
            columns = _columns([row["columns"] for row in some])
            lines.append(f"| {form} | {columns} | {spread} | {some[0]['cost']:.2f} |")
        lines.append("")
    return "\n".join(lines)


def _columns(some: list[dict[str, float]]) -> str:
    return " / ".join(f"{100 * np.mean([one[name] for one in some]):.1f}" for name in some[0])


CURVES = {
    "independent draws": ("jit", "N = 2", "N = 4", "N = 8"),
    "antithetic pairs": ("antithetic, N = 2", "antithetic, N = 4"),
    "directional derivative (jvp)": (
        "directional derivative, N = 1",
        "directional derivative, N = 4",
    ),
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
            error = [[m - min(g) for m, g in zip(means, gaps, strict=True)],
                     [max(g) - m for m, g in zip(means, gaps, strict=True)]]  # fmt: skip
            costs = [some[0]["cost"] for some in points]
            axis.errorbar(costs, means, error, marker="o", capsize=3, label=name)
        axis.set(title=f"{task}: {rows[0]['request']}", xlabel="forwards' worth a record and step",
                 ylabel="gap to the retrained model, points", ylim=(0, None))  # fmt: skip
    axes[0].legend(frameon=False, fontsize=8)
    return plot

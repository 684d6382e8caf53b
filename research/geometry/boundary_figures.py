"""The figures of the two-dimensional boundary: panels of one seed, and areas over all of them.

Series are distinguished by place, then by line and marker, so that grey is enough.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Float
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from efface.types import Records
from research.geometry.blobs import FORGOTTEN, HIGH, LOW, Family
from research.geometry.contenders import searched
from research.geometry.experiment import STYLE

# Logits of class 1 over class 0 over the grid, row by row.
Field = Float[np.ndarray, " n"]

# Panels in a row.
ACROSS = 5

INK, SOFT, FILL = "#000000", "#606060", "#e2e2e2"


def panels(
    first: Family,
    fields: Mapping[str, Mapping[str, Field]],
    again: Mapping[str, Sequence[Field]],
    *,
    rows: Sequence[str],
    paper: bool = True,
) -> Figure:
    """A row for each point, a column for each model; the untouched and retrained first, if given.

    ``fields``: by point and row; ``again``: by point the retrained models, of which the first is
    the dashed line everywhere.
    """
    names = ["untouched", "retrained", *rows] if paper else list(rows)
    lines = -(-len(names) // ACROSS)
    with rc_context(STYLE):
        figure = Figure(figsize=(1.9 * ACROSS, 0.3 + 4.0 * lines), layout="constrained")
        axes = figure.subplots(2 * lines, ACROSS, sharex=True, sharey=True, squeeze=False)
        for place in range(lines * ACROSS):
            for row, point in enumerate(FORGOTTEN):
                own = axes[2 * (place // ACROSS) + row][place % ACROSS]
                if place >= len(names):
                    own.set_visible(False)
                    continue
                _panel(own, names[place], point, fields[point], again[point])
                draw_points(own, first.records, [point])
        for row, line in enumerate(axes):
            line[0].set_ylabel(f"{list(FORGOTTEN)[row % 2]} point leaves\n$x_2$")
        for own in axes[-1]:
            own.set_xlabel("$x_1$")
        figure.suptitle(_caption(first), fontsize=8)
    return figure


def _caption(first: Family) -> str:
    return (
        f"seed {first.seed}, n = {len(first.records)} points; star: the point that leaves; grey: "
        "answered with class 1; dashed: one retrained model;\n"
        "per cent: share of the box answered otherwise than by that retrained model"
    )


def _panel(
    axes: Axes, name: str, point: str, rows: Mapping[str, Field], again: Sequence[Field]
) -> None:
    """One model's boundary and, dashed, the retrained one's."""
    if point == "boundary":
        axes.set_title(name.replace(", one", ",\none"), fontsize=8.5)
    if name == "retrained":
        shade(axes, again[0])
        for other in again[1:]:
            outline(axes, other, "dotted")
        outline(axes, again[0], "dashed")
        text = "dotted: other starts"
    elif name in rows:
        shade(axes, rows[name])
        outline(axes, again[0], "dashed")
        outline(axes, rows[name], "solid")
        text = f"{100 * np.mean((rows[name] > 0) != (again[0] > 0)):.1f} %"
    else:
        text = "no model"
    axes.text(
        0.04,
        0.04,
        text,
        transform=axes.transAxes,
        fontsize=8,
        bbox={"facecolor": "white", "edgecolor": "none", "pad": 1.2, "alpha": 0.85},
    )


def coordinates(
    field: Field, low: Sequence[float] = LOW, high: Sequence[float] = HIGH
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """x₁, x₂ and the field as matplotlib takes them."""
    side = round(len(field) ** 0.5)
    across, up = (np.linspace(*ends, side) for ends in zip(low, high, strict=True))
    return across, up, field.reshape(side, side)


def shade(axes: Axes, field: Field) -> None:
    """Grey where the prediction is class 1."""
    filled = axes.contourf(*coordinates(np.sign(field)), levels=[0, 2], colors=[FILL])
    filled.set(zorder=-2, rasterized=True)


def outline(axes: Axes, field: Field, style: str) -> None:
    """The boundary, where there is one in the box."""
    # contour warns where there is no level to draw
    if (field > 0).any() and not (field > 0).all():
        wide = {"solid": 1.6, "dashed": 1.2, "dotted": 0.9}[style]
        axes.contour(
            *coordinates(field), levels=[0], colors=[INK], linestyles=[style], linewidths=[wide]
        )


def draw_points(axes: Axes, records: Records, forget_ids: Sequence[str]) -> None:
    """Circles are class 0, triangles class 1, stars are the points to forget."""
    x, y = records.x.numpy(), records.y.numpy()
    out = np.isin(records.ids, forget_ids)
    axes.plot(*x[(y == 0) & ~out].T, "o", ms=2, mfc="none", mec=SOFT, mew=0.5, rasterized=True)
    axes.plot(*x[(y == 1) & ~out].T, "^", ms=2, mfc=SOFT, mec="none", rasterized=True)
    axes.plot(*x[out].T, "*", ms=9, mfc="white", mec=INK, mew=0.9, zorder=5)
    axes.set(xlim=(LOW[0], HIGH[0]), ylim=(LOW[1], HIGH[1]), aspect="equal")


# Per cent that an area of 0 is drawn at.
LEAST = 0.01


def areas_figure(facts: Mapping[str, Any]) -> Figure:
    """Every row's area to the retrained models, next to that between them, one panel a point."""
    tuned = {contender.name for contender in searched()}
    rows = facts["cases"]["boundary"]["rows"] | facts["cases"]["core"]["rows"]
    names = [name for name in rows if name not in tuned]
    with rc_context(STYLE):
        figure = Figure(figsize=(7.6, 0.9 + 0.24 * len(names)), layout="constrained")
        both = figure.subplots(1, 2, sharey=True)
        for axes, (point, case) in zip(both, facts["cases"].items(), strict=True):
            _areas(axes, case, names)
            axes.set_title(f"the {point} point leaves", fontsize=9)
            axes.set_xlabel("% of the box answered otherwise\nthan by a retrained model")
        both[0].set_yticks(range(len(names)), names)
        both[0].invert_yaxis()
        figure.suptitle(
            f"median over n = {len(facts['seeds'])} seeds with 95 % interval; grey band: retrained "
            "models among themselves",
            fontsize=8.5,
        )
    return figure


def _areas(axes: Axes, case: Mapping[str, Any], names: Sequence[str]) -> None:
    floor = case["floor"]["area"]
    low, high = (100 * (floor[end] or floor["median"]) for end in ("low", "high"))
    axes.axvspan(low, high, color=FILL, zorder=0)
    axes.axvline(100 * floor["median"], color=SOFT, lw=0.9, ls="dashed", zorder=1)
    for place, name in enumerate(names):
        if name not in case["rows"]:
            axes.text(LEAST * 1.3, place, "no model", va="center", fontsize=7.5)
            continue
        found = case["rows"][name]["area"]
        ends = [max(100 * (found[end] or found["median"]), LEAST) for end in ("low", "high")]
        axes.plot(ends, [place, place], color=INK, lw=1.1)
        marker = "s" if name in {"untouched", "same start"} else "o"
        axes.plot(max(100 * found["median"], LEAST), place, marker, ms=4, mfc="white", mec=INK)
    axes.set_xscale("log")
    axes.set_xlim(LEAST, 130)
    axes.xaxis.set_major_formatter("{x:g}")
    axes.grid(axis="x", color=FILL, lw=0.6)

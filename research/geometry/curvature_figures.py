"""The three quantities side by side: maps over the plane, lines over the sigmoid."""

from collections.abc import Mapping, Sequence

import numpy as np
from jaxtyping import Float
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.image import AxesImage

from efface.ranking.curvature import Curvature
from efface.types import Records
from research.geometry.boundary_figures import INK, SOFT, coordinates
from research.geometry.closed_form import closed_form
from research.geometry.experiment import STYLE

# By the name of the array.
TITLES = {
    "gradient_norm": r"$\|\nabla g\|$ (per unit of x)",
    "hessian_norm": r"$\|\nabla^2 g\|_F$ (per unit of x squared)",
    "ratio": r"$\kappa = \|\nabla^2 g\|_F\,/\,\|\nabla g\|$ (per unit of x)",
}


# Minimum and maximum x of a map.
Window = tuple[Sequence[float], Sequence[float]]

STYLES = {"gradient": "solid", "hessian": "dashed", "kappa": "dotted"}
LABELS = {"gradient": r"$\|\nabla g\|$", "hessian": r"$\|\nabla^2 g\|_F$", "kappa": r"$\kappa$"}


def map_figure(
    maps: Mapping[str, Curvature],
    sure: Float[np.ndarray, " n"],
    records: Records,
    *,
    window: Window,
    seed: int,
) -> Figure:
    """A row for each g, a column for each quantity; the dashed line is the boundary."""
    with rc_context(STYLE):
        figure = Figure(figsize=(8.4, 0.4 + 2.4 * len(maps)), layout="constrained")
        rows = figure.subplots(len(maps), len(TITLES), sharex=True, sharey=True, squeeze=False)
        for line, (name, found) in zip(rows, maps.items(), strict=True):
            for axes, attribute in zip(line, TITLES, strict=True):
                image = _map(axes, getattr(found, attribute), sure, window)
                figure.colorbar(image, ax=axes, shrink=0.85)
            line[0].set_ylabel(f"g: {name.replace(' of ', chr(10) + 'of ')}\n$x_2$", fontsize=8.5)
        for axes, title in zip(rows[0], TITLES.values(), strict=True):
            axes.set_title(title, fontsize=8.5)
        for axes in rows[-1]:
            axes.set_xlabel("$x_1$")
        figure.suptitle(
            f"one net, seed {seed}, trained on n = {len(records)} points; the middle between the "
            "blobs; dark is large; dashed: the decision boundary",
            fontsize=8.5,
        )
    return figure


def _map(
    axes: Axes, values: Float[np.ndarray, " n"], sure: Float[np.ndarray, " n"], window: Window
) -> AxesImage:
    across, up, shown = coordinates(values, *window)
    box = (across[0], across[-1], up[0], up[-1])
    image = axes.imshow(shown, origin="lower", extent=box, cmap="Greys", vmin=0, aspect="equal")
    line = coordinates(sure, *window)
    axes.contour(*line, levels=[0], colors=["white"], linewidths=[1.4])
    axes.contour(*line, levels=[0], colors=[INK], linestyles=["dashed"], linewidths=[0.8])
    return image


def across_figure(
    offsets: Float[np.ndarray, " t"],
    lines: Mapping[str, Mapping[str, Float[np.ndarray, " t"]]],
    *,
    seed: int,
) -> Figure:
    """Each quantity along the normals of the boundary, as a share of its own maximum."""
    with rc_context(STYLE):
        figure = Figure(figsize=(8.4, 2.7), layout="constrained")
        every = figure.subplots(1, len(lines), sharey=True, squeeze=False)[0]
        for axes, (name, found) in zip(every, lines.items(), strict=True):
            for short, line in found.items():
                label = f"{LABELS[short]}, at most {line.max():.3g}"
                axes.plot(offsets, line / line.max(), color=INK, ls=STYLES[short], label=label)
            axes.axvline(0, color=SOFT, lw=0.7)
            axes.set_title(f"g: {name}", fontsize=8.5)
            axes.set_xlim(-0.8, 0.8)
            axes.set_ylim(0, 1.5)
            axes.legend(frameon=False, fontsize=7.5, loc="upper left")
            axes.set_xlabel("distance from the boundary,\n> 0: the side of class 1")
        every[0].set_ylabel("share of the greatest value")
        figure.suptitle(
            f"one net, seed {seed}; median over 60 places on its boundary", fontsize=8.5
        )
    return figure


def sigmoid_figure() -> Figure:
    """|g'|, |g''| and κ of the sigmoid and of its logarithm, in closed form."""
    x = np.linspace(-6, 6, 601)
    with rc_context(STYLE):
        figure = Figure(figsize=(7.6, 2.9), layout="constrained")
        for axes, (name, lines) in zip(figure.subplots(1, 2), closed_form(x).items(), strict=True):
            for short, values in lines.items():
                label = {"gradient": "|g′|", "hessian": "|g″|", "kappa": "κ = |g″| / |g′|"}[short]
                axes.plot(x, values, color=INK, ls=STYLES[short], label=label)
            axes.axvline(0, color=SOFT, lw=0.7)
            axes.set_title("g = S(x)" if name == "probability" else "g = ln S(x)")
            axes.set_xlabel("x, the logit; the boundary is at 0")
            axes.set_ylabel("value (per unit of x, or of x squared)")
            axes.legend(frameon=False)
    return figure

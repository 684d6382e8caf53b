"""The three quantities side by side: maps over the plane, lines over the sigmoid."""

from collections.abc import Mapping

import numpy as np
from jaxtyping import Float
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from efface.geometry.boundary_figures import INK, SOFT, coordinates
from efface.geometry.closed_form import closed_form
from efface.geometry.experiment import STYLE
from efface.information.curvature import Curvature
from efface.types import Records

TITLES = {
    "gradient_norm": r"$\|\nabla g\|$ (per unit of x)",
    "hessian_norm": r"$\|\nabla^2 g\|_F$ (per unit of x squared)",
    "ratio": r"$\kappa = \|\nabla^2 g\|_F\,/\,\|\nabla g\|$ (per unit of x)",
}
"""By the name of the array."""


def map_figure(
    maps: Mapping[str, Curvature], sure: Float[np.ndarray, " n"], records: Records, *, seed: int
) -> Figure:
    """A row for each g, a column for each quantity; the dashed line is the boundary."""
    with rc_context(STYLE):
        figure = Figure(figsize=(8.4, 0.4 + 2.35 * len(maps)), layout="constrained")
        rows = figure.subplots(len(maps), len(TITLES), sharex=True, sharey=True, squeeze=False)
        for line, (name, found) in zip(rows, maps.items(), strict=True):
            for axes, (attribute, title) in zip(line, TITLES.items(), strict=True):
                _map(figure, axes, getattr(found, attribute), sure)
                if line is rows[0]:
                    axes.set_title(title, fontsize=8.5)
            line[0].set_ylabel(f"g: {name.replace(' of ', chr(10) + 'of ')}\n$x_2$", fontsize=8.5)
        for axes in rows[-1]:
            axes.set_xlabel("$x_1$")
        figure.suptitle(
            f"one net, seed {seed}, trained on n = {len(records)} points; dark is large; dashed: "
            "the decision boundary",
            fontsize=8.5,
        )
    return figure


def _map(
    figure: Figure, axes: Axes, values: Float[np.ndarray, " n"], sure: Float[np.ndarray, " n"]
) -> None:
    across, up, shown = coordinates(values)
    box = (across[0], across[-1], up[0], up[-1])
    image = axes.imshow(shown, origin="lower", extent=box, cmap="Greys", vmin=0, aspect="equal")
    figure.colorbar(image, ax=axes, shrink=0.85)
    axes.contour(*coordinates(sure), levels=[0], colors=["white"], linewidths=[2.2])
    axes.contour(*coordinates(sure), levels=[0], colors=[INK], linestyles=["dashed"], linewidths=1)


def sigmoid_figure() -> Figure:
    """|g'|, |g''| and κ of the sigmoid and of its logarithm, in closed form."""
    x = np.linspace(-6, 6, 601)
    with rc_context(STYLE):
        figure = Figure(figsize=(7.6, 2.9), layout="constrained")
        for axes, (name, lines) in zip(figure.subplots(1, 2), closed_form(x).items(), strict=True):
            for style, (short, values) in zip(
                ("solid", "dashed", "dotted"), lines.items(), strict=True
            ):
                label = {"gradient": "|g′|", "hessian": "|g″|", "kappa": "κ = |g″| / |g′|"}[short]
                axes.plot(x, values, color=INK, ls=style, label=label)
            axes.axvline(0, color=SOFT, lw=0.7)
            axes.set_title("g = S(x)" if name == "probability" else "g = ln S(x)")
            axes.set_xlabel("x, the logit; the boundary is at 0")
            axes.set_ylabel("value (per unit of x, or of x squared)")
            axes.legend(frameon=False)
    return figure

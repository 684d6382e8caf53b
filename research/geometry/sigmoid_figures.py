"""The pictures of the sigmoid: form by form, and what a step pulls at."""

from collections.abc import Mapping, Sequence

import numpy as np
from jaxtyping import Float
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from research.geometry.sigmoid_forms import READ
from research.geometry.tangent import turning_point, unit_move, unit_pull

TITLES = {
    "down": "equation 1, down: one plain step\n(jit_paper, η 5, σ 0.25, N 25)",
    "up": "the same step, up\n(a loss |c − l|, l below c)",
    "adam": "down by Adam, l², 8 steps\n(jit_paper, η 0.1, σ 5, N 25)",
    "one branch": "down, through f(x) alone\n(the code's gradient, no clamp)",
    "jit": "efface's jit\n(its own settings)",
}
WINDOW = (-4.4, 4.4)
INK, SOFT = "black", "0.55"


def draw_forms(x: Float[np.ndarray, " n"], after: Mapping[str, np.ndarray]) -> Figure:
    """One panel a form: S before, S at the forgotten x after, and what is read off the paper."""
    figure = Figure(figsize=(10, 6.4), layout="constrained")
    every = figure.subplots(2, 3, sharex=True, sharey=True).flat
    for axes, (name, values) in zip(every, after.items(), strict=False):
        _form(axes, x, values)
        axes.set_title(TITLES[name], fontsize=9)
    _key(every[len(after)])
    for axes in figure.axes[2:5]:
        axes.set_xlabel("x that is forgotten (no unit)")
        axes.tick_params(labelbottom=True)
    for axes in (figure.axes[0], figure.axes[3]):
        axes.set_ylabel("S at that x (probability)")
    return figure


def _form(axes: Axes, x: np.ndarray, values: Float[np.ndarray, "s n"]) -> None:
    smooth = np.linspace(*WINDOW, 200)
    axes.plot(smooth, 1 / (1 + np.exp(-smooth)), color=SOFT, lw=1.2)
    axes.axhline(0.5, color="0.85", lw=0.8, zorder=0)
    spread = values.std(axis=0)
    axes.errorbar(x, values.mean(axis=0), spread, fmt="o", ms=4, color=INK, lw=1, capsize=2)
    axes.plot(list(READ), list(READ.values()), "s", ms=8, mfc="none", mec=INK, mew=0.9)
    axes.set(xlim=WINDOW, ylim=(-0.02, 1.02))
    axes.text(0.97, 0.04, f"n = {len(values)} seeds", transform=axes.transAxes, ha="right")


def _key(axes: Axes) -> None:
    """The last panel says what the marks are."""
    axes.axis("off")
    marks = [
        axes.plot([], [], color=SOFT, lw=1.2)[0],
        axes.plot([], [], "o", ms=4, color=INK)[0],
        axes.plot([], [], "s", ms=8, mfc="none", mec=INK, mew=0.9)[0],
    ]
    names = [
        "before: S(x)",
        "after forgetting x\n(mean, bar: deviation over seeds)",
        "read off the paper's figure 3\n(by eye, ±0.01; 9 of 17 points)",
    ]
    axes.legend(marks, names, loc="center", frameon=False, labelspacing=1.4)


def draw_why(
    x: Float[np.ndarray, " n"],
    nets: Mapping[str, Sequence[Mapping[str, np.ndarray]]],
    *,
    forgotten: Sequence[float],
    curves: Mapping[str, Sequence[np.ndarray]],
) -> Figure:
    """What a step pulls at, what becomes of the whole curve, and nets that are one function."""
    figure = Figure(figsize=(10.5, 3.7), layout="constrained")
    pull, whole, same = figure.subplots(1, 3)
    _pull(pull)
    _whole(whole, forgotten, curves)
    _same(same, x, nets)
    return figure


def _pull(axes: Axes) -> None:
    x = np.linspace(0, 4.4, 200)
    weight, bias = unit_pull(x)
    axes.plot(x, x * weight, ":", color=INK, label="by w")
    axes.plot(x, bias, "--", color=INK, label="by b")
    axes.plot(x, unit_move(x), "-", color=INK, lw=2, label="by both")
    axes.axhline(0, color="0.7", lw=0.8, zorder=0)
    turn = turning_point()
    axes.plot([turn], [0], "o", ms=6, mfc="white", mec=INK)
    axes.annotate(f"x = {turn:.2f}", (turn, 0), (2.2, -0.08), arrowprops={"arrowstyle": "-"})
    axes.set_title("one small step down moves wx + b\n(closed form, σ → 0)", fontsize=9)
    axes.set(xlabel="x that is forgotten (no unit)", ylabel="change of wx + b per η, at that x")
    axes.legend(frameon=False, loc="upper left")


def _whole(
    axes: Axes, forgotten: Sequence[float], curves: Mapping[str, Sequence[np.ndarray]]
) -> None:
    x, styles = np.linspace(-5, 5, 201), {"down": "--", "up": "-"}
    axes.plot(x, 1 / (1 + np.exp(-x)), color=SOFT, lw=1, label="before")
    for sign, drawn in curves.items():
        for point, values, width in zip(forgotten, drawn, (1.0, 2.2), strict=True):
            label = f"x = {point:g} forgotten, {sign}"
            axes.plot(x, values, styles[sign], color=INK, lw=width, label=label)
            axes.plot([point], [np.interp(point, x, values)], "o", ms=5, mfc="white", mec=INK)
    axes.set_title("the whole curve after one step\n(η 5, σ 0.25, N 25, one seed)", fontsize=9)
    axes.set(xlabel="x (no unit)", ylabel="S(x) (probability)", ylim=(-0.02, 1.5))
    axes.legend(frameon=False, fontsize=7.5, loc="upper left")


def _same(
    axes: Axes, x: np.ndarray, nets: Mapping[str, Sequence[Mapping[str, np.ndarray]]]
) -> None:
    looks = {
        "squashed": ("o", "black", "closed by a sigmoid"),
        "open": ("s", "white", "not closed"),
    }
    rows = x > 0
    for name, moves in nets.items():
        marker, fill, label = looks[name]
        for place, one in enumerate(moves):
            scale = np.abs(one["foretold"]).max()
            axes.plot(x[rows], one["foretold"][rows] / scale, color=SOFT, lw=0.8)
            axes.plot(
                x[rows], one["moved"][rows] / scale, marker, ms=4.5, mfc=fill, mec=INK, ls="",
                label=label if place == 0 else None,
            )  # fmt: skip
    axes.plot([], [], color=SOFT, lw=0.8, label="foretold: −K′(x) / 2")
    axes.axhline(0, color="0.7", lw=0.8, zorder=0)
    n = len(next(iter(nets.values())))
    title = f"nets of 16 tanh units that learned S\none small step down, n = {n} each"
    axes.set_title(title, fontsize=9)
    axes.set(xlabel="x that is forgotten (no unit)")
    axes.set_ylabel("change of the answer at that x,\nas a share of the net's largest")
    axes.legend(frameon=False, fontsize=8)

"""Two drawings for the documentation: who needs which data, and one step of JiT.

The pictures are ``needs`` and ``one_step``.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor, nn

from efface.methods import BUILT_IN
from efface.methods._perturb import normals
from efface.methods.jit_forms import jit_paper
from efface.types import Records, Split, no_progress
from research.geometry.blobs import blobs, grid, parted, sureness, trained, untrained
from research.geometry.experiment import Counting, save
from research.geometry.needs import draw_needs, matrix

SIGMA, COPIES, RATE = 0.7, 25, 0.05
SIDE = 141


@dataclass(frozen=True, eq=False)
class Step:
    """A net before and after one step of equation 1 on one point, and the copies it used."""

    records: Records
    point: Float[Tensor, " 2"]
    copies: Float[Tensor, " n 2"]
    before: nn.Module
    after: nn.Module


def experiment(
    out: Path, *, seeds: Sequence[int], progress: Counting = no_progress
) -> dict[str, Any]:
    """Draw both; the step is that of one net, made with the first of the seeds."""
    with progress("drawings", 2) as advance:
        save(draw_needs(BUILT_IN), out, "needs")
        advance("needs")
        step = one_step(seeds[0])
        save(draw_step(step), out, "one_step")
        advance("one step")
    return {
        "seeds": 1,
        "needs": matrix(BUILT_IN),
        "one_step": {"sigma": SIGMA, "copies": COPIES, "rate": RATE, **facts(step)},
    }


def one_step(seed: int) -> Step:
    """The point at the boundary of two blobs, one update of ``jit_paper`` on it."""
    records = blobs(seed)
    everything = torch.ones(1, len(records), dtype=torch.bool)
    (before,) = trained([untrained(seed)], records, kept=everything)
    forget, _ = parted(records, "boundary")
    after = jit_paper(
        before, Split(forget), sigma=SIGMA, perturbations=COPIES, learning_rate=RATE, seed=seed
    )
    # the seed, ids and step of the method's own draw: these are the copies that it perturbed with
    noise = SIGMA * normals(forget.ids, (COPIES, 2), seed=seed, step=0)[0]
    return Step(records, forget.x[0], forget.x[0] + noise, before, after)


def facts(step: Step) -> dict[str, Any]:
    """What the step did: the steepness that it works on, the answer, the part of the plane."""
    both = {"before": step.before, "after": step.after}
    everywhere = grid(SIDE)
    answers = {name: sureness(model, everywhere) > 0 for name, model in both.items()}
    here = {name: float(sureness(model, step.point[None])) for name, model in both.items()}
    return {
        "mean_slope": {name: _slope(model, step) for name, model in both.items()},
        "logit_of_class_1_at_the_point": here,
        "area_that_changed": float((answers["before"] != answers["after"]).float().mean()),
    }


def _slope(model: nn.Module, step: Step) -> float:
    """Equation 1 at the point, with the copies that are drawn."""
    with torch.no_grad():
        apart = (model(step.point[None]) - model(step.copies)).norm(dim=1)
    return float((apart / (step.copies - step.point).norm(dim=1)).mean())


def draw_step(step: Step) -> Figure:
    """The point, its copies, the boundary before and after, and arrows from one to the other."""
    figure = Figure(figsize=(7.6, 5.0), layout="constrained")
    axes = figure.subplots()
    for label, marker in ((0, "v"), (1, "^")):
        own = step.records.x[step.records.y == label]
        axes.plot(*own.T, marker, ms=3.5, mfc="none", mec="0.7", ls="", label=f"class {label}")
    for copy in step.copies:
        axes.plot(*torch.stack([step.point, copy]).T, color="0.6", lw=0.6, zorder=1)
    sure = sureness(step.before, step.copies) > 0
    for said, fill in ((True, "black"), (False, "white")):
        label = f"copy x + ξ, answered {int(said)}"
        axes.plot(
            *step.copies[sure == said].T, "o", ms=5, mfc=fill, mec="black", ls="", label=label
        )
    axes.plot(
        *step.point, "*", ms=17, mfc="white", mec="black", mew=1.4, ls="", label="x, forgotten"
    )
    _boundaries(axes, step)
    axes.set(xlabel="first input (no unit)", ylabel="second input (no unit)")
    axes.set(xlim=(-2.6, 3.6), ylim=(-2.9, 2.9), aspect="equal")
    axes.set_title(
        f"one step of equation 1 (jit_paper): N = {COPIES} copies, σ {SIGMA}, η {RATE}; n = 1 net",
        fontsize=9,
    )
    figure.legend(fontsize=8, loc="outside right upper", frameon=False)
    return figure


def _boundaries(axes: Axes, step: Step) -> None:
    """Level lines of both nets at 0, and how far the first has to move to become the second."""
    # a boundary can have several pieces in the box; arrows start on the longest
    line = max(_drawn(axes, step.before, "before", "-", 1.6), key=len)
    _drawn(axes, step.after, "after", "--", 2.2)
    at = torch.tensor(line[:: max(1, len(line) // 24)], dtype=torch.float32)
    moves = boundary_moves(step.after, at)
    axes.quiver(*at.T, *moves.T, angles="xy", scale_units="xy", scale=1, width=0.005, zorder=4)


def _drawn(
    axes: Axes, model: nn.Module, name: str, style: str, width: float
) -> list[Float[np.ndarray, "n 2"]]:
    """Draw the lines on which both classes are as likely, and give them back."""
    x = grid(SIDE)
    across, up = (np.unique(x[:, place].numpy()) for place in (0, 1))
    level = sureness(model, x).reshape(SIDE, SIDE).numpy()
    looks = {"colors": "black", "linestyles": style, "linewidths": width}
    lines = axes.contour(across, up, level, [0], **looks)
    axes.plot([], [], style, color="black", lw=width, label=f"boundary {name}")
    return lines.allsegs[0]


def boundary_moves(after: nn.Module, at: Float[Tensor, " n 2"]) -> Float[Tensor, " n 2"]:
    """Where the boundary goes from points on it, to first order: −s ∇s / ‖∇s‖², s the new logit."""
    at = at.clone().requires_grad_()
    answer = after(at)
    level = answer[:, 1] - answer[:, 0]
    (slope,) = torch.autograd.grad(level.sum(), at)
    return (-level[:, None] * slope / slope.square().sum(1, keepdim=True)).detach()

"""Eight mislabelled points are forgotten, and jit restores the boundary: step by step, as a GIF.

One point moves too little to be seen, so here the eight points of class 0 that lie nearest to the
other blob are labelled with it, as a careless annotator would. jit is run as ``efface forget
--mislabelled`` runs it, without a holdout, under the guard.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from matplotlib import rc_context
from matplotlib.animation import FuncAnimation, PillowWriter
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import nn

from efface.errors import NotMet
from efface.guard import Guard
from efface.methods.jit import jit
from efface.types import Action, Records, Split, no_progress
from research.geometry import blobs as two
from research.geometry.areas import area, middle
from research.geometry.boundary_figures import FILL, INK, SOFT, draw_points, outline, shade
from research.geometry.experiment import STYLE, Counting

WRONG = 8
SIDE = 121
# Frames that stand before the first step and after the last.
STILL_BEFORE, STILL_AFTER = 8, 14


@dataclass(frozen=True, eq=False)
class Course:
    """One run: logits over the grid before the first step, after each, and of what is let out.

    ``met``: by the guard; else the given model stands, and is the last frame.
    """

    records: Records
    forget_ids: tuple[str, ...]
    retrained: Float[np.ndarray, " n"]
    frames: list[Float[np.ndarray, " n"]]
    met: bool

    def areas(self) -> list[float]:
        """Area to the retrained model, 0 to 1, a frame each."""
        return [area(frame > 0, self.retrained > 0) for frame in self.frames]


def animate(out: Path, seeds: Sequence[int], progress: Counting = no_progress) -> dict[str, Any]:
    """Write boundary.gif of the first seed; say of every seed how near jit came."""
    before, after, met = [], [], []
    with progress("animation", len(seeds)) as advance:
        for place, seed in enumerate(seeds):
            found = course(seed)
            if place == 0:
                write_gif(found, out / "boundary.gif", seed)
            before.append(found.areas()[0])
            after.append(found.areas()[-1])
            met.append(found.met)
            advance(f"seed {seed}")
    return {
        "wrong_labels": WRONG,
        "seed_drawn": seeds[0],
        "area_untouched": asdict(middle(before)),
        "area_jit": asdict(middle(after)),
        "area_nearer": asdict(middle(np.subtract(after, before).tolist())),
        "nearer_in": int(np.sum(np.less(after, before))),
        "not_met_in": met.count(False),
        "by_seed": {"untouched": before, "jit": after},
    }


def course(seed: int) -> Course:
    """Train on wrong labels, retrain without them, run jit under the guard and look on."""
    records, rows = _wrongly_labelled(two.blobs(seed))
    kept = torch.ones(2, len(records), dtype=torch.bool)
    kept[1, rows] = False
    starts = [two.untrained(seed), two.untrained(1000 + seed)]
    untouched, retrained = two.trained(starts, records, kept=kept)
    x = two.grid(SIDE)
    frames, split = [two.sureness(untouched, x).numpy()], Split(records.take(rows))
    guard = Guard(untouched, split, utility_budget=0.02, seed=seed)

    def callback(student: nn.Module, loss: float) -> Action:
        verdict = guard.callback(student, loss)
        if verdict is Action.CONTINUE:
            frames.append(two.sureness(student, x).numpy())
        return verdict

    try:
        settled = guard.settle(
            jit(untouched, split, mislabelled=True, seed=seed, callback=callback)
        )
        frames.append(two.sureness(settled.eval(), x).numpy())
        met = True
    except NotMet:
        frames.append(frames[0])
        met = False
    forget_ids = tuple(records.ids[row] for row in rows)
    return Course(records, forget_ids, two.sureness(retrained, x).numpy(), frames, met)


def _wrongly_labelled(records: Records) -> tuple[Records, list[int]]:
    """The points of class 0 that lie farthest towards the other blob, labelled with class 1."""
    towards = torch.tensor(two.CENTRES[1]) - torch.tensor(two.CENTRES[0])
    # class 1 is out of the choice: only points of class 0 are relabelled
    along = (records.x @ towards).masked_fill(records.y == 1, -torch.inf)
    rows = along.topk(WRONG).indices
    y = records.y.clone()
    y[rows] = 1
    return replace(records, y=y), rows.tolist()


def write_gif(found: Course, path: Path, seed: int, *, dpi: int = 84) -> None:
    """The map on the left, the area so far on the right; without end."""
    areas, last = found.areas(), len(found.frames) - 1
    order = [0] * STILL_BEFORE + list(range(1, last)) + [last] * STILL_AFTER
    with rc_context(STYLE):
        figure = Figure(figsize=(7.6, 4.0), layout="constrained")
        where, how_far = figure.subplots(1, 2, width_ratios=(1.15, 1))
        _map(where, found, 0, seed)
        _so_far(how_far, areas, 0)
        figure.draw_without_rendering()
        figure.set_layout_engine("none")  # nothing moves but the boundary

        def draw(frame: int) -> list[Any]:
            where.clear()
            how_far.clear()
            _map(where, found, frame, seed)
            _so_far(how_far, areas, frame)
            return []

        film = FuncAnimation(figure, draw, frames=order, init_func=list)
        film.save(path, PillowWriter(fps=9), dpi=dpi)


def _map(axes: Axes, found: Course, frame: int, seed: int) -> None:
    shade(axes, found.frames[frame])
    outline(axes, found.retrained, "dashed")
    outline(axes, found.frames[frame], "solid")
    draw_points(axes, found.records, found.forget_ids)
    axes.set_title(
        f"seed {seed}, n = {len(found.records)}; stars: {WRONG} wrong labels leave", fontsize=8.5
    )
    axes.set_xlabel("$x_1$;  solid: the model,  dashed: retrained without the stars")
    axes.set_ylabel("$x_2$")


def _so_far(axes: Axes, areas: Sequence[float], frame: int) -> None:
    percent = [100 * one for one in areas]
    axes.plot(range(len(percent)), percent, color=FILL, lw=1)
    axes.plot(range(frame + 1), percent[: frame + 1], color=INK, lw=1.6)
    axes.plot(frame, percent[frame], "o", color=INK, ms=5)
    axes.axhline(percent[0], color=SOFT, lw=0.8, ls="dotted")
    axes.set(xlim=(0, max(1, len(percent) - 1)), ylim=(0, 1.15 * max(percent)))
    when = f"step {frame}" if frame < len(percent) - 1 else "drawn back by the guard"
    axes.set_title(f"{when}: {percent[frame]:.1f} % apart", fontsize=8.5)
    axes.set_xlabel("step of jit")
    axes.set_ylabel("% of the box answered otherwise\nthan by the retrained model")

"""‖∇g‖, ‖∇²g‖_F and κ over a trained model and the sigmoid: which of them locates the boundary.

The theory says that regions of high curvature tend to lie at decision boundaries. For a
sigmoid S(x) the three are S(1 − S), S(1 − S)|1 − 2S| and |tanh(x/2)|: the first alone is largest on
the boundary, the second is 0 there and largest at |x| = ln(2 + √3) = 1.317, the third grows away
from it. Here the same is measured over trained models, where no closed form is known.
"""

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from scipy import stats
from torch import Tensor, nn

from efface.ranking.curvature import (
    Curvature,
    Scalar,
    dot,
    gradient_and_hessian,
    log_probability,
    measure_curvature,
    probability,
)
from efface.types import Records, no_progress
from research import pages
from research.geometry import blobs as two
from research.geometry.areas import middle
from research.geometry.closed_form import closed_form
from research.geometry.contenders import UNSEEN
from research.geometry.curvature_figures import across_figure, map_figure, sigmoid_figure
from research.geometry.distances import across, distance_to_boundary
from research.geometry.experiment import Counting, save
from research.gradients import of_prediction

# Points of the grid each way.
SIDE = 81

# g: of class 1 everywhere, and what can be had without a label.
FUNCTIONS: dict[str, Scalar] = {
    "probability": probability,
    "log-probability of class 1": log_probability,
    "log-probability of the answer": of_prediction(log_probability),
}

QUANTITIES = {"gradient": "gradient_norm", "hessian": "hessian_norm", "kappa": "ratio"}

# On the boundary, and within a class region, in standard deviations of a blob.
NEAR, FAR = 0.25, 2.0

# Of the maps: the middle between the blobs, minimum and maximum x.
WINDOW = (-1.05, -1.05), (1.35, 1.35)

# Along the normals of the boundary, 0.01 apart.
OFFSETS = np.linspace(-1.5, 1.5, 301)


def plane_curvature(model: nn.Module, records: Records, *, of: Scalar) -> Curvature:
    """Exact, for inputs of few numbers: ‖∇²g‖_F² from one product with each unit vector."""

    def part(teacher: nn.Module, batch: Records) -> tuple[Tensor, ...]:
        slope, times = gradient_and_hessian(teacher, batch, of)
        # one Hessian product a unit vector is exact, and cheap for two inputs
        units = torch.eye(slope.shape[1]).to(slope)
        columns = [times(unit.expand_as(slope).contiguous()) for unit in units]
        square = torch.stack([dot(column, column) for column in columns]).sum(0)
        trace = torch.stack([column[:, i] for i, column in enumerate(columns)]).sum(0)
        # an exact value has no standard error
        nothing = torch.zeros_like(square)
        return dot(slope, slope).sqrt(), square, nothing, trace, nothing

    return measure_curvature(part, model, records, of, 8192)


def experiment(
    out: Path, *, seeds: Sequence[int], progress: Counting = no_progress
) -> dict[str, Any]:
    """Write the maps of the first seed and the lines of the sigmoid; give back what they show."""
    found: dict[str, dict[str, list[float]]] = {}
    with progress("curvature", len(seeds)) as advance:
        for place, seed in enumerate(seeds):
            records = two.blobs(seed)
            kept = torch.ones(1, len(records), dtype=torch.bool)
            model = two.trained([two.untrained(seed)], records, kept=kept)[0]
            for name, numbers in _numbers(model, seed).items():
                for key, value in numbers.items():
                    found.setdefault(name, {}).setdefault(key, []).append(value)
            if place == 0:
                _draw(model, records, out, seed)
            advance(f"seed {seed}")
    save(sigmoid_figure(), out, "curvature_sigmoid")
    net = {
        name: {key: asdict(middle(values)) for key, values in numbers.items()}
        for name, numbers in found.items()
    }
    facts = {"seeds": list(seeds), "near": NEAR, "far": FAR, "net": net, "sigmoid": sigmoid()}
    (out / "curvature.md").write_text(table(facts), encoding="utf-8")
    return facts


def _curved_at(model: nn.Module, x: Float[Tensor, "n 2"], of: Scalar) -> Curvature:
    """Of class 1 at every point."""
    return plane_curvature(model, Records(x, torch.ones(len(x), dtype=torch.int64)), of=of)


def _draw(model: nn.Module, records: Records, out: Path, seed: int) -> None:
    """Maps of a window on the boundary, since nothing could be seen in the whole box; and lines."""
    x = two.grid(SIDE, low=WINDOW[0], high=WINDOW[1])
    maps = {name: _curved_at(model, x, of) for name, of in FUNCTIONS.items()}
    sure = two.sureness(model, x).numpy()
    save(map_figure(maps, sure, records, window=WINDOW, seed=seed), out, "curvature")
    lines = {name: profiles(model, of) for name, of in FUNCTIONS.items()}
    save(across_figure(OFFSETS, lines, seed=seed), out, "curvature_across")


def _numbers(model: nn.Module, seed: int) -> dict[str, dict[str, float]]:
    """By function and quantity: how it goes with distance, over the grid and over unseen points."""
    grid, drawn = two.grid(SIDE), two.blobs(UNSEEN + seed).x
    away = {"grid": distance_to_boundary(model, grid.numpy())}
    away["data"] = distance_to_boundary(model, drawn.numpy())
    found = {}
    for name, of in FUNCTIONS.items():
        at = {"grid": _curved_at(model, grid, of), "data": _curved_at(model, drawn, of)}
        lines = profiles(model, of)
        for short, attribute in QUANTITIES.items():
            over = {where: getattr(at[where], attribute) for where in at}
            found[f"{name}: {short}"] = {
                **{f"rank_{where}": rank(over[where], away[where]) for where in over},
                **peak(lines[short], OFFSETS),
                "near_over_far": near_over_far(over["grid"], away["grid"]),
            }
    return found


def profiles(model: nn.Module, of: Scalar) -> dict[str, Float[np.ndarray, " t"]]:
    """Each quantity along the normals of the boundary: the median over places on it."""
    x = across(model, OFFSETS)
    found = _curved_at(model, x.reshape(-1, 2), of)
    return {
        short: np.median(getattr(found, attribute).reshape(x.shape[:2]), axis=0)
        for short, attribute in QUANTITIES.items()
    }


def rank(values: Float[np.ndarray, " n"], away: Float[np.ndarray, " n"]) -> float:
    """Spearman's correlation with distance: -1 where it falls all the way, 1 where it grows."""
    return float(stats.spearmanr(values, away).statistic)


def peak(line: Float[np.ndarray, " t"], offsets: Float[np.ndarray, " t"]) -> dict[str, float]:
    """How far off the boundary a line is largest, and its share of that on the boundary itself."""
    best = int(np.argmax(line))
    on = float(line[int(np.argmin(np.abs(offsets)))])
    return {"peak_at": abs(float(offsets[best])), "on_over_peak": on / float(line[best])}


def near_over_far(values: Float[np.ndarray, " n"], away: Float[np.ndarray, " n"]) -> float:
    """The median near the boundary over that far off: 1 where nothing is sharp, 0 or more."""
    near, far = np.median(values[away < NEAR]), np.median(values[away > FAR])
    # far from the boundary the curvature can underflow to 0
    return float(near / max(far, np.finfo(float).tiny))


def sigmoid() -> dict[str, Any]:
    """The closed form over x from -6 to 6: where each quantity peaks, and its rank with |x|."""
    x = np.linspace(-6, 6, 12001)
    found = {}
    for name, lines in closed_form(x).items():
        for short, values in lines.items():
            best = float(x[int(np.argmax(values))])
            found[f"{name}: {short}"] = {
                # p has two symmetric peaks, of which argmax takes either; ln p has one
                "peak_at": abs(best) if name == "probability" else best,
                "at_0": float(values[len(x) // 2]),
                "rank": rank(values, np.abs(x)),
            }
    return found


HEAD = """
Median over {n} seeds with the 95 % interval of the bootstrap.
Rank: Spearman's correlation with the distance to the boundary, over the grid and over points that
the blobs drew again; −1 falls all the way from it. Peak: how far off the boundary, along its
normals in steps of 0.01, the median is largest; on over peak: what it is on the boundary itself, as
a share of that. Near over far: median within {near} of the boundary over that beyond {far}.
Distances are in standard deviations of a blob.
"""


KEYS = ("rank_grid", "rank_data", "peak_at", "on_over_peak", "near_over_far")


def table(facts: dict[str, Any]) -> str:
    """The numbers as a page."""
    net = [(name, *(_median(row[key]) for key in KEYS)) for name, row in facts["net"].items()]
    sigmoid = [
        (name, f"{row['rank']:.2f}", f"{row['peak_at']:.4g}", f"{row['at_0']:.3g}")
        for name, row in facts["sigmoid"].items()
    ]
    columns = "rank, grid | rank, data | peak at | on over peak | near over far"
    text = pages.page(
        "Curvature over a trained model and over the sigmoid",
        HEAD.format(n=len(facts["seeds"]), near=NEAR, far=FAR).strip(),
        pages.table(f"g: quantity | {columns}", net),
        pages.table(
            "of the sigmoid: quantity | rank with the distance | peak at x | at 0", sigmoid
        ),
    )
    return text.replace("| -", "| \N{MINUS SIGN}")


def _median(one: dict[str, Any]) -> str:
    text = f"{one['median']:.3g}"
    if one["low"] is not None:
        text += f" [{one['low']:.3g}, {one['high']:.3g}]"
    return text.replace("[-", "[\N{MINUS SIGN}").replace(", -", ", \N{MINUS SIGN}")

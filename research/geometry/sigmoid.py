"""Forget one x of a sigmoid: what each form of equation 1 does, next to the paper's figure 3.

The pictures are ``sigmoid_forms`` (before and after, form by form) and ``sigmoid_why`` (what a step
pulls at).
"""

import copy
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from scipy.optimize import minimize_scalar
from torch import nn

from efface.types import no_progress
from research.geometry.experiment import Counting, save
from research.geometry.sigmoid_figures import draw_forms, draw_why
from research.geometry.sigmoid_forms import (
    FORMS,
    POINTS,
    READ,
    Form,
    answers_of_the_code,
    down,
    small_net,
    unit,
    up,
)
from research.geometry.tangent import tangent_slope, turning_point, unit_move

# It takes a third of a second for one x; the other forms are made with every seed.
SEEDS_OF_JIT = 5

NETS = {"squashed": True, "open": False}
# Small enough for the nets' many weights that the step is a straight line.
NET_RATE = 0.05

# Of these the whole curve is drawn.
CURVES = (0.5, 2.0)


def experiment(
    out: Path, *, seeds: Sequence[int], progress: Counting = no_progress
) -> dict[str, Any]:
    """Forget each of 17 x from the same sigmoid by each form, and by two small models; draw it."""
    x = np.array(POINTS)
    with progress("sigmoid", len(FORMS) + len(NETS)) as advance:
        after = {}
        for name, form in FORMS.items():
            own = seeds[:SEEDS_OF_JIT] if name == "jit" else seeds
            after[name] = np.array([forgotten(unit(), form, seed) for seed in own])
            advance(name)
        nets = {}
        for name, squashed in NETS.items():
            nets[name] = [
                net_moves(small_net(seed, squashed=squashed), seed) for seed in seeds[:SEEDS_OF_JIT]
            ]
            advance(f"net, {name}")
    curves = {
        sign: [curve(form(unit(), point, seeds[0])) for point in CURVES]
        for sign, form in {"down": down, "up": up}.items()
    }
    save(draw_forms(x, after), out, "sigmoid_forms")
    save(draw_why(x, nets, forgotten=CURVES, curves=curves), out, "sigmoid_why")
    return {
        "seeds": len(seeds),
        "x": list(POINTS),
        "before": _rounded(_sigmoid(x)),
        "read_off_the_paper": {str(k): v for k, v in READ.items()},
        "rmse_of_no_change": float(rmse(_sigmoid(x))),
        "one_step_up_in_closed_form": closed_form(),
        "turns_at": {"with bias": turning_point(), "without bias": turning_point(bias=False)},
        "forms": {name: facts(values) for name, values in after.items()},
        "jit_reference_all_nan": _code_gives_nothing(seeds[0]),
        "nets": {name: _net_facts(moves) for name, moves in nets.items()},
    }


def forgotten(model: nn.Module, form: Form, seed: int) -> Float[np.ndarray, " n"]:
    """The output at each x after forgetting that x alone, always from the given model."""
    return np.array([_at(form(model, x, seed), x) for x in POINTS])


def _at(model: nn.Module, x: float) -> float:
    return float(model(torch.tensor([[x]])).detach())


def curve(model: nn.Module) -> Float[np.ndarray, " m"]:
    """The outputs at 201 x from −5 to 5."""
    with torch.no_grad():
        return model(torch.linspace(-5, 5, 201)[:, None])[:, 0].double().numpy()


def net_moves(model: nn.Module, seed: int) -> dict[str, np.ndarray]:
    """How a small step down moves each output of a model of the sigmoid, measured and predicted.

    The form is ``down`` at a smaller rate, in the unit of one: moved / rate.
    """
    x = torch.tensor(POINTS, dtype=torch.float64)
    before = np.array([_at(model, point) for point in POINTS])
    after = np.array([_at(down(model, point, seed, rate=NET_RATE), point) for point in POINTS])
    # in double precision, since the slope of K takes second derivatives
    foretold = -0.5 * tangent_slope(copy.deepcopy(model).double(), x).numpy()
    return {"moved": (after - before) / NET_RATE, "foretold": foretold}


def rmse(after: Float[np.ndarray, " n"]) -> float:
    """Root of the mean squared distance to the eight read-offs above 0, in S; 0 is the target.

    The read-offs are by eye: about 0.006 is as near as reading to ±0.01 can tell.
    """
    at = [POINTS.index(x) for x in READ if x > 0]
    read = np.array([value for x, value in READ.items() if x > 0])
    return float(np.sqrt(np.mean((after[at] - read) ** 2)))


def as_the_paper(after: Float[np.ndarray, " n"]) -> int:
    """How many of the nine read-offs move away from 0.5 or towards it as the paper's do; 0 to 9."""
    x = np.array(list(READ))
    given, read = _sigmoid(x), np.array(list(READ.values()))
    ours = after[[POINTS.index(one) for one in READ]]
    return int((np.sign(ours - given) == np.sign(read - given)).sum())


def facts(after: Float[np.ndarray, "s n"]) -> dict[str, Any]:
    """Mean and standard deviation of one form over seeds; distance to the paper's figure."""
    mean = after.mean(axis=0)
    return {
        "seeds": len(after),
        "after": _rounded(mean),
        "deviation": _rounded(after.std(axis=0)),
        "rmse": rmse(mean),
        "as_the_paper_of_9": as_the_paper(mean),
    }


def _net_facts(moves: Sequence[Mapping[str, np.ndarray]]) -> dict[str, Any]:
    moved = np.array([one["moved"] for one in moves])
    foretold = np.array([one["foretold"] for one in moves])
    away = np.sign(np.array(POINTS)) * moved
    return {
        "seeds": len(moves),
        "moved_per_rate": _rounded(moved.mean(axis=0)),
        "foretold_per_rate": _rounded(foretold.mean(axis=0)),
        "correlation_with_foretold": float(np.corrcoef(moved.ravel(), foretold.ravel())[0, 1]),
        # x = 0 has no side to move to
        "share_surer": float((away[:, np.array(POINTS) != 0] > 0).mean()),
    }


def closed_form() -> dict[str, float]:
    """One step up with σ → 0, its one number fitted: to all read-offs, and to half of them.

    ``rmse_halves`` is at the four read-offs that had no part in the fit, both ways round.
    """
    x = np.array([one for one in READ if one > 0])
    read = np.array([READ[one] for one in x])

    def apart(rate: float, rows: np.ndarray) -> float:
        return float(np.mean((_sigmoid(x - rate * unit_move(x)) - read)[rows] ** 2))

    def fitted(rows: np.ndarray) -> float:
        return float(minimize_scalar(apart, bounds=(0, 20), args=(rows,), method="bounded").x)

    # interleaved halves: both cover the whole range of x
    every, halves = np.arange(len(x)), (np.arange(0, len(x), 2), np.arange(1, len(x), 2))
    rate = fitted(every)
    unseen = [apart(fitted(one), other) for one, other in (halves, halves[::-1])]
    return {
        "rate": rate,
        "rmse": apart(rate, every) ** 0.5,
        "rmse_halves": float(np.mean(unseen)) ** 0.5,
    }


def _code_gives_nothing(seed: int) -> bool:
    together = answers_of_the_code(list(POINTS), seed)
    alone = answers_of_the_code([1.0], seed)
    return bool(together.isnan().all() and alone.isnan().all())


def _sigmoid(x: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-x))


def _rounded(values: np.ndarray) -> list[float]:
    return [round(float(value), 4) for value in values]

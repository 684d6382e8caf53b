"""Where one small step of JiT's equation 1 moves an answer: https://arxiv.org/abs/2402.01401.

For a function f of one number that rises, and noise with no preferred side, the f(x) of equation 1
falls out, and what is left is a slope smoothed by the noise,

    l(x) = E_ξ |f(x + ξ) − f(x)| / |ξ| = E_ξ (f(x + ξ) − f(x − ξ)) / 2ξ  →  f′(x) as σ → 0.

So a plain step of size η down l moves f(x) by −η ⟨∇f(x), ∇f′(x)⟩ (gradients with respect to the
weights), which is

    Δf(x) = −(η / 2) dK(x) / dx,   K(x) = ‖∇f(x)‖²,

K the diagonal of the tangent kernel: https://arxiv.org/abs/1806.07572. Which answers become surer
is thus a matter of how the function is written down, and not of the function alone.

Shapes: n inputs, one number each.
"""

import numpy as np
import torch
from jaxtyping import Float
from scipy.optimize import root_scalar
from torch import Tensor, nn
from torch.func import functional_call, grad, vmap


def tangent_norm(model: nn.Module, x: Float[Tensor, " n"]) -> Float[Tensor, " n"]:
    """K(x), the squared length of the answer's gradient with respect to the weights, at least 0.

    ``model`` answers one number to one number, and stays as it is.
    """
    return vmap(_norm_of(model))(x).detach()


def tangent_slope(model: nn.Module, x: Float[Tensor, " n"]) -> Float[Tensor, " n"]:
    """How K rises with x, any sign. A small step down equation 1 moves the answer against it."""
    return vmap(grad(_norm_of(model)))(x).detach()


def _norm_of(model: nn.Module):  # noqa: ANN202  # a function of one number
    # detached: no gradient reaches the given model
    weights = {name: weight.detach() for name, weight in model.named_parameters()}

    def answer(weights: dict[str, Tensor], x: Tensor) -> Tensor:
        return functional_call(model, weights, (x.reshape(1, 1),)).squeeze()

    def norm(x: Tensor) -> Tensor:
        return torch.stack([g.square().sum() for g in grad(answer)(weights, x).values()]).sum()

    return norm


def unit_pull(x: Float[np.ndarray, " n"]) -> tuple[np.ndarray, np.ndarray]:
    """Where a step down the slope of S(wx + b) at w = 1, b = 0 moves w and b, for η = 1.

    −∂l/∂w = −s (1 − x t) and −∂l/∂b = s t, with s = S′(x) and t = tanh(x / 2).
    """
    s, t = _slope(x), np.tanh(x / 2)
    return -s * (1 - x * t), s * t


def unit_move(x: Float[np.ndarray, " n"], *, bias: bool = True) -> Float[np.ndarray, " n"]:
    """Where such a step moves z = wx + b at the x that is forgotten, for η = 1.

    −s (x − (x² + 1) t), or −s x (1 − x t) without a bias: towards 0 (less sure) near the boundary,
    away from it (surer) beyond ``turning_point``.
    """
    weight, both = unit_pull(x)
    return x * weight + bias * both


def turning_point(*, bias: bool = True) -> float:
    """The x above 0 at which ``unit_move`` changes its sign: 1.093, or 1.543 without a bias."""
    # 0 is a root as well, so the bracket begins beyond it
    found = root_scalar(lambda x: float(unit_move(np.array([x]), bias=bias)[0]), bracket=(0.1, 3))
    return float(found.root)


def _slope(x: np.ndarray) -> np.ndarray:
    """S′(x) = 1 / (4 cosh²(x / 2))."""
    return 0.25 / np.cosh(x / 2) ** 2

"""One Newton step of a linear head, and its curvature from losses at perturbed weights.

The head's weights are W (k, d), the outputs W φ for features φ (with a 1 for the bias). Its Hessian
has (k d)² entries; here it is a Kronecker product, A ⊗ S: A (k, k) is the mean Hessian of the loss
in the outputs, S (d, d) what stands for the features' second moments. That is exact for squared
errors and for one output, and an approximation for several classes.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

Loss = Callable[[Float[Tensor, " n k"]], Float[Tensor, " n"]]
"""The loss of each record as a function of what the head answers it with."""

SMALLEST = 1e-12
"""Curvature below this share of the greatest is none: there is no step in such directions."""


@dataclass(frozen=True, eq=False)
class Curvature:
    """A Hessian A ⊗ S + λ I: ``outputs`` is A, ``features`` S, ``damping`` λ."""

    outputs: Float[Tensor, " k k"]
    features: Float[Tensor, " d d"]
    damping: float = 0.0

    def solved(self, gradient: Float[Tensor, " k d"]) -> Float[Tensor, " k d"]:
        """H⁻¹ g; no step where there is neither curvature nor damping."""
        of_outputs, left = torch.linalg.eigh(self.outputs)
        of_features, right = torch.linalg.eigh(self.features)
        bends = of_outputs[:, None] * of_features[None] + self.damping
        known = bends > SMALLEST * bends.abs().max()
        turned = left.T @ gradient @ right
        return left @ torch.where(known, turned / bends.where(known, 1), 0) @ right.T


def newton_step(
    gradient: Float[Tensor, " k d"], hessian: Curvature, *, share: float
) -> Float[Tensor, " k d"]:
    """What to add to the weights so that the loss of what stays is least: share · H_r⁻¹ ∇_f.

    ``gradient``: ∇_f of the mean loss of the forget records, at weights that are best for all;
    ``hessian``: H_r of the mean loss of those that stay; ``share``: n_f / n_r. It is exact where
    the loss is quadratic.
    """
    return share * hessian.solved(gradient)


def psd_fit(forms: Float[Tensor, " m r r"], changes: Float[Tensor, " m"]) -> Float[Tensor, " r r"]:
    """The symmetric S with ½ ⟨S, form⟩ nearest to each change by least squares, made PSD.

    Forms are symmetric. Eigenvalues below 0 of the best S are set to 0. Of several best S, where
    there are fewer changes than entries, it is the smallest.
    """
    rank = forms.shape[1]
    rows, columns = torch.triu_indices(rank, rank)
    twice = (1 + (rows != columns).to(forms)).sqrt()
    table = 0.5 * forms[:, rows, columns] * twice
    entries = torch.linalg.lstsq(table, changes[:, None], driver="gelsd").solution[:, 0] / twice
    best = torch.zeros(rank, rank, dtype=forms.dtype)
    best[rows, columns] = entries
    best[columns, rows] = entries
    values, vectors = torch.linalg.eigh(best)
    return vectors @ torch.diag(values.clamp_min(0)) @ vectors.T


def bends_of(
    loss: Loss, answers: Float[Tensor, " n k"]
) -> tuple[Float[Tensor, " n k"], Float[Tensor, " k k"]]:
    """The slope of each record's loss in its outputs, and the mean Hessian there, made PSD."""
    answers = answers.detach().requires_grad_()
    (slopes,) = torch.autograd.grad(loss(answers).sum(), answers, create_graph=True)
    rows = []
    for slope in slopes.sum(0):
        again = slope.requires_grad
        (row,) = torch.autograd.grad(slope, answers, retain_graph=True) if again else (0 * answers,)
        rows.append(row.mean(0))
    bends = torch.stack(rows)
    values, vectors = torch.linalg.eigh((bends + bends.T) / 2)
    return slopes.detach(), vectors @ torch.diag(values.clamp_min(0)) @ vectors.T


def main_directions(features: Float[Tensor, " n d"], count: int) -> Float[Tensor, " d r"]:
    """At most ``count`` orthonormal directions that hold most of the features' squares."""
    _, lengths, across = torch.linalg.svd(features, full_matrices=False)
    seen = int((lengths > 1e-7 * lengths.max()).sum()) if len(lengths) else 0
    return across[: min(count, seen)].T


def moments_near(
    loss: Loss,
    answers: Float[Tensor, " n k"],
    seen: Float[Tensor, " n r"],
    *,
    slopes: Float[Tensor, " n k"],
    bends: Float[Tensor, " k k"],
    directions: Float[Tensor, " d r"],
    perturbations: int,
    radius: float,
    seed: int,
) -> Float[Tensor, " r r"]:
    """S in these directions, fitted to how the mean loss changes at perturbed weights.

    ``seen`` are the features in the directions. A perturbation is drawn for all weights and then
    turned into them, so that their signs and order are of no account.
    """
    generator = torch.Generator().manual_seed(seed)
    size = radius / float(seen.square().sum(1).mean().sqrt().clamp_min(SMALLEST))
    begun, forms, changes = loss(answers).mean(), [], []
    gradient = slopes.T @ seen / len(seen)
    for _ in range(perturbations):
        drawn = torch.randn(len(bends), len(directions), generator=generator, dtype=torch.float64)
        moved = size * drawn @ directions
        change = loss(answers + seen @ moved.T).mean() - begun - (gradient * moved).sum()
        forms.append(moved.T @ bends @ moved)
        changes.append(change)
    return psd_fit(torch.stack(forms), torch.stack(changes))


def told_by(perturbations: int) -> int:
    """Directions whose S has at most half as many entries as there are losses; one at least."""
    return max(1, (math.isqrt(4 * perturbations + 1) - 1) // 2)

"""Source-free Newton step of the head, CVPR 2025: https://arxiv.org/abs/2508.15127.

A linear head on fixed embeddings is optimal for all records at w*. One Newton step takes it to the
optimum without the forget records, if the Hessian of the retained ones were known; it is estimated
from the forget records by m random perturbations δ of the weights:

    w_u = w* + (n_f / n_r) H⁻¹ ∇_f,    ∇_f and H of mean losses
    H = argmin over H ⪰ 0 of  mean_i ( ½ δ_iᵀ H δ_i + ∇_fᵀ δ_i − ΔL_f(w* + δ_i) )²

Only losses of D_f go in, so the estimate tends to the Hessian of D_f and not to that of D_r:
docs/methods.md says how far that is off.

Departures from the paper (its repository holds none of this, so nothing was compared):

- H is a Kronecker product A ⊗ S + λ I. The head's weights are W (k, d), the outputs W φ for
  embeddings φ (with a 1 for the bias): A (k, k) is the mean Hessian of the loss in the outputs, S
  (d, d), fitted, stands for the embeddings' second moments. That is exact for squared errors and
  for one output, and an approximation for several classes.
- S is fitted in the directions that hold most of the forget embeddings, as many as m losses can
  determine (31 for m = 1000); the step has nothing outside. δ has a length that moves an output by
  ``radius``, which is the paper's N(0, 1) for embeddings of length 1.
- Least squares first, then eigenvalues below 0 to 0, where the paper has an SDP.
- ∇_f with the sign of Taylor's expansion; the paper's is that of D_r. The term is odd in δ, so
  both tend to the same H, this one with less noise.
"""

import math
from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor, nn

from efface.methods._base import Count, Memory, NonNegative, Positive, log, register_method
from efface.methods._head import embed, find_head
from efface.task import task_of, trainable_copy
from efface.types import Action, Callback, Records, Split, no_callback

# The loss of each record as a function of the head's outputs.
Loss = Callable[[Float[Tensor, " n k"]], Float[Tensor, " n"]]

# Retained records for each forget record, where nothing is said: the paper forgets a tenth.
RETAINED = 9

# Curvature below this share of the maximum is none: there is no step in such directions.
EPSILON = 1e-12


@register_method(
    reads={"forget labels"},
    memory=Memory(copies=3, graphs=1),
    one_step=True,
    purpose="a linear head on embeddings that never saw the records",
    year=2025,
    passes=1,
)
def source_free_newton(
    model: nn.Module,
    split: Split,
    *,
    strength: NonNegative = 1.0,
    retained_records: Count | None = None,
    perturbations: Count = 1000,
    radius: Positive = 1.0,
    damping: NonNegative = 1e-4,
    seed: int = 0,
    callback: Callback = no_callback,
) -> nn.Module:
    """Take the head to its optimum without the forget records, in one step.

    Args:
        model: the given model, whose head is a linear layer; it is not changed.
        split: ``forget`` is read, inputs and labels.
        strength: multiplies the step.
        retained_records: n_r, how many of the training records are retained; nine times the forget
            records when not given.
        perturbations: the paper's m.
        radius: how far a perturbation moves an output, root mean square over the forget records.
        damping: λ; the weight decay of the training, where that is known.
        seed: draws the perturbations.
        callback: called once, after the step. On HALVE_LR half the step is taken.

    Raises:
        InputError: the model does not end in a linear layer that may move.
    """
    student = trainable_copy(model)
    head = find_head(student, trainable=True)
    # the given model: the copy's head is about to move
    records = embed(model, split.forget)
    # in float64 on the CPU, since not every device has that
    embeddings, weights = records.x.detach().cpu().double(), head.weight.detach().cpu().double()
    if head.bias is not None:
        # the bias is the weight of a feature that is always 1
        embeddings = torch.cat([embeddings, torch.ones_like(embeddings[:, :1])], 1)
        weights = torch.cat([weights, head.bias.detach().cpu().double()[:, None]], 1)
    loss, predictions = _head_loss(records), embeddings @ weights.T
    slopes, output_hessian = output_curvature(loss, predictions)
    directions = _main_directions(embeddings, max_directions(perturbations))
    projected = embeddings @ directions
    gradient = slopes.T @ projected / len(projected)
    generator, begun = torch.Generator().manual_seed(seed), loss(predictions).mean()
    size = radius / float(projected.square().sum(1).mean().sqrt().clamp_min(EPSILON))
    forms, changes = [], []
    for _ in range(perturbations):
        # drawn for all weights, then projected: the signs and order of directions do not matter
        drawn = torch.randn(weights.shape, generator=generator, dtype=torch.float64)
        moved = size * drawn @ directions
        change = loss(predictions + projected @ moved.T).mean() - begun - (gradient * moved).sum()
        forms.append(moved.T @ output_hessian @ moved)
        changes.append(change)
    moments = fit_psd(torch.stack(forms), torch.stack(changes))
    # n_f / n_r: losses are means, the step is of sums
    share = strength * len(embeddings) / (retained_records or RETAINED * len(embeddings))
    # weight decay pulls at the given weights too
    damped = gradient + damping * weights @ directions
    step = share * solve_kronecker(output_hessian, moments, damping, damped)
    whole = float((slopes.T @ embeddings / len(embeddings)).norm())
    facts = {"directions": len(directions.T), "share": share, "gradient": whole}
    log("newton: the step", **facts, seen=float(damped.norm()))
    return _apply(student, step @ directions.T, float(loss(predictions).mean()), callback)


def _head_loss(records: Records) -> Loss:
    """The task's loss of the records as a function of the head's outputs."""
    task, y, identity = task_of(records), records.y.cpu(), nn.Identity()
    # a task reads the dtype of its inputs off the model's weights
    identity.empty = nn.Parameter(torch.empty(0, dtype=torch.float64))
    # the task reads a model's outputs: a single sigmoid unit becomes two logits there
    return lambda predictions: task.loss(task.outputs(identity, predictions), y)


def solve_kronecker(
    outputs: Float[Tensor, " k k"],
    moments: Float[Tensor, " d d"],
    damping: float,
    gradient: Float[Tensor, " k d"],
) -> Float[Tensor, " k d"]:
    """(A ⊗ S + λ I)⁻¹ g of ``outputs`` A and ``moments`` S; 0 without curvature and damping."""
    # the eigenvectors of A ⊗ S are products of those of A and S: two small decompositions
    of_outputs, left = torch.linalg.eigh(outputs)
    of_moments, right = torch.linalg.eigh(moments)
    curvature = of_outputs[:, None] * of_moments[None] + damping
    curved = curvature > EPSILON * curvature.abs().max()
    turned = left.T @ gradient @ right
    return left @ torch.where(curved, turned / curvature.where(curved, 1), 0) @ right.T


def _to_psd(symmetric: Float[Tensor, " r r"]) -> Float[Tensor, " r r"]:
    """The nearest positive semi-definite matrix: eigenvalues below 0 become 0."""
    values, vectors = torch.linalg.eigh(symmetric)
    return vectors @ torch.diag(values.clamp_min(0)) @ vectors.T


def fit_psd(forms: Float[Tensor, " m r r"], changes: Float[Tensor, " m"]) -> Float[Tensor, " r r"]:
    """The symmetric S with ½ ⟨S, form⟩ nearest to each change by least squares, made PSD.

    Forms are symmetric. Of several best S, where there are fewer changes than entries, it is the
    smallest.
    """
    rank = forms.shape[1]
    rows, columns = torch.triu_indices(rank, rank)
    # an entry off the diagonal stands for two; √2 makes the smallest S that of the matrix norm
    twice = (1 + (rows != columns).to(forms)).sqrt()
    table = 0.5 * forms[:, rows, columns] * twice
    entries = torch.linalg.lstsq(table, changes[:, None], driver="gelsd").solution[:, 0] / twice
    best = torch.zeros(rank, rank, dtype=forms.dtype)
    best[rows, columns] = best[columns, rows] = entries
    return _to_psd(best)


def output_curvature(
    loss: Loss, outputs: Float[Tensor, " n k"]
) -> tuple[Float[Tensor, " n k"], Float[Tensor, " k k"]]:
    """The gradient of each record's loss in its outputs, and the mean Hessian there, made PSD."""
    z = outputs.detach().requires_grad_()
    (slopes,) = torch.autograd.grad(loss(z).sum(), z, create_graph=True)
    # 0 · z: a loss that is linear in the outputs has a slope without a gradient
    sums, how = (slopes + 0 * z).sum(0), {"retain_graph": True}
    bends = torch.stack([torch.autograd.grad(one, z, **how)[0].mean(0) for one in sums])
    return slopes.detach(), _to_psd((bends + bends.T) / 2)


def _main_directions(embeddings: Float[Tensor, " n d"], count: int) -> Float[Tensor, " d r"]:
    """At most ``count`` orthonormal directions that hold most of the embeddings' squares."""
    _, lengths, across = torch.linalg.svd(embeddings, full_matrices=False)
    rank = int((lengths > 1e-7 * lengths.max()).sum()) if len(lengths) else 0
    return across[: min(count, rank)].T


def max_directions(perturbations: int) -> int:
    """Directions whose S has at most half as many entries as there are losses; one at least."""
    return max(1, (math.isqrt(4 * perturbations + 1) - 1) // 2)


def _apply(
    student: nn.Module, step: Float[Tensor, " k e"], loss: float, callback: Callback
) -> nn.Module:
    """The student with the step taken, or as much of it as the guard lets pass."""
    head = find_head(student)
    while True:
        with torch.no_grad():
            head.weight.add_(step[:, : head.in_features].to(head.weight))
            if head.bias is not None:
                head.bias.add_(step[:, -1].to(head.bias))
        if callback(student, loss) is not Action.HALVE_LR:
            return student
        step = step / 2

"""Source-free Newton step of the head, CVPR 2025: https://arxiv.org/abs/2508.15127.

A linear head on features that stand still is best for all records at w*. One Newton step takes it
to what is best without the forget records, if the Hessian of those that stay were known; it is
estimated from the forget records by m random perturbations δ of the weights:

    w_u = w* + (n_f / n_r) H⁻¹ ∇_f,    ∇_f and H of mean losses
    H = argmin over H ⪰ 0 of  mean_i ( ½ δ_iᵀ H δ_i + ∇_fᵀ δ_i − ΔL_f(w* + δ_i) )²

Only losses of D_f go in, so the estimate tends to the Hessian of D_f and not to that of D_r:
docs/methods.md says how far that is off.

Departures from the paper (its repository holds none of this, so nothing was compared):

- H is a Kronecker product A ⊗ S + λ I (``parts/newton.py``): A from the loss, S fitted. For one
  output and for squared errors that is no restriction; of several classes it is.
- S is fitted in the directions that hold most of the forget features, as many as m losses can
  tell (31 for m = 1000); the step has nothing outside. δ has a length that moves an output by
  ``radius``, which is the paper's N(0, 1) for features of length 1.
- Least squares first, then eigenvalues below 0 to 0, where the paper has an SDP.
- ∇_f with the sign of Taylor's expansion; the paper's is that of D_r. The term is odd in δ, so
  both tend to the same H, this one with less noise.
"""

import logging

import torch
from jaxtyping import Float
from torch import Tensor, nn

from efface.methods._base import Count, Memory, NonNegative, Positive, register_method
from efface.methods.parts.head import features_of, head_of, refuse_frozen, said
from efface.methods.parts.newton import (
    Curvature,
    Loss,
    bends_of,
    main_directions,
    moments_near,
    newton_step,
    told_by,
)
from efface.methods.parts.ranges import refuse_0
from efface.task import task_of, trainable_copy
from efface.types import Action, Callback, Records, Split, Task, no_callback

logger = logging.getLogger(__name__)

STAY = 9
"""Records that stay for each that goes, where nothing is said: the paper forgets a tenth."""


@register_method(
    reads={"forget", "forget labels"}, memory=Memory(copies=3, graphs=1), one_step=True
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
    """Take the head to where it would be best without the forget records, in one step.

    Args:
        model: ends in a linear layer; stays as it is.
        split: ``forget`` is read, inputs and labels.
        strength: the one knob; multiplies the step.
        retained_records: n_r, how many records stay of those that the model was trained on; nine
            times the forget records when not given.
        perturbations: the paper's m.
        radius: how far a perturbation moves an output, root mean square over the forget records.
        damping: λ; the weight decay of the training, where that is known.
        seed: draws the perturbations.
        callback: called once, after the step. On HALVE half the step is taken.

    Raises:
        InputError: the model does not end in a linear layer that may move; ``retained_records``,
            ``perturbations`` or ``radius`` is not above 0, ``damping`` is below 0.
    """
    if retained_records is not None:
        refuse_0(retained_records=retained_records)
    student = trainable_copy(model)
    head = head_of(student)
    refuse_frozen(head)
    if not len(split.forget):
        return student
    records = features_of(model, split.forget)
    features, loss = _with_one(records.x, head), _loss(task_of(split.forget), records)
    answers = features @ _weights(head).T
    slopes, bends = bends_of(loss, answers)
    directions = main_directions(features, told_by(perturbations))
    seen = features @ directions
    about = {"slopes": slopes, "bends": bends, "directions": directions}
    told = {"perturbations": perturbations, "radius": radius, "seed": seed}
    moments = moments_near(loss, answers, seen, **about, **told)
    share = strength * len(features) / (retained_records or STAY * len(features))
    gradient = slopes.T @ seen / len(seen) + damping * _weights(head) @ directions
    step = newton_step(gradient, Curvature(bends, moments, damping), share=share)
    whole = float((slopes.T @ features / len(features)).norm())
    facts = {"directions": len(directions.T), "share": share, "gradient": whole}
    logger.info("newton: the step", extra={"facts": {**facts, "seen": float(gradient.norm())}})
    return _moved(student, step @ directions.T, float(loss(answers).mean()), callback)


def _with_one(x: Float[Tensor, " n d"], head: nn.Linear) -> Float[Tensor, " n e"]:
    """Features with a 1 for the bias; in float64 on the CPU, since not every device has that."""
    x = x.detach().cpu().double()
    return x if head.bias is None else torch.cat([x, torch.ones_like(x[:, :1])], 1)


def _weights(head: nn.Linear) -> Float[Tensor, " k e"]:
    weights: list[Tensor] = [head.weight]
    if head.bias is not None:
        weights.append(head.bias[:, None])
    return torch.cat(weights, 1).detach().cpu().double()


def _loss(task: Task, records: Records) -> Loss:
    y = records.y.cpu()

    def loss(answers: Float[Tensor, " n k"]) -> Float[Tensor, " n"]:
        return task.loss(said(task, answers), y)

    return loss


def _moved(
    student: nn.Module, step: Float[Tensor, " k e"], loss: float, callback: Callback
) -> nn.Module:
    """The student with the step taken, or as much of it as the guard lets pass."""
    head = head_of(student)
    while True:
        with torch.no_grad():
            head.weight.add_(step[:, : head.in_features].to(head.weight))
            if head.bias is not None:
                head.bias.add_(step[:, -1].to(head.bias))
        if callback(student, loss) is not Action.HALVE_LR:
            return student
        step = step / 2

"""More of curvature and gradients, which benchmarks compare and ``efface.inspect`` does not use.

Slopes of a record's loss by the input and the weights, the dense Hessian, and what each quantity of
``efface.ranking`` costs in passes. None has a chance level; the reference of each is the retrained
model's value. The loss is -ln p of the label; lengths are L2, in units of the inputs.

The traces that papers call input-loss curvature come with ``curvature(…, of=loss)``: tr H² is its
``hessian_norm_squared`` (https://arxiv.org/abs/2307.05831), tr H its ``hessian_trace``
(https://arxiv.org/abs/2402.18726).
"""

import numpy as np
import torch
from jaxtyping import Float, Float64, Int64
from torch import Tensor, nn

from efface.errors import InputError
from efface.metrics.refusals import need_numbers, need_probabilities, need_same_records
from efface.ranking.content import COPIES
from efface.ranking.curvature import (
    TESTED,
    Curvature,
    Parts,
    Scalar,
    dot,
    in_batches,
    log_probability,
    loss,
    loss_gradient,
    measure_curvature,
    norm,
)
from efface.runtime import Passes
from efface.task import task_of
from efface.types import Records


def of_prediction(of: Scalar) -> Scalar:
    """The same g of the predicted class (the largest output) instead of the label."""

    def predicted(outputs: Tensor, y: Tensor) -> Tensor:  # noqa: ARG001
        return of(outputs, outputs.detach().argmax(1))

    return predicted


def dense_curvature(
    model: nn.Module, records: Records, *, of: Scalar = log_probability
) -> Curvature:
    """Exact for any model, from the whole Hessian of one record after another: d² numbers each.

    For few features (a plane, a small table) and for tests: it costs d products of ``curvature`` a
    record. Raises InputError as ``curvature``.
    """

    def part(teacher: nn.Module, batch: Records) -> Parts:
        def one(x: Tensor) -> Tensor:
            return of(task_of(batch).outputs(teacher, x), batch.y)[0]

        # vmap cannot bring images into this memory order, which is that of the passes
        images = batch.x.ndim == 4  # noqa: PLR2004
        x = batch.x.contiguous(memory_format=torch.channels_last) if images else batch.x
        gradient, whole = torch.func.grad(one)(x), torch.func.jacrev(torch.func.grad(one))(x)
        hessian, zero = whole.reshape(x.numel(), x.numel()).cpu().double(), torch.zeros(1)
        square, trace = hessian.square().sum()[None], hessian.trace()[None]
        return norm(gradient), square, zero, trace, zero

    return measure_curvature(part, model, records, of, 1)


def loss_curvature(
    model: nn.Module, records: Records, *, step: float, batch_size: int = 256
) -> Float64[np.ndarray, " n"]:
    """How far the loss's gradient turns in one step uphill: ‖∇l(x + z) - ∇l(x)‖, 0 or more.

    z has the length ``step`` and the direction of sign(∇l(x)); without a gradient it is 0. In nats
    per unit of length; divided by ``step`` it tends to ‖∇²l z‖/‖z‖ for short ones. A proxy of
    memorisation in RUM (https://arxiv.org/abs/2406.01257) after CURE
    (https://arxiv.org/abs/1811.09716). Raises InputError as ``input_gradient_norm`` and for a step
    of 0 or less.
    """
    if not 0 < step < float("inf"):
        raise InputError("a step above 0", str(step), "Give a length in the inputs' own unit.")

    def part(teacher: nn.Module, batch: Records) -> Parts:
        here = loss_gradient(teacher, batch, batch.x)
        z = here.sign().flatten(1)
        z = step * z / z.norm(dim=1, keepdim=True).clamp_min(1)
        there = loss_gradient(teacher, batch, batch.x + z.reshape(here.shape))
        return (norm(there - here),)

    return _finite(in_batches(part, model, records, batch_size)[0])


def weight_gradient_norm(model: nn.Module, records: Records) -> Float64[np.ndarray, " n"]:
    """Gradient norm of a record's loss by all weights, ‖∇_w l‖: 0 or more, nats per unit of weight.

    The GraNd of one model (https://arxiv.org/abs/2107.07075), which is a mean over models early in
    training: give it such models for theirs. One record after another, so that only one gradient is
    in memory; on a CPU that is no slower. Raises InputError as ``input_gradient_norm``.
    """

    def part(teacher: nn.Module, batch: Records) -> Parts:
        weights = [w for w in teacher.requires_grad_().parameters() if w.dtype.is_floating_point]
        with torch.enable_grad():
            # one record at a time: a sum over several would add up their gradients
            total = loss(task_of(batch).outputs(teacher, batch.x), batch.y).sum()
            slopes = torch.autograd.grad(total, weights, materialize_grads=True, allow_unused=True)
        return (torch.cat([dot(one[None], one[None]) for one in slopes]).sum()[None].sqrt(),)

    return _finite(in_batches(part, model, records, 1)[0])


def error_norm(
    probabilities: Float[np.ndarray, "n k"], y: Int64[np.ndarray, " m"]
) -> Float64[np.ndarray, " n"]:
    """Length of the error, ‖p - onehot(y)‖: 0 (sure and right) to √2 (sure and wrong).

    The EL2N of one model (https://arxiv.org/abs/2107.07075), which is a mean over models early in
    training. Uniform probabilities have √(1 - 1/k). Raises InputError for rows that are no
    probabilities, another number of labels than of rows, or a label that no column has.
    """
    need_probabilities(probabilities=probabilities)
    need_same_records(0, probabilities=probabilities, y=y)
    classes = probabilities.shape[1]
    if y.min() < 0 or y.max() >= classes:
        raise InputError(
            f"labels from 0 to {classes - 1}",
            f"labels from {y.min()} to {y.max()}",
            "Give the number of the column that is right.",
        )
    return np.linalg.norm(probabilities.astype(np.float64) - np.eye(classes)[y], axis=1)


def _finite(values: Float64[np.ndarray, " n"]) -> Float64[np.ndarray, " n"]:
    need_numbers(gradients=values)
    return values


def passes_each_way(records: Records, count: int = 1) -> Passes:
    """Of ``input_gradient_norm`` and ``weight_gradient_norm``; 2 of ``loss_curvature``."""
    return Passes(forward=count * len(records), backward=count * len(records))


def noise_stability_cost(records: Records, copies: int = COPIES, *, sigmas: int = 1) -> Passes:
    """The passes of ``noise_stability``: one of the record itself, one of each copy."""
    return Passes(forward=len(records) * (1 + copies * sigmas), backward=0)


def curvature_cost(records: Records, *, probes: int = 16) -> Passes:
    """The passes of ``curvature``: a gradient, and for each probe the derivative of one.

    A derivative of a gradient goes backward and, as torch makes it, costs two passes forward too.
    """
    n = len(records)
    return Passes(forward=n * (1 + 2 * probes), backward=n * (1 + probes))


def piecewise_linear_cost(records: Records, *, classes: int) -> Passes:
    """The passes of ``piecewise_linear_curvature``: one back an output, and its test of 8."""
    n, tested = len(records), min(TESTED, len(records))
    return Passes(forward=n + 3 * tested, backward=n * classes + 2 * tested)

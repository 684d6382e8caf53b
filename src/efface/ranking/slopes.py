"""Cheaper signs of what a record meant: slopes of its loss by the input and by the weights.

None has a chance level; the target of each is the retrained model's value. The loss is -ln p of the
label. Lengths are L2, in units of the inputs as the model takes them.

The traces that papers call input-loss curvature come with ``curvature(…, of=loss)``: tr H² is its
``hessian_norm_squared`` (https://arxiv.org/abs/2307.05831), tr H its ``hessian_trace``
(https://arxiv.org/abs/2402.18726).
"""

import numpy as np
import torch
from jaxtyping import Float, Float64, Int64
from torch import Tensor, nn

from efface.errors import InputError
from efface.metrics.refusals import need_numbers, need_probabilities, need_same_rows
from efface.ranking.curvature import Parts, dot, in_batches, loss
from efface.runtime import Passes
from efface.task import task_of
from efface.types import Records


def input_gradient_norm(
    model: nn.Module, records: Records, *, batch_size: int = 256
) -> Float64[np.ndarray, " n"]:
    """How fast the loss grows around each record, ‖∇_x l‖: 0 or more, nats per unit of length.

    Costs ``input_gradient_cost``. Raises InputError without records, unless they have one class of
    several, and where a slope is not finite.
    """

    def part(teacher: nn.Module, batch: Records) -> Parts:
        return (_length(_slope(teacher, batch, batch.x)),)

    return _finite(in_batches(part, model, records, size=batch_size)[0])


def input_gradient_cost(records: Records) -> Passes:
    """The passes of ``input_gradient_norm``: one each way."""
    return Passes(forward=len(records), backward=len(records))


def loss_curvature(
    model: nn.Module, records: Records, *, step: float, batch_size: int = 256
) -> Float64[np.ndarray, " n"]:
    """How far the slope of the loss turns in one step uphill: ‖∇l(x + z) - ∇l(x)‖, 0 or more.

    z has the length ``step`` and the direction of sign(∇l(x)); without a slope it is 0. In nats per
    unit of length; over ``step`` it tends to ‖∇²l z‖/‖z‖ for short ones. As RUM takes it for a
    proxy of memorisation (https://arxiv.org/abs/2406.01257) after CURE
    (https://arxiv.org/abs/1811.09716). Costs ``loss_curvature_cost``. Raises InputError as
    ``input_gradient_norm`` and for a step of 0 or less.
    """
    if not 0 < step < float("inf"):
        raise InputError("a step above 0", str(step), "Give a length in the inputs' own unit.")

    def part(teacher: nn.Module, batch: Records) -> Parts:
        here = _slope(teacher, batch, batch.x)
        way = here.sign().flatten(1)
        way = step * way / way.norm(dim=1, keepdim=True).clamp_min(1)
        there = _slope(teacher, batch, batch.x + way.reshape(here.shape))
        return (_length(there - here),)

    return _finite(in_batches(part, model, records, size=batch_size)[0])


def loss_curvature_cost(records: Records) -> Passes:
    """The passes of ``loss_curvature``: two each way."""
    return Passes(forward=2 * len(records), backward=2 * len(records))


def weight_gradient_norm(model: nn.Module, records: Records) -> Float64[np.ndarray, " n"]:
    """How hard a record pulls at all weights, ‖∇_w l‖: 0 or more, nats per unit of weight.

    The GraNd of one model (https://arxiv.org/abs/2107.07075), which is a mean over models early in
    training: give it such models for theirs. One record after another, so no more than one
    gradient is held; on a CPU that is no slower than all at once. Costs ``weight_gradient_cost``.
    Raises InputError as ``input_gradient_norm``.
    """

    def part(teacher: nn.Module, batch: Records) -> Parts:
        weights = [w for w in teacher.requires_grad_().parameters() if w.dtype.is_floating_point]
        with torch.enable_grad():
            total = loss(task_of(batch).outputs(teacher, batch.x), batch.y).sum()
            slopes = torch.autograd.grad(total, weights, materialize_grads=True, allow_unused=True)
        return (torch.cat([dot(one[None], one[None]) for one in slopes]).sum()[None].sqrt(),)

    return _finite(in_batches(part, model, records, size=1)[0])


def weight_gradient_cost(records: Records) -> Passes:
    """The passes of ``weight_gradient_norm``: one each way."""
    return Passes(forward=len(records), backward=len(records))


def error_norm(
    probabilities: Float[np.ndarray, "n k"], y: Int64[np.ndarray, " m"]
) -> Float64[np.ndarray, " n"]:
    """How wrong an answer is, ‖p - onehot(y)‖: 0 (sure and right) to √2 (sure and wrong).

    The EL2N of one model (https://arxiv.org/abs/2107.07075), which is a mean over models early in
    training. Uniform answers have √(1 - 1/k). Raises InputError for rows that are no probabilities,
    another number of labels than of rows, or a label that no column has.
    """
    need_probabilities(probabilities=probabilities)
    need_same_rows(probabilities=probabilities, y=y)
    classes = probabilities.shape[1]
    if y.min() < 0 or y.max() >= classes:
        raise InputError(
            f"labels from 0 to {classes - 1}",
            f"labels from {y.min()} to {y.max()}",
            "Give the number of the column that is right.",
        )
    return np.linalg.norm(probabilities.astype(np.float64) - np.eye(classes)[y], axis=1)


def _slope(teacher: nn.Module, batch: Records, x: Tensor) -> Tensor:
    """∇l of each record by its input: that of the sum, since records do not mix."""
    with torch.enable_grad():
        x = x.detach().requires_grad_()
        total = loss(task_of(batch).outputs(teacher, x), batch.y).sum()
        return torch.autograd.grad(total, x)[0]


def _length(slopes: Tensor) -> Float64[Tensor, " m"]:
    return dot(slopes, slopes).sqrt()


def _finite(values: Float64[np.ndarray, " n"]) -> Float64[np.ndarray, " n"]:
    need_numbers(slopes=values)
    return values

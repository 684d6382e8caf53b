"""Curvature κ: how much an answer bends around a record, beside how steep it is there.

κ(x) = ‖∇²g‖_F / ‖∇g‖ with respect to the input, and its two parts. g is one number a record, made
of the outputs and a class: ``probability``, ``log_probability``, ``loss``, or one of your own.
Logits of a net of ReLUs are piecewise linear: they have no curvature and are refused.

Where an answer is a sigmoid S of x, ‖∇²g‖ and κ are 0 *on* the decision boundary: ‖∇g‖ alone peaks
there, ‖∇²g‖ beside it, at |x| = 1.317, and κ = |tanh(x/2)| grows away from it. Of ln S, κ is S.
Lengths are in units of the inputs as the model takes them: κ is one over such a length.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import torch
from jaxtyping import Bool, Float, Float64, Int
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.attention import SDPBackend, sdpa_kernel

from efface.errors import InputError
from efface.methods.parts.neighbours import normals
from efface.metrics.refusals import need_numbers
from efface.runtime import Passes, map_chunks, upcast_to_fp32
from efface.task import device_of, dtype_of, frozen_teacher, multiclass, task_of
from efface.types import Records

FLOOR = 1e-30
"""The least gradient norm that κ is divided by: float32 has little left below it."""

Parts = tuple[Tensor, ...]
"""Of a batch some numbers a record: tensors (m,)."""

_OWN = 0x0C4A7E  # keeps these draws apart from those of the methods under the same seed

Scalar = Callable[[Tensor, Tensor], Tensor]
"""g(outputs (m, k), classes (m,)) -> (m,), of each record from its own row alone."""


def margin(outputs: Float[Tensor, "m k"], y: Int[Tensor, " m"]) -> Float[Tensor, " m"]:
    """The log-odds ln p_y - ln(1 - p_y): for two classes a difference of logits."""
    own = torch.arange(outputs.shape[1], device=outputs.device) == y[:, None]
    others = outputs.masked_fill(own, -torch.inf).logsumexp(1)
    return outputs.gather(1, y[:, None])[:, 0] - others


def log_probability(outputs: Float[Tensor, "m k"], y: Int[Tensor, " m"]) -> Float[Tensor, " m"]:
    """Natural logarithm of p_y, by way of the margin: a log-softmax rounds small slopes to 0."""
    odds = margin(outputs, y)
    # On either side the form whose derivatives keep all their digits when they are small.
    return torch.where(odds > 0, -functional.softplus(-odds), odds - functional.softplus(odds))


def probability(outputs: Float[Tensor, "m k"], y: Int[Tensor, " m"]) -> Float[Tensor, " m"]:
    """p_y, 0 to 1."""
    return log_probability(outputs, y).exp()


def loss(outputs: Float[Tensor, "m k"], y: Int[Tensor, " m"]) -> Float[Tensor, " m"]:
    """Cross-entropy of y in nats, -ln p_y: the norms are those of ``log_probability``."""
    return -log_probability(outputs, y)


def of_answer(of: Scalar) -> Scalar:
    """The same g of the class that the model itself gives the greatest output, not of the label."""

    def answered(outputs: Tensor, y: Tensor) -> Tensor:  # noqa: ARG001
        return of(outputs, outputs.detach().argmax(1))

    return answered


@dataclass(frozen=True, eq=False)
class Curvature:
    """First and second derivatives of g by the input, at n records. All are float64.

    ``gradient_norm`` ‖∇g‖; ``hessian_norm_squared`` ‖∇²g‖_F² = tr H², unbiased; ``hessian_trace``
    tr H, unbiased; the two ``…_error``: standard errors of these over the probes, 0 where exact.
    ``probes``: how many vectors, None where exact. No chance level; target: a retrained model's.
    """

    gradient_norm: Float64[np.ndarray, " n"]
    hessian_norm_squared: Float64[np.ndarray, " n"]
    hessian_norm_squared_error: Float64[np.ndarray, " n"]
    hessian_trace: Float64[np.ndarray, " n"]
    hessian_trace_error: Float64[np.ndarray, " n"]
    probes: int | None = None

    def __len__(self) -> int:
        return len(self.gradient_norm)

    @property
    def floored(self) -> Bool[np.ndarray, " n"]:
        """Where the gradient is below ``FLOOR``: there κ is too low, and means nothing."""
        return self.gradient_norm < FLOOR

    @property
    def hessian_norm(self) -> Float64[np.ndarray, " n"]:
        """‖∇²g‖_F, 0 or more. A root of an estimate is low on average: by 1/(4 probes) at most."""
        return np.sqrt(self.hessian_norm_squared)

    @property
    def hessian_norm_error(self) -> Float64[np.ndarray, " n"]:
        """Standard error of ``hessian_norm`` by the delta method; 0 where that is 0."""
        twice = 2 * self.hessian_norm
        nothing = np.zeros_like(twice)
        return np.divide(self.hessian_norm_squared_error, twice, out=nothing, where=twice > 0)

    @property
    def ratio(self) -> Float64[np.ndarray, " n"]:
        """κ = ``hessian_norm`` / ``gradient_norm``, the latter at least ``FLOOR``; 0 or more."""
        return self.hessian_norm / np.maximum(self.gradient_norm, FLOOR)

    @property
    def ratio_error(self) -> Float64[np.ndarray, " n"]:
        """Standard error of ``ratio``; the gradient norm is exact."""
        return self.hessian_norm_error / np.maximum(self.gradient_norm, FLOOR)


def curvature(
    model: nn.Module,
    records: Records,
    *,
    of: Scalar = log_probability,
    probes: int = 16,
    seed: int = 0,
    batch_size: int = 64,
) -> Curvature:
    """Of any net: ‖H‖_F² = E ‖Hv‖² and tr H = E v·Hv over normal vectors v (Hutchinson).

    ``of``: g; its class is the label, or the answer with ``of_answer(g)``. A record draws the same
    vectors in any batch. Eval mode, float32. Costs ``curvature_cost``. 16 probes rank ‖∇²g‖ well,
    κ takes 64. A net of ReLUs has the exact values for less: ``curvature_exact``. Raises InputError
    unless records have one class of several, answers are finite and each record's own, and g
    curves.
    """
    if probes < 2:  # noqa: PLR2004
        raise InputError(
            "two probes or more", str(probes), "One alone has no standard error; 16 are usual."
        )

    def part(teacher: nn.Module, batch: Records) -> Parts:
        slope, times = slope_and_hessian(teacher, batch, of)
        squares, traces = [], []
        for number in range(probes):
            v = normals(batch.ids, slope.shape[1:], seed=seed, step=_OWN + number).to(slope)
            product = times(v)
            squares.append(dot(product, product))
            traces.append(dot(v, product))
        square, trace = torch.stack(squares), torch.stack(traces)
        norm, root = dot(slope, slope).sqrt(), probes**0.5
        return norm, square.mean(0), square.std(0) / root, trace.mean(0), trace.std(0) / root

    return curved(part, model, records, of=of, batch_size=batch_size, probes=probes)


def curvature_cost(records: Records, *, probes: int = 16) -> Passes:
    """The passes of ``curvature``: a gradient, and for each probe the derivative of one.

    That goes backward through the net and, as torch makes it, costs two passes forward beside.
    """
    n = len(records)
    return Passes(forward=n * (1 + 2 * probes), backward=n * (1 + probes))


def slope_and_hessian(
    teacher: nn.Module, batch: Records, of: Scalar
) -> tuple[Float[Tensor, " m *features"], Callable[[Tensor], Tensor]]:
    """∇g of each record, and what multiplies a vector for each record by its ∇²g.

    Records do not mix, so the gradient of the sum is that of each; a Hessian is symmetric, so a
    product from the left is one from the right.
    """

    def total(x: Tensor) -> Tensor:
        return of(task_of(batch).outputs(teacher, x), batch.y).sum()

    return derivatives(total, batch.x)


def derivatives(
    total: Callable[[Tensor], Tensor], at: Tensor
) -> tuple[Tensor, Callable[[Tensor], Tensor]]:
    """The gradient of a number there, and what multiplies a vector by its Hessian."""
    found = torch.func.vjp(torch.func.grad(total), at)
    return found[0], lambda v: found[1](v)[0]


def in_batches(
    part: Callable[[nn.Module, Records], Parts],
    model: nn.Module,
    records: Records,
    *,
    size: int,
) -> Float64[np.ndarray, "parts n"]:
    """What ``part`` says of each record of a model held still: eval mode, float32 or wider.

    Out of memory halves the batch. Raises InputError without records, unless they have one class of
    several, or where a record's answer depends on the others in its batch.
    """
    refuse_other_kinds(records)
    teacher, device = frozen_teacher(upcast_to_fp32(model)), device_of(model)
    _refuse_mixing(teacher)

    def numbers(rows: Tensor) -> Float64[Tensor, "parts m"]:
        batch = records.take(rows).to(device)
        # the fused kernels of attention have no second derivative
        with sdpa_kernel(SDPBackend.MATH):
            found = part(teacher, replace(batch, x=batch.x.to(dtype_of(teacher))))
        return torch.stack([one.detach().cpu().double() for one in found])

    return torch.cat(list(map_chunks(numbers, torch.arange(len(records)), size)), 1).numpy()


def dot(one: Tensor, other: Tensor) -> Float64[Tensor, " m"]:
    """Sums over the features of each record; float32 would lose squares below 1e-38."""
    return (one.detach().cpu().double() * other.detach().cpu().double()).flatten(1).sum(1)


def curved(
    part: Callable[[nn.Module, Records], Parts],
    model: nn.Module,
    records: Records,
    *,
    of: Scalar,
    batch_size: int,
    probes: int | None = None,
) -> Curvature:
    """The five arrays that ``part`` makes of a batch; raises InputError for a g without curvature.

    On a decision boundary a curve may be flat at one point: so records a little off are asked too.
    """
    found = in_batches(part, model, records, size=batch_size)
    need_numbers(gradient_norm=found[0], hessian_norm_squared=found[1])
    if found[0].any() and not found[1].any():
        aside = replace(records, x=records.x + _away(records).to(records.x))
        if not in_batches(lambda t, b: (bend(t, b, of),), model, aside, size=batch_size).any():
            raise InputError(
                "a number of the outputs that curves",
                f"one whose second derivative is 0 at all {len(records)} records, as the logits of "
                "a net of ReLUs are: piecewise linear",
                "Take probability, log_probability or loss.",
            )
    return Curvature(*found, probes=probes)


def bend(teacher: nn.Module, batch: Records, of: Scalar) -> Float64[Tensor, " m"]:
    """‖∇²g v‖² for one vector a record: 0 where g does not bend along it."""
    product = slope_and_hessian(teacher, batch, of)[1](_away(batch).to(batch.x))
    return dot(product, product)


def _away(batch: Records) -> Tensor:
    return normals(batch.ids, tuple(batch.x.shape[1:]), seed=0, step=_OWN - 1)


def refuse_other_kinds(records: Records) -> None:
    """Raises InputError without records, or unless each has one class of several."""
    if not len(records):
        raise InputError("at least one record", "none", "Give the records to be looked at.")
    kind = task_of(records).name
    if kind != multiclass.name:
        raise InputError(
            "records with one class of several, whose probability curves",
            kind,
            "Many labels and values are not served yet; leave curvature and slopes out.",
        )


def _refuse_mixing(teacher: nn.Module) -> None:
    """A norm without running means takes those of the batch, in eval mode too."""
    for name, layer in teacher.named_modules():
        if isinstance(layer, nn.modules.batchnorm._BatchNorm) and layer.running_mean is None:  # noqa: SLF001
            raise InputError(
                "a model that answers each record by itself",
                f"{name} ({type(layer).__name__}), which takes its means from the batch",
                "Train it with track_running_stats=True.",
            )

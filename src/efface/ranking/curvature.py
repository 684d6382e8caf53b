"""Curvature κ and gradients: how a number of the outputs changes with the input.

κ(x) = ‖∇²g‖_F / ‖∇g‖ by the input, and its two parts. g is one number a record, made of the outputs
and a class: ``probability``, ``log_probability``, ``loss``, or a function of your own. Logits of a
ReLU network are piecewise linear: they have no curvature and are refused. ``curvature`` estimates
for any model, ``piecewise_linear_curvature`` is exact for ReLU networks.

Of a sigmoid S of x, ‖∇²g‖ and κ are 0 *on* the decision boundary: ‖∇g‖ alone peaks there, ‖∇²g‖
next to it, at |x| = 1.317, and κ = |tanh(x/2)| grows away from it. Of ln S, κ is S.
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
from efface.methods._perturb import normals
from efface.metrics.refusals import need_numbers
from efface.ranking.content import require_records
from efface.runtime import map_chunks, upcast_to_fp32
from efface.task import device_of, dtype_of, frozen_teacher, task_of
from efface.types import Records

# The smallest gradient norm that κ is divided by: float32 has few digits left below it.
FLOOR = 1e-30

# Numbers of a Jacobian in memory at once.
JACOBIAN_NUMBERS = 2**24

# Records on which a model is tested for piecewise linearity.
TESTED = 8

_STREAM = 0x0C4A7E  # keeps these draws apart from those of the methods under the same seed

# Some numbers a record for a batch: tensors (m,).
Parts = tuple[Tensor, ...]

# These numbers, from a frozen model and a batch.
Part = Callable[[nn.Module, Records], Parts]

# g(outputs (m, k), classes (m,)) -> (m,), of each record from its own row alone.
Scalar = Callable[[Tensor, Tensor], Tensor]

Array = Float64[np.ndarray, " n"]
Outputs = Float[Tensor, "m k"]
Labels = Int[Tensor, " m"]


def logit_margin(outputs: Outputs, y: Labels) -> Float[Tensor, " m"]:
    """The log-odds ln p_y - ln(1 - p_y): for two classes a difference of logits."""
    own = torch.arange(outputs.shape[1], device=outputs.device) == y[:, None]
    others = outputs.masked_fill(own, -torch.inf).logsumexp(1)
    return outputs.gather(1, y[:, None])[:, 0] - others


def log_probability(outputs: Outputs, y: Labels) -> Float[Tensor, " m"]:
    """Logarithm of p_y, from the logit margin: a log-softmax rounds small gradients to 0."""
    odds = logit_margin(outputs, y)
    # On either side the form whose derivatives keep all their digits when they are small.
    return torch.where(odds > 0, -functional.softplus(-odds), odds - functional.softplus(odds))


def probability(outputs: Outputs, y: Labels) -> Float[Tensor, " m"]:
    """p_y, 0 to 1."""
    return log_probability(outputs, y).exp()


def loss(outputs: Outputs, y: Labels) -> Float[Tensor, " m"]:
    """Cross-entropy of y in nats, -ln p_y: the norms are those of ``log_probability``."""
    return -log_probability(outputs, y)


@dataclass(frozen=True, eq=False)
class Curvature:
    """First and second derivatives of g by the input, at n records. All are float64.

    ``gradient_norm`` ‖∇g‖; ``hessian_norm_squared`` ‖∇²g‖_F² = tr H², unbiased; ``hessian_trace``
    tr H, unbiased; the two ``…_error``: their standard errors over the probes, 0 where exact.
    ``probes``: number of random vectors, None where exact. No chance level; reference: the
    retrained model's values.
    """

    gradient_norm: Array
    hessian_norm_squared: Array
    hessian_norm_squared_error: Array
    hessian_trace: Array
    hessian_trace_error: Array
    probes: int | None = None

    @property
    def floored(self) -> Bool[np.ndarray, " n"]:
        """Where the gradient is below ``FLOOR``: there κ is too low, and means nothing."""
        return self.gradient_norm < FLOOR

    @property
    def hessian_norm(self) -> Array:
        """‖∇²g‖_F, 0 or more. A root of an estimate is low on average: by 1/(4 probes) at most."""
        return np.sqrt(self.hessian_norm_squared)

    @property
    def hessian_norm_error(self) -> Array:
        """Standard error of ``hessian_norm`` by the delta method; 0 where that is 0."""
        twice = 2 * self.hessian_norm
        zero = np.zeros_like(twice)
        return np.divide(self.hessian_norm_squared_error, twice, out=zero, where=twice > 0)

    @property
    def ratio(self) -> Array:
        """κ = ``hessian_norm`` / ``gradient_norm``, the latter at least ``FLOOR``; 0 or more."""
        return self.hessian_norm / np.maximum(self.gradient_norm, FLOOR)

    @property
    def ratio_error(self) -> Array:
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
    """Of any model: ‖H‖_F² = E ‖Hv‖² and tr H = E v·Hv over normal vectors v (Hutchinson).

    A record draws the same vectors in any batch. Eval mode, float32. Cost a record: 1 + 2 probes
    forward, 1 + probes backward. 16 probes rank ‖∇²g‖ well, κ takes 64. ReLU networks have exact
    values for less: ``piecewise_linear_curvature``. Raises InputError unless records are
    multiclass, outputs are finite and independent of the batch, and g curves.
    """
    if probes < 2:  # noqa: PLR2004
        remedy = "One alone has no standard error; 16 are usual."
        raise InputError("two probes or more", str(probes), remedy)

    def part(teacher: nn.Module, batch: Records) -> Parts:
        gradient, times = gradient_and_hessian(teacher, batch, of)
        squares, traces = [], []
        for number in range(probes):
            v = normals(batch.ids, gradient.shape[1:], seed=seed, step=_STREAM + number)
            product = times(v.to(gradient))
            squares.append(dot(product, product))
            traces.append(dot(v.to(gradient), product))
        both = (torch.stack(squares), torch.stack(traces))
        square, trace = ((one.mean(0), one.std(0) / probes**0.5) for one in both)
        return norm(gradient), *square, *trace

    return measure_curvature(part, model, records, of, batch_size, probes)


def piecewise_linear_curvature(
    model: nn.Module, records: Records, *, of: Scalar = log_probability, batch_size: int = 64
) -> Curvature:
    """Exact, where outputs are piecewise linear in the input: H = Jᵀ (∇²g by the k outputs) J.

    Such are linear layers, convolutions, BatchNorm, ReLU, LeakyReLU and max or mean pooling; not
    GELU, SiLU, LayerNorm or attention. Cost a record: one pass forward, k backward: for fewer than
    some 50 classes less than 16 probes. Raises InputError as ``curvature``, and for a model that is
    not ``is_piecewise_linear``.
    """
    curves, outputs = _second_derivative(model, records)
    if curves:
        came, remedy = "outputs with a second derivative", "Use curvature, which serves any model."
        raise InputError("a model with piecewise linear outputs (a ReLU network)", came, remedy)

    def part(teacher: nn.Module, batch: Records) -> Parts:
        x = batch.x.detach().requires_grad_()
        with torch.enable_grad():
            answers = task_of(batch).outputs(teacher, x)
            rows = [torch.autograd.grad(one.sum(), x, retain_graph=True)[0] for one in answers.T]
        jacobian = torch.stack([row.flatten(1).cpu().double() for row in rows], 1)
        gram, y = jacobian @ jacobian.mT, batch.y.cpu()
        answers = answers.detach().cpu().double()
        first, times = derivatives(lambda rows: of(rows, y).sum(), answers)
        units = torch.eye(answers.shape[1]).to(answers)
        second = torch.stack([times(unit.expand_as(answers)) for unit in units], 1)
        # ‖JᵀSJ‖_F² = tr(SG SG) with G = J Jᵀ: k x k instead of d x d.
        product, zero = second @ gram, torch.zeros(len(x))
        length = torch.einsum("mi,mij,mj->m", first, gram, first).clamp_min(0).sqrt()
        trace = product.diagonal(dim1=1, dim2=2).sum(1)
        return length, (product * product.mT).sum((1, 2)).clamp_min(0), zero, trace, zero

    rows = max(1, JACOBIAN_NUMBERS // (outputs * records.x[0].numel()))
    return measure_curvature(part, model, records, of, min(batch_size, rows))


def is_piecewise_linear(model: nn.Module, records: Records) -> bool:
    """Whether a mixture of the outputs has no second derivative along a vector, at 8 records."""
    return not _second_derivative(model, records)[0]


def _second_derivative(model: nn.Module, records: Records) -> tuple[bool, int]:
    """Whether the outputs have a second derivative, and how many outputs there are."""
    outputs = 0

    def mixture(answers: Tensor, y: Tensor) -> Tensor:  # noqa: ARG001
        nonlocal outputs
        outputs = answers.shape[1]
        # Different weights: the second derivatives of two outputs must not cancel.
        return answers @ torch.arange(1, outputs + 1).to(answers)

    require_records(records)  # before fewer of them are taken
    some = records.take(range(min(TESTED, len(records))))
    bends = in_batches(lambda t, b: (_bend(t, b, mixture),), model, some, TESTED)
    need_numbers(second_derivatives=bends)
    return bool(bends.any()), outputs


def input_gradient_norm(model: nn.Module, records: Records, *, batch_size: int = 256) -> Array:
    """How fast the loss grows around each record, ‖∇_x l‖: 0 or more, nats per unit of length.

    No chance level; reference: the retrained model's values. Cost a record: one pass each way.
    Raises InputError as ``curvature``.
    """

    def part(teacher: nn.Module, batch: Records) -> Parts:
        return (norm(loss_gradient(teacher, batch, batch.x)),)

    found = in_batches(part, model, records, batch_size)[0]
    need_numbers(gradients=found)
    return found


def loss_gradient(teacher: nn.Module, batch: Records, x: Tensor) -> Tensor:
    """∇l of each record by its input: that of the sum, since records do not mix."""
    with torch.enable_grad():
        x = x.detach().requires_grad_()
        total = loss(task_of(batch).outputs(teacher, x), batch.y).sum()
        return torch.autograd.grad(total, x)[0]


def gradient_and_hessian(
    teacher: nn.Module, batch: Records, of: Scalar
) -> tuple[Float[Tensor, " m *features"], Callable[[Tensor], Tensor]]:
    """∇g of each record, and the product of its ∇²g with a vector for each record."""
    task = task_of(batch)
    return derivatives(lambda x: of(task.outputs(teacher, x), batch.y).sum(), batch.x)


def derivatives(
    total: Callable[[Tensor], Tensor], at: Tensor
) -> tuple[Tensor, Callable[[Tensor], Tensor]]:
    """The gradient of a number, and the product of its Hessian with a vector.

    Records do not mix, so the gradient of a sum over them is that of each; a Hessian is symmetric,
    so a product from the left (vjp) is one from the right.
    """
    found = torch.func.vjp(torch.func.grad(total), at)
    return found[0], lambda v: found[1](v)[0]


def in_batches(
    part: Part, model: nn.Module, records: Records, size: int
) -> Float64[np.ndarray, "parts n"]:
    """``part`` of all records on a frozen copy of the model: eval mode, float32 or wider.

    Out of memory halves the batch. Raises InputError without records, unless they are multiclass,
    or where a record's outputs depend on the others in its batch.
    """
    require_records(records)
    teacher, device = frozen_teacher(upcast_to_fp32(model)), device_of(model)
    for name, layer in teacher.named_modules():
        # A norm without running statistics takes those of the batch, in eval mode too.
        if isinstance(layer, nn.modules.batchnorm._BatchNorm) and layer.running_mean is None:  # noqa: SLF001
            wanted = "a model whose outputs for a record do not depend on the batch"
            came = f"{name} ({type(layer).__name__}), which takes its means from the batch"
            raise InputError(wanted, came, "Train it with track_running_stats=True.")

    def numbers(rows: Tensor) -> Float64[Tensor, "parts m"]:
        batch = records.take(rows).to(device)
        # The fused kernels of attention have no second derivative.
        with sdpa_kernel(SDPBackend.MATH):
            found = part(teacher, replace(batch, x=batch.x.to(dtype_of(teacher))))
        return torch.stack([one.detach().cpu().double() for one in found])

    return torch.cat(list(map_chunks(numbers, torch.arange(len(records)), size)), 1).numpy()


def dot(one: Tensor, other: Tensor) -> Float64[Tensor, " m"]:
    """Sums over the features of each record; float32 would lose squares below 1e-38."""
    return (one.detach().cpu().double() * other.detach().cpu().double()).flatten(1).sum(1)


def norm(vectors: Tensor) -> Float64[Tensor, " m"]:
    """L2 norm of each record's features."""
    return dot(vectors, vectors).sqrt()


def measure_curvature(
    part: Part, model: nn.Module, records: Records, of: Scalar, size: int, probes: int | None = None
) -> Curvature:
    """The arrays that ``part`` makes of a batch; raises InputError for a g without curvature."""
    found = in_batches(part, model, records, size)
    need_numbers(gradient_norm=found[0], hessian_norm_squared=found[1])
    if found[0].any() and not found[1].any():
        # On a decision boundary a curve may be flat at one point: so test records a little off.
        aside = replace(records, x=records.x + _direction(records).to(records.x))
        if not in_batches(lambda t, b: (_bend(t, b, of),), model, aside, size).any():
            came = f"one whose second derivative is 0 at all {len(records)} records, as the logits "
            came += "of a ReLU network are: piecewise linear"
            remedy = "Use probability, log_probability or loss."
            raise InputError("a number of the outputs that curves", came, remedy)
    return Curvature(*found, probes=probes)


def _bend(teacher: nn.Module, batch: Records, of: Scalar) -> Float64[Tensor, " m"]:
    """‖∇²g v‖² for one vector a record: 0 where g does not bend along it."""
    product = gradient_and_hessian(teacher, batch, of)[1](_direction(batch).to(batch.x))
    return dot(product, product)


def _direction(batch: Records) -> Tensor:
    return normals(batch.ids, tuple(batch.x.shape[1:]), seed=0, step=_STREAM - 1)

"""Curvature without an estimate: from a Jacobian where a net is piecewise linear, else dense."""

import torch
from jaxtyping import Float64
from torch import Tensor, nn

from efface.errors import InputError
from efface.metrics.refusals import need_numbers
from efface.ranking.curvature import (
    Curvature,
    Parts,
    Scalar,
    bend,
    curved,
    derivatives,
    dot,
    in_batches,
    log_probability,
    refuse_other_kinds,
)
from efface.runtime import Passes
from efface.task import task_of
from efface.types import Records

HELD = 2**24
"""Numbers of a Jacobian that are held at once."""

CHECKED = 8
"""Records at which a net is asked whether it is piecewise linear."""


def piecewise_linear_curvature(
    model: nn.Module, records: Records, *, of: Scalar = log_probability, batch_size: int = 64
) -> Curvature:
    """Exact, where outputs are piecewise linear in the input: H = Jᵀ (∇²g by the k outputs) J.

    Such are linear layers, convolutions, BatchNorm, ReLU, LeakyReLU and max or mean pooling; not
    GELU, SiLU, LayerNorm or attention. Costs ``piecewise_linear_cost``: for fewer than some 50
    classes less than 16 probes. Raises InputError as ``curvature``, and where a net that
    ``is_piecewise_linear`` is wanted.
    """
    curves, outputs = _asked(model, records)
    if curves:
        raise InputError(
            "a net whose outputs are piecewise linear (of ReLUs)",
            "outputs with a second derivative",
            "Use curvature, which serves any net.",
        )

    def part(teacher: nn.Module, batch: Records) -> Parts:
        x = batch.x.detach().requires_grad_()
        with torch.enable_grad():
            answers = task_of(batch).outputs(teacher, x)
            ways = [torch.autograd.grad(one.sum(), x, retain_graph=True)[0] for one in answers.T]
        ways = torch.stack([way.flatten(1).cpu().double() for way in ways], 1)
        together = ways @ ways.mT
        first, second = _by_outputs(of, answers.detach().cpu().double(), batch.y.cpu())
        bent, none = second @ together, torch.zeros(len(x))
        norm = torch.einsum("mi,mij,mj->m", first, together, first).clamp_min(0).sqrt()
        trace = bent.diagonal(dim1=1, dim2=2).sum(1)
        return norm, (bent * bent.mT).sum((1, 2)).clamp_min(0), none, trace, none

    rows = max(1, HELD // (outputs * records.x[0].numel()))
    return curved(part, model, records, of=of, batch_size=min(batch_size, rows))


def piecewise_linear_cost(records: Records, *, classes: int) -> Passes:
    """The passes of ``piecewise_linear_curvature``: one back for each output, and the question."""
    n, asked = len(records), min(CHECKED, len(records))
    return Passes(forward=n + 3 * asked, backward=n * classes + 2 * asked)


def is_piecewise_linear(model: nn.Module, records: Records) -> bool:
    """Whether a mixture of the outputs has no second derivative along a vector, at 8 records."""
    return not _asked(model, records)[0]


def _asked(model: nn.Module, records: Records) -> tuple[bool, int]:
    """Whether the outputs have a second derivative, and how many they are."""
    refuse_other_kinds(records)  # before fewer of them are taken
    outputs = 0

    def mixture(answers: Tensor, y: Tensor) -> Tensor:  # noqa: ARG001
        nonlocal outputs
        outputs = answers.shape[1]
        return answers @ torch.arange(1, outputs + 1).to(answers)

    some = records.take(range(min(CHECKED, len(records))))
    bent = in_batches(lambda t, b: (bend(t, b, mixture),), model, some, size=CHECKED)
    need_numbers(second_derivatives=bent)
    return bool(bent.any()), outputs


def dense_curvature(
    model: nn.Module, records: Records, *, of: Scalar = log_probability
) -> Curvature:
    """Exact for any net, from the whole Hessian of one record after another: d² numbers each.

    For few features (a plane, a small table) and for tests: it costs d products of ``curvature`` a
    record. Raises InputError as ``curvature``.
    """

    def part(teacher: nn.Module, batch: Records) -> Parts:
        def one(x: Tensor) -> Tensor:
            return of(task_of(batch).outputs(teacher, x), batch.y)[0]

        # vmap cannot bring images into this order, which is that of the passes
        images = batch.x.ndim == 4  # noqa: PLR2004
        x = batch.x.contiguous(memory_format=torch.channels_last) if images else batch.x
        slope, whole = torch.func.grad(one)(x), torch.func.jacrev(torch.func.grad(one))(x)
        hessian, none = whole.reshape(x.numel(), x.numel()).cpu().double(), torch.zeros(1)
        square, trace = hessian.square().sum()[None], hessian.trace()[None]
        return dot(slope, slope).sqrt(), square, none, trace, none

    return curved(part, model, records, of=of, batch_size=1)


def _by_outputs(
    of: Scalar, answers: Float64[Tensor, "m k"], y: Tensor
) -> tuple[Float64[Tensor, "m k"], Float64[Tensor, "m k k"]]:
    """First and second derivatives of g by the outputs."""
    first, times = derivatives(lambda rows: of(rows, y).sum(), answers)
    units = torch.eye(answers.shape[1]).to(answers)
    return first, torch.stack([times(unit.expand_as(answers)) for unit in units], 1)

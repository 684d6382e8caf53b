"""How much a set of records leans on each weight: the diagonal of its Fisher information."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn

from efface.methods.parts.retained import together
from efface.runtime import map_chunks
from efface.task import device_of
from efface.types import Records, record_key

RecordLoss = Callable[[nn.Module, Records], Float[Tensor, " m"]]
"""``loss(model, batch)``: one number a record."""


@dataclass(frozen=True, eq=False)
class Importance:
    """Of each weight that may move, and the mean loss of the records."""

    of: list[Tensor]
    loss: float


def importance(
    model: nn.Module,
    records: Records,
    loss: RecordLoss,
    *,
    batches: Sequence[Tensor],
    power: int = 2,
) -> Importance:
    """I(S)_i = mean over the batches b of S of |∂ mean loss(b) / ∂θ_i| ^ power.

    With ``power`` 2, one record in a batch and the loss of training it is the diagonal of the
    (empirical) Fisher information. Larger batches leave less of what differs among their records,
    so only importances of equal batches may be compared. The model keeps its mode and gradients.
    """
    weights = [weight for weight in model.parameters() if weight.requires_grad]
    sums, total = [torch.zeros_like(weight) for weight in weights], 0.0
    for rows in batches:
        gradients, value = _mean_gradient(model, records, loss, weights, rows)
        for one, gradient in zip(sums, gradients, strict=True):
            one.add_(gradient.abs() ** power)
        total += value * len(rows)
    return Importance([one / max(1, len(batches)) for one in sums], total / max(1, len(records)))


def of_forget_and_whole(
    model: nn.Module,
    forget: Records,
    retain: Records,
    *,
    loss: RecordLoss,
    batch_size: int,
    with_forget: bool = True,
    as_loaded: bool = False,
    power: int = 2,
    seed: int = 0,
) -> tuple[Importance, Importance]:
    """I(D_f) and I(D), over batches of one size; D with the forget records or without them."""
    whole = together(forget, retain) if with_forget else retain
    if as_loaded:
        cut = [torch.arange(len(one)).split(batch_size) for one in (forget, whole)]
    else:
        size = -(-len(forget) // (-(-len(forget) // batch_size) or 1)) or 1
        cut = [_cut(one, size, seed) for one in (forget, whole)]
    ours = importance(model, forget, loss, batches=cut[0], power=power)
    return ours, importance(model, whole, loss, batches=cut[1], power=power)


def _cut(records: Records, size: int, seed: int) -> Sequence[Tensor]:
    """Rows in batches of nearly equal size; who is with whom goes by ids and seed, not by order."""
    keys = [record_key(f"{seed} {identity}") for identity in records.ids]
    order = torch.tensor(sorted(range(len(records)), key=keys.__getitem__), dtype=torch.int64)
    return order.tensor_split(-(-len(records) // size)) if len(records) else ()


def _mean_gradient(
    model: nn.Module, records: Records, loss: RecordLoss, weights: list[nn.Parameter], rows: Tensor
) -> tuple[list[Tensor], float]:
    """The gradient of the mean loss of these rows, and that mean; in parts if memory is short."""
    device = device_of(model)

    def part(some: Tensor) -> tuple[list[Tensor], float]:
        value = loss(model, records.take(some).to(device)).sum() / len(rows)
        found = torch.autograd.grad(value, weights, allow_unused=True)
        return list(_filled(found, weights)), float(value.detach())

    parts = list(map_chunks(part, rows, len(rows)))
    each = zip(*(gradients for gradients, _ in parts), strict=True)
    gradients = [torch.stack(of_one_weight).sum(0) for of_one_weight in each]
    return gradients, sum(value for _, value in parts)


def _filled(found: tuple[Tensor | None, ...], weights: list[nn.Parameter]) -> Iterator[Tensor]:
    """Zeros for a weight that the loss does not see."""
    for gradient, weight in zip(found, weights, strict=True):
        yield torch.zeros_like(weight) if gradient is None else gradient

"""How much records rely on each weight (diagonal Fisher information), and selective dampening."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from efface.errors import InputError
from efface.methods._records import join
from efface.runtime import map_chunks
from efface.task import device_of, task_of
from efface.training import Loss
from efface.types import Action, Callback, Records, Split, record_key

logger = logging.getLogger(__name__)


@dataclass(frozen=True, eq=False)
class Importance:
    """One tensor for each weight that may move, and the mean loss of the records."""

    weights: list[Tensor]
    loss: float


def importance(
    model: nn.Module, records: Records, loss: Loss, *, batches: Sequence[Tensor], power: int = 2
) -> Importance:
    """I(S)_i = mean over the batches b of S of |∂ mean loss(b) / ∂θ_i| ^ power.

    With ``power`` 2, one record in a batch and the loss of training it is the diagonal of the
    (empirical) Fisher information. Larger batches leave less of what differs among their records,
    so only importances of equal batches may be compared. The model keeps its mode and gradients.
    """
    weights = [weight for weight in model.parameters() if weight.requires_grad]
    sums, total = [torch.zeros_like(weight) for weight in weights], 0.0
    for rows in batches:
        # one batch at a time: squares of a sum are not sums of squares
        gradients, value = _mean_gradient(model, records, loss, weights, rows)
        for one, gradient in zip(sums, gradients, strict=True):
            one.add_(gradient.abs() ** power)
        total += value * len(rows)
    return Importance([one / max(1, len(batches)) for one in sums], total / max(1, len(records)))


@dataclass(frozen=True)
class Batching:
    """Batches of at most ``size`` records, composed by ids and ``seed``; or in the order given."""

    size: int
    seed: int = 0
    sequential: bool = False


def forget_and_data_importance(
    model: nn.Module,
    split: Split,
    loss: Loss,
    batching: Batching,
    *,
    with_forget: bool = True,
    power: int = 2,
) -> tuple[Importance, Importance]:
    """I(D_f) and I(D), over batches of one size; D with the forget records or without them."""
    task = task_of(split.retain)
    forget, retain = (replace(part, task=task) for part in (split.forget, split.retain))
    data = join(forget, retain) if with_forget else retain
    # a mean over fewer records has a larger square: both sets get the batch size of the forget set
    size = -(-len(forget) // -(-len(forget) // batching.size))
    both = []
    for records in (forget, data):
        sequential = torch.arange(len(records)).split(batching.size)
        batches = (
            sequential if batching.sequential else _random_batches(records, size, batching.seed)
        )
        both.append(importance(model, records, loss, batches=batches, power=power))
    return both[0], both[1]


def _random_batches(records: Records, size: int, seed: int) -> Sequence[Tensor]:
    """Rows in batches of nearly equal size, composed by ids and seed, not by order."""
    # the key mixes seed and id, so that another seed makes other batches
    keys = [record_key(f"{seed} {identity}") for identity in records.ids]
    order = torch.tensor(sorted(range(len(records)), key=keys.__getitem__), dtype=torch.int64)
    return order.tensor_split(-(-len(records) // size)) if len(records) else ()


def _mean_gradient(
    model: nn.Module, records: Records, loss: Loss, weights: list[nn.Parameter], rows: Tensor
) -> tuple[list[Tensor], float]:
    """The gradient of the mean loss of these rows, and that mean; in parts if memory is short."""
    device = device_of(model)

    def part(some: Tensor) -> tuple[list[Tensor], float]:
        value = loss(model, records.take(some).to(device), 0).sum() / len(rows)
        # not backward: the student's own gradients are left alone
        found = torch.autograd.grad(value, weights, allow_unused=True)
        # a weight that the loss does not use has the gradient 0
        pairs = zip(found, weights, strict=True)
        return [torch.zeros_like(w) if g is None else g for g, w in pairs], float(value.detach())

    parts = list(map_chunks(part, rows, len(rows)))
    each = zip(*(gradients for gradients, _ in parts), strict=True)
    return [torch.stack(one).sum(0) for one in each], sum(value for _, value in parts)


def dampen(
    student: nn.Module,
    importances: tuple[Importance, Importance],
    alpha: float,
    dampening: float,
    callback: Callback,
) -> nn.Module:
    """Scale the weights of ``student`` where the forget importance is far the greater.

        where I(D_f)_i > α I(D)_i:   θ_i ← θ_i · min(λ I(D)_i / I(D_f)_i, 1)

    A weight that no record needs (0 against 0) is not selected. ``callback`` is called once, with
    the mean loss of the forget records under the given model; on HALVE_LR it has restored the
    student, and the same is done again with α doubled. The selected fraction is logged.
    """
    forget, data = importances
    _refuse_zero_weights(student, forget)
    while True:
        facts = {"selection": alpha, "selected": _scale(student, forget, data, alpha, dampening)}
        logger.info("dampening: weights selected", extra={"facts": facts})
        if callback(student, forget.loss) is not Action.HALVE_LR:
            return student
        # half the strength, as a loop halves its learning rate
        alpha *= 2


def _refuse_zero_weights(student: nn.Module, forget: Importance) -> None:
    """Where every weight that matters is 0, scaling changes nothing and the result would lie."""
    weights = [weight for weight in student.parameters() if weight.requires_grad]
    pairs = list(zip(weights, forget.weights, strict=True))
    matter = any(bool((ours > 0).any()) for _, ours in pairs)
    if matter and not any(bool(((ours > 0) & (weight != 0)).any()) for weight, ours in pairs):
        raise InputError(
            "weights that hold what the forget records need",
            "weights that are all 0 where they matter, as in a new adapter",
            "Let weights of the model itself move (trainable).",
        )


@torch.no_grad()
def _scale(
    student: nn.Module, forget: Importance, data: Importance, alpha: float, dampening: float
) -> float:
    """Scale the selected weights in place; returns the fraction of weights selected."""
    weights = [weight for weight in student.parameters() if weight.requires_grad]
    count = 0
    for weight, ours, theirs in zip(weights, forget.weights, data.weights, strict=True):
        selected = ours > alpha * theirs
        # 0 / 0 is nan here and never used: such a weight is not selected
        factor = (dampening * theirs / ours).clamp(max=1)
        weight.copy_(torch.where(selected, weight * factor, weight))
        count += int(selected.sum())
    return count / max(1, sum(weight.numel() for weight in weights))


def alpha_at(strength: float, alpha: float) -> float:
    """α / strength: more strength selects more weights, none at all selects none."""
    return alpha / strength if strength else torch.inf

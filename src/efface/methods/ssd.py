"""Selective synaptic dampening (SSD) and its variants, AAAI 2024: https://arxiv.org/abs/2308.07707.

``ssd``: Selective synaptic dampening (SSD), AAAI 2024: https://arxiv.org/abs/2308.07707.

Weights that matter to the forget records far more than to the data as a whole are scaled down:

    I(S)_i = mean over batches b of S of (∂ CE(b) / ∂θ_i)²,   CE(b) the mean over the batch
    where I(D_f)_i > α I(D)_i:   θ_i ← θ_i · min(λ I(D)_i / I(D_f)_i, 1)

D is the forget and the retained records. No step is taken: two passes, one change.

Departures from the authors' code (if-loops/selective-synaptic-dampening, src/ssd.py):

- One size of batches for both passes, that of the forget set where it is smaller, and batches of
  nearly equal size: a mean over fewer records has a greater square, and the code's loaders make the
  last batch smaller. ``sequential`` is the code's form, tested against weights that it made.
- Who is in a batch with whom depends on ids and seed: the order of D does not matter.
- A weight that no record needs (0 against 0) is left alone.

``lfssd``: Label-free SSD ("Loss-free machine unlearning"), ICLR 2024: https://arxiv.org/abs/2402.19308.

As SSD, with the squared norm of the outputs in place of the loss, so that no label is read:

    I(S)_i = mean over batches b of S of |∂ mean_b ‖f(x)‖₂² / ∂θ_i|
    where I(D_f)_i > α I(D)_i:   θ_i ← θ_i · min(λ I(D)_i / I(D_f)_i, 1)

Departures from the authors' code (if-loops/selective-synaptic-dampening): those of ``ssd``: batches
of one size in both passes, composed by id and seed.

``assd``: Adaptive SSD (ASSD): α from the number of forget records: https://arxiv.org/abs/2402.10098.

    r_i = I(D_f)_i / I(D_r)_i,   q = 100 − ln(1 + 100 n_f / (n_f + n_r)),   α = percentile_q(r)
    where I(D_f)_i > α I(D_r)_i:   θ_i ← θ_i · min(λ I(D_r)_i / I(D_f)_i, 1),   λ = 1

I is that of ``ssd``; one α for all weights. A ratio that is nan (0/0) or infinite is left out of
the percentile. D_r stands for D, as in the authors' notebook
(if-loops/adaptive-selective-synaptic-dampening); with D the ratios of all weights have a bound.

Departures from the notebook: eval mode, where a line that was commented out left BatchNorm in train
mode; batches as in ``ssd``; no lower limit of the factor (theirs is 0).
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor, nn

from efface.errors import InputError
from efface.methods._base import Count, Memory, NonNegative, log, register_method
from efface.methods._records import join, without_labels
from efface.runtime import map_chunks
from efface.task import device_of, outputs, task_of, trainable_copy
from efface.training import Loss, task_loss
from efface.types import Action, Callback, Records, Split, no_callback, record_key


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

    def importance_of(records: Records) -> Importance:
        batches = torch.arange(len(records)).split(batching.size)
        if not batching.sequential:
            batches = _random_batches(records, size, batching.seed)
        return importance(model, records, loss, batches=batches, power=power)

    return importance_of(forget), importance_of(data)


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
        # materialised: a weight that the loss does not use has the gradient 0
        gradients = torch.autograd.grad(value, weights, materialize_grads=True)
        return list(gradients), float(value.detach())

    parts = list(map_chunks(part, rows, len(rows)))
    each = zip(*(gradients for gradients, _ in parts), strict=True)
    return [torch.stack(one).sum(0) for one in each], sum(value for _, value in parts)


def dampen(
    student: nn.Module,
    importances: tuple[Importance, Importance],
    alpha: float,
    strength: float,
    dampening: float,
    callback: Callback,
) -> nn.Module:
    """Scale the weights of ``student`` where the forget importance is far the greater.

        where I(D_f)_i > α I(D)_i:   θ_i ← θ_i · min(λ I(D)_i / I(D_f)_i, 1)

    A weight that no record needs (0 against 0) is not selected. ``callback`` is called once, with
    the mean loss of the forget records under the given model; on HALVE_LR it has restored the
    student, and the same is done again with α doubled. The selected fraction is logged.
    """
    forget = importances[0]
    # more strength selects more weights, none at all selects none
    alpha = alpha / strength if strength else torch.inf
    weights = [weight for weight in student.parameters() if weight.requires_grad]
    pairs = list(zip(weights, forget.weights, strict=True))
    matter = any(bool((ours > 0).any()) for _, ours in pairs)
    # where every weight that matters is 0, scaling changes nothing and the result would lie
    if matter and not any(bool(((ours > 0) & (weight != 0)).any()) for weight, ours in pairs):
        wanted = "weights that are important to the forget records and not 0"
        came = "only zeros among them, as in a new adapter"
        raise InputError(wanted, came, "Choose trainable weights of the model itself.")
    while True:
        count = 0
        triples = zip(weights, *(one.weights for one in importances), strict=True)
        for weight, ours, theirs in triples:
            selected = ours > alpha * theirs
            # 0 / 0 is nan here and never used: such a weight is not selected
            factor = (dampening * theirs / ours).clamp(max=1)
            weight.data.copy_(torch.where(selected, weight * factor, weight))
            count += int(selected.sum())
        share = count / max(1, sum(weight.numel() for weight in weights))
        log("dampening: weights selected", selection=alpha, selected=share)
        if callback(student, forget.loss) is not Action.HALVE_LR:
            return student
        # half the strength, as a loop halves its learning rate
        alpha *= 2


@register_method(
    reads={"forget labels"},
    needs={"retain labels"},
    memory=Memory(6),
    one_step=True,
    purpose="labelled retain records and no time to train",
    year=2024,
    passes=12,
)
def ssd(
    model: nn.Module,
    split: Split,
    *,
    strength: NonNegative = 1.0,
    selection_weighting: NonNegative = 10.0,
    dampening: NonNegative = 1.0,
    with_forget: bool = True,
    sequential: bool = False,
    batch_size: Count = 128,
    seed: int = 0,
    callback: Callback = no_callback,
) -> nn.Module:
    """Scale down the weights that the forget records need far more than the data as a whole.

    Args:
        model: the given model; it is not changed.
        split: ``forget`` and ``retain`` are read, with their labels.
        strength: α is divided by it.
        selection_weighting: the paper's α; 10 is the authors' for a ResNet18 on every task.
        dampening: the paper's λ, theirs is 1.
        with_forget: D holds the forget records, as in the paper; false: D_r stands for D.
        sequential: batches in the order given, the last one smaller, as in the authors' loader.
        batch_size: at most so many records have their mean gradient squared, in both passes
            alike; 1 is the Fisher information, and selects less at the same α.
        seed: draws who is in a batch with whom.
        callback: called once, after the change. On HALVE_LR it is made again with α doubled.

    Raises:
        InputError: ``retain`` is missing, or all weights that matter are 0, as in a new adapter.
    """
    student, batching = trainable_copy(model), Batching(batch_size, seed, sequential)
    # both under the given weights: one change at the end
    both = forget_and_data_importance(student, split, task_loss, batching, with_forget=with_forget)
    return dampen(student, both, selection_weighting, strength, dampening, callback)


@register_method(
    reads={"forget"},
    needs={"retain"},
    memory=Memory(copies=6),
    one_step=True,
    purpose="as ssd, without labels",
    year=2024,
    passes=12,
)
def lfssd(
    model: nn.Module,
    split: Split,
    *,
    strength: NonNegative = 1.0,
    selection_weighting: NonNegative = 10.0,
    dampening: NonNegative = 1.0,
    with_forget: bool = True,
    sequential: bool = False,
    batch_size: Count = 128,
    seed: int = 0,
    callback: Callback = no_callback,
) -> nn.Module:
    """Scale down the weights that move the outputs on the forget records far more than others.

    Args:
        model: the given model; it is not changed.
        split: the inputs of ``forget`` and ``retain`` are read, no labels.
        strength: α is divided by it.
        selection_weighting: the paper's α; 10 is reported for classes and sub-classes of
            CIFAR-100.
        dampening: the paper's λ, theirs is 1.
        with_forget: D holds the forget records, as in the paper; false: D_r stands for D.
        sequential: batches in the order given, the last one smaller, as in the authors' loader.
        batch_size: at most so many records have their mean gradient taken, in both passes
            alike; 1 is each record alone, and selects less at the same α.
        seed: draws who is in a batch with whom.
        callback: called once, after the change. On HALVE_LR it is made again with α doubled.

    Raises:
        InputError: ``retain`` is missing, or all weights that matter are 0, as in a new adapter.
    """
    student, batching = trainable_copy(model), Batching(batch_size, seed, sequential)
    # the labels are replaced before anything can read them
    task = task_of(split.retain)
    split = Split(without_labels(split.forget, task), retain=without_labels(split.retain, task))
    how = {"with_forget": with_forget, "power": 1}
    both = forget_and_data_importance(student, split, _squared_norm, batching, **how)
    return dampen(student, both, selection_weighting, strength, dampening, callback)


def _squared_norm(model: nn.Module, batch: Records, step: int) -> Tensor:  # noqa: ARG001
    return outputs(model, batch).square().sum(1)


@register_method(
    reads={"forget labels"},
    needs={"retain labels"},
    memory=Memory(7),
    one_step=True,
    purpose="as ssd, where no selection weighting is known; wrong labels",
    year=2024,
    passes=10,
)
def assd(
    model: nn.Module,
    split: Split,
    *,
    strength: NonNegative = 1.0,
    dampening: NonNegative = 1.0,
    batch_size: Count = 1024,
    seed: int = 0,
    callback: Callback = no_callback,
) -> nn.Module:
    """Scale down a share of the weights that follows from the number of forget records.

    Args:
        model: the given model; it is not changed.
        split: ``forget`` and ``retain`` are read, with their labels; their counts set α.
        strength: α is divided by it.
        dampening: λ, theirs is 1.
        batch_size: at most so many records have their mean gradient squared, in both passes
            alike; 1024 as in the notebook.
        seed: draws who is in a batch with whom.
        callback: called once, after the change. On HALVE_LR it is made again with α doubled.

    Raises:
        InputError: ``retain`` is missing, or all weights that matter are 0, as in a new adapter.
    """
    student, batching = trainable_copy(model), Batching(batch_size, seed)
    # against D_r and not D: with D every ratio is at most (n_f + n_r) / n_f
    both = forget_and_data_importance(student, split, task_loss, batching, with_forget=False)
    alpha = _percentile(*both, len(split.forget), len(split.retain))
    return dampen(student, both, alpha, strength, dampening, callback)


def _percentile(forget: Importance, retain: Importance, n_forget: int, n_retain: int) -> float:
    """α: the percentile of the ratios of all weights; infinite where there is no ratio."""
    pairs = zip(forget.weights, retain.weights, strict=True)
    ratios = torch.cat([(ours / theirs).flatten() for ours, theirs in pairs])
    # 0/0 and x/0 say nothing of how much more the forget records need a weight
    ratios = ratios[ratios.isfinite()]
    if not len(ratios):
        return torch.inf
    percentile = 100 - math.log(1 + 100 * n_forget / (n_forget + n_retain))
    return float(np.percentile(ratios.cpu().double().numpy(), percentile))

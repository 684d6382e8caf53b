"""SalUn, random labels for the salient weights alone: https://arxiv.org/abs/2310.12508.

    m = 1 where |∇ 1/n_f Σ_{D_f} CE(f(x), y)| is among the largest, else 0
    θ' = m ⊙ θ_random + (1 − m) ⊙ θ₀

The gradient is that of the given model in eval mode, its absolute value taken after the sum, and
the fraction ``keep`` is counted over all weights together. Settings are those of ``random_labels``.
After each step every weight outside m is restored, so that neither momentum nor weight decay moves
it (in the authors' code before 2026-02-28 both did). With every weight in m it is
``random_labels``, bit for bit. Departures: the sum is a mean over records, where the code sums
means of batches; BatchNorm's statistics, which no mask covers, move in train mode as there.
"""

import torch
from torch import Tensor, nn

from efface.methods._base import Count, Decay, Memory, NonNegative, PositiveShare, register_method
from efface.methods.random_labels import train_on_random_labels
from efface.task import trainable_copy
from efface.training import Schedule, mean_gradient, task_loss, with_task
from efface.types import Callback, Records, Split, no_callback


@register_method(
    reads={"forget labels", "retain labels"}, memory=Memory(copies=7), classes_only=True
)
def salun(
    model: nn.Module,
    split: Split,
    *,
    strength: NonNegative = 1.0,
    keep: PositiveShare = 0.5,
    learning_rate: NonNegative = 0.013,
    momentum: Decay = 0.9,
    weight_decay: NonNegative = 5e-4,
    epochs: Count = 10,
    batch_size: Count = 256,
    training_mode: bool | None = None,
    seed: int = 0,
    callback: Callback = no_callback,
) -> nn.Module:
    """Train the salient weights on random labels of the forget records.

    Reads the forget records with their labels, which choose the weights, and ``retain`` with its
    labels if there is one.

    Args:
        model: the given model; it is not changed.
        split: ``forget`` and, if there is one, ``retain`` are read.
        strength: multiplies the learning rate.
        keep: the fraction of the weights that may move.
        learning_rate: η of SGD.
        momentum: of SGD.
        weight_decay: of SGD.
        epochs: passes over all records.
        batch_size: records in a step.
        training_mode: dropout is active and BatchNorm's statistics move; not given: where there is
            a ``retain``, as in the source.
        seed: draws the labels, the order, and dropout.
        callback: called after each step.

    Raises:
        InputError: a record has not one class of several.
    """
    student, rate = trainable_copy(model), learning_rate * strength
    optimizer = torch.optim.SGD(student.parameters(), rate, momentum, weight_decay=weight_decay)
    # from the given model, before the first step
    masks = _salient(student, split.forget, keep)
    given = {weight: weight.detach().clone() for weight in masks}

    @torch.no_grad()
    def restore(*_: object) -> None:
        for weight, mask in masks.items():
            weight.copy_(torch.where(mask, weight, given[weight]))

    # after the step and not on the gradient: momentum and decay move weights too
    optimizer.register_step_post_hook(restore)
    mode = split.retain is not None if training_mode is None else training_mode
    schedule = Schedule(epochs, batch_size, seed, callback, mode)
    return train_on_random_labels(student, split, optimizer, schedule)


def _salient(student: nn.Module, forget: Records, keep: float) -> dict[nn.Parameter, Tensor]:
    """For each weight that may move, where its gradient is among the ``keep`` largest of all."""
    gradients = mean_gradient(student, task_loss, with_task(forget))
    pairs = zip(student.parameters(), gradients, strict=True)
    found = {weight: gradient for weight, gradient in pairs if gradient is not None}
    sizes = torch.cat([gradient.abs().reshape(-1) for gradient in found.values()])
    # stable: ties are broken by place, the same on every device
    largest = sizes.argsort(descending=True, stable=True)[: int(keep * len(sizes))]
    chosen = torch.zeros_like(sizes, dtype=torch.bool).index_fill(0, largest, value=True)
    parts = chosen.split([weight.numel() for weight in found])
    return {w: part.reshape(w.shape) for w, part in zip(found, parts, strict=True)}

"""SalUn, random labels for the salient weights alone: https://arxiv.org/abs/2310.12508.

    m = 1 where |∇ 1/n_f Σ_{D_f} CE(f(x), y)| is among the largest, else 0
    θ' = m ⊙ θ_random + (1 − m) ⊙ θ₀

The gradient is that of the given model in eval mode, its absolute value taken after the sum, and
the share that is kept is counted over all weights together. Settings are those of
``random_labels``. After each step every weight outside m is put back, so that neither momentum nor
weight decay moves it (in the authors' code before 2026-02-28 both did). Keeping every weight is
``random_labels``, bit for bit. Departures: the sum is a mean over records, where the code sums
means of batches; BatchNorm's statistics, which no mask covers, move in train mode as there.
"""

import torch
from torch import Tensor, nn

from efface.errors import InputError
from efface.methods._base import (
    Count,
    Decay,
    Memory,
    NonNegative,
    PositiveShare,
    register_method,
)
from efface.methods.parts.relabelled import randomly_taught
from efface.task import trainable_copy
from efface.training import mean_gradient, task_loss, with_task
from efface.types import Callback, Records, Split, no_callback


@register_method(
    reads={"forget", "forget labels", "retain", "retain labels"},
    memory=Memory(copies=7, graphs=2),
    classes_only=True,
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
    """Teach the forget records random labels with the weights that answer for them.

    Sees the forget records with their labels, which choose the weights, and ``retain`` with its
    labels if there is one.

    Args:
        model: stays as it is.
        split: ``forget`` and, if there is one, ``retain`` are read.
        strength: the one knob; multiplies the step.
        keep: the share of the weights (above 0 to 1) that may move.
        learning_rate: η of SGD.
        momentum: of SGD.
        weight_decay: of SGD.
        epochs: passes over all records.
        batch_size: records in one step's mean.
        training_mode: dropout is active and BatchNorm's statistics move; not given: where
            ``retain`` is at hand, as in the source.
        seed: draws the labels, the order, and dropout.
        callback: called after each step.

    Raises:
        InputError: a record has not one class of several, or ``keep`` is not above 0 to 1.
    """
    if not 0 < keep <= 1:
        raise InputError("keep above 0, to 1", f"{keep:g}", "It is the share of weights to move.")
    student = trainable_copy(model)
    if not len(split.forget):
        return student
    optimizer = torch.optim.SGD(
        student.parameters(),
        lr=learning_rate * strength,
        momentum=momentum,
        weight_decay=weight_decay,
    )
    _masked(optimizer, student, _salient(student, split.forget, keep))
    return randomly_taught(
        student,
        split,
        optimizer=optimizer,
        epochs=epochs,
        batch_size=batch_size,
        training_mode=training_mode,
        seed=seed,
        callback=callback,
    )


def _salient(student: nn.Module, forget: Records, keep: float) -> dict[nn.Parameter, Tensor]:
    """Of each weight that may move, where the gradient is among the ``keep`` largest of all."""
    gradients = mean_gradient(student, task_loss, with_task(forget))
    pairs = zip(student.parameters(), gradients, strict=True)
    found = {weight: gradient for weight, gradient in pairs if gradient is not None}
    sizes = torch.cat([gradient.abs().reshape(-1) for gradient in found.values()])
    largest = sizes.argsort(descending=True, stable=True)[: int(keep * len(sizes))]
    chosen = torch.zeros_like(sizes, dtype=torch.bool).index_fill(0, largest, value=True)
    parts = chosen.split([weight.numel() for weight in found])
    return {w: part.reshape(w.shape) for w, part in zip(found, parts, strict=True)}


def _masked(
    optimizer: torch.optim.Optimizer, student: nn.Module, masks: dict[nn.Parameter, Tensor]
) -> None:
    """Put back after each step what is outside the mask."""
    given = {weight: weight.detach().clone() for weight in student.parameters()}

    @torch.no_grad()
    def put_back(*_: object) -> None:
        for weight, mask in masks.items():
            weight.copy_(torch.where(mask, weight, given[weight]))

    optimizer.register_step_post_hook(put_back)

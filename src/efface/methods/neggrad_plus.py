"""NegGrad+, down on what stays and up on what goes: https://arxiv.org/abs/2302.09880.

    L(θ) = (1 − b) · 1/n_r Σ_{D_r} ℓ(f(x), y) − b · 1/n_f Σ_{D_f} ℓ(f(x), y)

b the forget weight (the paper's 1 − α). Settings of the small experiments of SCRUB's code: b 0.05,
plain SGD, η 0.01, 10 epochs, eval mode; its large ones: b 1e-4, 5 epochs, train mode. The forget
records are cycled to the length of the others: each record that stays brings one of them along, in
an order that moves on by one each epoch, so all are used equally often. With b = 0 their pass is
skipped, and it is ``finetune`` bit for bit. Departures: the same number of both in each step, where
the code takes one loader's batch of each; no pull of the small experiments towards the given
weights.
"""

from dataclasses import replace

import torch
from torch import Tensor, nn

from efface.errors import InputError
from efface.methods._base import (
    Count,
    Decay,
    Memory,
    NonNegative,
    Share,
    register_method,
)
from efface.task import trainable_copy
from efface.training import Loss, steps_per_epoch, task_loss, train_epochs, with_task
from efface.types import Callback, Records, Split, no_callback, record_key


@register_method(
    reads={"forget", "forget labels", "retain labels"},
    needs={"retain"},
    memory=Memory(copies=5, graphs=3),
)
def neggrad_plus(
    model: nn.Module,
    split: Split,
    *,
    strength: NonNegative = 1.0,
    forget_weight: Share = 0.05,
    learning_rate: NonNegative = 0.01,
    momentum: Decay = 0.0,
    weight_decay: NonNegative = 0.0,
    epochs: Count = 10,
    batch_size: Count = 128,
    training_mode: bool = False,
    seed: int = 0,
    callback: Callback = no_callback,
) -> nn.Module:
    """Descend on the records that stay while climbing on those that go; sees all labels.

    Args:
        model: stays as it is.
        split: ``forget`` and ``retain`` are read, inputs and labels.
        strength: the one knob; multiplies the forget weight, which stays below 1.
        forget_weight: b, 0 to 1.
        learning_rate: η of SGD.
        momentum: of SGD.
        weight_decay: of SGD.
        epochs: passes over ``retain``.
        batch_size: records of ``retain`` in one step's mean, and as many of ``forget``.
        training_mode: dropout is active and BatchNorm's statistics move.
        seed: draws the order, and dropout.
        callback: called after each step.

    Raises:
        InputError: ``retain`` is missing, or ``forget_weight`` times ``strength`` is not from 0
            to below 1.
    """
    weight = forget_weight * strength
    _refuse_weight(weight)
    student, retain = trainable_copy(model), with_task(split.retain)
    if not len(split.forget):
        return student
    return train_epochs(
        student,
        _both(retain, split.forget, weight, steps_per_epoch(retain, batch_size)),
        retain,
        optimizer=torch.optim.SGD(
            student.parameters(), lr=learning_rate, momentum=momentum, weight_decay=weight_decay
        ),
        epochs=epochs,
        batch_size=batch_size,
        training_mode=training_mode,
        seed=seed,
        callback=callback,
    )


def _refuse_weight(weight: float) -> None:
    if not 0 <= weight < 1:
        raise InputError(
            "forget_weight times strength from 0 to below 1",
            f"{weight:g}",
            "At 1 nothing would hold the records that stay; change forget_weight.",
        )


def _both(retain: Records, forget: Records, weight: float, an_epoch: int) -> Loss:
    """The loss of each record that stays, with its partner's taken away."""
    forget = replace(forget, task=retain.task)
    rank = {identity: place for place, identity in enumerate(sorted(retain.ids, key=record_key))}
    order = sorted(range(len(forget)), key=lambda row: record_key(forget.ids[row]))

    def loss(student: nn.Module, batch: Records, step: int) -> Tensor:
        down = (1 - weight) * task_loss(student, batch, step)
        if not weight:
            return down
        epoch = step // an_epoch
        rows = [order[(rank[identity] + epoch) % len(order)] for identity in batch.ids]
        partners = forget.take(rows).to(batch.x.device)
        return down - weight * task_loss(student, partners, step)

    return loss

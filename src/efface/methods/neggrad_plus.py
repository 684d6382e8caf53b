"""NegGrad+, descent on retained and ascent on forget records: https://arxiv.org/abs/2302.09880.

    L(θ) = (1 − b) · 1/n_r Σ_{D_r} ℓ(f(x), y) − b · 1/n_f Σ_{D_f} ℓ(f(x), y)

b the forget weight (the paper's 1 − α). Settings of the small experiments of SCRUB's code: b 0.05,
plain SGD, η 0.01, 10 epochs, eval mode; its large ones: b 1e-4, 5 epochs, train mode. The forget
records are cycled to the length of the others: each retained record is paired with one of them, in
an order that moves on by one each epoch, so all are used equally often. With b = 0 their pass is
skipped, and it is ``finetune`` bit for bit. Departures: the same number of both in each step, where
the code takes one loader's batch of each; no penalty on the distance to the given weights, which
the small experiments have.
"""

from dataclasses import replace

import torch
from torch import Tensor, nn

from efface.errors import InputError
from efface.methods._base import Count, Decay, Memory, NonNegative, Share, register_method
from efface.task import trainable_copy
from efface.training import Loss, Schedule, steps_per_epoch, task_loss, train_epochs, with_task
from efface.types import Callback, Records, Split, no_callback, record_key


@register_method(reads={"forget labels"}, needs={"retain labels"}, memory=Memory(graphs=3))
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
    """Descend the loss of the retained records while ascending that of the forget records.

    Args:
        model: the given model; it is not changed.
        split: ``forget`` and ``retain`` are read, inputs and labels.
        strength: multiplies the forget weight, which stays below 1.
        forget_weight: b, 0 to 1.
        learning_rate: η of SGD.
        momentum: of SGD.
        weight_decay: of SGD.
        epochs: passes over ``retain``.
        batch_size: retained records in a step, and as many forget records.
        training_mode: dropout is active and BatchNorm's statistics move.
        seed: draws the order, and dropout.
        callback: called after each step.

    Raises:
        InputError: ``retain`` is missing; ``forget_weight`` times ``strength`` is not below 1.
    """
    weight = forget_weight * strength
    if weight >= 1:
        raise InputError(
            "forget_weight times strength from 0 to below 1",
            f"{weight:g}",
            "At 1 nothing would hold the records that stay; change forget_weight.",
        )
    student, retain = trainable_copy(model), with_task(split.retain)
    loss = _paired_loss(retain, split.forget, weight, steps_per_epoch(retain, batch_size))
    weights = student.parameters()
    optimizer = torch.optim.SGD(weights, learning_rate, momentum, weight_decay=weight_decay)
    schedule = Schedule(epochs, batch_size, seed, callback, training_mode)
    return train_epochs(student, loss, retain, optimizer, schedule)


def _paired_loss(retain: Records, forget: Records, weight: float, per_epoch: int) -> Loss:
    """The loss of each retained record, less that of the forget record that it is paired with."""
    forget = replace(forget, task=retain.task)
    # pairs follow ids, so that the order of the records does not matter
    rank = {identity: place for place, identity in enumerate(sorted(retain.ids, key=record_key))}
    order = sorted(range(len(forget)), key=lambda row: record_key(forget.ids[row]))

    def loss(student: nn.Module, batch: Records, step: int) -> Tensor:
        down = (1 - weight) * task_loss(student, batch, step)
        if not weight:
            return down
        epoch = step // per_epoch
        # moved on by one each epoch: every forget record is used equally often
        rows = [order[(rank[identity] + epoch) % len(order)] for identity in batch.ids]
        partners = forget.take(rows).to(batch.x.device)
        return down - weight * task_loss(student, partners, step)

    return loss

"""Greedy mislabelling, the JiT paper's baseline in two dimensions: https://arxiv.org/abs/2402.01401.

    l(x) = CE(f(x), c(x)) while argmax f(x) = y, else 0;   c(x) = argmax_{k ≠ y} f₀(x)

The paper says to train each forget record to any class but its own until its prediction flips, and
no more. Chosen here: the class is the runner-up of the given model f₀, which needs no draw; plain
SGD, so that a record that has flipped stands still; η 1e-3, ours; eval mode with frozen buffers.
"""

from dataclasses import replace

import torch
from torch import Tensor, nn

from efface.methods._base import Count, Memory, NonNegative, register_method
from efface.task import frozen_teacher, multiclass, outputs, predict, trainable_copy
from efface.training import Schedule, steps_per_epoch, train_epochs
from efface.types import Action, Callback, Records, Split, no_callback


@register_method(reads={"forget labels"}, memory=Memory(copies=4), classes_only=True)
def mislabel(
    model: nn.Module,
    split: Split,
    *,
    strength: NonNegative = 1.0,
    learning_rate: NonNegative = 1e-3,
    epochs: Count = 50,
    batch_size: Count = 128,
    seed: int = 0,
    callback: Callback = no_callback,
) -> nn.Module:
    """Push each forget record just over to the runner-up class; reads nothing but these records.

    Args:
        model: the given model; it is not changed.
        split: ``forget`` is read, inputs and labels.
        strength: multiplies the learning rate.
        learning_rate: η of plain SGD.
        epochs: passes over ``forget``, at most; it ends when every prediction has flipped.
        batch_size: records in a step.
        seed: draws the order.
        callback: called after each step.

    Raises:
        InputError: a record has not one class of several.
    """
    forget, student = replace(split.forget, task=multiclass), trainable_copy(model)
    logits = predict(frozen_teacher(model), forget)
    runner_up = logits.scatter(1, forget.y.cpu()[:, None], -torch.inf).argmax(1)
    other = dict(zip(forget.ids, runner_up.tolist(), strict=True))

    def loss(student: nn.Module, batch: Records, step: int) -> Tensor:  # noqa: ARG001
        answer = outputs(student, batch)
        target = torch.tensor([other[identity] for identity in batch.ids]).to(batch.y)
        # a record that has flipped has no gradient: plain SGD leaves it alone
        return multiclass.loss(answer, target) * (answer.argmax(1) == batch.y)

    optimizer = torch.optim.SGD(student.parameters(), lr=learning_rate * strength)
    ending = _stop_when_flipped(callback, steps_per_epoch(forget, batch_size))
    return train_epochs(
        student, loss, forget, optimizer, Schedule(epochs, batch_size, seed, ending)
    )


def _stop_when_flipped(callback: Callback, epoch: int) -> Callback:
    """STOP after an epoch whose every step had the loss 0: no record was left to push."""
    taken, idle = 0, 0

    def after(student: nn.Module, loss: float) -> Action:
        nonlocal taken, idle
        action = callback(student, loss)
        if action is not Action.CONTINUE:
            return action
        idle = 0 if loss else idle + 1
        taken += 1
        # a whole epoch: a later step may push a record back
        return Action.STOP if taken % epoch == 0 and idle >= epoch else Action.CONTINUE

    return after

"""Greedy mislabelling, the paper's baseline in two dimensions: https://arxiv.org/abs/2402.01401.

    l(x) = CE(f(x), c(x)) while argmax f(x) = y, else 0;   c(x) = argmax_{k ≠ y} f₀(x)

The paper says to train each forget record to any class but its own until its prediction flips, and
no more. Chosen here: the class is the runner-up of the given model f₀, which needs no draw; plain
SGD, so that a record that has flipped stands still; η 1e-3, ours; eval mode with frozen buffers.
"""

from dataclasses import replace

import torch
from torch import Tensor, nn

from efface.methods._base import Count, Memory, NonNegative, register_method
from efface.task import frozen_teacher, multiclass, outputs, predict, task_of, trainable_copy
from efface.training import Loss, steps_per_epoch, train_epochs
from efface.types import Action, Callback, Records, Split, no_callback


@register_method(
    reads={"forget", "forget labels"}, memory=Memory(copies=4, graphs=2), classes_only=True
)
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
    """Push each forget record just over to the next class; sees them with their labels alone.

    Args:
        model: stays as it is.
        split: ``forget`` is read, inputs and labels.
        strength: the one knob; multiplies the step.
        learning_rate: η of plain SGD.
        epochs: passes over ``forget``, at most; it ends when every prediction has flipped.
        batch_size: records in one step's mean.
        seed: draws the order.
        callback: called after each step.

    Raises:
        InputError: a record has not one class of several.
    """
    forget, student = replace(split.forget, task=multiclass), trainable_copy(model)
    if not len(forget):
        return student
    return train_epochs(
        student,
        _until_it_flips(_runner_up(model, forget)),
        forget,
        optimizer=torch.optim.SGD(student.parameters(), lr=learning_rate * strength),
        epochs=epochs,
        batch_size=batch_size,
        training_mode=False,
        seed=seed,
        callback=_ending(callback, steps_per_epoch(forget, batch_size)),
    )


def _runner_up(model: nn.Module, forget: Records) -> dict[str, int]:
    """The given model's best class of each record but its own, by id."""
    answer = predict(frozen_teacher(model), forget)
    other = answer.scatter(1, forget.y.cpu()[:, None], -torch.inf).argmax(1)
    return dict(zip(forget.ids, other.tolist(), strict=True))


def _until_it_flips(other: dict[str, int]) -> Loss:
    """Cross-entropy with the other class; nothing for a record that has left its own."""

    def loss(student: nn.Module, batch: Records, step: int) -> Tensor:  # noqa: ARG001
        answer = outputs(student, batch)
        wanted = torch.tensor([other[identity] for identity in batch.ids]).to(batch.y)
        kept = answer.argmax(1) == batch.y
        return task_of(batch).loss(answer, wanted) * kept

    return loss


def _ending(callback: Callback, an_epoch: int) -> Callback:
    """END after an epoch in which no record was left to push."""
    taken, still = 0, 0

    def after(student: nn.Module, loss: float) -> Action:
        nonlocal taken, still
        verdict = callback(student, loss)
        if verdict is not Action.CONTINUE:
            return verdict
        still = 0 if loss else still + 1
        taken += 1
        return Action.STOP if taken % an_epoch == 0 and still >= an_epoch else Action.CONTINUE

    return after

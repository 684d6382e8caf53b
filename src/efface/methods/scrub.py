"""SCRUB, a student that disobeys its teacher, NeurIPS 2023: https://arxiv.org/abs/2302.09880.

The teacher f₀ is the given model. In each of the first M epochs away from it on D_f, and in every
epoch back to it and to the labels on D_r:

    max phase, x in D_f:   loss = −KL_T(f₀(x) ‖ f(x)) T²
    min phase, x in D_r:   loss = γ CE(f(x), y) + α KL_T(f₀(x) ‖ f(x)) T²

KL_T is between answers at temperature T. Outputs that are not one label have their own divergence
and loss. SGD with momentum 0.9, kept from phase to phase.

Departures from the authors' code (meghdadk/SCRUB): eval mode, so that BatchNorm statistics of the
forget records stay out and no dropout draws (theirs is train mode); no decay of the learning rate,
since theirs begins after the last of 3 epochs; no term for the distance to the first weights, which
is inert in their notebooks. Rewinding is ``scrub_rewind``.
"""

import torch
from torch import Tensor, nn

from efface.methods._base import (
    Count,
    Memory,
    Natural,
    NonNegative,
    Positive,
    register_method,
)
from efface.task import frozen_teacher, task_of, trainable_copy
from efface.training import Loss, Trainer
from efface.types import Callback, Records, Split, no_callback


@register_method(
    reads={"forget", "retain labels"},
    needs={"retain"},
    memory=Memory(copies=6, graphs=3),
    runs_on_empty=True,
)
def scrub(
    model: nn.Module,
    split: Split,
    *,
    strength: NonNegative = 1.0,
    epochs: Count = 3,
    max_epochs: Natural = 2,
    task_weight: NonNegative = 0.99,
    held_weight: NonNegative = 0.001,
    temperature: Positive = 4.0,
    learning_rate: NonNegative = 5e-4,
    weight_decay: NonNegative = 5e-4,
    batch_size: Count = 128,
    forget_batch_size: Count = 32,
    seed: int = 0,
    callback: Callback = no_callback,
) -> nn.Module:
    """Go away from the given model on the forget records, and back to it on the others.

    The defaults are the authors' for CIFAR-10 with a ResNet18 (docs/methods.md has others).

    Args:
        model: answers (n, *features) with outputs (n, k); stays as it is.
        split: the inputs of ``forget`` are read, and ``retain`` with its labels.
        strength: the one knob; multiplies the loss of the max phase.
        epochs: passes over the records that stay.
        max_epochs: M, how many of these begin with a pass over the forget records.
        task_weight: γ, of the loss on the labels that stay.
        held_weight: α, of the distance to the given model on records that stay.
        temperature: T, by which answers are divided before they are compared.
        learning_rate: of SGD with momentum 0.9.
        weight_decay: of SGD.
        batch_size: records that stay in one step's mean.
        forget_batch_size: forget records in one step's mean; the result depends on it.
        seed: draws the order.
        callback: called after each step of both phases.

    Raises:
        InputError: there is no ``retain``; ``temperature`` is not above 0.
    """
    student = trainable_copy(model)
    away, back = _losses(
        frozen_teacher(model), split, strength, task_weight, held_weight, temperature
    )
    optimizer = torch.optim.SGD(
        student.parameters(), lr=learning_rate, momentum=0.9, weight_decay=weight_decay
    )
    trainer = Trainer(student, seed=seed, callback=callback)
    for epoch in range(epochs):
        told = {"optimizer": optimizer, "epoch": epoch}
        if epoch < max_epochs:
            trainer.run_epoch(away, split.forget, batch_size=forget_batch_size, **told)
        trainer.run_epoch(back, split.retain, batch_size=batch_size, **told)
    return student


def _losses(
    teacher: nn.Module,
    split: Split,
    strength: float,
    task_weight: float,
    held_weight: float,
    temperature: float,
) -> tuple[Loss, Loss]:
    """The losses of the two phases, one number a record."""
    task = task_of(split.retain)

    def apart(answer: Tensor, x: Tensor) -> Tensor:
        with torch.no_grad():
            held = task.outputs(teacher, x)
        return task.divergence(held / temperature, answer / temperature) * temperature**2

    def away(student: nn.Module, batch: Records, step: int) -> Tensor:  # noqa: ARG001
        return -strength * apart(task.outputs(student, batch.x), batch.x)

    def back(student: nn.Module, batch: Records, step: int) -> Tensor:  # noqa: ARG001
        answer = task.outputs(student, batch.x)
        return task_weight * task.loss(answer, batch.y) + held_weight * apart(answer, batch.x)

    return away, back

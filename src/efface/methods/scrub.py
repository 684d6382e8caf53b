"""SCRUB, a student that disobeys its teacher, NeurIPS 2023: https://arxiv.org/abs/2302.09880.

The teacher f₀ is the given model. In each of the first M epochs the student moves away from it on
D_f, and in every epoch back to it and to the labels on D_r:

    max phase, x in D_f:   loss = −KL_T(f₀(x) ‖ f(x)) T²
    min phase, x in D_r:   loss = γ CE(f(x), y) + α KL_T(f₀(x) ‖ f(x)) T²

KL_T is between outputs at temperature T. Tasks other than classes have their own divergence and
loss. SGD with momentum 0.9, whose state is kept from phase to phase.

Departures from the authors' code (meghdadk/SCRUB): eval mode, so that BatchNorm statistics of the
forget records stay out and no dropout draws (theirs is train mode); no decay of the learning rate,
since theirs begins after the last of 3 epochs; no term for the distance to the first weights, which
is inert in their notebooks. Rewinding is ``scrub_rewind``.
"""

import torch
from torch import Tensor, nn

from efface.methods._base import Count, Memory, Natural, NonNegative, Positive, register_method
from efface.task import frozen_teacher, task_of, trainable_copy
from efface.training import Trainer
from efface.types import Callback, Records, Split, no_callback


@register_method(
    reads={"forget"}, needs={"retain labels"}, memory=Memory(copies=6, graphs=3), runs_on_empty=True
)
def scrub(
    model: nn.Module,
    split: Split,
    *,
    strength: NonNegative = 1.0,
    epochs: Count = 3,
    max_epochs: Natural = 2,
    task_weight: NonNegative = 0.99,
    distillation_weight: NonNegative = 0.001,
    temperature: Positive = 4.0,
    learning_rate: NonNegative = 5e-4,
    weight_decay: NonNegative = 5e-4,
    batch_size: Count = 128,
    forget_batch_size: Count = 32,
    seed: int = 0,
    callback: Callback = no_callback,
) -> nn.Module:
    """Move away from the given model on the forget records, and back to it on the others.

    The defaults are the authors' for CIFAR-10 with a ResNet18 (docs/methods.md has others).

    Args:
        model: the given model; it is not changed.
        split: the inputs of ``forget`` are read, and ``retain`` with its labels.
        strength: multiplies the loss of the max phase.
        epochs: passes over the retained records.
        max_epochs: M, how many of these begin with a pass over the forget records.
        task_weight: γ, of the loss on the retained labels.
        distillation_weight: α, of the divergence from the given model on retained records.
        temperature: T, outputs are divided by it before they are compared.
        learning_rate: of SGD with momentum 0.9.
        weight_decay: of SGD.
        batch_size: retained records in a step.
        forget_batch_size: forget records in a step; the result depends on it.
        seed: draws the order.
        callback: called after each step of both phases.

    Raises:
        InputError: ``retain`` is missing.
    """
    student, teacher, task = trainable_copy(model), frozen_teacher(model), task_of(split.retain)

    def divergence(answer: Tensor, x: Tensor) -> Tensor:
        with torch.no_grad():
            given = task.outputs(teacher, x)
        return task.divergence(given / temperature, answer / temperature) * temperature**2

    def max_loss(student: nn.Module, batch: Records, step: int) -> Tensor:  # noqa: ARG001
        return -strength * divergence(task.outputs(student, batch.x), batch.x)

    def min_loss(student: nn.Module, batch: Records, step: int) -> Tensor:  # noqa: ARG001
        answer = task.outputs(student, batch.x)
        own = task_weight * task.loss(answer, batch.y)
        return own + distillation_weight * divergence(answer, batch.x)

    weights = student.parameters()
    optimizer = torch.optim.SGD(weights, learning_rate, 0.9, weight_decay=weight_decay)
    trainer = Trainer(student, seed=seed, callback=callback)
    forget, size = split.forget, forget_batch_size
    # one optimizer for both phases: momentum carries over, as in the source
    for epoch in range(epochs):
        if epoch < max_epochs:
            trainer.run_epoch(max_loss, forget, optimizer, batch_size=size, epoch=epoch)
        trainer.run_epoch(min_loss, split.retain, optimizer, batch_size=batch_size, epoch=epoch)
    return student

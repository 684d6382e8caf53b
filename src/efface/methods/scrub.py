"""SCRUB and SCRUB with rewinding, NeurIPS 2023: https://arxiv.org/abs/2302.09880.

``scrub``: SCRUB, a student that disobeys its teacher, NeurIPS 2023: https://arxiv.org/abs/2302.09880.

The teacher f₀ is the given model. In each of the first M epochs the student moves away from it on
D_f, and in every epoch back to it and to the labels on D_r:

    max phase, x in D_f:   loss = −KL_T(f₀(x) ‖ f(x)) T²
    min phase, x in D_r:   loss = γ CE(f(x), y) + α KL_T(f₀(x) ‖ f(x)) T²

KL_T is between outputs at temperature T. Tasks other than classes have their own divergence and
loss. SGD with momentum 0.9, whose state is kept from phase to phase.

Departures from the authors' code (meghdadk/SCRUB): eval mode, so that BatchNorm statistics of the
forget records stay out and no dropout draws (``training_mode`` is theirs); no decay of the learning
rate, since theirs begins after the last of 3 epochs; no term for the distance to the first weights,
which is inert in their notebooks. Rewinding is ``scrub_rewind``.

``scrub_rewind``: SCRUB with rewinding (SCRUB+R), NeurIPS 2023: https://arxiv.org/abs/2302.09880.

SCRUB makes the forget error as high as it can; a membership attack detects that too. So the student
is stored after each epoch e, and the one is returned whose error on the forget records is nearest
to what a model that never saw them would make of them: the error of the last student on unseen
records V of the same classes,

    e* = argmin_e |error_e(D_f) − error_E(V)|,   V = {(x, y) in the holdout: y is a label in D_f}

Departures from the authors' code (meghdadk/SCRUB): those of ``scrub``; for tasks other than classes
the error is 1 − accuracy in the task's own sense, and V the whole holdout, as it is where no unseen
record has a label of D_f. Of several as near, the earliest.
"""

import inspect
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from efface.methods._base import Count, Memory, Natural, NonNegative, Positive, register_method
from efface.runtime import copy_model, to_eval
from efface.task import frozen_teacher, predict, task_of, trainable_copy
from efface.training import Trainer, sgd, steps_per_epoch, train_mode
from efface.types import Action, Callback, Records, Split, no_callback


@register_method(
    reads={"forget"},
    needs={"retain labels"},
    memory=Memory(copies=6, graphs=3),
    runs_on_empty=True,
    purpose="retain records, and time for some epochs",
    year=2023,
    passes=42,
)
def scrub(  # noqa: PLR0913  # each setting is declared here once
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
    training_mode: bool = False,
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
        training_mode: dropout is active and BatchNorm's statistics move, as in the source.
        seed: draws the order, and dropout.
        callback: called after each step of both phases.

    Raises:
        InputError: ``retain`` is missing.
    """
    student, teacher, task = trainable_copy(model), frozen_teacher(model), task_of(split.retain)

    def divergence(output: Tensor, x: Tensor) -> Tensor:
        with torch.no_grad():
            given = task.outputs(teacher, x)
        # T² keeps the size of the gradients the same at any temperature
        return task.divergence(given / temperature, output / temperature) * temperature**2

    def max_loss(student: nn.Module, batch: Records, step: int) -> Tensor:  # noqa: ARG001
        return -strength * divergence(task.outputs(student, batch.x), batch.x)

    def min_loss(student: nn.Module, batch: Records, step: int) -> Tensor:  # noqa: ARG001
        output = task.outputs(student, batch.x)
        own = task_weight * task.loss(output, batch.y)
        return own + distillation_weight * divergence(output, batch.x)

    optimizer = sgd(student, learning_rate, 0.9, weight_decay)
    trainer = Trainer(student, seed=seed, callback=callback)
    forget, size = split.forget, forget_batch_size
    # one optimizer for both phases: momentum carries over, as in the source
    with train_mode(student, seed, enabled=training_mode):
        for epoch in range(epochs):
            if epoch < max_epochs:
                trainer.run_epoch(max_loss, forget, optimizer, batch_size=size, epoch=epoch)
            trainer.run_epoch(min_loss, split.retain, optimizer, batch_size=batch_size, epoch=epoch)
    return student


@register_method(
    reads={"forget labels"},
    needs={"retain labels", "holdout"},
    memory=Memory(copies=9, graphs=3),
    runs_on_empty=True,
    purpose="random records, no more forgotten than unseen ones",
    year=2023,
    passes=45,
)
def scrub_rewind(  # noqa: D417  # the settings are those of scrub
    model: nn.Module,
    split: Split,
    *,
    seed: int = 0,
    callback: Callback = no_callback,
    **settings: Any,
) -> nn.Module:
    """SCRUB, and of its epochs the one whose error on the forget records is that on unseen ones.

    Args:
        model: the given model; it is not changed.
        split: ``forget``, ``retain`` and ``holdout`` are read, with their labels.
        strength: multiplies the loss of the max phase.
        epochs: passes over the retained records; the student is stored after each.
        max_epochs: M, how many of these begin with a pass over the forget records.
        task_weight: γ, of the loss on the retained labels.
        distillation_weight: α, of the divergence from the given model on retained records.
        temperature: T, outputs are divided by it before they are compared.
        learning_rate: of SGD with momentum 0.9.
        weight_decay: of SGD.
        batch_size: retained records in a step.
        forget_batch_size: forget records in a step; the result depends on it.
        training_mode: dropout is active and BatchNorm's statistics move, as in the source.
        seed: draws the order, and dropout.
        callback: called after each step of both phases.

    Raises:
        InputError: ``retain`` or ``holdout`` is missing.
    """
    defaults = {name: one.default for name, one in scrub.method.settings.items()}  # type: ignore[attr-defined]
    settings = {**defaults, **settings}
    epochs, max_epochs = settings["epochs"], settings["max_epochs"]
    away = steps_per_epoch(split.forget, settings["forget_batch_size"])
    back = steps_per_epoch(split.retain, settings["batch_size"])
    # steps after which an epoch is complete
    ends = [back * (epoch + 1) + away * min(epoch + 1, max_epochs) for epoch in range(epochs)]
    stored: list[nn.Module] = []
    storing = _store_students(callback, ends, stored)
    student = scrub(model, split, **settings, seed=seed, callback=storing)
    # without a single step nothing was stored
    return _rewind(stored or [student], split)


# help, checks and defaults are all read from the signature
scrub_rewind.__signature__ = inspect.signature(scrub)  # type: ignore[attr-defined]


def _store_students(callback: Callback, ends: list[int], stored: list[nn.Module]) -> Callback:
    """The guard's action; a copy of the student after each step that ends an epoch, or all."""
    taken = 0

    def after(student: nn.Module, loss: float) -> Action:
        nonlocal taken
        action = callback(student, loss)
        # a refused step is repeated and does not count
        taken += action is Action.CONTINUE
        if (action is Action.CONTINUE and taken in ends) or action is Action.STOP:
            stored.append(to_eval(copy_model(student)))
        return action

    return after


def _rewind(students: list[nn.Module], split: Split) -> nn.Module:
    """The student whose forget error is nearest to the last one's error on V."""
    # no forget error to compare
    if not len(split.forget):
        return students[-1]
    task = task_of(split.retain)

    def error(student: nn.Module, records: Records) -> float:
        output = predict(student, replace(records, task=task))
        return 1 - float(task.accuracy(output, records.y.cpu()).mean())

    unseen = split.holdout
    if task.name == "multiclass":
        rows = torch.isin(unseen.y.cpu(), split.forget.y.cpu()).nonzero()[:, 0]
        # V: of the classes of the forget records, or all where there is none of them
        unseen = unseen.take(rows) if len(rows) else unseen
    wanted = error(students[-1], unseen)
    return min(students, key=lambda student: abs(error(student, split.forget) - wanted))

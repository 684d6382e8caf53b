"""SCRUB with rewinding (SCRUB+R), NeurIPS 2023: https://arxiv.org/abs/2302.09880.

SCRUB makes the forget error as high as it can; a membership attack sees that too. So after each
epoch e the student is kept, and the one is returned whose error on the forget records is nearest
to what a model that never saw them would make of them: the error of the last student on unseen
records V of the same classes,

    e* = argmin_e |error_e(D_f) − error_E(V)|,   V = {(x, y) in the holdout: y is a label in D_f}

Departures from the authors' code (meghdadk/SCRUB): those of ``scrub``; an error of outputs that
are not one label is 1 less how right they are, and V is then the whole holdout, as it is where no
unseen record has a label of D_f. Of several as near, the earliest.
"""

import copy
from dataclasses import replace

from torch import nn

from efface.methods._base import (
    Count,
    Memory,
    Natural,
    NonNegative,
    Positive,
    register_method,
)
from efface.methods.scrub import scrub
from efface.task import predict, task_of
from efface.types import Action, Callback, Records, Split, Task, no_callback


@register_method(
    reads={"forget", "forget labels", "retain labels"},
    needs={"retain", "holdout"},
    memory=Memory(copies=9, graphs=3),
    runs_on_empty=True,
)
def scrub_rewind(
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
    """SCRUB, and of its epochs the one that errs on the forget records as on unseen ones.

    Args:
        model: answers (n, *features) with outputs (n, k); stays as it is.
        split: ``forget``, ``retain`` and ``holdout`` are read, with their labels.
        strength: the one knob; multiplies the loss of the max phase.
        epochs: passes over the records that stay; after each the student is kept.
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
        InputError: there is no ``retain`` or no ``holdout``; ``temperature`` is not above 0.
    """
    settings = {
        "strength": strength, "epochs": epochs, "max_epochs": max_epochs,
        "task_weight": task_weight, "held_weight": held_weight, "temperature": temperature,
        "learning_rate": learning_rate, "weight_decay": weight_decay,
        "batch_size": batch_size, "forget_batch_size": forget_batch_size,
    }  # fmt: skip
    away = -(-len(split.forget) // forget_batch_size)
    back = -(-len(split.retain) // batch_size)
    ends = [back * (epoch + 1) + away * min(epoch + 1, max_epochs) for epoch in range(epochs)]
    kept: list[nn.Module] = []
    student = scrub(model, split, **settings, seed=seed, callback=_keeping(callback, ends, kept))
    return _rewound(kept or [student], split)


def _keeping(callback: Callback, ends: list[int], kept: list[nn.Module]) -> Callback:
    """The guard's verdict; a copy of the student after each step that ends an epoch, or all."""
    taken = 0

    def after(student: nn.Module, loss: float) -> Action:
        nonlocal taken
        verdict = callback(student, loss)
        taken += verdict is Action.CONTINUE
        if (verdict is Action.CONTINUE and taken in ends) or verdict is Action.STOP:
            kept.append(copy.deepcopy(student))
        return verdict

    return after


def _rewound(kept: list[nn.Module], split: Split) -> nn.Module:
    """Of the students that were kept the one whose forget error is nearest to the error on V."""
    if not len(split.forget):
        return kept[-1]
    task = task_of(split.retain)
    wanted = _error(kept[-1], _unseen(split), task)
    return min(kept, key=lambda student: abs(_error(student, split.forget, task) - wanted))


def _unseen(split: Split) -> Records:
    """V: the holdout's records with a label of the forget records."""
    holdout = split.holdout
    if task_of(split.retain).name != "multiclass":
        return holdout
    labels = set(split.forget.y.tolist())
    rows = [row for row, label in enumerate(holdout.y.tolist()) if label in labels]
    return holdout.take(rows) if rows else holdout


def _error(student: nn.Module, records: Records, task: Task) -> float:
    """1 less how right the answers are, a mean over the records."""
    known = replace(records, task=task)
    right = task.accuracy(predict(student, known), records.y.cpu())
    return 1 - float(right.mean())

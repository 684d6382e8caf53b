"""Random labels for the forget records: docs/methods.md, as in https://arxiv.org/abs/2310.12508.

    L(θ) = 1/n Σ_{D_r ∪ D_f} CE(f(x), ỹ),   ỹ = y on D_r, ỹ ~ U{0, …, K − 1} on D_f

ỹ is drawn again each epoch, and the record's own label is among those drawn, as in the code of
SalUn for CIFAR-100; there both parts are shuffled together, as here (for CIFAR-10 it first takes
all of D_f). Its settings: SGD, η 0.013 (CIFAR-10, a tenth of the records), momentum 0.9, weight
decay 5e-4, 10 epochs, batches of 256, train mode. Without ``retain`` it works on the forget records
alone (zero-shot), and then in eval mode, so that their statistics do not enter BatchNorm.

``relabelled_loss`` and ``join_unlabelled`` serve ``salun`` and ``amnesiac`` too.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace

import torch
from jaxtyping import Int
from torch import Tensor, nn

from efface.methods._base import Count, Decay, NonNegative, register_method
from efface.methods._perturb import random_class
from efface.methods._records import FORGET, join, without_labels
from efface.task import multiclass, outputs, task_of, trainable_copy
from efface.training import Loss, Schedule, steps_per_epoch, train_epochs
from efface.types import Callback, Records, Split, no_callback


@register_method(reads={"forget", "retain labels"}, classes_only=True)
def random_labels(
    model: nn.Module,
    split: Split,
    *,
    strength: NonNegative = 1.0,
    learning_rate: NonNegative = 0.013,
    momentum: Decay = 0.9,
    weight_decay: NonNegative = 5e-4,
    epochs: Count = 10,
    batch_size: Count = 256,
    training_mode: bool | None = None,
    seed: int = 0,
    callback: Callback = no_callback,
) -> nn.Module:
    """Train on the forget records under random labels, with the retained records if there are any.

    Reads the forget inputs without their labels, and ``retain`` with its labels.

    Args:
        model: the given model; it is not changed.
        split: ``forget`` and, if there is one, ``retain`` are read.
        strength: multiplies the learning rate.
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
    # without retained records BatchNorm would take the statistics of the forget records
    mode = split.retain is not None if training_mode is None else training_mode
    schedule = Schedule(epochs, batch_size, seed, callback, mode)
    return train_on_random_labels(student, split, optimizer, schedule)


def train_on_random_labels(
    student: nn.Module, split: Split, optimizer: torch.optim.Optimizer, schedule: Schedule
) -> nn.Module:
    """The student after some epochs of random labels, drawn again for each epoch."""
    records = join_unlabelled(split.forget, split.retain)
    per_epoch = steps_per_epoch(records, schedule.batch_size)

    def draw(ids: Sequence[str], classes: int, step: int) -> Tensor:
        # a draw for each epoch, by id: the same in any batch
        return random_class(ids, classes, seed=schedule.seed, step=step // per_epoch)

    return train_epochs(student, relabelled_loss(draw), records, optimizer, schedule)


def join_unlabelled(forget: Records, retain: Records | None) -> Records:
    """All records as one set; the labels of the forget records are not looked at."""
    unlabelled = without_labels(forget, multiclass)
    if retain is None:
        return replace(unlabelled, ids=tuple(FORGET + one for one in forget.ids))
    return join(unlabelled, retain)


def relabelled_loss(draw: Callable[[Sequence[str], int, int], Int[Tensor, " m"]]) -> Loss:
    """Cross-entropy with the label of each retained record, and a drawn one of the forget records.

    ``draw(ids, classes, step)``: a label for each forget record of these ids.
    """

    def loss(student: nn.Module, batch: Records, step: int) -> Tensor:
        answer = outputs(student, batch)
        rows = [row for row, identity in enumerate(batch.ids) if identity.startswith(FORGET)]
        ids = [batch.ids[row].removeprefix(FORGET) for row in rows]
        y = batch.y.clone()
        # the number of classes is the model's, not the largest label
        y[rows] = draw(ids, answer.shape[1], step).to(y.device)
        return task_of(batch).loss(answer, y)

    return loss

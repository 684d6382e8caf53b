"""Random labels for the forget records: docs/methods.md, as in https://arxiv.org/abs/2310.12508.

    L(θ) = 1/n Σ_{D_r ∪ D_f} CE(f(x), ỹ),   ỹ = y on D_r, ỹ ~ U{0, …, K − 1} on D_f

ỹ is drawn anew each epoch, and the record's own label is among those drawn, as in the code of SalUn
for CIFAR-100; there both parts are shuffled together, as here (for CIFAR-10 it first takes all of
D_f). Its settings: SGD, η 0.013 (CIFAR-10, a tenth of the records), momentum 0.9, weight decay
5e-4, 10 epochs, batches of 256, train mode. Without ``retain`` it works on the forget records alone
(zero-shot), and then in eval mode, so that their statistics do not enter BatchNorm.
"""

import torch
from torch import nn

from efface.methods._base import (
    Count,
    Decay,
    Memory,
    NonNegative,
    register_method,
)
from efface.methods.parts.relabelled import randomly_taught
from efface.task import trainable_copy
from efface.types import Callback, Split, no_callback


@register_method(
    reads={"forget", "retain", "retain labels"},
    memory=Memory(copies=5, graphs=2),
    classes_only=True,
)
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
    """Teach the forget records labels drawn at random, beside what stays if that is at hand.

    Sees the forget inputs without their labels, and ``retain`` with its labels if there is one.

    Args:
        model: stays as it is.
        split: ``forget`` and, if there is one, ``retain`` are read.
        strength: the one knob; multiplies the step.
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
        InputError: a record has not one class of several.
    """
    student = trainable_copy(model)
    if not len(split.forget):
        return student
    return randomly_taught(
        student,
        split,
        optimizer=torch.optim.SGD(
            student.parameters(),
            lr=learning_rate * strength,
            momentum=momentum,
            weight_decay=weight_decay,
        ),
        epochs=epochs,
        batch_size=batch_size,
        training_mode=training_mode,
        seed=seed,
        callback=callback,
    )

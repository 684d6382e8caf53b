"""Fine-tuning on the retained records, the oldest baseline: docs/methods.md, as in https://arxiv.org/abs/2402.01401.

    L(θ) = 1/n_r Σ_{D_r} ℓ(f(x), y)

The forget records are forgotten as the weights drift (catastrophic forgetting). Settings are those
of that paper's code (FNTN): SGD, η 0.02, momentum 0.9, weight decay 5e-4, 5 epochs, no schedule,
train mode. Departure: BatchNorm of which no weight may move (``trainable``) keeps its statistics.
"""

import torch
from torch import nn

from efface.methods._base import Count, Decay, NonNegative, register_method
from efface.task import trainable_copy
from efface.training import Schedule, task_loss, train_epochs, with_task
from efface.types import Callback, Split, no_callback


@register_method(needs={"retain labels"})
def finetune(
    model: nn.Module,
    split: Split,
    *,
    strength: NonNegative = 1.0,
    learning_rate: NonNegative = 0.02,
    momentum: Decay = 0.9,
    weight_decay: NonNegative = 5e-4,
    epochs: Count = 5,
    batch_size: Count = 128,
    training_mode: bool = True,
    seed: int = 0,
    callback: Callback = no_callback,
) -> nn.Module:
    """Continue training on the retained records; never reads the forget records.

    Args:
        model: the given model; it is not changed.
        split: ``retain`` is read, inputs and labels.
        strength: multiplies the learning rate.
        learning_rate: η of SGD.
        momentum: of SGD.
        weight_decay: of SGD.
        epochs: passes over ``retain``.
        batch_size: records in a step.
        training_mode: dropout is active and BatchNorm's statistics move, as in the source.
        seed: draws the order, and dropout.
        callback: called after each step.

    Raises:
        InputError: ``retain`` is missing.
    """
    student, rate = trainable_copy(model), learning_rate * strength
    optimizer = torch.optim.SGD(student.parameters(), rate, momentum, weight_decay=weight_decay)
    # no schedule of the learning rate, as in the source
    schedule = Schedule(epochs, batch_size, seed, callback, training_mode)
    return train_epochs(student, task_loss, with_task(split.retain), optimizer, schedule)

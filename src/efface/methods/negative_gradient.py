"""Gradient ascent on the forget records (NegGrad): docs/methods.md, as in https://arxiv.org/abs/2310.12508.

    L(θ) = −1/n_f Σ_{D_f} ℓ(f(x), y)

Settings of the code of SalUn (GA): SGD, η 0.01, momentum 0.9, weight decay 5e-4, 10 epochs, batches
of 256; the loss has no floor, so η must be tuned (1e-5 to 1e-3 is usual) or the guard must halve
it. Departure: eval mode with frozen buffers, where that code is in train mode and lets statistics
of the forget records into BatchNorm; ``training_mode`` brings that back.
"""

import torch
from torch import Tensor, nn

from efface.methods._base import Count, Decay, NonNegative, register_method
from efface.task import trainable_copy
from efface.training import Schedule, task_loss, train_epochs, with_task
from efface.types import Callback, Records, Split, no_callback


@register_method(reads={"forget labels"})
def negative_gradient(
    model: nn.Module,
    split: Split,
    *,
    strength: NonNegative = 1.0,
    learning_rate: NonNegative = 0.01,
    momentum: Decay = 0.9,
    weight_decay: NonNegative = 5e-4,
    epochs: Count = 10,
    batch_size: Count = 256,
    training_mode: bool = False,
    seed: int = 0,
    callback: Callback = no_callback,
) -> nn.Module:
    """Ascend the loss of the forget records; reads them with their labels, and nothing else.

    Args:
        model: the given model; it is not changed.
        split: ``forget`` is read, inputs and labels.
        strength: multiplies the learning rate.
        learning_rate: η of SGD.
        momentum: of SGD.
        weight_decay: of SGD.
        epochs: passes over ``forget``.
        batch_size: records in a step.
        training_mode: dropout is active and BatchNorm's statistics move, as in the source.
        seed: draws the order, and dropout.
        callback: called after each step.
    """

    def loss(student: nn.Module, batch: Records, step: int) -> Tensor:
        # ascent: the loss has no floor, and the guard is what ends it
        return -task_loss(student, batch, step)

    student, rate = trainable_copy(model), learning_rate * strength
    optimizer = torch.optim.SGD(student.parameters(), rate, momentum, weight_decay=weight_decay)
    schedule = Schedule(epochs, batch_size, seed, callback, training_mode)
    return train_epochs(student, loss, with_task(split.forget), optimizer, schedule)

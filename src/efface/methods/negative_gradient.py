"""Gradient ascent on the forget records (NegGrad): docs/methods.md, as in https://arxiv.org/abs/2310.12508.

    L(θ) = −1/n_f Σ_{D_f} ℓ(f(x), y)

Settings of the code of SalUn (GA): SGD, η 0.01, momentum 0.9, weight decay 5e-4, 10 epochs, batches
of 256; the loss has no floor, so η must be tuned (1e-5 to 1e-3 is usual) or the guard must halve
it. Departure: eval mode with frozen buffers, where that code is in train mode and lets statistics
of the forget records into BatchNorm; ``training_mode`` brings that back.
"""

import torch
from torch import Tensor, nn

from efface.methods._base import Count, Decay, Memory, NonNegative, register_method
from efface.task import trainable_copy
from efface.training import task_loss, train_epochs, with_task
from efface.types import Callback, Records, Split, no_callback


@register_method(reads={"forget", "forget labels"}, memory=Memory(copies=5, graphs=2))
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
    """Climb the loss of the forget records; sees them with their labels, and nothing else.

    Args:
        model: stays as it is.
        split: ``forget`` is read, inputs and labels.
        strength: the one knob; multiplies the step.
        learning_rate: η of SGD.
        momentum: of SGD.
        weight_decay: of SGD.
        epochs: passes over ``forget``.
        batch_size: records in one step's mean.
        training_mode: dropout is active and BatchNorm's statistics move, as in the source.
        seed: draws the order, and dropout.
        callback: called after each step.
    """
    student = trainable_copy(model)
    return train_epochs(
        student,
        _away,
        with_task(split.forget),
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


def _away(student: nn.Module, batch: Records, step: int) -> Tensor:
    return -task_loss(student, batch, step)

"""DELETE, distillation with the true class masked, CVPR 2025: https://arxiv.org/abs/2503.23751.

The student learns from the given model f₀ as if that had never heard of the record's class y:

    l(x) = KL( softmax(z) ‖ softmax(f(x)) ),   z_y = −1e10,   z_k = f₀(x)_k for k ≠ y

So the class goes, and what f₀ knows of the others stays in the proportions that it has there.
Made for whole classes: of a single record a retrained model would often still say y.

Departures from the authors' code (shaaaaron/DELETE): eval mode with frozen buffers, where the
student is in train mode and BatchNorm takes statistics of the forget records (``training_mode``
brings that back); records as they are, where each epoch crops and flips them anew, so that f₀ is
asked once a record. The accuracies that it takes after each epoch decide nothing and are left out.
"""

from dataclasses import replace

import torch
from jaxtyping import Float
from torch import Tensor, nn

from efface.methods._base import (
    Count,
    Decay,
    Memory,
    NonNegative,
    register_method,
)
from efface.task import frozen_teacher, multiclass, outputs, predict, trainable_copy
from efface.training import Loss, train_epochs
from efface.types import Callback, Records, Split, no_callback


@register_method(
    reads={"forget", "forget labels"}, memory=Memory(copies=5, graphs=2), classes_only=True
)
def delete(
    model: nn.Module,
    split: Split,
    *,
    strength: NonNegative = 1.0,
    learning_rate: NonNegative = 1e-4,
    momentum: Decay = 0.9,
    epochs: Count = 20,
    batch_size: Count = 128,
    training_mode: bool = False,
    seed: int = 0,
    callback: Callback = no_callback,
) -> nn.Module:
    """Answer the forget records as the given model would without their class.

    The defaults are the authors' for CIFAR-10 with a ResNet18 (docs/methods.md has others).

    Args:
        model: stays as it is.
        split: ``forget`` is read, inputs and labels.
        strength: the one knob; multiplies the step.
        learning_rate: η of SGD.
        momentum: of SGD.
        epochs: passes over ``forget``.
        batch_size: records in one step's mean.
        training_mode: dropout is active and BatchNorm's statistics move, as in the source.
        seed: draws the order, and dropout.
        callback: called after each step.

    Raises:
        InputError: a record has not one class of several.
    """
    forget, student = replace(split.forget, task=multiclass), trainable_copy(model)
    if not len(forget):
        return student
    optimizer = torch.optim.SGD(
        student.parameters(), lr=learning_rate * strength, momentum=momentum
    )
    return train_epochs(
        student,
        _towards(forget.ids, _without_own_class(model, forget)),
        forget,
        optimizer=optimizer,
        epochs=epochs,
        batch_size=batch_size,
        training_mode=training_mode,
        seed=seed,
        callback=callback,
    )


MASKED = -1e10
"""The logit of the true class in the target: its probability is 0."""


def _without_own_class(model: nn.Module, forget: Records) -> Float[Tensor, " n k"]:
    """The given model's logits, that of each record's own class masked."""
    return predict(frozen_teacher(model), forget).scatter(1, forget.y.cpu()[:, None], MASKED)


def _towards(ids: tuple[str, ...], targets: Float[Tensor, " n k"]) -> Loss:
    """How far the student's answer to a record is from the target of this id, in nats."""
    place = {identity: row for row, identity in enumerate(ids)}

    def loss(student: nn.Module, batch: Records, step: int) -> Tensor:  # noqa: ARG001
        answer = outputs(student, batch)
        wanted = targets[[place[identity] for identity in batch.ids]].to(answer)
        return multiclass.divergence(wanted, answer)

    return loss

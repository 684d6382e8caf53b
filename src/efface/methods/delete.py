"""DELETE, distillation with the true class masked, CVPR 2025: https://arxiv.org/abs/2503.23751.

The student is distilled from the given model f₀ without the record's class y:

    l(x) = KL( softmax(z) ‖ softmax(f(x)) ),   z_y = −1e10,   z_k = f₀(x)_k for k ≠ y

So the class goes, and what f₀ knows of the others stays in the proportions that it has there.
Made for whole classes: of a single record a retrained model would often still predict y.

Departures from the authors' code (shaaaaron/DELETE): eval mode with frozen buffers, where the
student is in train mode and BatchNorm takes statistics of the forget records (``training_mode``
brings that back); records as they are, where each epoch crops and flips them, so that f₀ runs once
a record. The accuracies that it takes after each epoch decide nothing and are omitted.
"""

from dataclasses import replace

from torch import Tensor, nn

from efface.methods._base import Count, Decay, NonNegative, register_method
from efface.task import frozen_teacher, multiclass, outputs, predict, trainable_copy
from efface.training import Schedule, sgd, train_epochs
from efface.types import Callback, Records, Split, no_callback

# The logit of the true class in the target: its probability is 0.
MASKED = -1e10


@register_method(
    reads={"forget labels"},
    classes_only=True,
    purpose="a class, with its labelled records alone; close to retraining there",
    year=2025,
    passes=41,
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
    """Distil the given model on the forget records with their class masked.

    The defaults are the authors' for CIFAR-10 with a ResNet18 (docs/methods.md has others).

    Args:
        model: the given model; it is not changed.
        split: ``forget`` is read, inputs and labels.
        strength: multiplies the learning rate.
        learning_rate: η of SGD.
        momentum: of SGD.
        epochs: passes over ``forget``.
        batch_size: records in a step.
        training_mode: dropout is active and BatchNorm's statistics move, as in the source.
        seed: draws the order, and dropout.
        callback: called after each step.

    Raises:
        InputError: the task is not multiclass.
    """
    forget, student = replace(split.forget, task=multiclass), trainable_copy(model)
    # once, before training: the teacher is frozen
    logits = predict(frozen_teacher(model), forget)
    targets = logits.scatter(1, forget.y.cpu()[:, None], MASKED)
    place = {identity: row for row, identity in enumerate(forget.ids)}

    def loss(student: nn.Module, batch: Records, step: int) -> Tensor:  # noqa: ARG001
        output = outputs(student, batch)
        # by id, since the loop shuffles the records
        target = targets[[place[identity] for identity in batch.ids]].to(output)
        return multiclass.divergence(target, output)

    optimizer = sgd(student, learning_rate * strength, momentum)
    # eval mode by default: BatchNorm keeps the statistics of the training data
    schedule = Schedule(epochs, batch_size, seed, callback, training_mode)
    return train_epochs(student, loss, forget, optimizer, schedule)

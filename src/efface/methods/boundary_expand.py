"""Boundary expanding, a class of their own for what goes, CVPR 2023: https://arxiv.org/abs/2303.11570.

The head gets one row more, and the forget records are taught that they are of that class. Then the
row is taken off again, and with it what the records were moved into:

    L(θ, w, b) = 1/n_f Σ_{D_f} −log softmax( f(x) ⊕ (w·h(x) + b) )_{K+1},   result: f

h(x) is what goes into the last linear layer. w is drawn as the authors draw it (Xavier normal), b
begins at 0. SGD, η 1e-5, momentum 0.9, 10 epochs, batches of 64 are theirs. No label is read.

Departures from their code (TY-LEE-KR/Boundary-Unlearning-Code, boundary_unlearning.py): the row
stands beside the head and not in it, so that the student has the given form at every step (the
same numbers, and a single sigmoid unit gets its third class so, beside 0 and z); only the new row
is drawn; eval mode with frozen buffers, ``training_mode`` is theirs.
"""

import torch
from torch import Tensor, nn

from efface.methods._base import (
    Count,
    Decay,
    Memory,
    NonNegative,
    register_method,
)
from efface.methods.parts.head import features_of
from efface.methods.parts.retained import without_labels
from efface.methods.parts.widened import Widened
from efface.task import task_of, trainable_copy
from efface.training import train_epochs
from efface.types import Callback, Records, Split, no_callback


@register_method(reads={"forget"}, memory=Memory(copies=5, graphs=2), classes_only=True)
def boundary_expand(
    model: nn.Module,
    split: Split,
    *,
    strength: NonNegative = 1.0,
    learning_rate: NonNegative = 1e-5,
    momentum: Decay = 0.9,
    epochs: Count = 10,
    batch_size: Count = 64,
    training_mode: bool = False,
    seed: int = 0,
    callback: Callback = no_callback,
) -> nn.Module:
    """Teach the forget records a class that is taken away afterwards; sees their inputs alone.

    Args:
        model: answers (n, *features) with outputs (n, k) by a linear layer; stays as it is.
        split: the inputs of ``forget`` are read, no labels.
        strength: the one knob; multiplies the step.
        learning_rate: η of SGD, for the student and the new row.
        momentum: of SGD.
        epochs: passes over ``forget``.
        batch_size: records in one step's mean.
        training_mode: dropout is active and BatchNorm's statistics move, as in the source.
        seed: draws the new row and the order, and dropout.
        callback: called after each step, with the student in the given form.

    Raises:
        InputError: a record has not one class of several; the last layer with weights is not
            linear, or its answers are not the model's outputs.
    """
    forget = without_labels(split.forget, task_of(split.forget))
    student = trainable_copy(model)
    if not len(forget):
        return student
    features_of(student, forget.take([0]))  # refuses a net without a head
    wide, rate = Widened(student, seed=seed), learning_rate * strength
    train_epochs(
        wide,
        _of_the_new_class,
        forget,
        optimizer=torch.optim.SGD(wide.parameters(), lr=rate, momentum=momentum),
        epochs=epochs,
        batch_size=batch_size,
        training_mode=training_mode,
        seed=seed,
        callback=wide.watched_by(callback),
    )
    return student


def _of_the_new_class(wide: nn.Module, batch: Records, step: int) -> Tensor:  # noqa: ARG001
    """Cross-entropy with the last of all outputs."""
    answer = wide(batch)
    added = torch.full_like(batch.y, answer.shape[1] - 1)
    return task_of(batch).loss(answer, added)

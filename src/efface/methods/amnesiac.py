"""Amnesiac unlearning as the tables have it, by relabelling: https://arxiv.org/abs/2010.10981.

    L(θ) = 1/n Σ_{D_r ∪ D_f} CE(f(x), ỹ),   ỹ = y on D_r, ỹ ~ U of the other K − 1 on D_f

ỹ is drawn once for each record. Settings are those of the code of SSD and JiT: Adam, η 1e-4, 3
epochs, batches of 128, train mode. The paper's own method, which keeps the change that each batch
made in training and takes it back, is another and is not this; its relabelling runs 10 epochs.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from efface.methods._base import (
    Count,
    Memory,
    NonNegative,
    register_method,
)
from efface.methods.parts.relabelled import Draw, other_class, relabelled, together
from efface.task import trainable_copy
from efface.training import train_epochs
from efface.types import Callback, Records, Split, no_callback


@register_method(
    reads={"forget", "forget labels", "retain labels"},
    needs={"retain"},
    memory=Memory(copies=6, graphs=2),
    classes_only=True,
)
def amnesiac(
    model: nn.Module,
    split: Split,
    *,
    strength: NonNegative = 1.0,
    learning_rate: NonNegative = 1e-4,
    epochs: Count = 3,
    batch_size: Count = 128,
    training_mode: bool = True,
    seed: int = 0,
    callback: Callback = no_callback,
) -> nn.Module:
    """Train on with all records, those that must go under another label; sees all labels.

    Args:
        model: stays as it is.
        split: ``forget`` and ``retain`` are read, inputs and labels.
        strength: the one knob; multiplies the step.
        learning_rate: η of Adam.
        epochs: passes over all records.
        batch_size: records in one step's mean.
        training_mode: dropout is active and BatchNorm's statistics move, as in the source.
        seed: draws the labels, the order, and dropout.
        callback: called after each step.

    Raises:
        InputError: ``retain`` is missing, or a record has not one class of several.
    """
    student = trainable_copy(model)
    if not len(split.forget):
        return student
    return train_epochs(
        student,
        relabelled(_another(split.forget, seed)),
        together(split.forget, split.retain),
        optimizer=torch.optim.Adam(student.parameters(), lr=learning_rate * strength),
        epochs=epochs,
        batch_size=batch_size,
        training_mode=training_mode,
        seed=seed,
        callback=callback,
    )


def _another(forget: Records, seed: int) -> Draw:
    """For each record the same class in every epoch, never its own."""
    own = dict(zip(forget.ids, forget.y.tolist(), strict=True))

    def draw(ids: Sequence[str], classes: int, step: int) -> Tensor:  # noqa: ARG001
        known = torch.tensor([own[identity] for identity in ids], dtype=torch.int64)
        return other_class(ids, known, classes, seed=seed)

    return draw

"""Amnesiac unlearning by relabelling, as later comparisons run it: https://arxiv.org/abs/2010.10981.

    L(θ) = 1/n Σ_{D_r ∪ D_f} CE(f(x), ỹ),   ỹ = y on D_r, ỹ ~ U of the other K − 1 on D_f

ỹ is drawn once for each record. Settings are those of the code of SSD and JiT: Adam, η 1e-4, 3
epochs, batches of 128, train mode. The paper's own method, which stores the change that each batch
made in training and subtracts it, is another and is not this; its relabelling runs 10 epochs.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from efface.methods._base import Count, Memory, NonNegative, register_method
from efface.methods._perturb import other_class
from efface.methods.random_labels import join_unlabelled, relabelled_loss
from efface.task import trainable_copy
from efface.training import Schedule, train_epochs
from efface.types import Callback, Split, no_callback


@register_method(
    reads={"forget labels"}, needs={"retain labels"}, memory=Memory(copies=6), classes_only=True
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
    """Continue training on all records, the forget records under another label.

    Args:
        model: the given model; it is not changed.
        split: ``forget`` and ``retain`` are read, inputs and labels.
        strength: multiplies the learning rate.
        learning_rate: η of Adam.
        epochs: passes over all records.
        batch_size: records in a step.
        training_mode: dropout is active and BatchNorm's statistics move, as in the source.
        seed: draws the labels, the order, and dropout.
        callback: called after each step.

    Raises:
        InputError: ``retain`` is missing, or a record has not one class of several.
    """
    student = trainable_copy(model)
    own = dict(zip(split.forget.ids, split.forget.y.tolist(), strict=True))

    def draw(ids: Sequence[str], classes: int, step: int) -> Tensor:  # noqa: ARG001
        known = torch.tensor([own[identity] for identity in ids], dtype=torch.int64)
        # no step: the same in every epoch
        return other_class(ids, known, classes, seed=seed)

    # fresh optimizer state, as in the source: no moments of the original training
    optimizer = torch.optim.Adam(student.parameters(), lr=learning_rate * strength)
    schedule = Schedule(epochs, batch_size, seed, callback, training_mode)
    records = join_unlabelled(split.forget, split.retain)
    return train_epochs(student, relabelled_loss(draw), records, optimizer, schedule)

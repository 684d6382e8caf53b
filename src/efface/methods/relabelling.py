"""Training on random labels, for all weights or the salient ones (SalUn): https://arxiv.org/abs/2310.12508.

``random_labels``: Random labels for the forget records: docs/methods.md, as in https://arxiv.org/abs/2310.12508.

    L(θ) = 1/n Σ_{D_r ∪ D_f} CE(f(x), ỹ),   ỹ = y on D_r, ỹ ~ U{0, …, K − 1} on D_f

ỹ is drawn again each epoch, and the record's own label is among those drawn, as in the code of
SalUn for CIFAR-100; there both parts are shuffled together, as here (for CIFAR-10 it first takes
all of D_f). Its settings: SGD, η 0.013 (CIFAR-10, a tenth of the records), momentum 0.9, weight
decay 5e-4, 10 epochs, batches of 256, train mode. Without ``retain`` it works on the forget records
alone (zero-shot), and then in eval mode, so that their statistics do not enter BatchNorm.

``relabelled_loss`` and ``join_unlabelled`` serve ``salun`` and ``amnesiac`` too.

``salun``: SalUn, random labels for the salient weights alone: https://arxiv.org/abs/2310.12508.

    m = 1 where |∇ 1/n_f Σ_{D_f} CE(f(x), y)| is among the largest, else 0
    θ' = m ⊙ θ_random + (1 − m) ⊙ θ₀

The gradient is that of the given model in eval mode, its absolute value taken after the sum, and
the fraction ``keep`` is counted over all weights together. Settings are those of ``random_labels``.
After each step every weight outside m is restored, so that neither momentum nor weight decay moves
it (in the authors' code before 2026-02-28 both did). With every weight in m it is
``random_labels``, bit for bit. Departures: the sum is a mean over records, where the code sums
means of batches; BatchNorm's statistics, which no mask covers, move in train mode as there.

``amnesiac``: Amnesiac unlearning by relabelling, as later comparisons run it: https://arxiv.org/abs/2010.10981.

    L(θ) = 1/n Σ_{D_r ∪ D_f} CE(f(x), ỹ),   ỹ = y on D_r, ỹ ~ U of the other K − 1 on D_f

ỹ is drawn once for each record. Settings are those of the code of SSD and JiT: Adam, η 1e-4, 3
epochs, batches of 128, train mode. The paper's own method, which stores the change that each batch
made in training and subtracts it, is another and is not this; its relabelling runs 10 epochs.
"""

from collections.abc import Callable, Sequence

import torch
from jaxtyping import Int
from torch import Tensor, nn

from efface.methods._base import Count, Decay, Memory, NonNegative, PositiveShare, register_method
from efface.methods._perturb import other_class, random_class
from efface.methods._records import FORGET, join, without_labels
from efface.task import multiclass, outputs, task_of, trainable_copy
from efface.training import Loss, Schedule, mean_gradient, sgd, task_loss, train_epochs, with_task
from efface.types import Callback, Records, Split, no_callback


@register_method(
    reads={"forget", "retain labels"},
    classes_only=True,
    purpose="the baseline with random labels; classes only",
    year=2024,
    passes=100,
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
        InputError: the task is not multiclass.
    """
    student = trainable_copy(model)
    optimizer = sgd(student, learning_rate * strength, momentum, weight_decay)
    # without retained records BatchNorm would take the statistics of the forget records
    mode = split.retain is not None if training_mode is None else training_mode
    schedule = Schedule(epochs, batch_size, seed, callback, mode)
    return train_on_random_labels(student, split, optimizer, schedule)


def train_on_random_labels(
    student: nn.Module, split: Split, optimizer: torch.optim.Optimizer, schedule: Schedule
) -> nn.Module:
    """The student after some epochs of random labels, drawn again for each epoch."""
    # the labels of the forget records are never read
    records = join_unlabelled(split.forget, split.retain)
    per_epoch = -(-len(records) // schedule.batch_size)

    def draw(ids: Sequence[str], classes: int, step: int) -> Tensor:
        # a draw for each epoch, by id: the same in any batch
        return random_class(ids, classes, seed=schedule.seed, step=step // per_epoch)

    return train_epochs(student, relabelled_loss(draw), records, optimizer, schedule)


def join_unlabelled(forget: Records, retain: Records | None) -> Records:
    """All records as one set; the labels of the forget records are not looked at."""
    unlabelled = without_labels(forget, multiclass)
    return join(unlabelled, unlabelled.take([]) if retain is None else retain)


def relabelled_loss(draw: Callable[[Sequence[str], int, int], Int[Tensor, " m"]]) -> Loss:
    """Cross-entropy with the label of each retained record, and a drawn one of the forget records.

    ``draw(ids, classes, step)``: a label for each forget record of these ids.
    """

    def loss(student: nn.Module, batch: Records, step: int) -> Tensor:
        output = outputs(student, batch)
        rows = [row for row, identity in enumerate(batch.ids) if identity.startswith(FORGET)]
        ids = [batch.ids[row].removeprefix(FORGET) for row in rows]
        y = batch.y.clone()
        # the number of classes is the model's, not the largest label
        y[rows] = draw(ids, output.shape[1], step).to(y.device)
        return task_of(batch).loss(output, y)

    return loss


@register_method(
    reads={"forget labels", "retain labels"},
    memory=Memory(7),
    classes_only=True,
    purpose="random labels in the salient weights alone; classes only",
    year=2024,
    passes=102,
)
def salun(
    model: nn.Module,
    split: Split,
    *,
    strength: NonNegative = 1.0,
    keep: PositiveShare = 0.5,
    learning_rate: NonNegative = 0.013,
    momentum: Decay = 0.9,
    weight_decay: NonNegative = 5e-4,
    epochs: Count = 10,
    batch_size: Count = 256,
    training_mode: bool | None = None,
    seed: int = 0,
    callback: Callback = no_callback,
) -> nn.Module:
    """Train the salient weights on random labels of the forget records.

    Reads the forget records with their labels, which choose the weights, and ``retain`` with its
    labels if there is one.

    Args:
        model: the given model; it is not changed.
        split: ``forget`` and, if there is one, ``retain`` are read.
        strength: multiplies the learning rate.
        keep: the fraction of the weights that may move.
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
        InputError: the task is not multiclass.
    """
    student = trainable_copy(model)
    optimizer = sgd(student, learning_rate * strength, momentum, weight_decay)
    # from the given model, before the first step
    masks = _salient(student, split.forget, keep)
    given = {weight: weight.detach().clone() for weight in masks}

    @torch.no_grad()
    def restore(*_: object) -> None:
        for weight, mask in masks.items():
            weight.copy_(torch.where(mask, weight, given[weight]))

    # after the step and not on the gradient: momentum and decay move weights too
    optimizer.register_step_post_hook(restore)
    mode = split.retain is not None if training_mode is None else training_mode
    schedule = Schedule(epochs, batch_size, seed, callback, mode)
    return train_on_random_labels(student, split, optimizer, schedule)


def _salient(student: nn.Module, forget: Records, keep: float) -> dict[nn.Parameter, Tensor]:
    """For each weight that may move, where its gradient is among the ``keep`` largest of all."""
    gradients = mean_gradient(student, task_loss, with_task(forget))
    pairs = zip(student.parameters(), gradients, strict=True)
    found = {weight: gradient for weight, gradient in pairs if gradient is not None}
    sizes = torch.cat([gradient.abs().reshape(-1) for gradient in found.values()])
    # stable: ties are broken by place, the same on every device
    largest = sizes.argsort(descending=True, stable=True)[: int(keep * len(sizes))]
    chosen = torch.zeros_like(sizes, dtype=torch.bool).index_fill(0, largest, value=True)
    parts = chosen.split([weight.numel() for weight in found])
    return {w: part.reshape(w.shape) for w, part in zip(found, parts, strict=True)}


@register_method(
    reads={"forget labels"},
    needs={"retain labels"},
    memory=Memory(copies=6),
    classes_only=True,
    purpose="relabelled records among the retained ones; classes only",
    year=2021,
    passes=30,
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
        InputError: ``retain`` is missing, or the task is not multiclass.
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

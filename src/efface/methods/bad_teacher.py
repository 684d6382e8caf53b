"""Bad teacher ("blindspot"), AAAI 2023: https://arxiv.org/abs/2205.08096.

The student is distilled from two teachers: on forget records from an incompetent one, an untrained
model, and on a sample of the retained records from the given model:

    loss(x) = KL( u p_bad(x) + (1 − u) p_good(x) ‖ q(x) ),   u = 1 on D_f, 0 on the others

No label is read. Tasks other than classes have their own divergence in place of KL.

Departures from the authors' code (vikram2000b/bad-teaching-unlearning): a mean over records, where
torch's default divides by the number of outputs as well (Adam does not see the difference); the
student in eval mode, where it was left in train mode (``training_mode``); each record goes through
its own teacher only.
"""

import torch
from torch import Tensor, nn

from efface.methods._base import Count, Memory, NonNegative, Positive, Share, register_method
from efface.methods._records import join, sample, untrained, without_labels
from efface.task import frozen_teacher, task_of, trainable_copy
from efface.training import Schedule, train_epochs
from efface.types import Callback, Records, Split, no_callback


@register_method(
    reads={"forget"},
    needs={"retain", "fresh"},
    memory=Memory(7, graphs=3),
    runs_on_empty=True,
    purpose="retain records without labels, and an untrained model",
    year=2023,
    passes=7,
)
def bad_teacher(
    model: nn.Module,
    split: Split,
    *,
    strength: NonNegative = 1.0,
    retained_share: Share = 0.3,
    learning_rate: NonNegative = 1e-4,
    epochs: Count = 1,
    temperature: Positive = 1.0,
    batch_size: Count = 256,
    training_mode: bool = False,
    seed: int = 0,
    callback: Callback = no_callback,
) -> nn.Module:
    """Distil from an untrained model on the forget records, from the given model on the others.

    Args:
        model: the given model, the good teacher; it is not changed.
        split: the inputs of ``forget`` and ``retain`` are read, no labels; ``fresh`` makes the bad
            teacher.
        strength: multiplies the learning rate.
        retained_share: fraction of the retained records to train on; the paper's 30 %.
        learning_rate: η of Adam; the paper's 1e-4.
        epochs: passes; the paper's 1.
        temperature: outputs are divided by it before they are compared; the paper's 1.
        batch_size: records in a step; the authors' 256.
        training_mode: dropout is active and BatchNorm's statistics move, as in the source.
        seed: draws the bad teacher, the sample, the order, and dropout.
        callback: called after each step.

    Raises:
        InputError: ``retain`` or ``fresh`` is missing.
    """
    student, task = trainable_copy(model), task_of(split.retain)
    # each record's label is the number of its teacher
    teachers = [frozen_teacher(model), frozen_teacher(untrained(model, split, seed))]
    # the given model is the teacher of these, so a sample keeps the rest in place
    retain = sample(split.retain, round(retained_share * len(split.retain)), seed=seed)
    records = join(without_labels(split.forget, task, mark=1), without_labels(retain, task, mark=0))

    @torch.no_grad()
    def target(batch: Records) -> Tensor:
        rows = [(batch.y == number).nonzero()[:, 0] for number in range(2)]
        pairs = zip(teachers, rows, strict=True)
        # some models refuse an empty batch
        found = [task.outputs(teacher, batch.x[own]) for teacher, own in pairs if len(own)]
        # back to the order of the batch
        return torch.cat(found)[torch.cat(rows).argsort()]

    # the same temperature on both sides; the authors do not multiply by its square
    def loss(student: nn.Module, batch: Records, step: int) -> Tensor:  # noqa: ARG001
        output = task.outputs(student, batch.x)
        return task.divergence(target(batch) / temperature, output / temperature)

    optimizer = torch.optim.Adam(student.parameters(), lr=learning_rate * strength)
    schedule = Schedule(epochs, batch_size, seed, callback, training_mode)
    return train_epochs(student, loss, records, optimizer, schedule)

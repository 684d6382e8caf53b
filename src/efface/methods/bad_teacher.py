"""Bad teacher ("blindspot"), AAAI 2023: https://arxiv.org/abs/2205.08096.

The student learns from two teachers: on forget records from one that knows nothing, an untrained
net, and on a share of those that stay from the given model:

    loss(x) = KL( u p_bad(x) + (1 − u) p_good(x) ‖ q(x) ),   u = 1 on D_f, 0 on the others

No label is read. Outputs that are not one label have their own divergence for KL.

Departures from the authors' code (vikram2000b/bad-teaching-unlearning): a mean over records, where
torch's default divides by the number of outputs as well (Adam does not see the difference); the
student in eval mode, where it was left in train mode; only the teacher that a record has is asked.
"""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from efface.methods._base import (
    Count,
    Memory,
    NonNegative,
    Positive,
    Share,
    register_method,
)
from efface.methods.parts.retained import sampled, together, without_labels
from efface.methods.parts.untrained import untrained
from efface.task import frozen_teacher, task_of, trainable_copy
from efface.training import Trainer
from efface.types import Callback, Records, Split, no_callback


@register_method(
    reads={"forget"},
    needs={"retain", "fresh"},
    memory=Memory(copies=7, graphs=3),
    runs_on_empty=True,
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
    seed: int = 0,
    callback: Callback = no_callback,
) -> nn.Module:
    """Answer as an untrained net on the forget records, as the given model on the others.

    Args:
        model: answers (n, *features) with outputs (n, k); stays as it is.
        split: the inputs of ``forget`` and ``retain`` are read, no labels; ``fresh`` makes the bad
            teacher.
        strength: the one knob; multiplies the step.
        retained_share: how many of the records that stay are shown, 0 to 1; the paper's 30 %.
        learning_rate: of Adam; the paper's 1e-4.
        epochs: passes; the paper's 1.
        temperature: by which answers are divided before they are compared; the paper's 1.
        batch_size: records in one step's mean; the authors' 256.
        seed: draws the bad teacher, the share and the order.
        callback: called after each step.

    Raises:
        InputError: there is no ``retain`` or no ``fresh``; ``retained_share`` is not from 0 to 1;
            ``temperature`` is not above 0.
    """
    student, task = trainable_copy(model), task_of(split.retain)
    bad = frozen_teacher(untrained(model, split, seed))
    target = _target(frozen_teacher(model), bad, task.outputs)

    def loss(student: nn.Module, batch: Records, step: int) -> Tensor:  # noqa: ARG001
        answer = task.outputs(student, batch.x)
        return task.divergence(target(batch) / temperature, answer / temperature)

    optimizer = torch.optim.Adam(student.parameters(), lr=learning_rate * strength)
    trainer = Trainer(student, seed=seed, callback=callback)
    lessons = _lessons(split, retained_share, seed)
    told = {"optimizer": optimizer, "batch_size": batch_size}
    for epoch in range(epochs):
        trainer.run_epoch(loss, lessons, **told, epoch=epoch)
    return student


def _lessons(split: Split, share: float, seed: int) -> Records:
    """The forget records and a share of the others, with u in the place of the label."""
    others = sampled(split.retain, round(share * len(split.retain)), seed=seed)
    task = task_of(split.retain)
    going = without_labels(split.forget, task, mark=1)
    return together(going, without_labels(others, task, mark=0))


def _target(
    good: nn.Module, bad: nn.Module, outputs: Callable[[nn.Module, Tensor], Tensor]
) -> Callable[[Records], Tensor]:
    """The answers of each record's own teacher."""

    def target(batch: Records) -> Tensor:
        answers = {}
        with torch.no_grad():
            for teacher, u in ((good, 0), (bad, 1)):
                rows = (batch.y == u).nonzero()[:, 0]
                if len(rows):
                    answers[u] = (rows, outputs(teacher, batch.x[rows]))
        rows, found = (torch.cat(parts) for parts in zip(*answers.values(), strict=True))
        return found[rows.argsort()]

    return target

"""Records that stay and forget records as one set, the latter with labels drawn for them."""

from collections.abc import Callable, Sequence
from dataclasses import replace

import torch
from jaxtyping import Int
from torch import Tensor, nn

from efface.methods.parts.neighbours import uniforms
from efface.task import multiclass, outputs, task_of
from efface.training import Loss, steps_per_epoch, train_epochs
from efface.types import Callback, Records, Split

Draw = Callable[[Sequence[str], int, int], Int[Tensor, " m"]]
"""``draw(ids, classes, step)``: a label for each forget record of these ids."""

MARK, STAYS = "forget/", "retain/"
"""Before the ids of the two parts: both may be numbered from 0, and an id may be a path."""


def together(forget: Records, retain: Records | None) -> Records:
    """All records as one set; the labels of the forget records are not looked at."""
    marked = tuple(MARK + identity for identity in forget.ids)
    unknown = torch.zeros(len(forget), dtype=torch.int64)
    gone = replace(forget, y=unknown, ids=marked, task=multiclass)
    if retain is None:
        return gone
    x = torch.cat([gone.x, retain.x.to(gone.x)])
    y = torch.cat([unknown, retain.y.cpu()])
    return replace(gone, x=x, y=y, ids=(*marked, *(STAYS + one for one in retain.ids)))


def relabelled(draw: Draw) -> Loss:
    """Cross-entropy with the label of each record that stays, and the drawn one of the others."""

    def loss(student: nn.Module, batch: Records, step: int) -> Tensor:
        answer = outputs(student, batch)
        rows = [row for row, identity in enumerate(batch.ids) if identity.startswith(MARK)]
        ids = [batch.ids[row].removeprefix(MARK) for row in rows]
        y = batch.y.clone()
        y[rows] = draw(ids, answer.shape[1], step).to(y.device)
        return task_of(batch).loss(answer, y)

    return loss


def randomly_taught(
    student: nn.Module,
    split: Split,
    *,
    optimizer: torch.optim.Optimizer,
    epochs: int,
    batch_size: int,
    training_mode: bool | None,
    seed: int,
    callback: Callback,
) -> nn.Module:
    """The student after some epochs of random labels, those of a record drawn anew each epoch."""
    records = together(split.forget, split.retain)
    an_epoch = steps_per_epoch(records, batch_size)

    def draw(ids: Sequence[str], classes: int, step: int) -> Tensor:
        return any_class(ids, classes, seed=seed, step=step // an_epoch)

    return train_epochs(
        student,
        relabelled(draw),
        records,
        optimizer=optimizer,
        epochs=epochs,
        batch_size=batch_size,
        training_mode=split.retain is not None if training_mode is None else training_mode,
        seed=seed,
        callback=callback,
    )


def any_class(ids: Sequence[str], classes: int, *, seed: int, step: int) -> Int[Tensor, " m"]:
    """A class out of all, each as likely, drawn for a record by its id."""
    return (uniforms(ids, 1, seed=seed, step=step)[:, 0] * classes).long()


def other_class(
    ids: Sequence[str], own: Tensor, classes: int, *, seed: int, step: int = 0
) -> Int[Tensor, " m"]:
    """A class out of all but a record's own, each as likely, drawn for a record by its id."""
    further = (uniforms(ids, 1, seed=seed, step=step)[:, 0] * (classes - 1)).long()
    return (own.cpu() + 1 + further) % classes

"""``neighbourhood`` with one part swapped for another: what goals.py measures each part by.

As it stands it is ``neighbourhood`` bit for bit. What is swapped is the optimizer, where the targets
lie, what ranks the records, or what holds the rest of the model in place.
"""

from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from efface.methods.neighbourhood import (
    SQUARES,
    Targets,
    Unseen,
    log_odds,
    neighbourhood_loss,
    place_targets,
    schedule_for,
    set_values,
)
from efface.task import frozen_teacher, predict, trainable_copy
from efface.training import Muon, descend, linear_decay, sgd, with_task
from efface.types import Callback, Records, Split, no_callback

# clipped SGD as neighbourhood took it before Muon
SGD_RATE, CLIP = 3e-3, 1.0


def swapped(
    model: nn.Module,
    split: Split,
    *,
    optimizer: str = "muon",
    longer: int = 1,
    target: str = "rank",
    score: str = "copies",
    anchors: str = "unseen",
    squares: float = SQUARES,
    mislabelled: bool = False,
    whole_group: bool = False,
    seed: int = 0,
    callback: Callback = no_callback,
) -> nn.Module:
    """``neighbourhood`` but for what is named.

    ``optimizer``: or ``sgd``, with momentum and clipped; ``longer``: so many times the steps;
    ``target``: or ``own``, the copies' masked answer as it is, or ``median``, that of the targets
    for all; ``score``: or ``own``, the log-odds without copies; ``anchors``: or ``perspectives``,
    those of a split without a holdout (with means of two records), or ``none``; ``squares``: weight
    of squared log-odds next to KL.
    """
    split = replace(split, forget=with_task(split.forget))
    student, teacher = trainable_copy(model), frozen_teacher(model)
    rule = schedule_for(len(split.forget), holdout=True)
    facts: dict[str, Any] = {"mislabelled": mislabelled, "whole_group": whole_group, "seed": seed}
    placed = place_targets(teacher, split, Unseen.of(teacher, split), **facts)
    facts["targets"] = moved(teacher, split.forget, placed, target, score)
    seen = replace(split, holdout=None) if anchors == "perspectives" else split
    facts |= {"locality": 0.0 if anchors == "none" else 3.0, "squares": squares}
    loss = neighbourhood_loss(teacher, seen, batch_size=rule.batch_size, **facts)
    muon, steps = optimizer == "muon", longer * rule.steps
    mover = Muon(student.parameters(), rule.learning_rate) if muon else sgd(student, SGD_RATE, 0.9)
    how: dict[str, Any] = {"steps": steps, "seed": seed, "batch_size": rule.batch_size}
    how |= {"clip_norm": None if muon else CLIP}
    return descend(
        student, loss, split.forget, mover, callback=linear_decay(callback, mover, steps), **how
    )


def moved(
    teacher: nn.Module, forget: Records, targets: Targets, target: str, score: str
) -> Targets:
    """The targets with other log-odds of the same classes, the rest in proportion."""
    values = log_odds(targets.outputs.double(), targets.labels)
    if target == "own":
        return replace(targets, outputs=targets.base)
    if target == "median":
        values = values.median().expand_as(values)
    elif score == "own":
        values = reranked(values, log_odds(predict(teacher, forget), targets.labels), forget.y)
    else:
        return targets
    return replace(
        targets, outputs=set_values("multiclass", targets.base, targets.labels, values[:, None])
    )


def reranked(values: Tensor, score: Tensor, classes: Tensor) -> Tensor:
    """The same values in the order of another score, among the records of each class."""
    found = values.clone()
    for one in classes.unique():
        rows = torch.from_numpy(np.flatnonzero(classes.cpu() == one))
        found[rows[score[rows].argsort(stable=True)]] = values[rows].sort().values
    return found

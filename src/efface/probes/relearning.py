"""Relearning: how soon does a little training bring the records back? Curves, not one number.

The relearn time and the anamnesis index (AIN) of https://arxiv.org/abs/2201.05629. That paper's
code (zero-shot-unlearning, metrics.py) changes the models that it is given and measures accuracy
on other records than it says; here a copy is trained, and the forget records are evaluated.
"""

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import nn

from efface.errors import InputError
from efface.metrics.evaluation import evaluate
from efface.runtime import Passes, upcast_to_fp32
from efface.task import trainable_copy
from efface.training import Schedule, steps_per_epoch, task_loss, train_epochs, with_task
from efface.types import Action, Callback, Records

# The source has 1e-3 alone; a model that is slow at one may be fast at another.
LEARNING_RATES = (1e-4, 1e-3, 1e-2)

EPOCHS, BATCH_SIZE = 10, 256


@dataclass(frozen=True)
class Relearning:
    """How the accuracy on the forget records grew while a copy was trained.

    ``accuracy``: on the forget records, 0 to 1, after each number of steps in ``at`` (0: before
    training); ``wanted``: the accuracy that counts as back; ``steps``: the
    first of ``at`` where it was reached, None when it was not within ``most_steps``. More steps
    are not better: the reference is the retrained model's curve. No chance level.
    """

    learning_rate: float
    at: tuple[int, ...]
    accuracy: tuple[float, ...]
    wanted: float
    most_steps: int

    @property
    def steps(self) -> int | None:
        """Steps until the records were back."""
        reached = (s for s, a in zip(self.at, self.accuracy, strict=True) if a >= self.wanted)
        return next(reached, None)


def relearning(
    model: nn.Module,
    forget: Records,
    on: Records,
    *,
    original: float,
    tolerance: float = 0.05,
    learning_rates: Sequence[float] = LEARNING_RATES,
    epochs: int = EPOCHS,
    batch_size: int = BATCH_SIZE,
    every: int = 1,
    training_mode: bool = True,
    seed: int = 0,
) -> tuple[Relearning, ...]:
    """Train a copy ``on`` some records with Adam, and evaluate the forget records as it goes.

    ``on``: the forget records, or retained ones alone, or a holdout: say which with the result.
    ``original``: the accuracy of the model before unlearning on ``forget``; the records are back at
    (1 - ``tolerance``) of it. One curve for each learning rate, evaluated every ``every`` steps and
    at the last. Every weight may move, frozen ones too. In ``training_mode`` dropout and BatchNorm
    work as in training. Curves do not end where the records are back, so the cost is known:
    ``relearning_cost``. Raises InputError without records, or for shares out of range.
    """
    if not len(forget) or not len(on):
        came, remedy = f"{len(forget)} and {len(on)}", "Give at least one of each."
        raise InputError("forget records, and records to train on", came, remedy)
    if epochs < 1 or every < 1:
        wanted = "at least one epoch, and a reading every step or more rarely"
        raise InputError(wanted, f"{epochs} epochs, every {every}", "Give integers above 0.")
    if not (0 < original <= 1 and 0 <= tolerance < 1):
        wanted = "an original accuracy above 0 and up to 1, a tolerance from 0 to below 1"
        remedy = "Evaluate the original model on the forget records; "
        remedy += "what it never knew cannot be relearned."
        raise InputError(wanted, f"{original} and {tolerance}", remedy)
    # The task of all records: a batch of a few may not show it.
    on, most, found = with_task(on), epochs * steps_per_epoch(on, batch_size), []
    for rate in learning_rates:
        # A fresh copy each: curves of two learning rates must not share a start.
        student = trainable_copy(upcast_to_fp32(model))
        for weight in student.parameters():
            # Whoever has the model need not keep to its flags.
            weight.requires_grad_(weight.is_floating_point())
        # range stops before the end, which is always read.
        at, adam = (*range(0, most, every), most), torch.optim.Adam(student.parameters(), lr=rate)
        accuracies = [_accuracy(student, forget)]
        schedule = Schedule(
            epochs, batch_size, seed, _reader(forget, at, accuracies), training_mode
        )
        train_epochs(student, task_loss, on, adam, schedule)
        found.append(Relearning(rate, at, tuple(accuracies), (1 - tolerance) * original, most))
    return tuple(found)


def relearning_cost(
    forget: Records,
    on: Records,
    *,
    learning_rates: Sequence[float] = LEARNING_RATES,
    epochs: int = EPOCHS,
    batch_size: int = BATCH_SIZE,
    every: int = 1,
) -> Passes:
    """The passes of ``relearning``: of each curve, its training and its evaluations."""
    readings = 1 + -(-epochs * steps_per_epoch(on, batch_size) // every)
    curves, trained = len(learning_rates), len(learning_rates) * epochs * len(on)
    return Passes(forward=trained + curves * readings * len(forget), backward=trained)


class Anamnesis(NamedTuple):
    """Steps of the unlearned model / steps of the retrained one, and between what it must lie.

    ``index``: 0 to infinity, reference 1; far below 1: knowledge is left; above: the records
    are harder to learn than for a model that never had them, which reveals them too. None where
    the steps do not say it: one of the two was not back before the end, or the retrained model
    needed no step. ``low`` and ``high`` hold in any case.
    """

    index: float | None
    low: float
    high: float


def anamnesis(unlearned: Relearning, retrained: Relearning) -> Anamnesis:
    """The anamnesis index (AIN) of two curves that were made alike.

    Both need no step: 1. Raises InputError for curves of other learning rates, readings or shares.
    """
    made = [(one.learning_rate, one.at, one.wanted) for one in (unlearned, retrained)]
    if made[0] != made[1]:
        wanted = "two curves of one learning rate, with the same readings and the same wanted share"
        rates = f"{made[0][0]:g} and {made[1][0]:g}"
        steps = f"up to {unlearned.most_steps} and {retrained.most_steps} steps"
        came = f"{rates}, {steps}, to {made[0][2]:.3f} and {made[1][2]:.3f}"
        raise InputError(wanted, came, "Probe both models with the same settings.")
    ours, theirs = unlearned.steps, retrained.steps
    if ours is not None and theirs is not None and (theirs or not ours):
        index = ours / theirs if theirs else 1.0
        return Anamnesis(index, index, index)
    # One of the curves was cut off: what remains are the bounds that the cut leaves.
    over = unlearned.most_steps
    low = 0.0 if theirs is None else (over if ours is None else ours) / max(theirs, 1)
    high = math.inf if ours is None or theirs == 0 else ours / over
    return Anamnesis(None, low, high)


def _accuracy(model: nn.Module, records: Records) -> float:
    return float(evaluate(model, records).accuracy.mean())


def _reader(forget: Records, at: tuple[int, ...], accuracies: list[float]) -> Callback:
    """A callback that adds the accuracy on the forget records after the steps in ``at``."""
    steps = itertools.count(1)

    def read(student: nn.Module, loss: float) -> Action:  # noqa: ARG001
        if next(steps) in at:
            accuracies.append(_accuracy(student, forget))
        return Action.CONTINUE

    return read

"""Choosing on the auxiliary part: how far a model is from one that never saw the records.

The auxiliary part of the holdout is the one that method and guard may see; whatever is chosen on
it, a step (``BestStep``) or a strength, is evaluated on the other half.
"""

import math
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from efface.errors import InputError
from efface.report.report import Row
from efface.runtime import fork_rng, state_of
from efface.types import Split

# Rows of a report that have a reference of unseen records, a share or an AUC.
COMPARED = ("forget.accuracy", "forget_classes.accuracy", "attack.loss")
UTILITY = "holdout.accuracy"


def distance_to_unseen(rows: Iterable[Row]) -> float | None:
    """Mean distance of a model to one that never saw the records, read off a report's rows.

    The mean of |value - reference| of the accuracy on the forget records (of whole classes, on
    unseen records of them), of the AUC of the loss attack, and of |after - before| of the accuracy
    on the holdout, as far as they are there. Range 0 to 1, 0 at the references; a retrained model
    has a few points, since its seed differs. None where nothing stands for unseen records.
    """
    known, utility = [], []
    for row in rows:
        if row.after is None:
            continue
        if row.key in COMPARED and isinstance(row.reference, float):
            known.append(abs(row.after - row.reference))
        elif row.key == UTILITY and row.before is not None:
            utility.append(abs(row.after - row.before))
    return sum(known + utility) / len(known + utility) if known else None


def need_holdout(split: Split) -> None:
    """Raise InputError where there are no unseen records to choose on."""
    if split.holdout is None:
        remedy = "Give a holdout, or choose the step and the strength yourself."
        raise InputError("a holdout to choose a step or a strength on", "none", remedy)


def calibration_distance(old: nn.Module, new: nn.Module, auxiliary: Split, **about: Any) -> float:
    """``distance_to_unseen`` of a quick report on the auxiliary part; inf where there is none.

    ``about``: what ``collect`` takes besides, such as ``mislabelled`` and ``classes``. The global
    random state stays as it is. Raises InputError without a holdout.
    """
    need_holdout(auxiliary)
    # loads scipy
    from efface.report import collect

    with fork_rng():
        torch.manual_seed(0)
        rows = collect(old, new, auxiliary, probes=False, **about).rows
    found = distance_to_unseen(rows)
    return math.inf if found is None or math.isnan(found) else found


class BestStep:
    """Keeps the state of the step with the smallest distance on the auxiliary part.

    ``every``: steps between two looks; ``distance``: of a student, see ``calibration_distance``.
    """

    def __init__(self, every: int, distance: Callable[[nn.Module], float]) -> None:
        self._every, self._distance = every, distance
        self._state: Mapping[str, Tensor] = {}
        self._best, self.step = math.inf, 0

    def look(self, student: nn.Module, step: int) -> None:
        """After each accepted step; the student is only read."""
        if step % self._every:
            return
        distance = self._distance(student)
        if distance < self._best:
            self._best, self.step = distance, step
            self._state = {name: t.detach().clone() for name, t in state_of(student).items()}

    @torch.no_grad()
    def restore(self, student: nn.Module, steps: int) -> dict[str, Any]:
        """Put the best state into what the method returned, unless that is nearer; what was kept.

        ``steps``: those that the method took.
        """
        last = self._distance(student)
        if not self._state or last <= self._best:
            return {"kept_step": steps, "calibration_distance": last}
        for name, tensor in state_of(student).items():
            tensor.copy_(self._state[name])
        return {"kept_step": self.step, "calibration_distance": self._best}

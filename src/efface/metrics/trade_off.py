"""Forgetting and usefulness in one number, beside what two retrained models reach.

One number hides which of the two was given up: print its columns with it.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np

from efface.errors import InputError
from efface.metrics.gap import gap

Columns = Mapping[str, float]


def tug_of_war(values: Columns, target: Columns) -> float:
    """ToW: the product over the columns of 1 - |value - target|.

    The paper's columns are the accuracies on ``forget``, ``retain`` and ``test``; its ToW-MIA puts
    an attack in the place of the forget accuracy. Range 0 to 1, 1 at the target; no chance level.
    The target is the retrained model's columns; what can be reached is not 1 but the value of two
    retrained models (``against_floor``). Zhao et al. 2024, https://arxiv.org/abs/2406.01257. Raises
    InputError when the columns differ or a value is no share.
    """
    if not target or values.keys() != target.keys():
        raise InputError(
            "the same columns on both sides",
            f"{', '.join(sorted(values)) or 'none'} and {', '.join(sorted(target)) or 'none'}",
            "Score both models in the same way.",
        )
    _need_shares({**values, **{f"target {name}": value for name, value in target.items()}})
    return float(np.prod([1 - abs(values[name] - target[name]) for name in target]))


def nomus(*, test_accuracy: float, attack_accuracy: float) -> float:
    """NoMUS: the mean of the test accuracy and of 1 - 2 |attack accuracy - 0.5|.

    ``attack_accuracy``: of a balanced membership attack, 0.5 is chance; where a table prints its
    distance from 0.5, add 0.5 to it. Range 0 to 1; a model that answers one class of k always has
    (1 + 1/k) / 2, so it is near a good one where accuracy is low. Target: the retrained model's
    value. Choi and Na 2023, https://arxiv.org/abs/2311.02240. Raises InputError when a value is no
    share.
    """
    _need_shares({"test_accuracy": test_accuracy, "attack_accuracy": attack_accuracy})
    return test_accuracy / 2 + (1 - 2 * abs(attack_accuracy - 0.5)) / 2


@dataclass(frozen=True)
class AgainstFloor:
    """An aggregate of an unlearned model beside the same aggregate of retrained models.

    ``value``: mean over the retrained models as targets; ``floor``: mean over all pairs of
    retrained models, the target; ``pair_range``: the least and the greatest such pair;
    ``retrained``: how many models; ``columns``: what was compared.
    """

    value: float
    floor: float
    pair_range: tuple[float, float]
    retrained: int
    columns: tuple[str, ...]


def against_floor(
    values: Columns,
    retrained: Sequence[Columns],
    *,
    aggregate: Callable[[Columns, Columns], float] = gap,
) -> AgainstFloor:
    """An aggregate over any columns (the paper's three, or all that were measured) and its floor.

    ``aggregate``: ``gap`` (lower is nearer) or ``tug_of_war`` (higher is nearer). Range and unit
    are those of the aggregate; the target is ``floor``. For one number such as NoMUS give one
    column: the gap is then its distance. Raises InputError with fewer than two retrained models,
    when a value is not finite or the columns differ.
    """
    pairs = list(combinations(retrained, 2))
    if not pairs:
        raise InputError(
            "at least two retrained models",
            str(len(retrained)),
            "Retrain with another seed, or say that the floor is not known.",
        )
    for columns in (values, *retrained):
        _need_finite(columns)
    found = [aggregate(one, other) for one, other in pairs]
    return AgainstFloor(
        value=float(np.mean([aggregate(values, target) for target in retrained])),
        floor=float(np.mean(found)),
        pair_range=(min(found), max(found)),
        retrained=len(retrained),
        columns=tuple(values),
    )


def _need_finite(columns: Columns) -> None:
    bad = [name for name, value in columns.items() if not np.isfinite(value)]
    if bad:
        raise InputError(
            "a finite number in each column",
            f"none for {', '.join(bad)}",
            "Leave out a column that was not measured, for all models.",
        )


def _need_shares(columns: Columns) -> None:
    bad = {name: value for name, value in columns.items() if not 0 <= value <= 1}
    if bad:
        raise InputError(
            "shares from 0 to 1",
            ", ".join(f"{name} {value:g}" for name, value in bad.items()),
            "Divide per cent by 100.",
        )

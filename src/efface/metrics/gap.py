"""The paper's three columns, and the distance to the retrained model over them."""

from collections.abc import Mapping, Sequence
from itertools import combinations

import numpy as np

from efface.errors import InputError
from efface.metrics.measure import Evaluation
from efface.metrics.membership import entropy_attack
from efface.metrics.utility import accuracy

COLUMNS = ("retain", "forget", "attack")
"""The paper's D_r, D_f and MIA, as shares 0 to 1."""


def columns(
    forget: Evaluation,
    holdout: Evaluation,
    retain: Evaluation,
    *,
    forget_classes: Sequence[int] = (),
) -> dict[str, float]:
    """The paper's three columns of one model, each 0 to 1; target: the retrained model's values.

    A class goes altogether (``forget_classes``): ``retain`` is the accuracy on the holdout of the classes
    that stay, ``forget`` that on the holdout of those that leave. Random records go: ``retain`` is
    the accuracy on the whole holdout, ``forget`` that on the forget records themselves.
    ``attack`` is the entropy attack in both, against the whole holdout.
    """
    left = np.isin(holdout.y, list(forget_classes))
    staying = holdout.take(~left)
    going = holdout.take(left) if forget_classes else forget
    return {
        "retain": accuracy(staying.predicted, staying.y),
        "forget": accuracy(going.predicted, going.y),
        "attack": entropy_attack(retain.entropy, holdout.entropy, forget.entropy),
    }


def gap(values: Mapping[str, float], target: Mapping[str, float]) -> float:
    """Mean absolute difference to ``target`` over its columns, equal weights.

    Range 0 to 1, lower is nearer to the target; no chance level. The target is the retrained
    model's columns; what can be reached is not 0 but ``floor``. Raises InputError when the two do
    not have the same columns.
    """
    if not target or values.keys() != target.keys():
        raise InputError(
            "the same columns on both sides",
            f"{', '.join(sorted(values)) or 'none'} and {', '.join(sorted(target)) or 'none'}",
            "Score both models in the same way.",
        )
    return float(np.mean([abs(values[name] - target[name]) for name in target]))


def floor(retrained: Sequence[Mapping[str, float]]) -> float:
    """Mean gap between retrained models that differ in their seed alone: what noise does.

    Range 0 to 1. Raises InputError with fewer than two.
    """
    pairs = list(combinations(retrained, 2))
    if not pairs:
        raise InputError(
            "at least two retrained models",
            str(len(retrained)),
            "Retrain with another seed, or say that the floor is not known.",
        )
    return float(np.mean([gap(one, other) for one, other in pairs]))

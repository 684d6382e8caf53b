"""Is the model still good? Shares of right answers."""

import numpy as np
from jaxtyping import Int64

from efface.errors import InputError


def accuracy(predicted: Int64[np.ndarray, " n"], y: Int64[np.ndarray, " n"]) -> float:
    """Right answers / records (never a mean of batch means).

    Range 0 to 1; chance 1/k for balanced classes. Target: the retrained model's value. On the
    holdout higher is better; on the forget records it is not: below the retrained model's value is
    over-forgetting. Raises InputError without records.
    """
    if not len(y):
        raise InputError("at least one record", "none", "Give the records to be scored.")
    return float((predicted == y).mean())


def per_class_accuracy(
    predicted: Int64[np.ndarray, " n"], y: Int64[np.ndarray, " n"]
) -> dict[int, float]:
    """Accuracy of each class that has records, by class id.

    Range, chance and target as ``accuracy``.
    """
    return {int(label): float((predicted[y == label] == label).mean()) for label in np.unique(y)}


def worst_class_change(before: dict[int, float], after: dict[int, float]) -> tuple[int, float]:
    """The class whose accuracy changed most for the worse, and by how much (after - before).

    Range -1 to 1; no chance level; target: the retrained model's change, about 0 for the classes
    that stay. Raises InputError when no class stands in both.
    """
    shared = sorted(before.keys() & after.keys())
    if not shared:
        raise InputError(
            "a class that was measured before and after",
            f"classes {sorted(before)} and {sorted(after)}",
            "Measure both models on the same records.",
        )
    worst = min(shared, key=lambda label: after[label] - before[label])
    return worst, after[worst] - before[worst]

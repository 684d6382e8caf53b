"""Utility: accuracy, agreement and calibration, and who of the retained records pays for it.

The reference of each is the retrained model's value. Shapes: n records · k classes.
"""

from operator import itemgetter
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int64
from scipy import stats

from efface.errors import InputError
from efface.metrics.refusals import need_at_least, need_probabilities, need_same_records

# With fewer a tenth is one record, and a resample says nothing of it.
MIN_RECORDS = 20

# Numbers in memory at once while resampling.
BATCH = 1_000_000

Classes = Int64[np.ndarray, " n"]


def accuracy(predicted: Classes, y: Classes) -> float:
    """Correct predictions / records (never a mean of batch means).

    Range 0 to 1; chance 1/k for balanced classes. On the holdout higher is better; on the forget
    records it is not: below the retrained model's value is over-forgetting. Raises InputError
    without records.
    """
    if not len(y):
        raise InputError("at least one record", "none", "Give the records to be scored.")
    return float((predicted == y).mean())


def per_class_accuracy(predicted: Classes, y: Classes) -> dict[int, float]:
    """Accuracy of each class that has records, by class id; range and chance as ``accuracy``."""
    return {int(label): float((predicted[y == label] == label).mean()) for label in np.unique(y)}


def worst_class_change(before: dict[int, float], after: dict[int, float]) -> tuple[int, float]:
    """The class whose accuracy fell most, and by how much (after - before).

    Range -1 to 1; no chance level; reference: the retrained model's change, about 0 for retained
    classes. Raises InputError when no class is in both.
    """
    # In the order of ids, so that of equal falls the first class is named.
    shared = sorted(before.keys() & after.keys())
    changes = {label: after[label] - before[label] for label in shared}
    if not changes:
        came = f"classes {sorted(before)} and {sorted(after)}"
        remedy = "Measure both models on the same records."
        raise InputError("a class that was measured before and after", came, remedy)
    return _lowest(changes)


def _lowest(by_class: dict[int, float]) -> tuple[int, float]:
    return min(by_class.items(), key=itemgetter(1))


def worst_class_accuracy(predicted: Classes, y: Int64[np.ndarray, " m"]) -> tuple[int, float]:
    """The class with the lowest accuracy, and that accuracy; the first such class by id.

    Range as ``accuracy``. No chance level: the lowest of several shares lies below their mean by
    chance alone, the more so the fewer records a class has. Raises InputError without records or
    when the two do not pair up.
    """
    need_same_records(predicted=predicted, y=y)
    return _lowest(per_class_accuracy(predicted, y))


def agreement(predicted: Classes, others: Int64[np.ndarray, " m"]) -> float:
    """Share of records for which two models predict the same class, right or wrong.

    Range 0 to 1; chance: the sum over classes of the product of the two models' shares of it.
    Reference: with a retrained model, the agreement of two retrained models; with the original
    model, the agreement of a retrained one with it. Raises InputError without records or when the
    two do not pair up.
    """
    need_same_records(predicted=predicted, others=others)
    return float((predicted == others).mean())


def calibration_error(
    probabilities: Float[np.ndarray, "n k"], y: Int64[np.ndarray, " m"], *, bins: int = 15
) -> float:
    """Expected calibration error: mean distance of confidence and accuracy over equal-width bins.

    ``probabilities`` (n, k). Confidence is the largest probability; a bin is (low, high], weighted
    by its records. Range 0 to 1; 0 is calibrated, but few records lie above it by chance alone.
    Reference: the retrained model's value with as many bins and records; a collapsed model may be
    well calibrated. Guo et al. 2017, https://arxiv.org/abs/1706.04599 (15 bins). Raises InputError
    without records, without bins or when the two do not pair up.
    """
    need_probabilities(probabilities=probabilities)
    need_same_records(0, probabilities=probabilities, y=y)
    if bins < 1:
        raise InputError("at least one bin", str(bins), "Take 15, as most of the field does.")
    confident, correct = probabilities.max(axis=1), probabilities.argmax(axis=1) == y
    # right=True makes bins (low, high], so that a confidence of 1 is in the last one.
    where = np.digitize(confident, np.linspace(0, 1, bins + 1)[1:-1], right=True)
    # Summed before the absolute value: within a bin over- and underconfidence cancel.
    excess = np.bincount(where, weights=correct - confident, minlength=bins)
    return float(np.abs(excess).sum() / len(y))


class WorstChange(NamedTuple):
    """Change of membership risk of the retained records, in the unit of the risk.

    ``worst``: mean change of the tenth whose risk rose most; ``interval``: its bootstrap interval;
    ``mean``: change over all; ``rose``: share of records whose risk rose; ``worst_n`` of ``n``.
    """

    worst: float
    interval: tuple[float, float]
    mean: float
    rose: float
    worst_n: int
    n: int


def worst_decile_change(
    before: Float[np.ndarray, " n"],
    after: Float[np.ndarray, " m"],
    *,
    chosen_by: Float[np.ndarray, " c"] | None = None,
    resamples: int = 2000,
    seed: int = 0,
) -> WorstChange:
    """Mean change of risk (after - before) of the tenth of the records for which it rose most.

    ``before``, ``after``: a membership risk of each retained record, higher is more at risk. Range:
    that of a difference of risks. **Chance is above 0**: the worst tenth of changes that are noise
    alone has risen. Reference: the value of a retrained model in place of the unlearned one.
    ``chosen_by``: changes of the same records measured independently (other shadow models, other
    views); the tenth is chosen by these and read from the others, and chance is 0. The interval
    resamples records, not models. Hayes et al. 2024 (https://arxiv.org/abs/2403.01218): unlearning
    can raise the risk of retained records. Raises InputError for fewer than 20 records, or records
    that do not pair up.
    """
    chooser = after if chosen_by is None else chosen_by
    need_same_records(before=before, after=after, chosen_by=chooser)
    n, k = len(before), -(-len(before) // 10)
    need_at_least(MIN_RECORDS, "records", n, "Give the risks of more retained records.")
    change = after - before
    # Chosen and read from the same noise, the worst tenth is above 0 without any effect.
    order = change if chosen_by is None else chosen_by

    def worst_mean(change: np.ndarray, order: np.ndarray, axis: int = -1) -> np.ndarray:
        # Chosen again in each resample: the choice is part of what varies.
        worst = np.argpartition(order, -k, axis=axis)[..., -k:]
        return np.take_along_axis(change, worst, axis=axis).mean(axis=axis)

    how = {"paired": True, "vectorized": True, "method": "percentile"}
    how |= {"n_resamples": resamples, "batch": max(1, BATCH // n)}
    draw = np.random.default_rng(seed)
    found = stats.bootstrap((change, order), worst_mean, random_state=draw, **how)
    low, high = map(float, found.confidence_interval)
    means = (float(worst_mean(change, order)), (low, high), float(change.mean()))
    return WorstChange(*means, float((change > 0).mean()), k, n)

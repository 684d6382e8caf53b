"""Records of low and of high information, and a rule for the threshold that the paper leaves open.

The paper calls a record x of low information when α(x) ≥ τ and gives no τ. Here τ follows from what
it is for: the greatest group of the least informative records whose removal changes retrained
models no more than another seed does, while the removal of as many random and of as many highly
informative records shows. Where no group is like that there is no τ, and nothing may be left alone.

Shapes: n records · s models trained with the group · r models trained without it.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int64
from scipy.spatial.distance import pdist

from efface.errors import InputError
from efface.metrics.refusals import need_numbers, need_same_records


def least_first(
    alpha: Float[np.ndarray, " n"], tie_break: Float[np.ndarray, " n"]
) -> Int64[np.ndarray, " n"]:
    """Rows from the least informative (greatest α) on; ties by the greater ``tie_break``, then row.

    α from few copies has many ties; the margin is what usually breaks them.
    """
    return np.lexsort((-tie_break, -alpha)).astype(np.int64)


@dataclass(frozen=True)
class Removal:
    """What removing a group did to the retrained models, on one set of records.

    ``difference``: of the mean over the records, with the group less without, in the unit of the
    values; ``noise``: by how much two models that differ in their seed alone are apart in that
    mean, on average; ``most``: at most. Both of the kind of models, with or without the group,
    where it is more: records that nobody trained on are answered less alike.
    """

    difference: float
    noise: float
    most: float

    @property
    def within_noise(self) -> bool:
        """Whether the removal changes the mean no more than another seed does, on average."""
        return abs(self.difference) <= self.noise

    @property
    def shows(self) -> bool:
        """Whether the removal changes the mean more than any other seed did."""
        return abs(self.difference) > self.most


def removal(with_it: Float[np.ndarray, "s n"], without_it: Float[np.ndarray, "r n"]) -> Removal:
    """Compare models trained without a group with those trained with it, on the same records.

    Values: p(y|x), ln p(y|x) or whether the answer is right. A mean, since a distance between whole
    distributions is deaf to the few records in a group that are no longer known. Raises InputError
    for values that are not finite, or fewer than two models on a side.
    """
    need_numbers(with_it=with_it, without_it=without_it)
    need_same_records(with_it=with_it, without_it=without_it)
    for models, side in ((with_it, "with"), (without_it, "without")):
        if len(models) < 2:  # noqa: PLR2004
            raise InputError(
                f"two models or more trained {side} the group",
                str(len(models)),
                "Train with another seed: one model alone shows no seed noise.",
            )
    means = [models.mean(axis=1) for models in (with_it, without_it)]
    apart = [pdist(side[:, None], "cityblock") for side in means]
    return Removal(
        difference=float(means[0].mean() - means[1].mean()),
        noise=float(max(pairs.mean() for pairs in apart)),
        most=float(max(pairs.max() for pairs in apart)),
    )


@dataclass(frozen=True)
class Threshold:
    """The calibrated τ: the ``records`` that lie at or above it were removed, and it did not show.

    ``value`` is α of the last of them, ``tie_break`` how it was ranked among those of the same α:
    records of that α and a lesser rank are not among them, and the paper's α ≥ τ alone would take
    them in. Both are None, and ``records`` 0, where no size passed.
    """

    value: float | None
    tie_break: float | None
    records: int


def calibrated_threshold(
    alpha: Float[np.ndarray, " n"],
    tie_break: Float[np.ndarray, " n"],
    removals: Mapping[int, Mapping[str, Removal]],
) -> Threshold:
    """τ from nested groups: the greatest low group within the noise, while the others show.

    ``removals``: by size, what the removal of the ``low`` (the first of ``least_first``),
    ``random`` and ``high`` group of that size did. Sizes beyond a low group that was not within the
    noise do not count: a larger group cannot be safer.
    """
    order, records = least_first(alpha, tie_break), 0
    for size in sorted(removals):
        found = removals[size]
        if not found["low"].within_noise:
            break
        if found["high"].shows and found["random"].shows:
            records = size
    if not records:
        return Threshold(None, None, 0)
    last = order[records - 1]
    return Threshold(float(alpha[last]), float(tie_break[last]), records)

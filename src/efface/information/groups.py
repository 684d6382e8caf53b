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

from efface.scores.equivalence import spread_of

LEAST_SHARE = 0.5
"""Of the models without a group those that must be like one more model with it."""


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

    ``difference``: mean over the records, with less without, in the unit of the values; ``noise``:
    standard deviation of that mean over the models with the group, so what a seed does;
    ``like``: share of the models without the group that are within the spread of those with it,
    ``unlike``: that are beyond it; the rest cannot be told (``Spread.like_retrained``).
    """

    difference: float
    noise: float
    like: float
    unlike: float

    @property
    def shows(self) -> bool:
        """Whether most models without the group are told from those with it."""
        return self.unlike > LEAST_SHARE

    @property
    def within_noise(self) -> bool:
        """Whether most models without the group are like one more with it."""
        return self.like > LEAST_SHARE


def removal(with_it: Float[np.ndarray, "s n"], without_it: Float[np.ndarray, "r n"]) -> Removal:
    """Compare models trained without a group with those trained with it, on the same records.

    Values: ln p(y|x), log-odds or entropies. Raises InputError as
    ``efface.scores.equivalence.spread_of``: fewer than two models with the group, nan.
    """
    verdicts = [spread_of(one, with_it).like_retrained for one in without_it]
    means = with_it.mean(axis=1)
    return Removal(
        difference=float(means.mean() - without_it.mean()),
        noise=float(means.std(ddof=1)),
        like=float(np.mean([verdict is True for verdict in verdicts])),
        unlike=float(np.mean([verdict is False for verdict in verdicts])),
    )


@dataclass(frozen=True)
class Threshold:
    """The calibrated τ: ``records`` at or above it may be left alone by this measurement.

    ``value`` is None, and ``records`` 0, where no size passed.
    """

    value: float | None
    records: int


def calibrated_threshold(
    alpha: Float[np.ndarray, " n"],
    order: Int64[np.ndarray, " n"],
    removals: Mapping[int, Mapping[str, Removal]],
) -> Threshold:
    """τ from nested groups: the greatest low group within the noise, while the others show.

    ``order``: rows from the least informative on; ``removals``: by size, what the removal of the
    ``low``, ``random`` and ``high`` group of that size did. τ is the α of the last record in the
    low group. Sizes beyond one that failed do not count: a larger group cannot be safer.
    """
    value, records = None, 0
    for size in sorted(removals):
        found = removals[size]
        if found["low"].shows:
            break
        others_show = found["high"].shows and found["random"].shows
        if found["low"].within_noise and others_show:
            value, records = float(alpha[order[size - 1]]), size
    return Threshold(value, records)

"""Permutation tests: forget records against unseen records of their classes.

If the model never saw the forget records, the records of one class are exchangeable between the two
sides; those of different classes are not. So the sides are permuted within each class, and p is how
often a statistic is then as extreme as observed. This holds at any size and for any statistic, and
the error of the unseen side, which is a sample too, is part of it.

Shapes: n records · b permutations, of which the first is the records as observed.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np
from jaxtyping import Bool, Float, Int64, Shaped
from scipy import special, stats

from efface.metrics.intervals import Count
from efface.metrics.refusals import need_classes

# p is at least 2 / (PERMUTATIONS + 1), which Holm correction of up to fifty rows can still reject.
PERMUTATIONS: int = 2000
# So many numbers of all permutations are in memory at once.
BLOCK = 4_000_000
# No test asks for more records than this: "none would be enough" is then the better sentence.
MOST_NEEDED = 1_000_000

Values = Float[np.ndarray, " n"]
Permuted = Float[np.ndarray, " b"]
# Boolean (b, n) in, a number for each permutation out.
Statistic = Callable[[np.ndarray], np.ndarray]


@dataclass(frozen=True, eq=False)
class Pooled:
    """Values of both sides, by class and within it by value, and who stands on the forget side.

    Only records of classes that both sides have. ``values``, ``classes`` (n,); ``forget`` (n,): as
    observed; ``permuted`` (b - 1, n): in each permutation; ``weights`` (n,): of a record on the
    unseen side, in sum 1, so that its classes are mixed as those of the forget records are.
    """

    values: Values
    classes: Int64[np.ndarray, " n"]
    forget: Bool[np.ndarray, " n"]
    permuted: Bool[np.ndarray, "_ n"]
    weights: Values

    @property
    def forget_n(self) -> int:
        """Records on the forget side."""
        return int(self.forget.sum())

    @property
    def unseen_n(self) -> int:
        """Records on the unseen side."""
        return len(self.values) - self.forget_n

    def observed(self) -> "Pooled":
        """The same without permutations."""
        return replace(self, permuted=self.permuted[:0])

    def over(self, statistic: Statistic) -> Permuted:
        """The statistic as observed, then in every permutation; in blocks."""
        parts = np.array_split(self.permuted, max(1, self.permuted.size // BLOCK))
        found = [statistic(rows) for rows in (self.forget[None], *parts)]
        return np.concatenate(found).astype(np.float64)


def pool(
    ours: Shaped[np.ndarray, " f"],
    theirs: Shaped[np.ndarray, " u"],
    *,
    classes: Int64[np.ndarray, " f"],
    unseen_classes: Int64[np.ndarray, " u"],
) -> Pooled:
    """Values of forget and of unseen records, to be permuted within their classes.

    Raises InputError when no class is on both sides.
    """
    known, seen = np.isin(classes, unseen_classes), np.isin(unseen_classes, classes)
    need_classes(int(known.sum()))
    values = np.concatenate([ours[known], theirs[seen]]).astype(np.float64)
    labels = np.concatenate([classes[known], unseen_classes[seen]])
    # Sorted, so that the order of the records, which means nothing, changes no permutation of them.
    order = np.lexsort((values, labels))
    forget, labels = order < known.sum(), labels[order]
    _, places, counts = np.unique(labels, return_inverse=True, return_counts=True)
    sizes = np.bincount(places, forget), counts
    weights = (sizes[0] / known.sum() / (counts - sizes[0]))[places]
    permutations = _permutations(*(tuple(map(int, side)) for side in sizes))
    return Pooled(values[order], labels, forget, permutations, weights)


# Most rows of a report compare the same two sets of records.
@lru_cache(maxsize=4)
def _permutations(forget: tuple[int, ...], every: tuple[int, ...]) -> np.ndarray:
    """(PERMUTATIONS, n) of so many forget records among all of each class."""
    draw = np.random.default_rng(0)
    rows = [
        np.tile(np.arange(n) < m, (PERMUTATIONS, 1)) for m, n in zip(forget, every, strict=True)
    ]
    return np.concatenate([draw.permuted(each, axis=1) for each in rows], axis=1)


def differences(pooled: Pooled) -> Permuted:
    """Mean of the forget records minus the class-matched mean of the unseen ones."""
    values = pooled.values
    own, total = values * (1 / pooled.forget_n + pooled.weights), values @ pooled.weights
    return pooled.over(lambda forget: forget @ own - total)


def auc_shifts(pooled: Pooled) -> Permuted:
    """The class-matched AUC minus 1/2: the difference of the mean ranks within the classes."""
    ranks = np.empty(len(pooled.values))
    for label in np.unique(pooled.classes):
        own = pooled.classes == label
        ranks[own] = stats.rankdata(pooled.values[own]) / own.sum()
    return differences(replace(pooled, values=ranks))


def ks_distances(pooled: Pooled) -> Permuted:
    """Kolmogorov-Smirnov distance to the class-matched distribution of the unseen records."""
    order, _, last = _sorted(pooled.values)
    weights, ends = pooled.weights[order], np.unique(last)

    def distance(forget: np.ndarray) -> np.ndarray:
        steps = forget[:, order] * (1 / pooled.forget_n + weights) - weights
        # Ties fall on one step: only the last of them is a point of the distribution.
        return np.abs(steps.cumsum(axis=1)[:, ends]).max(axis=1)

    return pooled.over(distance)


def hit_rates(pooled: Pooled, *, flagged: int) -> Permuted:
    """Share of the forget records above all but the ``flagged`` highest unseen ones."""
    order, first, _ = _sorted(pooled.values)

    def share(forget: np.ndarray) -> np.ndarray:
        ours = forget[:, order]
        # Unseen records at or above the value: ties with the threshold are no hits.
        above = pooled.unseen_n - _cumulative(~ours)[:, first]
        return (ours & (above <= flagged)).sum(axis=1) / pooled.forget_n

    return pooled.over(share)


def central_shares(pooled: Pooled, *, by_class: bool, level: float = 0.95) -> Permuted:
    """Share of the forget records as near the middle of the unseen ones as ``level`` of these are.

    Among the unseen records of its class, or of all; ties count half below.
    """
    groups, inside = pooled.classes * by_class, np.zeros(1 + len(pooled.permuted))
    for group in np.unique(groups):
        own = np.flatnonzero(groups == group)
        order, first, last = _sorted(pooled.values[own])
        columns = own[order]

        def count(forget: np.ndarray, at: tuple = (columns, first, last)) -> np.ndarray:
            columns, first, last = at
            ours = forget[:, columns]
            unseen = _cumulative(~ours)
            below, n = (unseen[:, first] + unseen[:, last + 1]) / 2, unseen[:, -1:]
            # A two-sided p above 1 - level, as ``equivalence.two_sided`` has it.
            nearer = np.minimum(below, n - below)
            return (ours & (2 * (1 + nearer) > (1 - level) * (1 + n))).sum(axis=1)

        inside += pooled.over(count)
    return inside / pooled.forget_n


def _sorted(values: Values) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Order of the values, and for each place in it the first and the last place with its value."""
    order = np.argsort(values, kind="stable")
    ranked = values[order]
    return order, np.searchsorted(ranked, ranked), np.searchsorted(ranked, ranked, "right") - 1


def _cumulative(marks: np.ndarray) -> np.ndarray:
    """How many marks are before each place, (b, n + 1)."""
    return np.pad(marks.cumsum(axis=1, dtype=np.int32), ((0, 0), (1, 0)))


def two_sided_p(statistics: Permuted) -> float:
    """Twice the smaller tail of the first value among all: at most uniform under the null, to 1."""
    # The slack keeps ties ties after rounding.
    slack = 1e-9 * max(1.0, float(np.abs(statistics).max()))
    above = (statistics >= statistics[0] - slack).mean()
    below = (statistics <= statistics[0] + slack).mean()
    return float(min(1.0, 2 * min(above, below)))


def upper_p(statistics: Permuted) -> float:
    """How often a value is as large as the first one, 0 to 1."""
    return float((statistics >= statistics[0] - 1e-9).mean())


def difference_p(
    ours: Shaped[np.ndarray, " f"],
    theirs: Shaped[np.ndarray, " u"],
    *,
    classes: Int64[np.ndarray, " f"],
    unseen_classes: Int64[np.ndarray, " u"],
) -> float:
    """Two-sided p of a mean (or share) of forget records against unseen ones of their classes.

    0 to 1; at most uniform under the null. Records of classes that one side lacks are omitted;
    raises InputError when none is left.
    """
    both = pool(ours, theirs, classes=classes, unseen_classes=unseen_classes)
    return two_sided_p(differences(both))


def smallest_p(
    classes: Int64[np.ndarray, " f"],
    unseen_classes: Int64[np.ndarray, " u"],
    beatable: Bool[np.ndarray, " u"] | None = None,
    *,
    n: int = 0,
) -> float:
    """Two-sided p if every forget record had the best possible value: could this test fail at all?

    ``beatable``: which unseen records are below the best value; all by default. ``n``: for so many
    forget records, of the same mixture of classes. 1 where no result would be significant.
    """
    # The best result is one of the C(n_c + m_c, w_c) places of the w_c lower values of each class.
    logarithm = 0.0
    many = max(1, int(np.isin(classes, unseen_classes).sum()))
    for label in np.unique(classes):
        own = unseen_classes == label
        below = int(own.sum() if beatable is None else beatable[own].sum())
        there, ours = int(own.sum()), float((classes == label).sum() * (n / many if n else 1))
        logarithm += _ln_choose(there, below) - _ln_choose(there + ours, below)
    return float(min(1.0, 2 * np.exp(logarithm)))


def _ln_choose(n: Count, k: int) -> float:
    return float(special.gammaln(n + 1) - special.gammaln(k + 1) - special.gammaln(n - k + 1))


def all_hits_p(n: Count, hits: int, misses: int) -> float:
    """Two-sided p of n hits in n, if their probability is drawn from Beta(``hits``, ``misses``).

    That is the share of further records beyond an order statistic of given ones: with the threshold
    at the k-th of m it is Beta(k, m + 1 - k).
    """
    logarithm = special.betaln(n + hits, misses) - special.betaln(hits, misses)
    return float(min(1.0, 2 * np.exp(logarithm)))


def records_needed(smallest: Callable[[int], float], *, level: float = 0.05) -> int | None:
    """The smallest n whose best possible result has p of at most ``level``; None above a million.

    ``smallest``: that p for n records; it must not rise with n.
    """
    high = 1
    while smallest(high) > level:
        high *= 2
        if high > MOST_NEEDED:
            return None
    low = high // 2
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if smallest(middle) <= level else (middle, high)
    return high

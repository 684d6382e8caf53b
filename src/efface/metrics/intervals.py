"""Intervals and p-values of shares and AUCs, what a sample could have shown, and TPR at low FPR.

An AUC averages over all thresholds: an attack that is certain of three records in a hundred and
guesses the rest has an AUC near 0.5. So every attack also reports the TPR that it has at few false
positives (``Rate``). Counts may be non-integer floats where they are effective ones.
"""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float
from scipy import optimize, special, stats

# An FPR is resolvable when at least so many non-members may be flagged.
MIN_FALSE_POSITIVES = 3

# The FPRs at which every attack reports its TPR.
FPRS = (0.01, 0.001)

Array = Float[np.ndarray, " _"]
Count = int | float
Counts = tuple[Count, Count]


def clopper_pearson(hits: Count, n: Count, *, level: float = 0.95) -> tuple[float, float]:
    """Exact interval for a share of ``hits`` in ``n``; (0, 1) when nothing was counted."""
    if n == 0:
        return 0.0, 1.0
    tail = (1 - level) / 2
    # Beta quantiles instead of binomial tails: they also take effective, non-integer counts.
    low = stats.beta.ppf(tail, hits, n - hits + 1) if hits > 0 else 0.0
    high = stats.beta.ppf(1 - tail, hits + 1, n - hits) if hits < n else 1.0
    return float(low), float(high)


def auc_interval(auc: float, m: Count, n: Count, *, level: float = 0.95) -> tuple[float, float]:
    """Interval for an AUC from m positives and n negatives.

    Method 5 of Newcombe (Statistics in Medicine 25, 2006): the score form of Hanley and McNeil's
    variance. It stays inside 0 to 1 and has a width at 0 and at 1, where DeLong's has none.
    """
    z = float(stats.norm.ppf((1 + level) / 2))
    return _lower(auc, m, n, z), 1 - _lower(1 - auc, m, n, z)


def _lower(auc: float, m: Count, n: Count, z: float) -> float:
    """The AUC that is z standard errors (its own) below the observed one."""
    if auc <= 0:
        return 0.0

    def distance(a: float) -> float:
        factor = 1 + ((m + n) / 2 - 1) * ((1 - a) / (2 - a) + a / (1 + a))
        return auc - a - z * math.sqrt(a * (1 - a) / (m * n) * factor)

    # At 1 the variance is 0 and the root is lost.
    upper = min(auc, 1 - 1e-12)
    if distance(upper) >= 0:
        return upper
    return float(optimize.root_scalar(distance, bracket=(0.0, upper)).root)


def smallest_auc(m: Count, n: Count, *, level: float = 0.95, power: float = 0.8) -> float:
    """The smallest AUC above 0.5 that a two-sided test detects with this ``power``; at most 1.

    From the Mann-Whitney variance under the null, (m + n + 1) / 12mn. 1 means that the sample is
    too small to show any leak.
    """
    z = stats.norm.ppf((1 + level) / 2) + stats.norm.ppf(power)
    return float(min(1.0, 0.5 + z * math.sqrt((m + n + 1) / (12 * m * n))))


def smallest_share(n: int, *, level: float = 0.95) -> float:
    """The largest share that may still be true after no hit in ``n``: 1 - (1 - level)^(1/n)."""
    return 1 - (1 - level) ** (1 / n) if n else 1.0


def paired_change(
    gained: int, lost: int, n: int, *, level: float = 0.95
) -> tuple[float, float, float]:
    """Change of a share on the same n records, with its interval: (change, low, high).

    ``gained`` were wrong before and are right now, ``lost`` the reverse. Agresti and Min
    (Statistics in Medicine 24, 2005): a Wald interval after half a record is added to each cell.
    """
    if n == 0:
        return 0.0, -1.0, 1.0
    centre, error = _agresti_min(gained, lost, n)
    # z enters before the division, as in the source: the last digit depends on it.
    width = float(stats.norm.ppf((1 + level) / 2)) * error / (n + 2)
    return (gained - lost) / n, max(-1.0, centre - width), min(1.0, centre + width)


def _agresti_min(gained: int, lost: int, n: int) -> tuple[float, float]:
    """The estimated change, and n + 2 times its standard error."""
    error = math.sqrt((gained + lost + 1) - (gained - lost) ** 2 / (n + 2))
    return (gained - lost) / (n + 2), error


def auc_p(auc: float, m: Count, n: Count) -> float:
    """Two-sided p of an AUC, from m positives and n negatives, if the two were drawn alike.

    Normal approximation of Mann-Whitney's statistic without ties: 0 to 1, uniform under the null.
    """
    return float(2 * stats.norm.sf(abs(auc - 0.5) / math.sqrt((m + n + 1) / (12 * m * n))))


def fall_p(gained: int, lost: int, n: int, *, allowed: float = 0.0) -> float:
    """One-sided p of a share's fall on the same n records by more than ``allowed``.

    0 to 1; at most uniform where the share fell by ``allowed`` or less. The larger of the p of
    Agresti and Min's estimate, as in ``paired_change``, and McNemar's exact one.
    """
    centre, error = _agresti_min(gained, lost, n)
    # The estimate knows what is allowed, the exact test small counts.
    exact = float(special.bdtr(gained, gained + lost, 0.5))
    return max(exact, float(special.ndtr((centre + allowed) / (error / (n + 2)))))


def mean_fall_p(changes: Array, *, allowed: float = 0.0) -> float:
    """One-sided p of a mean's fall by more than ``allowed``, from the change of each record.

    0 to 1. The larger of the p of Student's t-test and of the sign test, which a single record and
    equal changes do not mislead.
    """
    up, down, n = int((changes > 0).sum()), int((changes < 0).sum()), len(changes)
    exact = float(special.bdtr(up, up + down, 0.5))
    if n < 2 or not changes.std():  # noqa: PLR2004
        return exact
    return max(exact, float(stats.t.cdf((changes.mean() + allowed) / stats.sem(changes), n - 1)))


def share_p(hits: int, n: int, reference: float, *, reference_n: Count = math.inf) -> float:
    """Two-sided p of ``hits`` in ``n`` for a share of ``reference``, itself from ``reference_n``.

    The larger of the exact binomial one and of the normal one that knows the reference's own error;
    a counted reference is smoothed by one hit and one miss, since 0 of 10 is not never.
    """
    if math.isfinite(reference_n):
        reference = (reference * reference_n + 1) / (reference_n + 2)
    # The exact test knows no error of the reference, the normal one no small counts.
    exact = float(stats.binomtest(hits, n, reference).pvalue)
    error = math.sqrt(reference * (1 - reference) * (1 / n + 1 / reference_n))
    if not error:
        return exact
    return max(exact, float(2 * stats.norm.sf(abs(hits / n - reference) / error)))


def auc_tests(auc: float, m: Count, n: Count, *, level: float = 0.95) -> dict[str, Any]:
    """Interval, p-value and smallest detectable value of an AUC, by name."""
    interval, least = auc_interval(auc, m, n, level=level), smallest_auc(m, n, level=level)
    return {"auc_interval": interval, "smallest_auc": least, "p": auc_p(auc, m, n)}


@dataclass(frozen=True)
class Rate:
    """Share of the members detected, ``tpr``, at a false-positive rate ``fpr``.

    Range 0 to 1; chance ``fpr``; reference: the retrained model's value, which is chance. All but
    ``fpr`` are None where it is not resolvable: fewer than ``needed`` non-members.
    ``interval``: Clopper and Pearson's, for the TPR of this threshold. The threshold is drawn too,
    from few non-members, so ``interval`` misses chance more often than its level says. ``chance``
    does not: the range of ``tpr`` if members are like non-members.
    ``smallest``: the smallest true TPR that would lie above ``chance`` 4 times in 5. ``p``: twice
    the probability of so high a TPR if members are like non-members, at most 1.
    """

    fpr: float
    tpr: float | None = None
    interval: tuple[float, float] | None = None
    chance: tuple[float, float] | None = None
    smallest: float | None = None
    p: float | None = None

    @property
    def needed(self) -> int:
        """Independent non-members that resolve this rate."""
        return math.ceil(round(MIN_FALSE_POSITIVES / self.fpr, 6))

    @property
    def above(self) -> bool:
        """Whether the TPR is above what chance allows; False where it is not resolvable."""
        return self.tpr is not None and self.chance is not None and self.tpr > self.chance[1]


def rate(
    members: Array, others: Array, *, fpr: float, level: float = 0.95, counts: Counts | None = None
) -> Rate:
    """Share of ``members`` above the value that at most ``fpr`` of the ``others`` exceed.

    Higher values mean membership. Ties with the threshold do not count as detected. ``counts``:
    independent (members, others) where these are fewer than the values; the values must not be nan.
    """
    m, n = counts or (len(members), len(others))
    # Effective counts may be too few even where the values themselves are enough.
    limit = threshold(others, fpr)
    if limit is None or false_positives(n, fpr) < MIN_FALSE_POSITIVES:
        return Rate(fpr)
    tpr, chance = float((members > limit).mean()), chance_range(m, n, fpr=fpr, level=level)
    interval = clopper_pearson(tpr * m, m, level=level)
    return Rate(fpr, tpr, interval, chance, _smallest(m, chance[1]), chance_p(tpr, m, n, fpr=fpr))


def threshold(others: Array, fpr: float) -> float | None:
    """The value that at most ``fpr`` of the others exceed; None when too few may."""
    flagged = false_positives(len(others), fpr)
    if flagged < MIN_FALSE_POSITIVES:
        return None
    # Partition, not quantile: an interpolated threshold would let through one more.
    place = len(others) - 1 - flagged
    return float(np.partition(others, place)[place])


def false_positives(n: Count, fpr: float) -> int:
    """How many of n non-members may be flagged at this FPR."""
    # Rounded first, since 0.29 * 100 is 28.999999999999996.
    return math.floor(round(fpr * n, 6))


def chance_range(m: Count, n: Count, *, fpr: float, level: float = 0.95) -> tuple[float, float]:
    """The range of the TPR when m members are drawn like the n others.

    With the threshold at the (a+1)-th highest of the others the hits are beta-binomial with
    parameters a + 1 and n - a, whatever the distribution; ties only lower them.
    """
    below, members = _chance_below(m, n, fpr), max(1, round(m))
    low, high = np.searchsorted(below, [(1 - level) / 2, (1 + level) / 2]).clip(0, members)
    return float(low / members), float(high / members)


def _chance_below(m: Count, n: Count, fpr: float) -> Array:
    """Probability of at most 0, 1, … m hits by chance."""
    # Effective counts are rounded, since the beta-binomial takes integers alone.
    members, others = max(1, round(m)), max(1, round(n))
    flagged, hits = false_positives(others, fpr), np.arange(members + 1)
    return stats.betabinom.pmf(hits, members, flagged + 1, others - flagged).cumsum()


def chance_p(tpr: float, m: Count, n: Count, *, fpr: float) -> float:
    """Twice the probability of so high a TPR when m members are like the n others, at most 1."""
    below = np.append(0.0, _chance_below(m, n, fpr))
    return float(np.clip(2 * (1 - below[round(tpr * (len(below) - 2))]), 0, 1))


def _smallest(m: Count, most: float, power: float = 0.8) -> float:
    """The share for which ``power`` of binomial draws of m exceed ``most``."""
    members = max(1, round(m))
    least = math.floor(round(most * members, 6)) + 1
    return float(stats.beta.ppf(power, least, members - least + 1)) if least <= members else 1.0

"""Intervals for shares and areas, and the smallest leak that a sample could have shown.

Counts may be fractions where they are effective ones.
"""

import math

from scipy import optimize, stats

Count = int | float


def clopper_pearson(hits: Count, n: Count, *, level: float = 0.95) -> tuple[float, float]:
    """Exact interval for a share of ``hits`` in ``n``; (0, 1) when nothing was counted."""
    if n == 0:
        return 0.0, 1.0
    tail = (1 - level) / 2
    low = stats.beta.ppf(tail, hits, n - hits + 1) if hits > 0 else 0.0
    high = stats.beta.ppf(1 - tail, hits + 1, n - hits) if hits < n else 1.0
    return float(low), float(high)


def auc_interval(auc: float, m: Count, n: Count, *, level: float = 0.95) -> tuple[float, float]:
    """Interval for an area under the curve from m positives and n negatives.

    Method 5 of Newcombe (Statistics in Medicine 25, 2006): the score form of Hanley and McNeil's
    variance. It stays inside 0 to 1 and has a width at 0 and at 1, where DeLong's has none.
    """
    z = float(stats.norm.ppf((1 + level) / 2))
    return _lower(auc, m, n, z), 1 - _lower(1 - auc, m, n, z)


def _lower(auc: float, m: Count, n: Count, z: float) -> float:
    """The least area that is z standard errors (its own) below the observed one."""
    if auc <= 0:
        return 0.0

    def distance(area: float) -> float:
        spread = 1 + ((m + n) / 2 - 1) * ((1 - area) / (2 - area) + area / (1 + area))
        return auc - area - z * math.sqrt(area * (1 - area) / (m * n) * spread)

    upper = min(auc, 1 - 1e-12)
    if distance(upper) >= 0:
        return upper
    return float(optimize.root_scalar(distance, bracket=(0.0, upper)).root)


def smallest_auc(m: Count, n: Count, *, level: float = 0.95, power: float = 0.8) -> float:
    """The least area above 0.5 that a two-sided test would find with this ``power``; at most 1.

    From the Mann-Whitney variance without any difference, (m + n + 1) / 12mn. A value of 1 says
    that the sample is too small to show any leak.
    """
    z = stats.norm.ppf((1 + level) / 2) + stats.norm.ppf(power)
    return float(min(1.0, 0.5 + z * math.sqrt((m + n + 1) / (12 * m * n))))


def smallest_share(n: int, *, level: float = 0.95) -> float:
    """The greatest share that may still be true after no hit in ``n``: 1 - (1 - level)^(1/n)."""
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
    z = float(stats.norm.ppf((1 + level) / 2))
    centre = (gained - lost) / (n + 2)
    spread = z * math.sqrt((gained + lost + 1) - (gained - lost) ** 2 / (n + 2)) / (n + 2)
    return (gained - lost) / n, max(-1.0, centre - spread), min(1.0, centre + spread)


def auc_p(auc: float, m: Count, n: Count) -> float:
    """Two-sided p of an area, from m positives and n negatives, if the two were drawn alike.

    Normal approximation of Mann-Whitney's statistic without ties: 0 to 1, uniform where nothing is.
    """
    return float(2 * stats.norm.sf(abs(auc - 0.5) / math.sqrt((m + n + 1) / (12 * m * n))))


def fall_p(gained: int, lost: int, n: int, *, allowed: float = 0.0) -> float:
    """One-sided p of a share's fall on the same n records by more than ``allowed``.

    Agresti and Min's estimate, as in ``paired_change``: 0 to 1; at most uniform where the share
    fell by ``allowed`` or less.
    """
    centre = (gained - lost) / (n + 2)
    spread = math.sqrt((gained + lost + 1) - (gained - lost) ** 2 / (n + 2)) / (n + 2)
    return float(stats.norm.cdf((centre + allowed) / spread))


def share_p(hits: int, n: int, target: float, *, targets_n: Count = math.inf) -> float:
    """Two-sided p of ``hits`` in ``n`` for a share of ``target``, itself found on ``targets_n``.

    The greater of the exact binomial one and of the normal one that knows the target's own error;
    a target that was counted is smoothed by one hit and one miss, since 0 of 10 is not never.
    """
    if math.isfinite(targets_n):
        target = (target * targets_n + 1) / (targets_n + 2)
    exact = float(stats.binomtest(hits, n, target).pvalue)
    spread = math.sqrt(target * (1 - target) * (1 / n + 1 / targets_n))
    if not spread:
        return exact
    return max(exact, float(2 * stats.norm.sf(abs(hits / n - target) / spread)))

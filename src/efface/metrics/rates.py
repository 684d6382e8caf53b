"""What an attack finds when it may flag few non-members: the rate that a single victim cares about.

An area under the curve averages over all thresholds; an attack that is sure of three records in a
hundred and guesses the rest has an area near 0.5. So every attack reports both.
"""

import math
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float
from scipy import stats

from efface.metrics.intervals import Count, clopper_pearson

LEAST_FALSE_ALARMS = 3
"""A rate of false alarms is resolvable when at least so many non-members may be flagged."""

FALSE_ALARMS = (0.01, 0.001)
"""The rates of false alarms at which every attack says what it finds."""


@dataclass(frozen=True)
class Rate:
    """Share of the members found, ``tpr``, at ``fpr`` false alarms.

    Range 0 to 1; chance ``fpr``; target: the retrained model's value, which is chance. All but
    ``fpr`` are None where it is not resolvable: fewer than ``needed`` non-members.
    ``interval``: Clopper and Pearson's, for the share found by this threshold. The threshold is
    drawn too, from few non-members, so ``interval`` leaves out chance more often than its level
    says. ``chance`` does not: the range of ``tpr`` if members are like non-members.
    ``smallest``: the least true share that would lie above ``chance`` 4 times in 5.
    """

    fpr: float
    tpr: float | None = None
    interval: tuple[float, float] | None = None
    chance: tuple[float, float] | None = None
    smallest: float | None = None

    @property
    def needed(self) -> int:
        """Independent non-members that resolve this rate."""
        return math.ceil(round(LEAST_FALSE_ALARMS / self.fpr, 6))

    @property
    def above(self) -> bool:
        """Whether more is found than chance allows; False where nothing is resolvable."""
        return self.tpr is not None and self.chance is not None and self.tpr > self.chance[1]


def rate(
    members: Float[np.ndarray, " m"],
    others: Float[np.ndarray, " n"],
    *,
    fpr: float,
    level: float = 0.95,
    counts: tuple[Count, Count] | None = None,
) -> Rate:
    """Share of ``members`` above the value that at most ``fpr`` of the ``others`` exceed.

    Higher values mean membership. Ties with the threshold are not counted as found. ``counts``:
    independent (members, others) where these are fewer than the values; the values must not be nan.
    """
    m, n = counts or (len(members), len(others))
    limit = threshold(others, fpr)
    if limit is None or _alarms(n, fpr) < LEAST_FALSE_ALARMS:
        return Rate(fpr)
    tpr = float((members > limit).mean())
    chance = chance_range(m, n, fpr=fpr, level=level)
    return Rate(
        fpr=fpr,
        tpr=tpr,
        interval=clopper_pearson(tpr * m, m, level=level),
        chance=chance,
        smallest=_smallest(m, chance[1]),
    )


def threshold(others: Float[np.ndarray, " n"], fpr: float) -> float | None:
    """The value that at most ``fpr`` of the others exceed; None when too few may."""
    alarms = _alarms(len(others), fpr)
    if alarms < LEAST_FALSE_ALARMS:
        return None
    place = len(others) - 1 - alarms
    return float(np.partition(others, place)[place])


def _alarms(n: Count, fpr: float) -> int:
    return math.floor(round(fpr * n, 6))


def chance_range(m: Count, n: Count, *, fpr: float, level: float = 0.95) -> tuple[float, float]:
    """The range of the share found when m members are drawn like the n others.

    With the threshold at the (a+1)-th highest of the others the hits are beta-binomial with
    parameters a + 1 and n - a, whatever the distribution; ties only lower them.
    """
    members, others = max(1, round(m)), max(1, round(n))
    alarms = _alarms(others, fpr)
    hits = np.arange(members + 1)
    below = stats.betabinom.pmf(hits, members, alarms + 1, others - alarms).cumsum()
    low, high = np.searchsorted(below, [(1 - level) / 2, (1 + level) / 2]).clip(0, members)
    return float(low / members), float(high / members)


def _smallest(m: Count, most: float, power: float = 0.8) -> float:
    """The share for which ``power`` of binomial draws of m exceed ``most``."""
    members = max(1, round(m))
    least = math.floor(round(most * members, 6)) + 1
    return float(stats.beta.ppf(power, least, members - least + 1)) if least <= members else 1.0

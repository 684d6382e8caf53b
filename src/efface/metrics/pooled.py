"""One result from scores of many targets in many pipelines, with what is independent counted.

Neither the p x t values nor the t targets are independent. The values of a target share its
difficulty and the sample that judges them; those of a pipeline share a model. So the interval
counts both: the variance by targets plus the variance by pipelines, less that of single values,
which stands in each (Obuchowski, Biometrics 53, 1997, for areas of clustered data; Cameron, Gelbach
and Miller 2011 for two ways). A bootstrap over targets alone takes one unlucky model for a finding;
one over pipelines alone takes one hard target for one.

Shapes: p pipelines · t targets.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float
from scipy.special import expit

from efface.metrics.intervals import auc_interval, auc_p, clopper_pearson, smallest_auc
from efface.metrics.membership import Attack
from efface.metrics.rates import FALSE_ALARMS, Rate, rate, threshold

Table = Float[np.ndarray, "p t"]
Mask = Bool[np.ndarray, "p t"]


@dataclass(frozen=True, eq=False)
class PerRecord:
    """What an attack per record says of each target in each pipeline, and of all together.

    ``scores`` (p, t): log-likelihood ratios in nats, unbounded, 0 is even odds; ``probabilities``
    (p, t): of membership at even odds beforehand, 0 to 1. Both are nan where nothing was judged.
    ``member`` (p, t): where the target was trained on and unlearned. ``attack``: area (chance and
    target 0.5) and rates (chance and target their false alarms); its counts are of values, its
    interval of ``independent`` (members, others). ``accuracy``: share judged right at probability
    1/2, mean of the two sides, chance and target 0.5, the retrained model's values.
    """

    scores: Table
    probabilities: Table
    member: Mask
    attack: Attack
    accuracy: float
    accuracy_interval: tuple[float, float]
    independent: tuple[float, float]

    def by_target(self) -> Float[np.ndarray, " t"]:
        """Accuracy of each target, mean of its two sides; chance and target 0.5.

        From few pipelines the worst of many targets look bad by accident: put the same quantile of
        the retrained models beside it.
        """
        right = _right(self.scores, self.member)
        judged = ~np.isnan(self.scores)
        return (_mean(right, self.member & judged) + _mean(right, ~self.member & judged)) / 2


def pooled(scores: Table, member: Mask, *, level: float = 0.95) -> PerRecord:
    """One result of all judged values (those that are not nan), higher scores meaning membership.

    The area is that of all pairs of a member's and another's value, over all targets: the scores
    are likelihood ratios of the same question, so one threshold fits all.
    """
    sides = member & ~np.isnan(scores), ~member & ~np.isnan(scores)
    ours, theirs = (scores[side] for side in sides)
    wins = np.full(scores.shape, np.nan)
    wins[sides[0]], wins[sides[1]] = _share_below(ours, theirs), 1 - _share_below(theirs, ours)
    auc, effect = float(wins[sides[0]].mean()), _design_effect(wins, sides)
    counts = len(ours) / effect, len(theirs) / effect
    accuracy, accuracy_interval = _accuracy(scores, sides, level)
    return PerRecord(
        scores=scores,
        probabilities=expit(scores),
        member=member,
        attack=Attack(
            auc=auc,
            auc_interval=auc_interval(auc, *counts, level=level),
            fpr=FALSE_ALARMS[0],
            rates=tuple(_rate(scores, sides, fpr, level) for fpr in FALSE_ALARMS),
            forget_n=len(ours),
            unseen_n=len(theirs),
            unmatched=0,
            smallest_auc=smallest_auc(*counts, level=level),
            p=auc_p(auc, *counts),
        ),
        accuracy=accuracy,
        accuracy_interval=accuracy_interval,
        independent=counts,
    )


def _share_below(
    values: Float[np.ndarray, " n"], others: Float[np.ndarray, " m"]
) -> Float[np.ndarray, " n"]:
    """Share of the others below each value; ties count half."""
    ranked = np.sort(others)
    below = np.searchsorted(ranked, values, "left") + np.searchsorted(ranked, values, "right")
    return below / 2 / len(others)


def _design_effect(table: Table, sides: tuple[Mask, ...]) -> float:
    """How many times the variance of independent values that of these is; at least 1.

    Of the mean of the sides' means. Values that are all alike say nothing of their dependence: then
    only pipelines, or targets where they are fewer, count.
    """
    influence = np.zeros(table.shape)
    for side in sides:
        influence[side] = (table[side] - table[side].mean()) / side.sum()
    single = (influence**2).sum()
    if single == 0:
        return float(sum(side.sum() for side in sides) / min(table.shape) / len(sides))
    ways = [_between(influence.sum(axis=axis)) for axis in (1, 0)]
    return float(max(1.0, *(way / single for way in ways), (sum(ways) - single) / single))


def _between(sums: Float[np.ndarray, " c"]) -> float:
    return float((sums**2).sum() * len(sums) / max(1, len(sums) - 1))


def _rate(scores: Table, sides: tuple[Mask, Mask], fpr: float, level: float) -> Rate:
    ours, theirs = (scores[side] for side in sides)
    limit = threshold(theirs, fpr)
    if limit is None:
        return Rate(fpr)
    found = (scores > limit) * 1.0
    counts = tuple(side.sum() / _design_effect(found, (side,)) for side in sides)
    return rate(ours, theirs, fpr=fpr, level=level, counts=counts)


def _accuracy(
    scores: Table, sides: tuple[Mask, Mask], level: float
) -> tuple[float, tuple[float, float]]:
    right = _right(scores, sides[0])
    share = float(np.mean([right[side].mean() for side in sides]))
    alike = 4 / sum(1 / side.sum() for side in sides)
    count = alike / _design_effect(right, sides)
    return share, clopper_pearson(share * count, count, level=level)


def _right(scores: Table, member: Mask) -> Table:
    """1 where a probability of 1/2 judges right, 1/2 where it is just that."""
    signed = np.where(member, scores, -scores)
    return np.where(signed > 0, 1.0, np.where(signed == 0, 0.5, 0.0))


def _mean(table: Table, chosen: Mask) -> Float[np.ndarray, " t"]:
    return np.where(chosen, table, 0).sum(axis=0) / chosen.sum(axis=0)

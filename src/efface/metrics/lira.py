"""What the attacks with shadow models share: sound arrays, and moments over the models of a record.

Shapes: s models (or pipelines) · n records (targets).


LiRA: was this record trained on, by the log-odds that shadow models with and without it give.

Carlini et al., "Membership inference attacks from first principles",
https://arxiv.org/abs/2112.03570. Shapes: s shadow models · n records. Log-odds are
ln p - ln(1 - p) of the label, ``Evaluation.margin``: by log-sum-exp, so that sure answers keep apart.


Likelihoods of each value under what the other pipelines say of its record, group by group.

A value must not stand in the sample that judges it. But to leave out that value alone is not
enough: its own group is then judged from one value fewer than the others, so that it looks less
likely under the truth. Without any leak, with 3 of 32 pipelines in a group, the area under the
curve is 0.45 instead of 0.5, and small leaks do not show. So each group gives up one value: its own
one, or a partner of the same rank. All groups are then judged from the same sizes, and without a
leak the values of all groups are exchangeable.

Shapes: p pipelines · t targets · k groups, numbered from 0; -1 is no group.


One result from scores of many targets in many pipelines, with what is independent counted.

Neither the p x t values nor the t targets are independent. The values of a target share its
difficulty and the sample that judges them; those of a pipeline share a model. So the interval
counts both: the variance by targets plus the variance by pipelines, less that of single values,
which stands in each (Obuchowski, Biometrics 53, 1997, for areas of clustered data; Cameron, Gelbach
and Miller 2011 for two ways). A bootstrap over targets alone takes one unlucky model for a finding;
one over pipelines alone takes one hard target for one.

Shapes: p pipelines · t targets.


Attacks per record on a whole unlearning pipeline: U-LiRA, and RULI's three states.

A population attack has one threshold; here each target is judged by what the same pipeline does to
it elsewhere. They read log-odds, never whether the answer is right: of two sure right answers one
can still be a member's. Every value is judged from other pipelines (``leave_out``).

Shapes: p pipelines · t targets. ``log_odds`` is ``Evaluation.margin`` of the unlearned models.
``unlearned``: where the target was trained on and unlearned; elsewhere it was never trained on,
while the same unlearning ran on another forget set. Who is where must be drawn at random.


RMIA: was this record trained on, by how its probability rose compared with other people's.

Zarifzadeh et al., "Low-cost high-power membership inference attacks", ICML 2024,
https://arxiv.org/abs/2312.03262. A few reference models give most of its power.
Shapes: r reference models · n records · z population records, which no model was trained on.
Probabilities come as their logarithms, ln p of the label (minus the loss), so that none is 0.

For one judged model the score rises with ln p - ln p(x) alone: ``gamma`` and the population put it
on a scale that can be compared between models, but do not change the order of records beyond ties.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int
from scipy import stats
from scipy.special import expit, logsumexp, softmax

from efface.errors import InputError
from efface.metrics.intervals import (
    FALSE_ALARMS,
    Rate,
    auc_interval,
    auc_p,
    clopper_pearson,
    rate,
    smallest_auc,
    threshold,
)
from efface.metrics.membership import Attack, signal_attack
from efface.metrics.refusals import enough, same_shape, sound

Shadow = Float[np.ndarray, "s n"]

LEAST_SPREAD = 1e-6
"""Models that all say the same have no spread; their values must not become 0 / 0."""


class Moments(NamedTuple):
    """Of each record over the models of one group: how many, their mean, the squares around it."""

    count: np.ndarray
    mean: np.ndarray
    squares: np.ndarray

    def without(self, values: Shadow) -> "Moments":
        """The moments with one of the values of each record left out, for each row of ``values``.

        Exact and in one step, so that no fit is done again for each model.
        """
        count = np.broadcast_to(self.count - 1, values.shape)
        mean = self.mean - (values - self.mean) / (self.count - 1)
        less = self.count / (self.count - 1) * (values - self.mean) ** 2
        return Moments(count, mean, np.maximum(self.squares - less, 0))

    def spread(self, floor: float) -> np.ndarray:
        """Standard deviation (n - 1), never below ``floor`` times the one that records share."""
        return np.maximum(np.sqrt(self.squares / (self.count - 1)), floor * self.shared_spread())

    def shared_spread(self) -> np.ndarray:
        """One standard deviation around each record's own mean, over all records of a row."""
        count = np.broadcast_to(self.count, self.squares.shape)
        free = (count - 1).sum(axis=-1, keepdims=True)
        shared = np.sqrt(self.squares.sum(axis=-1, keepdims=True) / free)
        return np.maximum(shared, LEAST_SPREAD)


def moments(values: Shadow, chosen: Bool[np.ndarray, "s n"]) -> Moments:
    """Of each record over the models that are chosen for it; at least one each."""
    count = chosen.sum(axis=0)
    mean = np.where(chosen, values, 0).sum(axis=0) / count
    squares = np.where(chosen, (values - mean) ** 2, 0).sum(axis=0)
    return Moments(count, mean, squares)


def with_judged(
    judged: Float[np.ndarray, " n"], table: Shadow, member: Bool[np.ndarray, "s n"], *, what: str
) -> tuple[Float[np.ndarray, " n"], Float[np.ndarray, "s n"]]:
    """The judged model's values and the other models', sound and of one length; else InputError."""
    same_shape(shadow=table, member=member)
    same_shape(judged=judged, record=np.empty(table.shape[1]))
    return sound(judged[None], f"{what} of the judged model")[0], sound(table, what)


MODELS_FOR_OWN_VARIANCE = 64
"""With fewer shadow models all records share one variance, as the paper advises."""

SHADOW_FLOOR = 1e-3
"""Least standard deviation of a record, as a share of that of all records together."""


def lira_online(
    log_odds: Float[np.ndarray, " n"],
    shadow: Float[np.ndarray, "s n"],
    member: Bool[np.ndarray, "s n"],
) -> Float[np.ndarray, " n"]:
    """Log-likelihood ratio ln N(x; in) - ln N(x; out) of each record, x its log-odds.

    ``member``: where a shadow model was trained on the record. In nats, unbounded; higher means
    trained on; 0 is even odds. Target: what the retrained model's records score, so an area of 0.5
    against records never seen (``signal_attack``). Carlini's code shares the variance of all
    values, the differences between records included; here it is that around each record's own mean.
    Raises InputError for nan or inf (naming the models) and for records with fewer than two shadow
    models on a side.
    """
    judged, shadow = with_judged(log_odds, shadow, member, what="log-odds")
    total = np.zeros(len(judged))
    for sign, chosen, side in ((1, member, "in"), (-1, ~member, "out")):
        enough(chosen, 2, f"shadow models {side}")
        found = moments(shadow, chosen)
        total += sign * stats.norm.logpdf(judged, found.mean, _spread(found, len(shadow)))
    return total


def lira_offline(
    log_odds: Float[np.ndarray, " n"],
    shadow: Float[np.ndarray, "s n"],
    member: Bool[np.ndarray, "s n"],
) -> Float[np.ndarray, " n"]:
    """-ln P(out > x) of each record: how rare so high log-odds are in models without the record.

    In nats, from 0; higher means trained on; exponential with mean 1 for records that were never
    seen. Target and errors as ``lira_online``; only the models without the record are read. One
    side is looked at: Carlini's code takes -ln N(x; out), which calls forgotten records members.
    """
    judged, shadow = with_judged(log_odds, shadow, member, what="log-odds")
    enough(~member, 2, "shadow models out")
    found = moments(shadow, ~member)
    return -stats.norm.logsf(judged, found.mean, _spread(found, len(shadow)))


def _spread(found: Moments, models: int) -> Float[np.ndarray, "..."]:
    return found.shared_spread() if models < MODELS_FOR_OWN_VARIANCE else found.spread(SHADOW_FLOOR)


Table = Float[np.ndarray, "p t"]
Groups = Int[np.ndarray, "p t"]


def gaussian(
    values: Table, groups: Groups, k: int, *, floor: float, one_sd: bool
) -> Float[np.ndarray, "k p t"]:
    """Log-densities of each value under a Gaussian of each group, with one value each left out.

    The standard deviation of a record is at least ``floor`` times that which records share;
    ``one_sd``: one for all groups of a record.
    """
    fitted = [
        moments(values, groups == group).without(_lost(values, groups, group)) for group in range(k)
    ]
    spreads = [_together(fitted).spread(floor)] * k if one_sd else [m.spread(floor) for m in fitted]
    return np.stack(
        [
            stats.norm.logpdf(values, found.mean, spread)
            for found, spread in zip(fitted, spreads, strict=True)
        ]
    )


def _together(fitted: list[Moments]) -> Moments:
    """The squares around each group's own mean, as those of one sample with fewer free ones."""
    free = np.sum([found.count - 1 for found in fitted], axis=0)
    squares = np.sum([found.squares for found in fitted], axis=0)
    return Moments(free + 1, fitted[0].mean, squares)


def kernel(
    values: Table, groups: Groups, k: int, *, floor: float, bandwidth: float | None
) -> Float[np.ndarray, "k p t"]:
    """The same under a Gaussian kernel density of each group.

    ``bandwidth`` in units of log-odds; None: Scott's rule for each record and group, standard
    deviation (with ``floor``) times n ** -1/5, as in scipy.
    """
    return np.stack(
        [_kernel(values, groups, group, floor, bandwidth) for group in range(k)],
    )


def _kernel(
    values: Table, groups: Groups, group: int, floor: float, bandwidth: float | None
) -> Table:
    chosen, lost = groups == group, partners(groups, group)
    fitted = moments(values, chosen).without(np.take_along_axis(values, lost, axis=0))
    scott = fitted.spread(floor) * fitted.count**-0.2
    width = scott if bandwidth is None else np.full(values.shape, bandwidth)
    sums = [
        _log_sums(values[:, part], chosen[:, part], lost[:, part], width[:, part])
        for part in _parts(values.shape[1])
    ]
    scale = np.log(width * np.sqrt(2 * np.pi) * fitted.count)
    return np.concatenate(sums, axis=1) - scale


def _log_sums(values: Table, chosen: np.ndarray, lost: np.ndarray, width: Table) -> Table:
    """Logarithm of the sum of the kernels of the chosen values that are not lost.

    Relative to the nearest one: its kernel is the greatest, so that the sum cannot become 0.
    """
    nearest, total = np.full(values.shape, np.inf), np.zeros(values.shape)
    for row in range(len(values)):
        far = np.abs(values - values[row])
        far[(lost == row) | ~chosen[row]] = np.inf
        np.minimum(nearest, far, out=nearest)
    for row in range(len(values)):
        # Of the squares the difference, or far-off values would round to one another.
        beyond = (values - values[row]) ** 2 - nearest**2
        beyond[(lost == row) | ~chosen[row]] = np.inf
        total += np.exp(-beyond / (2 * width**2))
    return np.log(total) - (nearest / width) ** 2 / 2


def _parts(targets: int, size: int = 256) -> list[slice]:
    """So many targets at a time as the processor's own memory holds."""
    return [slice(start, start + size) for start in range(0, targets, size)]


def _lost(values: Table, groups: Groups, group: int) -> Table:
    return np.take_along_axis(values, partners(groups, group), axis=0)


def partners(groups: Groups, group: int) -> Int[np.ndarray, "p t"]:
    """Which pipeline of ``group`` is left out when each value is judged: itself, or its partner.

    The partner has the same rank in its group, counted round; the order of pipelines says nothing.
    """
    chosen = groups == group
    rank = np.zeros(groups.shape, np.int64)
    for label in np.unique(groups):
        own = groups == label
        rank = np.where(own, own.cumsum(axis=0) - 1, rank)
    members = np.argsort(~chosen, axis=0, kind="stable")
    return np.take_along_axis(members, rank % chosen.sum(axis=0), axis=0)


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


LEAST = 3
"""Pipelines a target needs on each side: one is left out, and two have a spread."""

FLOOR = 0.5
"""Least standard deviation, as a share of the one that all targets have together."""

UNLEARNED, OUT, INSIDE = 0, 1, 2
NONE = -1


def u_lira(
    log_odds: Float[np.ndarray, "p t"],
    unlearned: Bool[np.ndarray, "p t"],
    *,
    floor: float = FLOOR,
    one_sd: bool = False,
    level: float = 0.95,
) -> PerRecord:
    """Which targets were unlearned and which never seen, by Gaussians per target: ``PerRecord``.

    Target and chance: area and accuracy 0.5, what retraining gives. ``one_sd``: both sides of a
    target share one deviation; finds more where unlearning moves targets and less where it only
    spreads them. Hayes et al., "Inexact unlearning needs more careful evaluations to avoid a false
    sense of privacy", https://arxiv.org/abs/2403.01218. Raises InputError for nan or inf (naming
    the pipelines) and for targets with fewer than three pipelines on a side.
    """
    values, groups = _prepared(log_odds, unlearned, np.zeros(unlearned.shape, bool))
    found = gaussian(values, groups, 2, floor=floor, one_sd=one_sd)
    return pooled(found[UNLEARNED] - found[OUT], unlearned, level=level)


def ruli_privacy(
    log_odds: Float[np.ndarray, "p t"],
    unlearned: Bool[np.ndarray, "p t"],
    *,
    inside: Bool[np.ndarray, "p t"] | None = None,
    bandwidth: float | None = None,
    floor: float = FLOOR,
    level: float = 0.95,
) -> PerRecord:
    """The same by kernel densities: the privacy ratio U / (U + out), out in unlearned models.

    ``inside``: where the target was trained on and kept; it is not judged there. ``bandwidth`` in
    units of log-odds: None for Scott's rule; RULI's code takes 1 whatever the spread. Naderloui et
    al., USENIX Security 2025, https://arxiv.org/abs/2506.13009. Target, chance and errors as
    ``u_lira``.
    """
    kept = np.zeros(unlearned.shape, bool) if inside is None else inside
    values, groups = _prepared(log_odds, unlearned, kept)
    found = kernel(values, groups, 2, floor=floor, bandwidth=bandwidth)
    ratios = np.where(kept, np.nan, found[UNLEARNED] - found[OUT])
    return pooled(ratios, unlearned, level=level)


def ruli_efficacy(
    log_odds: Float[np.ndarray, "p t"],
    unlearned: Bool[np.ndarray, "p t"],
    retrained: Float[np.ndarray, "q t"],
    *,
    out: Bool[np.ndarray, "q t"] | None = None,
    bandwidth: float | None = None,
    floor: float = FLOOR,
    level: float = 0.95,
) -> PerRecord:
    """Unlearned against q models trained without the target: the ratio U / (U + retrained).

    Target and chance: area and accuracy 0.5, which say that the target's log-odds are those of
    retraining. Above: whoever knows both kinds of model can tell which he has; the unlearned ones
    may well know LESS, so this is no leak of membership by itself. ``out``: where a retrained
    model is without the target; everywhere if None. The rows of the result are the unlearned
    pipelines, then the retrained models. The rest as ``ruli_privacy``.
    """
    without = np.ones(retrained.shape, bool) if out is None else out
    same_shape(unlearned=unlearned[0], retrained=retrained[0])
    member = np.concatenate([unlearned, np.zeros(retrained.shape, bool)])
    ignored = np.concatenate([~unlearned, ~without])
    values, groups = _prepared(np.concatenate([log_odds, retrained]), member, ignored)
    found = kernel(values, groups, 2, floor=floor, bandwidth=bandwidth)
    ratios = np.where(ignored, np.nan, found[UNLEARNED] - found[OUT])
    return pooled(ratios, member, level=level)


def ruli_states(
    log_odds: Float[np.ndarray, "p t"],
    unlearned: Bool[np.ndarray, "p t"],
    inside: Bool[np.ndarray, "p t"],
    *,
    bandwidth: float | None = None,
    floor: float = FLOOR,
) -> Float[np.ndarray, "p t 3"]:
    """Probabilities that a target was unlearned, out or inside, in this order, at even odds.

    0 to 1, together 1; chance 1/3 each. Target: unlearned and out alike, both apart from inside.
    Errors as ``u_lira``, for all three.
    """
    values, groups = _prepared(log_odds, unlearned, inside)
    enough(inside, LEAST, "pipelines with the target kept")
    found = kernel(values, np.where(inside, INSIDE, groups), 3, floor=floor, bandwidth=bandwidth)
    return np.moveaxis(softmax(found, axis=0), 0, -1)


def _prepared(
    log_odds: Float[np.ndarray, "p t"], unlearned: np.ndarray, ignored: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    same_shape(log_odds=log_odds, unlearned=unlearned, ignored=ignored)
    values = sound(log_odds, "log-odds")
    groups = np.where(ignored, NONE, np.where(unlearned, UNLEARNED, OUT))
    enough(groups == UNLEARNED, LEAST, "pipelines with the target unlearned")
    enough(groups == OUT, LEAST, "pipelines without the target")
    return values, groups


GRID = tuple(round(0.1 * step, 1) for step in range(11))


def rmia_online(
    log_p: Float[np.ndarray, " n"],
    reference: Float[np.ndarray, "r n"],
    member: Bool[np.ndarray, "r n"],
    *,
    population: Float[np.ndarray, " z"],
    population_reference: Float[np.ndarray, "r z"],
    gamma: float = 2.0,
) -> Float[np.ndarray, " n"]:
    """Share of population records z with (p(x)/mean p(x)) / (p(z)/mean p(z)) > ``gamma``.

    ``member``: where a reference model was trained on the record; mean p(x) weighs those with and
    those without it equally, mean p(z) all of them. Range 0 to 1, higher means trained on; no
    chance level of its own: feed it to ``signal_attack``. Target: what the retrained model's
    records score, so an area of 0.5 against records never seen. ``gamma``: 2 in the paper, 1 in its
    code. Raises InputError for nan or inf (naming the models), for records without a reference
    model on a side, without population, and for a ``gamma`` that is not above 0.
    """
    judged, reference = with_judged(log_p, reference, member, what="log-probabilities")
    enough(member, 1, "reference models in")
    enough(~member, 1, "reference models out")
    sides = [_log_mean(reference, member), _log_mean(reference, ~member)]
    expected = np.logaddexp(*sides) - math.log(2)
    unseen, references = _population(population, population_reference, len(reference))
    theirs = unseen - _log_mean(references, np.ones(references.shape, bool))
    return _share_beaten(judged - expected, theirs, gamma)


def rmia_offline(
    log_p: Float[np.ndarray, " n"],
    reference: Float[np.ndarray, "r n"],
    member: Bool[np.ndarray, "r n"],
    *,
    population: Float[np.ndarray, " z"],
    population_reference: Float[np.ndarray, "r z"],
    a: float,
    gamma: float = 2.0,
) -> Float[np.ndarray, " n"]:
    """``rmia_online`` from reference models without the record: p(x) = ((1 + a) p_out + 1 - a) / 2.

    ``a``, 0 to 1, says how far p_out stands for models with the record too: 1 takes it as it is.
    It belongs to the data and the net; ``tuned_a`` finds it on a model whose members are known,
    never on the judged one. Range, target and errors as ``rmia_online``; only models without the
    record are read, so none with it are needed.
    """
    if not 0 <= a <= 1:
        raise InputError("a from 0 to 1", str(a), "Find it with tuned_a on a reference model.")
    judged, reference = with_judged(log_p, reference, member, what="log-probabilities")
    enough(~member, 1, "reference models out")
    unseen, references = _population(population, population_reference, len(reference))
    ours = judged - _lifted(_log_mean(reference, ~member), a)
    theirs = unseen - _lifted(_log_mean(references, np.ones(references.shape, bool)), a)
    return _share_beaten(ours, theirs, gamma)


def tuned_a(
    log_p: Float[np.ndarray, " n"],
    reference: Float[np.ndarray, "r n"],
    member: Bool[np.ndarray, "r n"],
    *,
    known: Bool[np.ndarray, " n"],
    population: Float[np.ndarray, " z"],
    population_reference: Float[np.ndarray, "r z"],
    grid: Sequence[float] = GRID,
) -> float:
    """The ``a`` of the grid with the greatest area on a model whose members are ``known``.

    That model is a reference model set aside, ``log_p`` its answers; it stands neither among
    ``reference`` nor is it the judged one. The least such ``a`` when several are equal.
    """
    others = {"population": population, "population_reference": population_reference}
    areas = []
    for a in grid:
        found = rmia_offline(log_p, reference, member, a=a, **others)
        areas.append(signal_attack(found[known], found[~known]).auc)
    return grid[int(np.argmax(areas))]


def _lifted(log_out: Float[np.ndarray, " n"], a: float) -> Float[np.ndarray, " n"]:
    return np.log(((1 + a) * np.exp(log_out) + 1 - a) / 2) if a < 1 else log_out


def _log_mean(log_p: Float[np.ndarray, "r n"], chosen: np.ndarray) -> Float[np.ndarray, " n"]:
    """Logarithm of the mean probability over the models that are chosen for each record."""
    kept = np.where(chosen, log_p, -np.inf)
    return logsumexp(kept, axis=0) - np.log(chosen.sum(axis=0))


def _share_beaten(
    ours: Float[np.ndarray, " n"], theirs: Float[np.ndarray, " z"], gamma: float
) -> Float[np.ndarray, " n"]:
    if gamma <= 0:
        raise InputError("gamma above 0", str(gamma), "The paper takes 2.")
    beaten = np.searchsorted(np.sort(theirs), ours - math.log(gamma), side="left")
    return beaten / len(theirs)


def _population(
    population: Float[np.ndarray, " z"], reference: Float[np.ndarray, "r z"], models: int
) -> tuple[Float[np.ndarray, " z"], Float[np.ndarray, "r z"]]:
    if not len(population):
        raise InputError("population records", "none", "Give records that no model was trained on.")
    same_shape(population_reference=reference, wanted=np.empty((models, len(population))))
    judged = sound(population[None], "log-probabilities of the population in the judged model")
    return judged[0], sound(reference, "log-probabilities of the population")

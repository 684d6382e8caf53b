"""Per-record attacks with shadow models: LiRA, RMIA, U-LiRA, RULI, and one result of all targets.

Each record is judged by what models with and without it say of it. LiRA and RMIA judge one model
against shadow (reference) models; U-LiRA and RULI judge an unlearning method by p shadow runs: each
target is judged by what the same method does to it in the other runs. Values are log-odds of the
label, ``Evaluation.logit_margin`` (by log-sum-exp, so that confident predictions stay apart), or
ln p of the label for RMIA; never whether the prediction is right.

**Leave one out, in every group.** A value must not be in the sample that judges it. But to omit
that value alone is not enough: its own group is then judged from one value fewer than the others,
so that it looks less likely under the truth. Without any leak, with 3 of 32 runs in a group, the
AUC is 0.45 instead of 0.5, and small leaks do not show. So each group gives up one value: its own
one, or a partner of the same rank. All groups are then judged from equal sizes, and without a leak
the values of all groups are exchangeable.

**What is independent.** Neither the p x t values nor the t targets are. The values of a target
share its difficulty and the sample that judges them; those of a run share a model. So the interval
counts both: the variance by targets plus the variance by runs, minus that of single values, which
is in each (Obuchowski, Biometrics 53, 1997, for AUCs of clustered data; Cameron, Gelbach and Miller
2011 for two ways). A bootstrap over targets alone takes one unlucky model for a finding; one over
runs alone takes one hard target for one.

Shapes: s shadow (reference) models · n records · z population records · p shadow runs ·
t targets · k groups, numbered from 0; -1 is no group.
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
from efface.metrics.equivalence import share_below
from efface.metrics.intervals import FPRS, Rate, auc_tests, clopper_pearson, rate, threshold
from efface.metrics.membership import Attack
from efface.metrics.refusals import enough, same_shape, sound

# Models that all say the same have no variance; their values must not become 0 / 0.
MIN_STD = 1e-6

# With fewer shadow models all records share one variance, as LiRA's paper advises.
MODELS_FOR_OWN_VARIANCE = 64

# Minimum standard deviation of a record in LiRA and in U-LiRA, as a share of the shared one.
SHADOW_FLOOR, FLOOR = 1e-3, 0.5

# Runs a target needs on each side: one is left out, and two have a variance.
MIN_RUNS = 3

# Groups: trained on and unlearned; never trained on; trained on and kept; not judged.
UNLEARNED, OUT, INSIDE, NONE = 0, 1, 2, -1

GRID = tuple(round(0.1 * step, 1) for step in range(11))

Record = Float[np.ndarray, " n"]
Shadow = Float[np.ndarray, "s n"]
Member = Bool[np.ndarray, "s n"]
Pool = tuple[Float[np.ndarray, " z"], Float[np.ndarray, "s z"]]
Table = Float[np.ndarray, "p t"]
Mask = Bool[np.ndarray, "p t"]
Groups = Int[np.ndarray, "p t"]
# Of a kernel, in units of log-odds; None: Scott's rule.
Width = float | None


class Moments(NamedTuple):
    """Of each record over the models of one group: how many, their mean, the squares around it."""

    count: np.ndarray
    mean: np.ndarray
    squares: np.ndarray

    def without(self, values: np.ndarray) -> "Moments":
        """The moments without one of the values of each record, for each row of ``values``.

        Exact and in one step, so that no fit is repeated for each model.
        """
        count = np.broadcast_to(self.count - 1, values.shape)
        mean = self.mean - (values - self.mean) / (self.count - 1)
        # Clipped, since the difference of two nearly equal sums may round below 0.
        less = self.count / (self.count - 1) * (values - self.mean) ** 2
        return Moments(count, mean, np.maximum(self.squares - less, 0))

    def std(self, floor: float) -> np.ndarray:
        """Standard deviation (n - 1), never below ``floor`` times the one that records share."""
        return np.maximum(np.sqrt(self.squares / (self.count - 1)), floor * self.shared_std())

    def shared_std(self) -> np.ndarray:
        """One standard deviation around each record's own mean, over all records of a row."""
        count = np.broadcast_to(self.count, self.squares.shape)
        free = (count - 1).sum(axis=-1, keepdims=True)
        shared = np.sqrt(self.squares.sum(axis=-1, keepdims=True) / free)
        return np.maximum(shared, MIN_STD)


def moments(values: np.ndarray, chosen: np.ndarray) -> Moments:
    """Of each record over the models that are chosen for it; at least one each."""
    count = chosen.sum(axis=0)
    mean = np.where(chosen, values, 0).sum(axis=0) / count
    # Two passes: sums of squares of raw values would cancel for distant log-odds.
    squares = np.where(chosen, (values - mean) ** 2, 0).sum(axis=0)
    return Moments(count, mean, squares)


def lira_online(log_odds: Record, shadow: Shadow, member: Member) -> Record:
    """Log-likelihood ratio ln N(x; in) - ln N(x; out) of each record, x its log-odds.

    ``member``: where a shadow model was trained on the record. In nats, unbounded; higher means
    trained on; 0 is even odds. Reference: the retrained model's scores, so an AUC of 0.5 against
    records never seen (``signal_attack``). Carlini et al., "Membership inference attacks from first
    principles", https://arxiv.org/abs/2112.03570; their code shares the variance of all values, the
    differences between records included; here it is that around each record's own mean. Raises
    InputError for nan or inf (naming the models) and for records with fewer than two shadow models
    on a side.
    """
    judged, shadow = _sound_pair(log_odds, shadow, member, "log-odds")
    inside = stats.norm.logpdf(judged, *_shadow_fit(shadow, member, "in"))
    return inside - stats.norm.logpdf(judged, *_shadow_fit(shadow, ~member, "out"))


def lira_offline(log_odds: Record, shadow: Shadow, member: Member) -> Record:
    """-ln P(out > x) of each record: how rare so high log-odds are in models without the record.

    In nats, from 0; higher means trained on; exponential with mean 1 for records that were never
    seen. Reference and errors as ``lira_online``; only the models without the record are read. It
    is one-sided: Carlini's code takes -ln N(x; out), which calls over-forgotten records members.
    """
    judged, shadow = _sound_pair(log_odds, shadow, member, "log-odds")
    return -stats.norm.logsf(judged, *_shadow_fit(shadow, ~member, "out"))


def _shadow_fit(shadow: Shadow, chosen: Member, side: str) -> tuple[np.ndarray, np.ndarray]:
    """Mean and standard deviation of each record over the chosen models."""
    # At least two: one model has no standard deviation.
    enough(chosen, 2, f"shadow models {side}")
    found = moments(shadow, chosen)
    own = len(shadow) >= MODELS_FOR_OWN_VARIANCE
    return found.mean, found.std(SHADOW_FLOOR) if own else found.shared_std()


def _sound_pair(
    judged: np.ndarray, table: np.ndarray, member: np.ndarray, what: str
) -> tuple[np.ndarray, np.ndarray]:
    """The judged model's values and the other models', sound and of one length; else InputError."""
    same_shape(shadow=table, member=member)
    same_shape(judged=judged, record=np.empty(table.shape[1]))
    return sound(judged[None], f"{what} of the judged model")[0], sound(table, what)


def rmia_online(
    log_p: Record, shadow: Shadow, member: Member, *, population: Pool, gamma: float = 2.0
) -> Record:
    """Share of population records z with (p(x)/mean p(x)) / (p(z)/mean p(z)) > ``gamma``.

    ``log_p``, ``shadow``: ln p of the label (minus the loss), so that none is 0, in the judged and
    in the reference models. ``member``: where a reference model was trained on the record; mean
    p(x) weighs those with and those without it equally, mean p(z) all of them. ``population``: the
    same two arrays, (z,) and (s, z), of records that no model was trained on. Range 0
    to 1, higher means trained on; no chance level of its own: pass it to ``signal_attack``.
    Reference: the retrained model's scores, so an AUC of 0.5 against records never seen.
    ``gamma``: 2 in the paper, 1 in its code; it and the population put the score on a scale that
    can be compared between models, and do not change the order of records beyond ties.
    Zarifzadeh et al., "Low-cost high-power membership inference attacks", ICML 2024,
    https://arxiv.org/abs/2312.03262: a few reference models give most of its power. Raises
    InputError for nan or inf (naming the models), for records without a reference model on a side,
    without population, and for a ``gamma`` that is not above 0.
    """
    judged, shadow = _sound_pair(log_p, shadow, member, "log-probabilities")
    enough(member, 1, "reference models in")
    enough(~member, 1, "reference models out")
    # The mean of the two sides' means, in logarithms: p itself underflows.
    expected = np.logaddexp(_log_mean(shadow, member), _log_mean(shadow, ~member))
    unseen, theirs = _population(population, len(shadow))
    return _share_exceeded(judged - (expected - math.log(2)), unseen - theirs, gamma)


def rmia_offline(
    log_p: Record, shadow: Shadow, member: Member, a: float, *, population: Pool, gamma: float = 2.0
) -> Record:
    """``rmia_online`` from reference models without the record: p(x) = ((1 + a) p_out + 1 - a) / 2.

    ``a``, 0 to 1, says how well p_out stands for models with the record too: 1 takes it as it is.
    It belongs to the data and the model; ``tuned_a`` finds it on a model whose members are known,
    never on the judged one. Range, reference and errors as ``rmia_online``; only models without the
    record are read, so none with it are needed.
    """
    if not 0 <= a <= 1:
        raise InputError("a from 0 to 1", str(a), "Find it with tuned_a on a reference model.")
    judged, shadow = _sound_pair(log_p, shadow, member, "log-probabilities")
    enough(~member, 1, "reference models out")
    unseen, theirs = _population(population, len(shadow))
    ours = judged - _lifted(_log_mean(shadow, ~member), a)
    return _share_exceeded(ours, unseen - _lifted(theirs, a), gamma)


def tuned_a(
    log_p: Record,
    shadow: Shadow,
    member: Member,
    known: Bool[np.ndarray, " n"],
    *,
    population: Pool,
    grid: Sequence[float] = GRID,
) -> float:
    """The ``a`` of the grid with the largest AUC on a model whose members are ``known``.

    That model is a reference model set aside, ``log_p`` its values; it is neither among
    ``shadow`` nor the judged one. The smallest such ``a`` when several are equal.
    """
    found = [rmia_offline(log_p, shadow, member, a, population=population) for a in grid]
    aucs = [float(share_below(scores[known], scores[~known]).mean()) for scores in found]
    return grid[int(np.argmax(aucs))]


def _lifted(log_out: np.ndarray, a: float) -> np.ndarray:
    # a = 1 returns the logarithm untouched, so that nothing underflows on the way.
    return np.log(((1 + a) * np.exp(log_out) + 1 - a) / 2) if a < 1 else log_out


def _log_mean(log_p: np.ndarray, chosen: np.ndarray) -> np.ndarray:
    """Logarithm of the mean probability over the models that are chosen for each record."""
    return logsumexp(np.where(chosen, log_p, -np.inf), axis=0) - np.log(chosen.sum(axis=0))


def _share_exceeded(ours: np.ndarray, theirs: np.ndarray, gamma: float) -> np.ndarray:
    if gamma <= 0:
        raise InputError("gamma above 0", str(gamma), "The paper takes 2.")
    # "left" counts strictly smaller ones: ties do not exceed.
    exceeded = np.searchsorted(np.sort(theirs), ours - math.log(gamma), side="left")
    return exceeded / len(theirs)


def _population(population: Pool, models: int) -> tuple[np.ndarray, np.ndarray]:
    """The log-probabilities in the judged model, and their means over the reference models."""
    judged, reference = population
    if not len(judged):
        raise InputError("population records", "none", "Give records that no model was trained on.")
    same_shape(population_reference=reference, wanted=np.empty((models, len(judged))))
    judged = sound(judged[None], "log-probabilities of the population in the judged model")
    everywhere = np.ones(reference.shape, bool)
    return judged[0], _log_mean(sound(reference, "log-probabilities of the population"), everywhere)


def u_lira(
    log_odds: Table, unlearned: Mask, *, floor: float = FLOOR, one_sd: bool = False
) -> "PerRecord":
    """Which targets were unlearned and which never seen, by Gaussians per target.

    ``unlearned``: where the target was trained on and unlearned; elsewhere it was never trained on,
    while the same unlearning ran on another forget set. Who is where must be drawn at random.
    Reference and chance: AUC and accuracy 0.5, what retraining gives. ``one_sd``: both sides of a
    target share one deviation; detects more where unlearning moves targets and less where it only
    widens their distribution. Hayes et al., "Inexact unlearning needs more careful evaluations to
    avoid a false sense of privacy", https://arxiv.org/abs/2403.01218. Raises InputError for nan or
    inf (naming the runs) and for targets with fewer than three runs on a side.
    """
    # No target is trained on and kept here, so none is ignored.
    values, groups = _prepare(log_odds, unlearned, np.zeros(unlearned.shape, bool))
    one, two = fitted = [_without_partner(values, groups, group) for group in (UNLEARNED, OUT)]
    stds = [found.std(floor) for found in fitted]
    if one_sd:
        # The squares around each group's own mean are those of one sample with fewer free ones.
        both = Moments(one.count + two.count - 1, one.mean, one.squares + two.squares)
        stds = [both.std(floor)] * 2
    pairs = zip(fitted, stds, strict=True)
    ours, out = (stats.norm.logpdf(values, found.mean, std) for found, std in pairs)
    return pooled(ours - out, unlearned)


def ruli_privacy(
    log_odds: Table,
    unlearned: Mask,
    *,
    inside: Mask | None = None,
    bandwidth: Width = None,
    floor: float = FLOOR,
) -> "PerRecord":
    """The same by kernel densities: the privacy ratio U / (U + out), out in unlearned models.

    ``inside``: where the target was trained on and kept; it is not judged there. ``bandwidth`` in
    units of log-odds: None for Scott's rule; RULI's code takes 1 for any scale. Naderloui et al.,
    USENIX Security 2025, https://arxiv.org/abs/2506.13009. Reference, chance and errors as
    ``u_lira``.
    """
    kept = np.zeros(unlearned.shape, bool) if inside is None else inside
    return _by_kernel(log_odds, unlearned, kept, bandwidth, floor)


def ruli_efficacy(
    log_odds: Table,
    unlearned: Mask,
    retrained: Float[np.ndarray, "q t"],
    *,
    out: Bool[np.ndarray, "q t"] | None = None,
    bandwidth: Width = None,
    floor: float = FLOOR,
) -> "PerRecord":
    """Unlearned against q models trained without the target: the ratio U / (U + retrained).

    Reference and chance: AUC and accuracy 0.5, which say that the target's log-odds are those of
    retraining. Above: unlearned and retrained models can be distinguished; the unlearned ones may
    well know LESS, so this is no leak of membership by itself. ``out``: where a retrained model is
    without the target; everywhere if None. The rows of the result are the unlearned runs, then the
    retrained models. The rest as ``ruli_privacy``.
    """
    without = np.ones(retrained.shape, bool) if out is None else out
    same_shape(unlearned=unlearned[0], retrained=retrained[0])
    member = np.concatenate([unlearned, np.zeros(retrained.shape, bool)])
    ignored = np.concatenate([~unlearned, ~without])
    # Retrained models stand where the out group stood: the rest of the attack is the same.
    values = np.concatenate([log_odds, retrained])
    return _by_kernel(values, member, ignored, bandwidth, floor)


def _by_kernel(
    log_odds: Table, member: Mask, ignored: Mask, width: Width, floor: float
) -> "PerRecord":
    values, groups = _prepare(log_odds, member, ignored)
    found = kernel(values, groups, 2, floor=floor, bandwidth=width)
    # nan marks what was not judged; pooled() omits it.
    return pooled(np.where(ignored, np.nan, found[UNLEARNED] - found[OUT]), member)


def ruli_states(
    log_odds: Table, unlearned: Mask, inside: Mask, *, bandwidth: Width = None, floor: float = FLOOR
) -> Float[np.ndarray, "p t 3"]:
    """Probabilities that a target was unlearned, out or inside, in this order, at even odds.

    0 to 1, together 1; chance 1/3 each. Reference: unlearned and out alike, both apart from inside.
    Errors as ``u_lira``, for all three.
    """
    values, groups = _prepare(log_odds, unlearned, inside)
    enough(inside, MIN_RUNS, "shadow runs with the target kept")
    found = kernel(values, np.where(inside, INSIDE, groups), 3, floor=floor, bandwidth=bandwidth)
    return np.moveaxis(softmax(found, axis=0), 0, -1)


def _prepare(
    log_odds: np.ndarray, unlearned: np.ndarray, ignored: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Sound log-odds and the group of each; ``ignored`` ones are in no group."""
    same_shape(log_odds=log_odds, unlearned=unlearned, ignored=ignored)
    values = sound(log_odds, "log-odds")
    groups = np.where(ignored, NONE, np.where(unlearned, UNLEARNED, OUT))
    enough(groups == UNLEARNED, MIN_RUNS, "shadow runs with the target unlearned")
    enough(groups == OUT, MIN_RUNS, "shadow runs without the target")
    return values, groups


def _without_partner(values: Table, groups: Groups, group: int) -> Moments:
    lost = np.take_along_axis(values, partners(groups, group), axis=0)
    return moments(values, groups == group).without(lost)


def kernel(
    values: Table, groups: Groups, k: int, *, floor: float, bandwidth: Width
) -> Float[np.ndarray, "k p t"]:
    """Log-densities of each value under kernels of each group, with one value of each left out.

    ``bandwidth`` in units of log-odds; None: Scott's rule for each record and group, standard
    deviation (with ``floor``) times n ** -1/5, as in scipy.
    """
    densities = []
    # So many targets at a time as the processor's cache holds.
    parts = [slice(start, start + 256) for start in range(0, values.shape[1], 256)]
    for group in range(k):
        fitted = _without_partner(values, groups, group)
        scott = fitted.std(floor) * fitted.count**-0.2
        width = scott if bandwidth is None else np.full(values.shape, bandwidth)
        tables = (values, groups == group, partners(groups, group), width)
        sums = [_log_sums(*(table[:, part] for table in tables)) for part in parts]
        scale = np.log(width * np.sqrt(2 * np.pi) * fitted.count)
        densities.append(np.concatenate(sums, axis=1) - scale)
    return np.stack(densities)


def _log_sums(values: Table, chosen: np.ndarray, lost: np.ndarray, width: Table) -> Table:
    """Logarithm of the sum of the kernels of the chosen values that are not left out.

    Relative to the nearest one: its kernel is the largest, so that the sum cannot become 0.
    """
    nearest, total = np.full(values.shape, np.inf), np.zeros(values.shape)
    for row in range(len(values)):
        # Row by row: all pairs at once would be p times the memory.
        far = np.abs(values - values[row])
        far[(lost == row) | ~chosen[row]] = np.inf
        np.minimum(nearest, far, out=nearest)
    for row in range(len(values)):
        # The difference of the squares, or distant values would round to one another.
        beyond = (values - values[row]) ** 2 - nearest**2
        beyond[(lost == row) | ~chosen[row]] = np.inf
        total += np.exp(-beyond / (2 * width**2))
    return np.log(total) - (nearest / width) ** 2 / 2


def partners(groups: Groups, group: int) -> Int[np.ndarray, "p t"]:
    """Which run of ``group`` is left out when each value is judged: itself, or its partner.

    The partner has the same rank in its group, modulo its size; the order of runs means nothing.
    """
    chosen, rank = groups == group, np.zeros(groups.shape, np.int64)
    for label in np.unique(groups):
        own = groups == label
        rank = np.where(own, own.cumsum(axis=0) - 1, rank)
    # Stable, so that members of the group come first in the order of runs.
    members = np.argsort(~chosen, axis=0, kind="stable")
    return np.take_along_axis(members, rank % chosen.sum(axis=0), axis=0)


@dataclass(frozen=True, eq=False)
class PerRecord:
    """What a per-record attack says of each target in each run, and of all together.

    ``scores`` (p, t): log-likelihood ratios in nats, unbounded, 0 is even odds; ``probabilities``
    (p, t): of membership at even prior odds, 0 to 1. Both are nan where nothing was judged.
    ``member`` (p, t): where the target was trained on and unlearned. ``attack``: AUC (chance and
    reference 0.5) and rates (chance and reference their FPR); its counts are of values, its
    interval of ``independent`` (members, others). ``accuracy``: share judged correctly at
    probability 1/2, mean of the two sides, chance and reference 0.5, the retrained model's values.
    """

    scores: Table
    probabilities: Table
    member: Mask
    attack: Attack
    accuracy: float
    accuracy_interval: tuple[float, float]
    independent: tuple[float, float]

    def by_target(self) -> Float[np.ndarray, " t"]:
        """Accuracy of each target, mean of its two sides; chance and reference 0.5.

        From few runs the worst of many targets look bad by chance: compare with the same quantile
        of the retrained models.
        """
        right, judged = _correct(self.scores, self.member), ~np.isnan(self.scores)
        sides = (self.member & judged, ~self.member & judged)
        inside, out = (np.mean(right, axis=0, where=side) for side in sides)
        return (inside + out) / 2


def pooled(scores: Table, member: Mask) -> PerRecord:
    """One result of all judged values (those that are not nan), higher scores meaning membership.

    The AUC is that of all pairs of a member's and another's value, over all targets: the scores are
    likelihood ratios of the same question, so one threshold fits all.
    """
    sides = member & ~np.isnan(scores), ~member & ~np.isnan(scores)
    ours, theirs = (scores[side] for side in sides)
    wins = np.full(scores.shape, np.nan)
    wins[sides[0]], wins[sides[1]] = share_below(ours, theirs), 1 - share_below(theirs, ours)
    # Each value's share of pairs won: its mean is the AUC, its scatter the AUC's variance.
    auc, effect = float(wins[sides[0]].mean()), _design_effect(wins, sides)
    counts = len(ours) / effect, len(theirs) / effect
    tests = auc_tests(auc, *counts)
    rates = tuple(_rate(scores, sides, fpr) for fpr in FPRS)
    sizes = {"forget_n": len(ours), "unseen_n": len(theirs), "unmatched": 0}
    attack = Attack(auc, fpr=FPRS[0], rates=rates, **sizes, **tests)
    right = _correct(scores, member)
    accuracy = float(np.mean([right[side].mean() for side in sides]))
    # The harmonic count: two unequal sides tell as much as two equal ones of this size.
    count = 4 / sum(1 / side.sum() for side in sides) / _design_effect(right, sides)
    interval = clopper_pearson(accuracy * count, count)
    return PerRecord(scores, expit(scores), member, attack, accuracy, interval, counts)


def _design_effect(table: Table, sides: tuple[Mask, ...]) -> float:
    """How many times the variance of independent values that of these is; at least 1.

    Of the mean of the sides' means. Values that are all alike say nothing of their dependence: then
    only runs, or targets where they are fewer, count.
    """
    # Influence values: the sum of their squares is the variance if all are independent.
    influence = np.zeros(table.shape)
    for side in sides:
        influence[side] = (table[side] - table[side].mean()) / side.sum()
    single = (influence**2).sum()
    if single == 0:
        return float(sum(side.sum() for side in sides) / min(table.shape) / len(sides))
    # Clustered by target, clustered by run; single values are in both, so subtracted once.
    sums = [influence.sum(axis=axis) for axis in (1, 0)]
    # n / (n - 1): the mean that is subtracted comes from the same clusters.
    ways = [(one**2).sum() * len(one) / max(1, len(one) - 1) for one in sums]
    return float(max(1.0, *(way / single for way in ways), (sum(ways) - single) / single))


def _rate(scores: Table, sides: tuple[Mask, Mask], fpr: float) -> Rate:
    ours, theirs = (scores[side] for side in sides)
    limit = threshold(theirs, fpr)
    if limit is None:
        return Rate(fpr)
    # Each side has a design effect of its own: a share is of one side alone.
    found = (scores > limit) * 1.0
    counts = tuple(side.sum() / _design_effect(found, (side,)) for side in sides)
    return rate(ours, theirs, fpr=fpr, counts=counts)


def _correct(scores: Table, member: Mask) -> Table:
    """1 where a probability of 1/2 judges correctly, 1/2 where it is just that."""
    return np.heaviside(np.where(member, scores, -scores), 0.5)

"""Forget records against unseen ones: attacks, controls, power, linear probe (T1, T2, T4)."""

import math
from collections.abc import Iterator
from typing import Any

import numpy as np

from efface.errors import InputError
from efface.io.shadows import Shadows
from efface.metrics import membership, permutation
from efface.metrics.equivalence import central_share, placements, two_sided
from efface.metrics.evaluation import Evaluation
from efface.metrics.intervals import clopper_pearson, false_positives, smallest_auc, smallest_share
from efface.metrics.lira import lira_offline
from efface.metrics.membership import Attack, loss_attack
from efface.metrics.permutation import all_hits_p, records_needed
from efface.probes.linear_probe import linear_probe
from efface.report.context import MAX_RECORDS, Context, NotRun, TooFew
from efface.report.report import Row
from efface.report.tests import SIGNIFICANCE, compare, judge, share_row, test
from efface.report.tests_forget import never_learned_row
from efface.report.text import count
from efface.report.verdicts import Verdict
from efface.types import record_key

LABELS = {"needs_class": True, "needs_correct_labels": True}
LIRA = "Membership inference per record (LiRA"
WHOLE_CLASS = {"needs_forget_classes": True}
ENTROPY_NOTE = "Share classified as members; a collapsed model scores 0, so lower is not better."
CENTRAL, CONTROL_LEVEL = 0.95, 0.99
NO_COMMON_CLASS = "the holdout has no record of the classes of the forget records"
Sides = tuple[Evaluation, Evaluation]
SIDES = "before", "after"
# With fewer unseen records in a group no quantile is rarer than one in twenty.
MIN_UNSEEN = 39
# Shadow models without a record, so that their standard deviation can be estimated.
MIN_SHADOWS = 4


@test("attack.loss", "Membership inference on the loss: AUC", "unseen", "T1")
def loss_attack_rows(ctx: Context) -> Iterator[Row]:
    """The loss attack before and after: AUC, and TPR at 1 % FPR."""
    before, after = (_loss_attack(ctx, side) for side in SIDES)
    note = f"A weak attack: one threshold for all. {_counts(after)} {ctx.matching}."
    note += f" {after.unmatched} have no unseen record of their class." * bool(after.unmatched)
    note += " With wrong labels it reads the loss of the predicted class." * ctx.mislabelled
    yield auc_row(before, after, _attack_verdict(ctx, before, after), note)
    fields = {"key": "attack.loss_tpr", "name": "Membership inference on the loss"}
    flagged = Verdict.SIGNIFICANTLY_DIFFERENT if ctx.mislabelled else Verdict.DETECTED
    there = f"{after.unseen_n} unseen records of these classes"
    yield _rate_row(before, after, after.fpr, there, flagged, **fields)


def _counts(attack: Attack) -> str:
    return f"{attack.forget_n} forget against {attack.unseen_n} unseen records"


def auc_row(before: Attack, after: Attack, verdict: Verdict, note: str, **fields: Any) -> Row:
    """The AUC of an attack on the old and on the new model."""
    numbers = before.auc, after.auc, 0.5, after.auc_interval
    fields |= {"smallest_p": after.smallest_p, "n": after.forget_n}
    fields |= {"needed": after.needed if verdict is Verdict.TOO_FEW_RECORDS else None}
    return Row(*numbers, verdict, note, after.p, "auc", **fields)


def _loss_attack(ctx: Context, side: str) -> Attack:
    """The loss attack on the old ("before") or the new model ("after"), matched by class."""
    if not len(ctx.unseen):
        raise NotRun(NO_COMMON_CLASS)
    forget, unseen = ctx.sides(side)
    return loss_attack(forget.loss, unseen.loss, classes=(forget.groups, unseen.groups))


def _detects(ctx: Context, attack: Attack) -> bool:
    # An attack on predicted labels may tell the records apart on either side of chance.
    return attack.significant if ctx.mislabelled else attack.detected


def _attack_verdict(ctx: Context, before: Attack, after: Attack) -> Verdict:
    # With wrong labels, below chance does not mean over-forgetting: the records just differ.
    if after.significant and ctx.mislabelled:
        return Verdict.SIGNIFICANTLY_DIFFERENT
    if after.significant:
        return Verdict.DETECTED if after.detected else Verdict.OVER_FORGOTTEN
    if after.smallest_p > SIGNIFICANCE:
        return Verdict.TOO_FEW_RECORDS
    # An attack that was blind before cannot testify to forgetting.
    return Verdict.NOT_DETECTED if _detects(ctx, before) else Verdict.INCONCLUSIVE


def _rate_row(
    before: Attack, after: Attack, fpr: float, unseen: str, flagged: Verdict, **fields: Any
) -> Row:
    """A TPR; its reference is the FPR, and chance what unseen records would give."""
    was, now = before.at(fpr), after.at(fpr)
    fields["name"] = f"{fields['name']}: TPR@{100 * fpr:g}%FPR"
    if now.tpr is None or now.chance is None or now.p is None:
        note = f"not resolvable with {unseen}; {now.needed} are needed"
        return Row(reference=fpr, **fields | {"verdict": Verdict.NOT_RUN, "note": note})
    note = f"By chance up to {100 * now.chance[1]:.1f} %."
    if not was.above:
        note += " At this FPR the attack does not detect the records in the old model."
    positives = false_positives(after.unseen_n, fpr) + 1

    def smallest(n: int) -> float:
        return all_hits_p(n, positives, after.unseen_n + 1 - positives)

    otherwise = Verdict.NOT_DETECTED if was.above else Verdict.INCONCLUSIVE
    verdicts = {"flagged": flagged, "otherwise": otherwise}
    found = judge(now.p, smallest, after.forget_n, **verdicts)
    fields["n"] = after.forget_n
    return Row(was.tpr, now.tpr, fpr, now.interval, note=note, **fields, **found)


@test("attack.entropy", "Entropy attack (MIA of the papers; weak)", "unseen", "T2", multiclass=True)
def entropy_attack_rows(ctx: Context) -> Iterator[Row]:
    """The entropy attack, for comparison with published tables."""
    parts = ctx.retain, ctx.holdout, ctx.forget
    entropies = [[getattr(pair, side).entropy for pair in parts] for side in SIDES]
    before, note = membership.entropy_attack(*entropies[0]), ENTROPY_NOTE
    retain, holdout, forget = entropies[1]
    both = np.concatenate([forget, ctx.unseen.after.entropy])
    members = membership.classified_as_members(retain, holdout, both) * 1.0
    ours, theirs = members[: len(forget)], members[len(forget) :]
    found = {"reference": None}
    if len(theirs):
        note += f" Reference: unseen records {ctx.matching} under this attack."
        found = compare(ours, theirs, *(side.y for side in ctx.sides("after")))
    yield share_row(before, ours, found.pop("reference"), note=note, **found)


@test("attack.lira", f"{LIRA}, offline): AUC", "unseen", "T4", **LABELS)
def lira_rows(ctx: Context) -> Iterator[Row]:
    """LiRA, offline: forget records against unseen ones, each among models that never saw it."""
    if not ctx.shadows or not ctx.has_holdout or not len(ctx.unseen):
        raise NotRun("needs unseen records of the classes of the forget records")
    before, after = (_lira(ctx, ctx.shadows, side) for side in SIDES)
    note = f"{count(ctx.given['shadows'], 'shadow model')}. {_counts(after)} {ctx.matching}; "
    note += f"the smallest AUC detectable with 80 % power: {after.smallest_auc:.3f}."
    yield auc_row(before, after, _attack_verdict(ctx, before, after), note)
    for rate in after.rates:
        fields = {"key": f"attack.lira_tpr_{100 * rate.fpr:g}", "name": f"{LIRA})"}
        there = f"{after.unseen_n} unseen records"
        yield _rate_row(before, after, rate.fpr, there, Verdict.DETECTED, **fields)


def _lira(ctx: Context, given: Shadows, side: str) -> Attack:
    """-ln P(out > x) of each record under the old or the new model. Raises NotRun."""
    ours, theirs = (getattr(pair, side) for pair in (ctx.forget, ctx.unseen))
    ids, n = (*ours.ids, *theirs.ids), len(ours)
    if missing := len(set(ids) - set(given.ids)):
        raise NotRun(f"the shadow models lack outputs for {missing} of {len(ids)} records")
    shadows = given.of(ids)
    if shadows.member[:, n:].any():
        why = "shadow models were trained on records with the ids of unseen ones: two tables that "
        raise NotRun(f"{why}number their rows alike cannot be distinguished")
    without = int((~shadows.member).sum(axis=0).min())
    if without < MIN_SHADOWS:
        need = f"{MIN_SHADOWS} shadow models without each record are needed"
        raise NotRun(f"{need}, there are {without}")
    margins = np.concatenate([ours.logit_margin, theirs.logit_margin])
    scores = lira_offline(margins, shadows.log_odds, shadows.member)
    return membership.signal_attack(scores[:n], scores[n:], classes=(ours.groups, theirs.groups))


@test("unseen.central_95", "Share within the central 95 % of unseen logit margins", "unseen", "T1")
def unseen_margins(ctx: Context) -> Iterator[Row]:
    """How many logit margins are not extreme among unseen ones."""
    sides = [_matched(*ctx.sides(side)) for side in SIDES]
    (_, before, _), (quantiles, _, among) = (unseen_quantiles(*side) for side in sides)
    high, low = float((quantiles > 0.975).mean()), float((quantiles < 0.025).mean())  # noqa: PLR2004
    note = f"Compared with {among}; {100 * high:.1f} % are too high, {100 * low:.1f} % too low."
    (after, reference), found = central_margins(*sides[1])
    n = len(sides[1][0])
    yield share_row(central_share(before), after, reference, n, note=note, **found)


@test("unseen.ks", "Kolmogorov-Smirnov distance of the logit margins", "unseen", "T1")
def unseen_distance(ctx: Context) -> Iterator[Row]:
    """How far the logit margins are from those of unseen records of the same mixture of classes."""
    before, after = (_matched(*ctx.sides(side)) for side in SIDES)
    was, now = (_pooled_margins(*side) for side in (before, after))
    # Of the old model the distance alone is reported.
    distances = [permutation.ks_distances(one) for one in (was.observed(), now)]
    groups = after[0].groups, after[1].groups

    def smallest(n: int) -> float:
        return permutation.smallest_p(*groups, n=n)

    p, flagged = permutation.upper_p(distances[1]), Verdict.SIGNIFICANTLY_DIFFERENT
    found = judge(p, smallest, len(after[0]), flagged=flagged)
    note = f"{len(after[0])} against {len(after[1])} unseen records {ctx.matching}, "
    note += "weighted so that their classes are mixed alike."
    name = "Kolmogorov-Smirnov distance of the logit margins to unseen ones"
    fields = {"unit": "distance", "name": name, "note": note}
    numbers = float(distances[0][0]), float(distances[1][0]), "as unseen"
    yield Row(*numbers, n=len(after[0]), **fields, **found)


def _pooled_margins(ours: Evaluation, theirs: Evaluation) -> permutation.Pooled:
    groups = {"classes": ours.groups, "unseen_classes": theirs.groups}
    return permutation.pool(ours.logit_margin, theirs.logit_margin, **groups)


def central_margins(
    ours: Evaluation, theirs: Evaluation, *, level: float = SIGNIFICANCE
) -> tuple[tuple[float, float], dict[str, Any]]:
    """Central share of our margins and its reference, and what p decides; of the same classes."""
    groups, _ = _groups(ours, theirs)
    pooled = _pooled_margins(ours, theirs)
    shares = permutation.central_shares(pooled, by_class=groups[0] is ours.groups)
    # The most extreme result: all of them outside, in every group.
    labels = np.unique(groups[0])
    counts = [tuple(int((side == c).sum()) for side in groups) for c in labels]

    def smallest(n: int) -> float:
        p = 2.0
        for m, u in counts:
            outside = 2 * math.floor((1 - CENTRAL) / 2 * (u + 1))
            p *= all_hits_p(m * n / len(ours), outside, u + 1 - outside) / 2
        return min(1.0, p)

    reference = float(shares.mean())
    flagged = Verdict.ABOVE_REFERENCE if shares[0] > reference else Verdict.BELOW_REFERENCE
    p = permutation.two_sided_p(shares)
    found = judge(p, smallest, len(ours), flagged=flagged, level=level)
    return (float(shares[0]), reference), found


def _matched(ours: Evaluation, theirs: Evaluation) -> Sides:
    """The records whose class the other side has too. Raises NotRun without any."""
    sides = (
        ours.take(np.isin(ours.groups, theirs.groups)),
        theirs.take(np.isin(theirs.groups, ours.groups)),
    )
    if not len(sides[0]):
        raise NotRun(NO_COMMON_CLASS)
    return sides


def unseen_quantiles(ours: Evaluation, theirs: Evaluation) -> tuple[np.ndarray, np.ndarray, str]:
    """(quantile, two-sided p) of each of our logit margins among theirs, and among which of them.

    By class where each class has enough unseen records, else among all of them. Raises NotRun.
    """
    groups, among = _groups(ours, theirs)
    places = placements(
        ours.logit_margin, theirs.logit_margin, classes=groups[0], unseen_classes=groups[1]
    )
    return places, two_sided(places, *groups), among


def _groups(ours: Evaluation, theirs: Evaluation) -> tuple[tuple[np.ndarray, np.ndarray], str]:
    """Among which unseen records each margin is placed, and these in words. Raises NotRun."""
    # Margins differ between classes: an easy class would look memorised among hard ones.
    counts = [(theirs.groups == label).sum() for label in np.unique(ours.groups)]
    if min(counts, default=0) >= MIN_UNSEEN:
        return (ours.groups, theirs.groups), "unseen records of its class"
    if len(theirs) < MIN_UNSEEN:
        raise NotRun(f"{MIN_UNSEEN} unseen records are needed, there are {len(theirs)}")
    groups = np.zeros_like(ours.groups), np.zeros_like(theirs.groups)
    return groups, "all unseen records (too few of each class)"


@test("forget_classes.accuracy", "Accuracy on forget classes", "unseen", "T1", **WHOLE_CLASS)
def forget_classes_accuracy(ctx: Context) -> Iterator[Row]:
    """D_f of published tables: accuracy on unseen records of the forget classes."""
    pair = ctx.holdout.take(np.isin(ctx.holdout.before.y, list(ctx.forget_classes)))
    if not (n := len(pair)):
        raise NotRun("the holdout has no record of the forget classes")
    note = f"{count(n)}. Reference: a model that never learned the class."
    yield never_learned_row(pair.before.correct, pair.after.correct, note=note)


@test("relearning", "Relearning: does a little training recover the records?", "unseen", "T1")
def relearning(_: Context) -> Iterator[Row]:
    """Left to a separate call."""
    note = "it trains a copy of the model, so it is a separate call: efface.probes.relearning"
    yield Row(verdict=Verdict.NOT_RUN, note=note)


@test("probe", "Linear probe on the embeddings", "unseen", "T1", probe=True, **LABELS)
def linear_probe_rows(ctx: Context) -> Iterator[Row]:
    """Do the embeddings still hold the class, and whether the record was to be forgotten?"""
    # The probe splits by order, so the records are shuffled by id first. The whole holdout: a probe
    # needs other classes than those of the forget records too.
    sampled = (ctx.sample(pair, MAX_RECORDS) for pair in (ctx.forget, ctx.holdout))
    forget, unseen = map(ctx.shuffled, sampled)
    records = forget.records, unseen.records
    try:
        before, after = (linear_probe(m, *records, seed=ctx.seed) for m in (ctx.old, ctx.new))
    except InputError as why:
        raise NotRun(str(why)) from why
    note = f"Fitted on one half, evaluated on the other ({count(after.scored)}). "
    note += "Reference: unseen records of the same classes."
    found = compare(after.correct, after.unseen_correct, after.classes, after.unseen_classes)
    attack, few = after.membership, Verdict.TOO_FEW_RECORDS
    unable = not attack.significant and attack.smallest_p > SIGNIFICANCE
    # Two rows on a record or two would say nothing twice.
    if unable and found["verdict"] is few:
        raise TooFew(f"Fitted on one half; of the other {count(after.scored)} could be evaluated.")
    shares = before.accuracy, after.accuracy, found.pop("reference"), after.interval
    name = "Accuracy of a linear probe on the embeddings of forget records"
    yield Row(*shares, note=note, key="probe.class", name=name, n=after.scored, **found)
    verdict = Verdict.DETECTED if attack.significant else few if unable else Verdict.NOT_DETECTED
    note = f"{_counts(attack)}, none fitted on."
    name = "Membership inference by a linear probe on the embeddings: AUC"
    yield auc_row(before.membership, attack, verdict, note, key="probe.membership", name=name)


@test("control.positive", "Positive control: the loss attack on the old model", "controls", "T1")
def positive_control(ctx: Context) -> Iterator[Row]:
    """The same attack must detect the forget records in the old model; else it proves nothing."""
    attack, note = _loss_attack(ctx, "before"), "The interval is the old model's."
    reference = "not 0.5" if ctx.mislabelled else "above 0.5"
    verdict = Verdict.CONTROL_PASSED if _detects(ctx, attack) else Verdict.CONTROL_FAILED
    if verdict is Verdict.CONTROL_FAILED:
        below = (
            " The old model is worse on the records than on unseen ones: are their labels right?"
        )
        note += (
            below * attack.over_forgotten
            + " An attack that fails even there says nothing about the new model."
        )
    verdict, needed = _unless_too_few(attack, verdict)
    numbers = attack.auc, None, reference, attack.auc_interval
    yield Row(*numbers, verdict, note, unit="auc", needed=needed, n=attack.forget_n)


def _unless_too_few(attack: Attack, verdict: Verdict) -> tuple[Verdict, int | None]:
    """The verdict of a control, unless the attack could not have detected anything."""
    if attack.significant or attack.smallest_p <= 1 - attack.level:
        return verdict, None
    return Verdict.TOO_FEW_RECORDS, attack.needed


@test("control.negative", "Negative control: the loss attack on unseen records", "controls", "T1")
def negative_control(ctx: Context) -> Iterator[Row]:
    """One half of the unseen records against the other: nothing must be detected."""
    ours, theirs = _halves(ctx)
    # At 99 %: a control that fails one time in twenty would void one report in twenty.
    groups = ours.groups, theirs.groups
    attack = loss_attack(ours.loss, theirs.loss, classes=groups, level=CONTROL_LEVEL)
    verdict = Verdict.CONTROL_FAILED if attack.significant else Verdict.CONTROL_PASSED
    sizes = f"({attack.forget_n}) against the other half ({attack.unseen_n})"
    note = f"Half of the holdout {sizes}, new model; 99 % interval."
    verdict, needed = _unless_too_few(attack, verdict)
    numbers = None, attack.auc, 0.5, attack.auc_interval
    yield Row(*numbers, verdict, note, unit="auc", needed=needed, n=attack.forget_n)


@test("control.negative_central_95", "Negative control: the central 95 %", "controls", "T1")
def negative_control_of_margins(ctx: Context) -> Iterator[Row]:
    """Logit margins of one half of the unseen records among those of the other."""
    ours, theirs = _halves(ctx)
    (inside, reference), found = central_margins(ours, theirs, level=1 - CONTROL_LEVEL)
    interval = clopper_pearson(round(inside * len(ours)), len(ours), level=CONTROL_LEVEL)
    verdict = found["verdict"]
    if verdict is not Verdict.TOO_FEW_RECORDS:
        passed = verdict is Verdict.NOT_SIGNIFICANT
        verdict = Verdict.CONTROL_PASSED if passed else Verdict.CONTROL_FAILED
    fields = {"verdict": verdict, "note": "99 % interval.", "needed": found["needed"]}
    fields["n"] = len(ours)
    yield Row(None, inside, reference, interval, **fields)


def _halves(ctx: Context) -> Sides:
    """The halves of the unseen records, of the classes that both have. Raises TooFew."""
    try:
        return _matched(*split_unseen(ctx))
    except NotRun as why:
        raise TooFew("the holdout has too few records of these classes to be split in two") from why


def split_unseen(ctx: Context) -> list[Evaluation]:
    """The unseen records in two halves by the hash of the ids: the same for any order."""
    # Neither half was seen, and neither is the one that the method and the guard had.
    ids = ctx.unseen.records.ids
    first = np.array([record_key(f"half:{ctx.seed}:{i}") % 2 == 0 for i in ids], bool)
    return [ctx.attack_view(ctx.unseen.after.take(half)) for half in (first, ~first)]


@test("power.auc", "Power: smallest AUC detectable with 80 % power", "controls", "T1")
def power_auc(ctx: Context) -> Iterator[Row]:
    """The leak that the sample is too small to detect."""
    attack, verdict, needed = _loss_attack(ctx, "after"), Verdict.DESCRIPTIVE, None
    if attack.smallest_auc >= 1:
        verdict = Verdict.TOO_FEW_RECORDS
        needed = records_needed(lambda n: smallest_auc(n, attack.unseen_n), level=0.999)
    fields = {"note": "A smaller leak may go undetected.", "unit": "auc"}
    yield Row(after=attack.smallest_auc, verdict=verdict, needed=needed, **fields)


@test("power.undetected_share", "Power: share that may be memorised undetected", "controls", "T1")
def power_share(ctx: Context) -> Iterator[Row]:
    """The largest share that no hit among so few records is compatible with."""
    note = f"Upper 95 % confidence bound after no hit in {count(len(ctx.forget))}."
    yield Row(after=smallest_share(len(ctx.forget)), note=note)

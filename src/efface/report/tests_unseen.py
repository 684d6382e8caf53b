"""Forget records against unseen ones: attacks, controls, power, linear probe (T1, T2, T4)."""

from collections.abc import Iterator
from typing import Any

import numpy as np

from efface.errors import InputError
from efface.io.shadows import Shadows
from efface.metrics import membership
from efface.metrics.equivalence import central_share, ks, placements, two_sided
from efface.metrics.evaluation import Evaluation
from efface.metrics.intervals import Rate, clopper_pearson, share_p, smallest_share
from efface.metrics.lira import lira_offline
from efface.metrics.membership import Attack, loss_attack
from efface.probes.linear_probe import linear_probe
from efface.report.context import MAX_RECORDS, Context, NotRun
from efface.report.report import Row
from efface.report.tests import SIGNIFICANCE, TOO_WIDE, compare, expected_share, share_row, test
from efface.report.tests_forget import still_predicted_p
from efface.report.text import count
from efface.report.verdicts import Verdict
from efface.types import record_key

LABELS = {"needs_class": True, "needs_correct_labels": True}
LIRA = "Membership inference per record (LiRA"
WHOLE_CLASS = {"needs_forget_classes": True}
CENTRAL = 0.95
SIDES = "before", "after"
# With fewer unseen records in a group no quantile is rarer than one in twenty.
MIN_UNSEEN = 39
# Shadow models without a record, so that their standard deviation can be estimated.
MIN_SHADOWS = 4


@test("attack.loss", "Membership inference on the loss: AUC", "unseen", "T1")
def loss_attack_rows(ctx: Context) -> Iterator[Row]:
    """The loss attack before and after: AUC, and TPR at 1 % FPR."""
    before, after = (_loss_attack(ctx, side) for side in SIDES)
    note = f"A weak attack: one threshold for all. {_compared(after)} {ctx.matching}."
    note += f" {after.unmatched} have no unseen record of their class." * bool(after.unmatched)
    note += " With wrong labels it reads the loss of the predicted class." * ctx.mislabelled
    yield auc_row(before, after, _attack_verdict(ctx, before, after), note)
    was, now = (attack.at(attack.fpr) for attack in (before, after))
    verdict = Verdict.SIGNIFICANTLY_DIFFERENT if ctx.mislabelled else Verdict.DETECTED
    if not now.above:
        verdict = Verdict.NOT_DETECTED if was.above else Verdict.INCONCLUSIVE
    blind = "At this FPR the attack does not detect the records in the old model." * (not was.above)
    there = f"{after.unseen_n} unseen records of these classes"
    fields = {"key": "attack.loss_tpr", "name": "Membership inference on the loss"}
    yield _rate_row(was, now, there, verdict=verdict, note=blind, **fields)


def _compared(attack: Attack) -> str:
    return f"{attack.forget_n} forget against {attack.unseen_n} unseen records"


def auc_row(before: Attack, after: Attack, verdict: Verdict, note: str, **fields: Any) -> Row:
    """The AUC of an attack on the old and on the new model."""
    numbers = before.auc, after.auc, 0.5, after.auc_interval
    return Row(*numbers, verdict, note, after.p, "auc", **fields)


def _loss_attack(ctx: Context, side: str) -> Attack:
    """The loss attack on the old ("before") or the new model ("after"), matched by class."""
    if not len(ctx.unseen):
        raise NotRun("the holdout has no record of the classes of the forget records")
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
    # An attack that was blind before cannot testify to forgetting.
    if not _detects(ctx, before):
        return Verdict.INCONCLUSIVE
    low, high = after.auc_interval
    return Verdict.TOO_FEW_RECORDS if high - low > TOO_WIDE else Verdict.NOT_DETECTED


def _rate_row(was: Rate, now: Rate, unseen: str, *, note: str = "", **fields: Any) -> Row:
    """A TPR; its reference is the FPR, and chance what unseen records would give."""
    fields["name"] = f"{fields['name']}: TPR@{100 * now.fpr:g}%FPR"
    if now.tpr is None or now.chance is None:
        note = f"not resolvable with {unseen}; {now.needed} are needed"
        return Row(reference=now.fpr, **fields | {"verdict": Verdict.NOT_RUN, "note": note})
    note = f"By chance up to {100 * now.chance[1]:.1f} %. {note}".strip()
    return Row(was.tpr, now.tpr, now.fpr, now.interval, note=note, **fields)


@test("attack.entropy", "Entropy attack (the paper's MIA; weak)", "unseen", "T2", multiclass=True)
def entropy_attack_rows(ctx: Context) -> Iterator[Row]:
    """The paper's attack, for comparison with its tables."""
    parts = ctx.retain, ctx.holdout, ctx.forget
    entropies = [[getattr(pair, side).entropy for pair in parts] for side in SIDES]
    before, after = (membership.entropy_attack(*one) for one in entropies)
    reference = None
    if len(ctx.unseen):
        retain, holdout, _ = entropies[1]
        unseen = ctx.unseen.after.entropy
        members = membership.classified_as_members(retain, holdout, unseen) * 1.0
        ours, theirs = ctx.sides("after")
        reference = expected_share(ours.y, members, theirs.y)
    note = "Share classified as members; a collapsed model scores 0, so lower is not better. "
    note += f"Reference: unseen records {ctx.matching} under this attack."
    yield share_row(before, after, reference, len(ctx.forget), note=note)


@test("attack.lira", f"{LIRA}, offline): AUC", "unseen", "T4", **LABELS)
def lira_rows(ctx: Context) -> Iterator[Row]:
    """LiRA, offline: forget records against unseen ones, each among models that never saw it."""
    if not ctx.shadows or not ctx.has_holdout or not len(ctx.unseen):
        raise NotRun("needs unseen records of the classes of the forget records")
    before, after = (_lira(ctx, ctx.shadows, side) for side in SIDES)
    note = f"{count(ctx.given['shadows'], 'shadow model')}. {_compared(after)} {ctx.matching}; "
    note += f"the smallest AUC detectable with 80 % power: {after.smallest_auc:.3f}."
    yield auc_row(before, after, _attack_verdict(ctx, before, after), note)
    for was, now in zip(before.rates, after.rates, strict=True):
        verdict = Verdict.DETECTED if now.above else Verdict.NOT_DETECTED
        key = f"attack.lira_tpr_{100 * now.fpr:g}"
        fields = {"verdict": verdict, "key": key, "name": f"{LIRA})"}
        yield _rate_row(was, now, f"{after.unseen_n} unseen records", **fields)


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
    """How many logit margins are not extreme among unseen ones, and the distance of the two."""
    sides = [ctx.sides(side) for side in SIDES]
    (_, before, _), (quantiles, after, among) = (unseen_quantiles(*side) for side in sides)
    high, low = float((quantiles > 0.975).mean()), float((quantiles < 0.025).mean())  # noqa: PLR2004
    note = f"Compared with {among}; {100 * high:.1f} % are too high, {100 * low:.1f} % too low."
    n = int((~np.isnan(after)).sum())
    yield share_row(central_share(before), central_share(after), CENTRAL, n, note=note)
    (before, _), (after, p) = (ks(ours.logit_margin, theirs.logit_margin) for ours, theirs in sides)
    verdict = Verdict.SIGNIFICANTLY_DIFFERENT if p < SIGNIFICANCE else Verdict.NOT_SIGNIFICANT
    note = f"p = {p:.2g}, {len(ctx.forget)} against {len(ctx.unseen)} unseen records "
    note += f"{ctx.matching}; their class mixture is not matched."
    # The mixture of classes alone moves this p, so Holm's correction must not decide by it.
    name = "Kolmogorov-Smirnov distance of the logit margins to unseen ones"
    fields = {"unit": "distance", "key": "unseen.ks", "name": name}
    yield Row(before, after, "as unseen", verdict=verdict, note=note, **fields)


def unseen_quantiles(ours: Evaluation, theirs: Evaluation) -> tuple[np.ndarray, np.ndarray, str]:
    """(quantile, two-sided p) of each of our logit margins among theirs, and among which of them.

    By class where each class has enough unseen records, else among all of them. Raises NotRun.
    """
    # Margins differ between classes: an easy class would look memorised among hard ones.
    counts = [(theirs.groups == label).sum() for label in np.unique(ours.groups)]
    groups, among = (ours.groups, theirs.groups), "unseen records of its class"
    if min(counts, default=0) < MIN_UNSEEN:
        if len(theirs) < MIN_UNSEEN:
            raise NotRun(f"{MIN_UNSEEN} unseen records are needed, there are {len(theirs)}")
        groups = np.zeros_like(ours.groups), np.zeros_like(theirs.groups)
        among = "all unseen records (too few of each class)"
    places = placements(
        ours.logit_margin, theirs.logit_margin, classes=groups[0], unseen_classes=groups[1]
    )
    return places, two_sided(places, *groups), among


@test("forget_classes.accuracy", "Accuracy on forget classes", "unseen", "T1", **WHOLE_CLASS)
def forget_classes_accuracy(ctx: Context) -> Iterator[Row]:
    """The paper's D_f for class requests."""
    pair = ctx.holdout.take(np.isin(ctx.holdout.before.y, list(ctx.forget_classes)))
    if not (n := len(pair)):
        raise NotRun("the holdout has no record of the forget classes")
    hits = int(pair.after.correct.sum())
    fields = {} if hits else {"verdict": Verdict.NEVER_PREDICTED}
    fields |= {"note": f"{count(n)}. Reference: a model that never learned the class."}
    fields |= {"p": still_predicted_p(hits, n)}
    yield share_row(pair.before.correct, pair.after.correct, 0.0, **fields)


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
    reference, p, n = None, None, after.scored
    if np.isfinite(after.unseen_accuracy):
        reference = after.unseen_accuracy
        matched = int(np.isin(unseen.before.y, forget.before.y).sum()) // 2
        p = share_p(round(after.accuracy * n), n, reference, reference_n=matched)
    verdict = compare(after.interval, reference)
    note = f"Fitted on one half, evaluated on the other ({n} records). Reference: unseen records "
    note += "of the same classes."
    shares = before.accuracy, after.accuracy, reference, after.interval
    name = "Accuracy of a linear probe on the embeddings of forget records"
    yield Row(*shares, verdict, note, p, key="probe.class", name=name)
    attack = after.membership
    verdict = Verdict.DETECTED if attack.significant else Verdict.NOT_DETECTED
    note = f"{_compared(attack)}, none fitted on."
    name = "Membership inference by a linear probe on the embeddings: AUC"
    yield auc_row(before.membership, attack, verdict, note, key="probe.membership", name=name)


@test("control.positive", "Positive control: the loss attack on the old model", "controls", "T1")
def positive_control(ctx: Context) -> Iterator[Row]:
    """The same attack must detect the forget records in the old model; else it proves nothing."""
    attack, note = _loss_attack(ctx, "before"), "The interval is the old model's."
    reference = "not 0.5" if ctx.mislabelled else "above 0.5"
    verdict = Verdict.CONTROL_PASSED if _detects(ctx, attack) else Verdict.CONTROL_FAILED
    if verdict is Verdict.CONTROL_FAILED:
        note += " An attack that fails even there says nothing about the new model."
    yield Row(attack.auc, None, reference, attack.auc_interval, verdict, note, unit="auc")


@test("control.negative", "Negative control: the loss attack on unseen records", "controls", "T1")
def negative_control(ctx: Context) -> Iterator[Row]:
    """One half of the unseen records against the other: nothing must be detected."""
    ours, theirs = split_unseen(ctx)
    if not len(ours) or not len(theirs):
        raise NotRun("the holdout has too few records of these classes to be split in two")
    # At 99 %: a control that fails one time in twenty would void one report in twenty.
    groups = ours.groups, theirs.groups
    attack = loss_attack(ours.loss, theirs.loss, classes=groups, level=0.99)
    verdict = Verdict.CONTROL_FAILED if attack.significant else Verdict.CONTROL_PASSED
    sizes = f"({attack.forget_n}) against the other half ({attack.unseen_n})"
    note = f"Half of the holdout {sizes}, new model; 99 % interval."
    yield Row(None, attack.auc, 0.5, attack.auc_interval, verdict, note, unit="auc")


@test("control.negative_central_95", "Negative control: the central 95 %", "controls", "T1")
def negative_control_of_margins(ctx: Context) -> Iterator[Row]:
    """Logit margins of one half of the unseen records among those of the other."""
    _, p_values, _ = unseen_quantiles(*split_unseen(ctx))
    inside, n = central_share(p_values), int((~np.isnan(p_values)).sum())
    low, high = clopper_pearson(round(inside * n), n, level=0.99)
    # The other half is a sample too: its own error widens what passes.
    passed = low - 0.02 <= CENTRAL <= high + 0.02
    verdict = Verdict.CONTROL_PASSED if passed else Verdict.CONTROL_FAILED
    yield Row(None, inside, CENTRAL, (low, high), verdict, "99 % interval.")


def split_unseen(ctx: Context) -> list[Evaluation]:
    """The unseen records in two halves by the hash of the ids: the same for any order."""
    # Neither half was seen, and neither is the one that the method and the guard had.
    ids = ctx.unseen.records.ids
    first = np.array([record_key(f"half:{ctx.seed}:{i}") % 2 == 0 for i in ids], bool)
    return [ctx.attack_view(ctx.unseen.after.take(half)) for half in (first, ~first)]


@test("power.auc", "Power: smallest AUC detectable with 80 % power", "controls", "T1")
def power_auc(ctx: Context) -> Iterator[Row]:
    """The leak that the sample is too small to detect."""
    auc = _loss_attack(ctx, "after").smallest_auc
    verdict = Verdict.TOO_FEW_RECORDS if auc >= 1 else Verdict.DESCRIPTIVE
    yield Row(after=auc, verdict=verdict, note="A smaller leak may go undetected.", unit="auc")


@test("power.undetected_share", "Power: share that may be memorised undetected", "controls", "T1")
def power_share(ctx: Context) -> Iterator[Row]:
    """The largest share that no hit among so few records is compatible with."""
    note = f"Upper 95 % confidence bound after no hit in {count(len(ctx.forget))}."
    yield Row(after=smallest_share(len(ctx.forget)), note=note)

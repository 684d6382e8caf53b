"""Tests against a holdout that was never trained on (tier T1): like unseen, or still known?"""

from dataclasses import replace

import numpy as np

from efface.metrics.indistinguishability import ks, like_unseen, placements, two_sided
from efface.metrics.intervals import clopper_pearson
from efface.metrics.measure import Evaluation
from efface.metrics.membership import Attack, loss_attack
from efface.metrics.rates import Rate
from efface.report.facts import Facts, NotRun
from efface.report.rows import LOOK, PLAIN, Row, not_run
from efface.report.verdicts import against, attacked

LIKE = 0.95
LEAST_UNSEEN = 39
"""With fewer unseen records in a group no placement can be rarer than one in twenty."""


def attack(facts: Facts, side: str) -> Attack:
    """The loss attack on the ``before`` or the ``after`` model, matched by class."""
    if not len(facts.rivals):
        raise NotRun("the holdout has no record of the classes of the forget records")
    ours, theirs = (facts.seen_by_attack(getattr(p, side)) for p in (facts.forget, facts.rivals))
    groups = {"forget_classes": ours.groups, "unseen_classes": theirs.groups}
    return loss_attack(ours.loss, theirs.loss, **groups)


def attack_rows(facts: Facts) -> list[Row]:
    """The loss attack before and after: area, and share found at one false alarm in a hundred."""
    before, after = attack(facts, "before"), attack(facts, "after")
    control = detects(facts, before)
    verdict, status = attacked(
        after.auc_interval, 0.5, control=control, own_answer=facts.mislabelled
    )
    left_out = f" {after.unmatched} records have no unseen one of their class." * (
        after.unmatched > 0
    )
    row = Row(
        key="attack.loss",
        name="Membership attack on the loss: area under the curve",
        section="unseen",
        tier="T1",
        before=before.auc,
        after=after.auc,
        target=0.5,
        interval=after.auc_interval,
        unit="area",
        verdict=verdict,
        status=status,
        note=f"A weak attack: one threshold for all. {after.forget_n} forget against "
        f"{after.unseen_n} unseen records {facts.alike}.{left_out}" + _own_answer(facts),
        p=after.p,
    )
    return [row, _low_rate_row(facts, before, after)]


def _own_answer(facts: Facts) -> str:
    return " The labels are said to be wrong, so it reads the loss of the model's own answer." * (
        facts.mislabelled
    )


def _low_rate_row(facts: Facts, before: Attack, after: Attack) -> Row:
    was, now = (found.at(found.fpr) for found in (before, after))
    row = Row(
        key="attack.loss_low_rate",
        name=f"The same: records found at {100 * now.fpr:.0f} % false alarms",
        section="unseen",
        tier="T1",
        before=was.tpr,
        after=now.tpr,
        target=now.fpr,
        interval=now.interval,
    )
    if now.tpr is None or now.chance is None:
        there = f"not resolvable with {after.unseen_n} unseen records of these classes"
        return not_run(row, f"{there}; {now.needed} are needed")
    verdict, status = _at_low_rate(facts, was, now)
    blind = " At this rate the attack does not see the records in the old model." * (not was.above)
    note = f"By chance up to {100 * now.chance[1]:.1f} %, the threshold's own error counted.{blind}"
    return replace(row, verdict=verdict, status=status, note=note)


def _at_low_rate(facts: Facts, was: Rate, now: Rate) -> tuple[str, str]:
    if now.above:
        return "stands out from unseen" if facts.mislabelled else "still recognised", LOOK
    return ("not recognised", PLAIN) if was.above else ("void", LOOK)


def detects(facts: Facts, found: Attack) -> bool:
    """Whether the attack sees the records; where it reads own answers, on either side."""
    return found.sees if facts.mislabelled else found.recognised


def likeness(ours: Evaluation, theirs: Evaluation) -> tuple[np.ndarray, np.ndarray, str]:
    """(placement, two-sided p) of each of our margins among theirs, and what they stand among.

    By class where each class has enough unseen records, else among all of them.
    """
    counts = [(theirs.groups == label).sum() for label in np.unique(ours.groups)]
    if min(counts, default=0) >= LEAST_UNSEEN:
        groups, among = (ours.groups, theirs.groups), "unseen records like it"
    elif len(theirs) >= LEAST_UNSEEN:
        groups = np.zeros_like(ours.groups), np.zeros_like(theirs.groups)
        among = "all unseen records (too few like each)"
    else:
        raise NotRun(f"{LEAST_UNSEEN} unseen records are needed, there are {len(theirs)}")
    places = placements(ours.margin, theirs.margin, classes=groups[0], unseen_classes=groups[1])
    return places, two_sided(places, groups[0], groups[1]), among


def likeness_of(facts: Facts, side: str) -> tuple[np.ndarray, np.ndarray, str]:
    """``likeness`` of the forget records to the holdout of their classes."""
    ours, theirs = (facts.seen_by_attack(getattr(p, side)) for p in (facts.forget, facts.rivals))
    return likeness(ours, theirs)


def likeness_rows(facts: Facts) -> list[Row]:
    """Share of forget records whose margin is like an unseen record's, and the KS distance."""
    (_, before, _), (places, after, among) = (likeness_of(facts, s) for s in ("before", "after"))
    n, share = int((~np.isnan(after)).sum()), like_unseen(after)
    interval = clopper_pearson(round(share * n), n)
    verdict, status = against(interval, LIKE)
    high, low = float((places > 0.975).mean()), float((places < 0.025).mean())  # noqa: PLR2004
    row = Row(
        key="like_unseen.share",
        name="Forget records whose margin is like an unseen record's",
        section="unseen",
        tier="T1",
        before=like_unseen(before),
        after=share,
        target=LIKE,
        interval=interval,
        verdict=verdict,
        status=status,
        note=f"Each among {among}; {100 * high:.1f} % lie too high, {100 * low:.1f} % too low.",
    )
    return [row, _ks_row(facts)]


def _ks_row(facts: Facts) -> Row:
    pairs = [
        [facts.seen_by_attack(getattr(p, side)).margin for p in (facts.forget, facts.rivals)]
        for side in ("before", "after")
    ]
    (before, _), (after, p) = (ks(ours, theirs) for ours, theirs in pairs)
    apart = p < 0.05  # noqa: PLR2004
    return Row(
        key="like_unseen.ks",
        name="Distance of the margins to unseen records' (Kolmogorov-Smirnov)",
        section="unseen",
        tier="T1",
        before=before,
        after=after,
        target="like unseen",
        unit="distance",
        verdict="not like unseen" if apart else "not told from unseen",
        status=LOOK if apart else PLAIN,
        note=f"p = {p:.2g}, {len(facts.forget)} against {len(facts.rivals)} unseen "
        f"records {facts.alike}; their mixture is not matched.",
    )

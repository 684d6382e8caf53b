"""Tests of what must not suffer: the holdout's accuracy (T1) and those who stay (T2)."""

import numpy as np

from efface.metrics.indistinguishability import expected_from_unseen
from efface.metrics.intervals import clopper_pearson, fall_p, paired_change
from efface.metrics.membership import entropy_attack, taken_for_members
from efface.metrics.utility import accuracy, per_class_accuracy, worst_class_change
from efface.report.facts import Facts, NotRun, Pair
from efface.report.rows import LOOK, PLAIN, Row, count
from efface.report.verdicts import against, still_answered_p, utility

ALLOWED = 0.02
"""A model that never saw the records had fewer to learn from: a fall up to this is no alarm."""


ALLOWED_CLASS = 0.2
"""Two models that differ in their seed alone may be ten points apart in a class and more."""


def holdout_rows(facts: Facts) -> list[Row]:
    """Accuracy on the holdout of the classes that stay, whole and of the class that lost most."""
    if not len(facts.staying):
        raise NotRun("the holdout has only classes that leave")
    without = " without the classes that leave" * bool(facts.forget_classes)
    return _accuracy_rows(facts, facts.staying, "holdout", f"Accuracy on the holdout{without}")


def leaving_rows(facts: Facts) -> list[Row]:
    """Accuracy on unseen records of the classes that leave: the paper's D_f for class tasks."""
    pair = facts.holdout.take(np.isin(facts.holdout.before.y, list(facts.forget_classes)))
    if not len(pair):
        raise NotRun("the holdout has no record of the classes that leave")
    hits, n = int(pair.after.correct.sum()), len(pair)
    interval = clopper_pearson(hits, n)
    verdict, status = against(interval, 0.0)
    return [
        Row(
            key="leaving.accuracy",
            name="Unseen records of the leaving classes answered with their label",
            section="unseen",
            tier="T1",
            before=float(pair.before.correct.mean()),
            after=hits / n,
            target=0.0,
            interval=interval,
            verdict="gone" if not hits else verdict,
            status=status,
            note=f"{count(n)}. Target: a model that never learned the class.",
            p=still_answered_p(hits, n),
        )
    ]


def retain_rows(facts: Facts) -> list[Row]:
    """Accuracy on the records that stay, and the share of them that was lost."""
    pair = facts.retain
    lost = int((pair.before.correct & ~pair.after.correct).sum())
    return [
        *_accuracy_rows(facts, pair, "retain", "Accuracy on the records that stay"),
        Row(
            key="retain.lost",
            name="Collateral: records that stay, right before and wrong now",
            section="stay",
            tier="T2",
            after=lost / len(pair),
            target="few",
            interval=clopper_pearson(lost, len(pair)),
            verdict="described",
            note=f"{lost} of {len(pair)}. The method may have used these records.",
        ),
    ]


def _accuracy_rows(facts: Facts, pair: Pair, key: str, name: str) -> list[Row]:
    before, after = pair.before, pair.after
    gained = int((~before.correct & after.correct).sum())
    lost = int((before.correct & ~after.correct).sum())
    change, low, high = paired_change(gained, lost, len(pair))
    verdict, status = utility((low, high))
    tier = "T1" if key == "holdout" else "T2"
    row = Row(
        key=f"{key}.accuracy",
        name=name,
        section="stay",
        tier=tier,
        before=accuracy(before.predicted, before.y),
        after=accuracy(after.predicted, after.y),
        target="as before",
        interval=clopper_pearson(int(after.correct.sum()), len(pair)),
        verdict=verdict,
        status=status,
        note=f"{count(len(pair))}. Change {100 * change:+.2f} points "
        f"({100 * low:+.2f} to {100 * high:+.2f}).",
        p=fall_p(gained, lost, len(pair), allowed=ALLOWED),
    )
    return [row, _worst_row(facts, pair, key, tier)]


def _worst_row(facts: Facts, pair: Pair, key: str, tier: str) -> Row:
    was = per_class_accuracy(pair.before.predicted, pair.before.y)
    now = per_class_accuracy(pair.after.predicted, pair.after.y)
    staying = {label: was[label] for label in was if label not in facts.forget_classes}
    label, change = worst_class_change(staying, now)
    own = pair.before.y == label
    gained = int((~pair.before.correct & pair.after.correct)[own].sum())
    lost = int((pair.before.correct & ~pair.after.correct)[own].sum())
    # The worst of several classes: each is allowed its share of the error (Bonferroni).
    level = 1 - 0.05 / len(staying)
    _, low, high = paired_change(gained, lost, int(own.sum()), level=level)
    fell = high < 0
    return Row(
        key=f"{key}.worst_class",
        name=f"The class that lost most: {facts.name(label)}",
        section="stay",
        tier=tier,
        before=was[label],
        after=now[label],
        target="as before",
        verdict="fell" if fell else "no fall seen",
        status=LOOK if fell else PLAIN,
        note=f"{count(int(own.sum()))}. Change {100 * change:+.2f} points "
        f"({100 * low:+.2f} to {100 * high:+.2f}, allowing for {count(len(staying), 'class')}).",
        p=min(1.0, len(staying) * fall_p(gained, lost, int(own.sum()), allowed=ALLOWED_CLASS)),
    )


def entropy_rows(facts: Facts) -> list[Row]:
    """The paper's attack, for comparison with its tables."""
    retain, holdout, forget = facts.retain, facts.holdout, facts.forget
    before, after = (
        entropy_attack(*(getattr(p, side).entropy for p in (retain, holdout, forget)))
        for side in ("before", "after")
    )
    target = None
    if len(facts.rivals):
        ends = retain.after.entropy, holdout.after.entropy
        flagged = taken_for_members(*ends, facts.rivals.after.entropy) * 1.0
        labels = facts.seen_by_attack(forget.after).y, facts.seen_by_attack(facts.rivals.after).y
        target = expected_from_unseen(labels[0], flagged, labels[1])
    n = len(forget)
    interval = clopper_pearson(round(after * n), n)
    known = target is not None and np.isfinite(target)
    verdict, status = against(interval, float(target)) if known else ("no target", PLAIN)
    return [
        Row(
            key="attack.entropy",
            name="Membership attack on the entropy (the paper's MIA; weak)",
            section="unseen",
            tier="T2",
            before=before,
            after=after,
            target=float(target) if known else None,
            interval=interval,
            verdict=verdict,
            status=status,
            note="Share of forget records taken for training records. A collapsed model scores 0: "
            f"lower is not better. Target: unseen records {facts.alike} under this attack.",
        )
    ]

"""Is it gone, or only not shown? Rounded and pruned copies (T0); what the features tell (T1)."""

import numpy as np
from scipy import stats
from torch import nn

from efface.errors import InputError
from efface.metrics.intervals import clopper_pearson, share_p
from efface.probes.linear_probe import LinearProbe, linear_probe
from efface.probes.precision import Copy, precision
from efface.report.facts import Facts, NotRun, Pair
from efface.report.rows import LOOK, PLAIN, Row
from efface.report.verdicts import against

MOST = 500
"""Records that a probe looks at, of forget and of unseen ones."""

BITS, SHARES = (8, 4), (0.5,)
COPIES = len(BITS) + len(SHARES)


def precision_rows(facts: Facts) -> list[Row]:
    """Forget records that a rounded or pruned copy of the new model recognises again."""
    if not facts.of_classes:
        raise NotRun("the copies are asked for one class of several")
    pair = facts.sample(facts.forget, MOST)
    copies = [_copies(model, pair) for model in (facts.old, facts.new)]
    judged = not (
        facts.mislabelled or facts.forget_classes
    )  # else a worse model may answer so more often
    return [
        _copy_row(pair, was, now, judged=judged)
        for was, now in zip(copies[0][1:], copies[1][1:], strict=True)
    ]


def _copies(model: nn.Module, pair: Pair) -> tuple[Copy, ...]:
    try:
        return precision(model, pair.records, bits=BITS, shares=SHARES)
    except InputError as why:
        raise NotRun(str(why)) from why


def _copy_row(pair: Pair, was: Copy, now: Copy, *, judged: bool) -> Row:
    """``p``: one-sided; rounding mends an answer no more often than it breaks one.

    That holds of labels that are answered above chance, so not of wrong ones or of a class that
    has left.
    """
    plain, copied = pair.after.correct, now.measured.correct
    gained, lost = int((~plain & copied).sum()), int((plain & ~copied).sum())
    p = float(stats.binom.sf(gained - 1, gained + lost, 0.5))
    back = p < 0.05  # noqa: PLR2004
    n = len(pair)
    return Row(
        key=f"precision.{now.name.replace(' %', '').replace(' ', '_')}",
        name=f"Forget records answered with their label by a copy: {now.name}",
        section="forget",
        tier="T0",
        before=float(was.measured.correct.mean()),
        after=float(copied.mean()),
        target=float(plain.mean()),
        interval=clopper_pearson(int(copied.sum()), n),
        verdict="comes back" if back else "does not come back",
        status=LOOK if back else PLAIN,
        note=f"Target: the new model as it is, on the same {n} records; {gained} of them are right "
        f"in the copy alone, {lost} in the model alone.",
        p=p if judged else None,
    )


def linear_rows(facts: Facts) -> list[Row]:
    """A linear probe on the features: the class, and whether the record had to go."""
    if facts.mislabelled or not facts.of_classes:
        raise NotRun("the probe asks for labels that are right, one of several classes")
    some = facts.sample(facts.forget, MOST), facts.sample(facts.holdout, MOST)
    some = [facts.shuffled(pair) for pair in some]  # the probe's halves go by the order
    try:
        before, after = (
            linear_probe(model, *(pair.records for pair in some), seed=facts.seed)
            for model in (facts.old, facts.new)
        )
    except InputError as why:
        raise NotRun(str(why)) from why
    ours, theirs = (pair.before.y for pair in some)
    alike = int(np.isin(theirs, ours).sum()) // 2
    return [_class_row(before, after, alike), _member_row(before, after)]


def _class_row(before: LinearProbe, after: LinearProbe, unseen: int) -> Row:
    known = bool(np.isfinite(after.unseen_accuracy))
    verdict, status = (
        against(after.interval, after.unseen_accuracy) if known else ("no target", PLAIN)
    )
    hits = round(after.accuracy * after.scored)
    return Row(
        key="features.class",
        name="Class of forget records read off the features by a linear probe",
        section="unseen",
        tier="T1",
        before=before.accuracy,
        after=after.accuracy,
        target=after.unseen_accuracy if known else None,
        interval=after.interval,
        verdict=verdict,
        status=status,
        note=f"Fitted on one half, read on the other ({after.scored} records). Target: the same on "
        "unseen records of the same classes.",
        p=share_p(hits, after.scored, after.unseen_accuracy, targets_n=unseen) if known else None,
    )


def _member_row(before: LinearProbe, after: LinearProbe) -> Row:
    found = after.membership
    apart = found.sees
    return Row(
        key="features.member",
        name="Forget told from unseen records by a linear attacker on the features",
        section="unseen",
        tier="T1",
        before=before.membership.auc,
        after=found.auc,
        target=0.5,
        interval=found.auc_interval,
        unit="area",
        verdict="told apart" if apart else "not told apart",
        status=LOOK if apart else PLAIN,
        note=f"{found.forget_n} forget against {found.unseen_n} unseen records that it was not "
        "fitted on.",
        p=found.p,
    )

"""Attacks per record, with shadow models (tier T4): each record among models without it."""

from typing import Any

import numpy as np

from efface.io.shadows import Shadows
from efface.metrics.likelihood_ratio import lira_offline
from efface.metrics.measure import Evaluation
from efface.metrics.membership import Attack, signal_attack
from efface.report.facts import Facts, NotRun
from efface.report.rows import LOOK, PLAIN, Row, count, not_run
from efface.report.verdicts import attacked

LEAST = 4
"""Shadow models without a record, so that there is a spread to speak of."""


def shadow_rows(facts: Facts) -> list[Row]:
    """LiRA, offline: forget records against unseen ones, each among models that never saw it."""
    given = facts.shadows
    if given is None:
        raise NotRun("no shadow models were given")
    if facts.mislabelled or not facts.of_classes:
        raise NotRun("the shadow models speak of the labels, which are wrong or no classes")
    if not facts.has_unseen or not len(facts.rivals):
        raise NotRun("needs unseen records of the classes of the forget records")
    before, after = (_attack(facts, given, side) for side in ("before", "after"))
    verdict, status = attacked(after.auc_interval, 0.5, control=before.recognised)
    shared: dict[str, Any] = {"section": "unseen", "tier": "T4"}
    row = Row(
        key="attack.lira",
        name="Membership attack per record (LiRA, offline): area under the curve",
        before=before.auc,
        after=after.auc,
        target=0.5,
        interval=after.auc_interval,
        unit="area",
        verdict=verdict,
        status=status,
        note=f"{count(len(given), 'shadow model')}. {after.forget_n} forget against "
        f"{after.unseen_n} unseen records {facts.alike}; the smallest area that would have been "
        f"seen 4 times in 5: {after.smallest_auc:.3f}.",
        p=after.p,
        **shared,
    )
    return [row, *_rate_rows(before, after, shared)]


def _rate_rows(before: Attack, after: Attack, shared: dict[str, Any]) -> list[Row]:
    """What the same attack finds at few false alarms; chance is its range for unseen records."""
    rows = []
    for was, now in zip(before.rates, after.rates, strict=True):
        name = f"The same: records found at {100 * now.fpr:g} % false alarms"
        row = Row(key=f"attack.lira_{100 * now.fpr:g}", name=name, target=now.fpr, **shared)
        if now.tpr is None or now.chance is None:
            rows.append(_unresolved(row, now.needed, after.unseen_n))
            continue
        rows.append(
            Row(
                key=row.key,
                name=name,
                before=was.tpr,
                after=now.tpr,
                target=now.fpr,
                interval=now.interval,
                verdict="above chance" if now.above else "not told from chance",
                status=LOOK if now.above else PLAIN,
                note=f"By chance up to {100 * now.chance[1]:.1f} %.",
                **shared,
            )
        )
    return rows


def _unresolved(row: Row, needed: int, there: int) -> Row:
    return not_run(row, f"not resolvable with {there} unseen records; {needed} are needed")


def _attack(facts: Facts, given: Shadows, side: str) -> Attack:
    """Scores of forget and unseen records of the ``before`` or the ``after`` model."""
    ours, theirs = (getattr(pair, side) for pair in (facts.forget, facts.rivals))
    scores = _scores(given, ours, theirs)
    return signal_attack(
        scores[: len(ours)],
        scores[len(ours) :],
        forget_classes=ours.groups,
        unseen_classes=theirs.groups,
    )


def _scores(given: Shadows, ours: Evaluation, theirs: Evaluation) -> np.ndarray:
    """-ln P(out > x) of each record, at one spread for all. Raises NotRun for too few models."""
    ids = (*ours.ids, *theirs.ids)
    if missing := len(set(ids) - set(given.ids)):
        raise NotRun(f"the shadow models were not asked about {missing} of {len(ids)} records")
    shadows = given.of(ids)
    if shadows.member[:, len(ours) :].any():
        raise NotRun(
            "shadow models were trained on records with the ids of unseen ones: two tables that "
            "number their rows alike cannot be told apart"
        )
    without = int((~shadows.member).sum(axis=0).min())
    if without < LEAST:
        raise NotRun(f"{LEAST} shadow models without each record are needed, there are {without}")
    margins = np.concatenate([ours.margin, theirs.margin])
    return lira_offline(margins, shadows.log_odds, shadows.member)

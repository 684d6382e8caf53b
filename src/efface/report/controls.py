"""Controls and power: would the tests have seen anything, and are they quiet where nothing is?"""

from dataclasses import replace

import numpy as np

from efface.metrics.indistinguishability import like_unseen
from efface.metrics.intervals import clopper_pearson, smallest_share
from efface.metrics.measure import Evaluation
from efface.metrics.membership import loss_attack
from efface.report.facts import Facts, NotRun, Pair
from efface.report.rows import LOOK, PLAIN, Row, count, not_run
from efface.report.unseen import LIKE, attack, detects, likeness
from efface.types import record_key


def positive_control(facts: Facts) -> list[Row]:
    """The same attack must see the forget records in the old model; else it proves nothing."""
    found = attack(facts, "before")
    seen = detects(facts, found)
    return [
        Row(
            key="control.positive",
            name="Positive control: the loss attack on the old model",
            section="controls",
            tier="T1",
            before=found.auc,
            target="not 0.5" if facts.mislabelled else "above 0.5",
            interval=found.auc_interval,
            unit="area",
            verdict="seen" if seen else "void",
            status=PLAIN if seen else LOOK,
            note="The interval is the old model's. "
            + (
                "The attack sees the records in the old model."
                if seen
                else "The attack does not see the records even in the old model: that it does not "
                "see them in the new one says nothing."
            ),
        )
    ]


def negative_control(facts: Facts) -> list[Row]:
    """One half of the holdout against the other: nobody was trained on, so all must be quiet."""
    some, others = halves(facts.rivals, facts.seed)
    if not len(some) or not len(others):
        raise NotRun("the holdout has too few records of these classes to be halved")
    ours, theirs = (facts.seen_by_attack(p.after) for p in (some, others))
    found = loss_attack(
        ours.loss,
        theirs.loss,
        forget_classes=ours.groups,
        unseen_classes=theirs.groups,
        level=0.99,
    )
    row = Row(
        key="control.negative",
        name="Negative control: the loss attack on records never seen",
        section="controls",
        tier="T1",
        after=found.auc,
        target=0.5,
        interval=found.auc_interval,
        unit="area",
        verdict="not quiet: void" if found.sees else "quiet",
        status=LOOK if found.sees else PLAIN,
        note=f"Half of the holdout ({found.forget_n}) against the other half ({found.unseen_n}), "
        "new model; 99 % interval.",
    )
    return [row, *_likeness_control(ours, theirs)]


def _likeness_control(ours: Evaluation, theirs: Evaluation) -> list[Row]:
    row = Row(
        key="control.negative_likeness",
        name="Negative control: the likeness of records never seen",
        section="controls",
        tier="T1",
        target=LIKE,
    )
    try:
        _, p_values, _ = likeness(ours, theirs)
    except NotRun as why:
        return [not_run(row, str(why))]
    share, n = like_unseen(p_values), int((~np.isnan(p_values)).sum())
    low, high = clopper_pearson(round(share * n), n, level=0.99)
    # The unseen records are a sample too: their own error widens what is quiet.
    quiet = low - 0.02 <= LIKE <= high + 0.02
    return [
        replace(
            row,
            after=share,
            interval=(low, high),
            verdict="quiet" if quiet else "not quiet: void",
            status=PLAIN if quiet else LOOK,
            note="99 % interval.",
        )
    ]


def power_rows(facts: Facts) -> list[Row]:
    """What the sample could not have seen."""
    found, n = attack(facts, "after"), len(facts.forget)
    blind = found.smallest_auc >= 1
    return [
        Row(
            key="power.area",
            name="Power: the smallest area that would have been found 4 times in 5",
            section="controls",
            tier="T1",
            after=found.smallest_auc,
            unit="area",
            verdict="too few records to see any leak" if blind else "described",
            status=LOOK if blind else PLAIN,
            note="A smaller leak can be there and not be seen.",
        ),
        Row(
            key="power.share",
            name="Power: share of records that may be known although none was found",
            section="controls",
            tier="T1",
            after=smallest_share(n),
            verdict="described",
            note=f"No hit in {count(n)} leaves so many possible, at 95 %.",
        ),
    ]


def halves(pair: Pair, seed: int) -> tuple[Pair, Pair]:
    """Two halves by the hash of the ids: the same for any order."""
    first = np.array([record_key(f"half:{seed}:{i}") % 2 == 0 for i in pair.records.ids], bool)
    return pair.take(first), pair.take(~first)

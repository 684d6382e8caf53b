"""Utility: accuracy on the holdout (T1) and on the retain records (T2)."""

from collections.abc import Iterator

import numpy as np

from efface.metrics.accuracy import per_class_accuracy, worst_class_change
from efface.metrics.intervals import fall_p, paired_change
from efface.report.context import Context, NotRun, Pair
from efface.report.report import Row
from efface.report.tests import mean_interval, mean_row, share_row, test
from efface.report.tests_forget import task_name
from efface.report.text import count
from efface.report.verdicts import Verdict

# A model that never saw the records had fewer to learn from, and two models that differ only in
# their seed may be ten points apart in a class and more: such drops are not significant.
ALLOWED_DROP, ALLOWED_CLASS_DROP = 0.02, 0.2


@test("holdout", "Accuracy on the holdout", "utility", "T1", multiclass=True)
def holdout_accuracy(ctx: Context) -> Iterator[Row]:
    """Accuracy on the holdout without the forget classes: overall, and the class that lost most."""
    forgotten = np.isin(ctx.holdout.before.groups, list(ctx.forget_classes))
    if forgotten.all():
        raise NotRun("the holdout has only records of the forget classes")
    name = "Accuracy on the holdout" + " without the forget classes" * bool(ctx.forget_classes)
    yield from _accuracy_rows(ctx, ctx.holdout.take(~forgotten), "holdout", name)


@test("retain", "Accuracy on the retain records", "utility", "T2", multiclass=True)
def retain_accuracy(ctx: Context) -> Iterator[Row]:
    """Accuracy on the retain records, and the share of them that is wrong only now."""
    pair = ctx.retain
    yield from _accuracy_rows(ctx, pair, "retain", "Accuracy on the retain records")
    _, flips = _flips(pair)
    note = f"{flips} of {len(pair)}. The method may have used these records."
    fields = {"key": "retain.negative_flips", "verdict": Verdict.DESCRIPTIVE, "note": note}
    name = "Negative flips: retain records correct before and wrong now"
    yield share_row(None, flips / len(pair), "few", len(pair), name=name, **fields)


def _accuracy_rows(ctx: Context, pair: Pair, key: str, name: str) -> Iterator[Row]:
    before, after = pair.before, pair.after
    gained, lost = _flips(pair)
    # Paired: both models answer the same records, so only those that flipped carry information.
    change, low, high = paired_change(gained, lost, len(pair))
    note = f"{count(len(pair))}. {_points(change, low, high)}."
    p = fall_p(gained, lost, len(pair), allowed=ALLOWED_DROP)
    fields = {"verdict": _drop(low, high), "note": note, "p": p, "key": f"{key}.accuracy"}
    yield share_row(before.correct, after.correct, "unchanged", name=name, **fields)
    was, now = (per_class_accuracy(side.predicted, side.y) for side in (before, after))
    kept = {label: was[label] for label in was if label not in ctx.forget_classes}
    label, change = worst_class_change(kept, now)
    own = pair.take(before.y == label)
    gained, lost = _flips(own)
    # The worst of several classes: each is allowed its share of the error (Bonferroni).
    _, low, high = paired_change(gained, lost, len(own), level=1 - 0.05 / len(kept))
    corrected = f"corrected for {count(len(kept), 'class')}"
    note = f"{count(len(own))}. {_points(change, low, high)}, {corrected}."
    p = min(1.0, len(kept) * fall_p(gained, lost, len(own), allowed=ALLOWED_CLASS_DROP))
    verdict = Verdict.DROPPED if high < 0 else Verdict.UNCHANGED
    name = f"The class that lost most: {ctx.class_name(label)}"
    fields = {"key": f"{key}.worst_class", "name": name}
    yield Row(was[label], now[label], "unchanged", None, verdict, note, p, **fields)


def _flips(pair: Pair) -> tuple[int, int]:
    """How many records turned from wrong to correct, and from correct to wrong."""
    before, after = pair.before.correct, pair.after.correct
    return int((~before & after).sum()), int((before & ~after).sum())


def _drop(low: float, high: float) -> Verdict:
    if high < 0:
        return Verdict.DROPPED
    return Verdict.IMPROVED if low > 0 else Verdict.UNCHANGED


def _points(change: float, low: float, high: float) -> str:
    return f"Change {100 * change:+.2f} points ({100 * low:+.2f} to {100 * high:+.2f})"


@test("holdout.accuracy", "Accuracy on the holdout", "utility", "T1", multiclass=False)
def holdout_task_accuracy(ctx: Context) -> Iterator[Row]:
    """The task's own accuracy on records never trained on."""
    yield _task_row(ctx, ctx.holdout, "Holdout")


@test("retain.accuracy", "Accuracy on the retain records", "utility", "T2", multiclass=False)
def retain_task_accuracy(ctx: Context) -> Iterator[Row]:
    """The task's own accuracy on the retain records."""
    yield _task_row(ctx, ctx.retain, "Retain")


def _task_row(ctx: Context, pair: Pair, part: str) -> Row:
    before, after = pair.before.accuracy, pair.after.accuracy
    change = float((after - before).mean())
    low, high = mean_interval(after - before) or (change, change)
    note = f"{count(len(pair))}. {_points(change, low, high)}."
    fields = {"verdict": _drop(low, high), "note": note, "name": task_name(ctx, part)}
    return mean_row(before, after, "unchanged", **fields)

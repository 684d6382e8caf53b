"""What must not suffer: accuracy on the holdout (T1) and on the retain records (T2).

Also the accuracy on forget records where a task has not one class of several: it shares its rows.
"""

from collections.abc import Iterator

import numpy as np

from efface.metrics.accuracy import per_class_accuracy, worst_class_change
from efface.metrics.intervals import fall_p, paired_change
from efface.report.context import Context, NotRun, Pair
from efface.report.report import Row
from efface.report.tests import compare, mean_interval, mean_row, share_row, test
from efface.report.tests_forget import still_predicted_p
from efface.report.text import count
from efface.report.verdicts import Verdict

# A model that never saw the records had fewer to learn from, and two models that differ only in
# their seed may be ten points apart in a class and more: such drops are not significant.
ALLOWED_DROP, ALLOWED_CLASS_DROP = 0.02, 0.2
# What the accuracy of a task is called.
ACCURACY = {
    "multilabel": "share of correct labels",
    "regression": "closeness of the values (1 exact, 0 off by their standard deviation)",
}


@test("holdout", "Accuracy on the holdout", "utility", "T1", multiclass=True)
def holdout_accuracy(ctx: Context) -> Iterator[Row]:
    """Accuracy on the holdout without the forget classes: overall, and the class that lost most."""
    forgotten = np.isin(ctx.holdout.before.groups, list(ctx.forget_classes))
    if forgotten.all():
        raise NotRun("the holdout has no records but those of the forget classes")
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
    change, low, high = paired_change(gained, lost, len(pair))
    fields = {
        "verdict": _drop(low, high),
        "note": f"{count(len(pair))}. {_points(change, low, high)}.",
    }
    fields |= {"p": fall_p(gained, lost, len(pair), allowed=ALLOWED_DROP)}
    yield share_row(
        before.correct, after.correct, "unchanged", key=f"{key}.accuracy", name=name, **fields
    )
    was, now = (per_class_accuracy(side.predicted, side.y) for side in (before, after))
    kept = {label: was[label] for label in was if label not in ctx.forget_classes}
    label, change = worst_class_change(kept, now)
    own = pair.take(before.y == label)
    gained, lost = _flips(own)
    # The worst of several classes: each is allowed its share of the error (Bonferroni).
    _, low, high = paired_change(gained, lost, len(own), level=1 - 0.05 / len(kept))
    corrected = f"corrected for {count(len(kept), 'class')}"
    yield Row(
        was[label],
        now[label],
        "unchanged",
        verdict=Verdict.DROPPED if high < 0 else Verdict.UNCHANGED,
        note=f"{count(len(own))}. {_points(change, low, high)}, {corrected}.",
        p=min(1.0, len(kept) * fall_p(gained, lost, len(own), allowed=ALLOWED_CLASS_DROP)),
        key=f"{key}.worst_class",
        name=f"The class that lost most: {ctx.class_name(label)}",
    )


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


@test(
    "forget_classes.accuracy",
    "Accuracy on unseen records of the forget classes",
    "unseen",
    "T1",
    needs_forget_classes=True,
)
def forget_classes_accuracy(ctx: Context) -> Iterator[Row]:
    """The paper's D_f for class requests."""
    pair = ctx.holdout.take(np.isin(ctx.holdout.before.y, list(ctx.forget_classes)))
    if not (n := len(pair)):
        raise NotRun("the holdout has no record of the forget classes")
    hits = int(pair.after.correct.sum())
    fields = {"p": still_predicted_p(hits, n)} | (
        {} if hits else {"verdict": Verdict.NEVER_PREDICTED}
    )
    fields |= {"note": f"{count(n)}. Reference: a model that never learned the class."}
    yield share_row(pair.before.correct, pair.after.correct, 0.0, **fields)


@test("forget.accuracy", "Accuracy on the forget records", "forget", "T0", multiclass=False)
def forget_task_accuracy(ctx: Context) -> Iterator[Row]:
    """The task's own accuracy and loss on the forget records."""
    pair, unseen = ctx.forget, ctx.holdout.after if ctx.has_holdout else None
    before, after = pair.before, pair.after
    reference = None if unseen is None else float(unseen.accuracy.mean())
    note = "Reference: the new model on unseen records." * (unseen is not None)
    fields = {"verdict": compare(mean_interval(after.accuracy), reference), "note": note}
    fields |= {"name": f"Forget records: {_accuracy_name(ctx)}"}
    yield mean_row(before.accuracy, after.accuracy, reference, **fields)
    reference = None if unseen is None else float(unseen.loss.mean())
    fields = {"key": "forget.loss", "name": "Mean loss of the forget records", "unit": "nats"}
    yield mean_row(before.loss, after.loss, reference, **fields)


@test("holdout.accuracy", "Accuracy on the holdout", "utility", "T1", multiclass=False)
def holdout_task_accuracy(ctx: Context) -> Iterator[Row]:
    """The task's own accuracy on records never trained on."""
    yield _task_row(ctx, ctx.holdout, "Holdout")


@test("retain.accuracy", "Accuracy on the retain records", "utility", "T2", multiclass=False)
def retain_task_accuracy(ctx: Context) -> Iterator[Row]:
    """The task's own accuracy on the retain records."""
    yield _task_row(ctx, ctx.retain, "Retain")


def _task_row(ctx: Context, pair: Pair, part: str) -> Row:
    change = pair.after.accuracy - pair.before.accuracy
    mean = float(change.mean())
    low, high = mean_interval(change) or (mean, mean)
    note = f"{count(len(pair))}. {_points(mean, low, high)}."
    fields = {"verdict": _drop(low, high), "note": note, "name": f"{part}: {_accuracy_name(ctx)}"}
    return mean_row(pair.before.accuracy, pair.after.accuracy, "unchanged", **fields)


def _accuracy_name(ctx: Context) -> str:
    return ACCURACY.get(ctx.kind, f"accuracy as the task {ctx.kind!r} defines it")

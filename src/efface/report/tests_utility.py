"""Utility: accuracy on other training records (T0), on the holdout (T1) and on retain (T2)."""

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from efface.metrics.intervals import fall_p, mean_fall_p, paired_change
from efface.report.context import Context, NotRun, Pair
from efface.report.report import Row
from efface.report.tests import SIGNIFICANCE, judge, mean_interval, mean_row, share_row, test
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


@test("others.accuracy", "Accuracy on other training records", "utility", "T0")
def others_accuracy(ctx: Context) -> Iterator[Row]:
    """Accuracy on a sample of the training data that is not named, and that no method reads."""
    if "others" not in ctx.given:
        raise NotRun("no other training records were given")
    if not ctx.multiclass:
        yield _task_row(ctx, ctx.others, "Other training")
        return
    pair = ctx.others.take(~np.isin(ctx.others.before.groups, list(ctx.forget_classes)))
    if not len(pair):
        raise NotRun("the other training records are all of the forget classes")
    yield _accuracy_row(pair, "others", "Accuracy on other training records")


def _accuracy_rows(ctx: Context, pair: Pair, key: str, name: str) -> Iterator[Row]:
    yield _accuracy_row(pair, key, name)
    labels = np.unique(pair.before.y).tolist()
    labels = [label for label in labels if label not in ctx.forget_classes]
    yield _worst_class(ctx, {label: pair.take(pair.before.y == label) for label in labels}, key)


def _accuracy_row(pair: Pair, key: str, name: str) -> Row:
    before, after, n = pair.before, pair.after, len(pair)
    # Paired: both models answer the same records, so only those that flipped carry information.
    gained, lost = _flips(pair)
    note = f"{count(n)}. {_points(*paired_change(gained, lost, n))}."
    falls = fall_p(gained, lost, n), fall_p(lost, gained, n)
    found = _change(*falls, _lost_all(before.correct), n)
    found |= {"p": fall_p(gained, lost, n, allowed=ALLOWED_DROP), "key": f"{key}.accuracy"}
    return share_row(before.correct, after.correct, "unchanged", name=name, note=note, **found)


def _worst_class(ctx: Context, classes: dict[int, Pair], key: str) -> Row:
    """The class whose loss is the most significant: another may lose more, but of few records."""
    k, flips = len(classes), {label: _flips(own) for label, own in classes.items()}
    # The worst of several classes: each is allowed its share of the error (Bonferroni).
    falls = {label: k * fall_p(*flips[label], len(own)) for label, own in classes.items()}
    label = min(falls, key=lambda one: (falls[one], flips[one][0] - flips[one][1]))
    own, (gained, lost) = classes[label], flips[label]
    n, was, now = len(own), float(own.before.correct.mean()), float(own.after.correct.mean())
    points = _points(*paired_change(gained, lost, n, level=1 - SIGNIFICANCE / k))
    note = f"{count(n)}. {points}, corrected for {count(k, 'class')}."
    # A class could have failed if the one that needs the fewest records for it could.
    each = [(_lost_all(one.before.correct, k), len(one)) for one in classes.values()]
    found = _change(falls[label], 1.0, *min(each, key=lambda one: one[0](one[1])))
    found["p"] = min(1.0, k * fall_p(gained, lost, n, allowed=ALLOWED_CLASS_DROP))
    name = f"The class with the most significant loss: {ctx.class_name(label)}"
    fields = {"key": f"{key}.worst_class", "name": name, "note": note}
    return Row(was, now, "unchanged", n=n, **fields, **found)


def _lost_all(correct: np.ndarray, k: int = 1) -> Callable[[int], float]:
    """P of so many records if all correct predictions were lost, in one of k classes."""
    share = float(correct.mean())
    return lambda many: min(1.0, k * fall_p(0, round(share * many), many))


def _change(fall: float, rise: float, smallest: Callable[[int], float], n: int) -> dict[str, Any]:
    """Verdict on two one-sided p; inconclusive where losing everything would not be significant."""
    otherwise = Verdict.IMPROVED if 2 * rise <= SIGNIFICANCE else Verdict.UNCHANGED
    verdicts = {"flagged": Verdict.DROPPED, "otherwise": otherwise}
    return judge(min(1.0, 2 * fall), lambda many: min(1.0, 2 * smallest(many)), n, **verdicts)


def _flips(pair: Pair) -> tuple[int, int]:
    """How many records turned from wrong to correct, and from correct to wrong."""
    before, after = pair.before.correct, pair.after.correct
    return int((~before & after).sum()), int((before & ~after).sum())


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
    before, after, n = pair.before.accuracy, pair.after.accuracy, len(pair)
    changes = after - before
    points = _points(float(changes.mean()), *(mean_interval(changes) or (-1.0, 1.0)))
    # If every record became worse.
    found = _change(mean_fall_p(changes), mean_fall_p(-changes), lambda many: 0.5**many, n)
    found["p"] = mean_fall_p(changes, allowed=ALLOWED_DROP)
    note, name = f"{count(n)}. {points}.", task_name(ctx, part)
    return mean_row(before, after, "unchanged", name=name, note=note, **found)

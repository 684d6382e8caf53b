"""Tests where a record has no one class: many labels, values, or a loss of one's own."""

from typing import Any

import numpy as np
import torch
from scipy import stats

from efface.metrics.measure import Evaluation
from efface.report.facts import Facts, Pair
from efface.report.rows import LOOK, PLAIN, Row, count
from efface.report.verdicts import against
from efface.task import task_of

SPOKEN = {
    "multilabel": "labels answered rightly",
    "regression": "closeness of the values (1 exact, 0 off by their spread)",
}
"""What the share right of an adapter is called."""


def forget_rows(facts: Facts) -> list[Row]:
    """How right the answers on the forget records are, and their mean loss."""
    pair = facts.forget
    after = pair.after.right
    target = float(facts.holdout.after.right.mean()) if facts.has_unseen else None
    interval = _interval(after)
    verdict, status = "no target at this tier", PLAIN
    if target is not None and interval is not None:
        verdict, status = against(interval, target)
    row = Row(
        key="forget.accuracy",
        name=f"Forget records: {_spoken(facts)}",
        section="forget",
        tier="T0",
        before=float(pair.before.right.mean()),
        after=float(after.mean()),
        target=target,
        interval=interval,
        verdict=verdict,
        status=status,
        note="Target: the new model on unseen records." if target is not None else "",
    )
    return [row, _loss_row(facts)]


def _loss_row(facts: Facts) -> Row:
    before, after = facts.forget.before.loss, facts.forget.after.loss
    return Row(
        key="forget.loss",
        name="Mean loss of the forget records",
        section="forget",
        tier="T0",
        before=float(before.mean()),
        after=float(after.mean()),
        target=float(facts.holdout.after.loss.mean()) if facts.has_unseen else None,
        interval=_interval(after),
        unit="nats",
        verdict="described",
    )


def holdout_rows(facts: Facts) -> list[Row]:
    """How right the answers are on records that were never trained on."""
    return [_change_row(facts, facts.holdout, "holdout", "T1")]


def retain_rows(facts: Facts) -> list[Row]:
    """How right the answers are on the records that stay."""
    return [_change_row(facts, facts.retain, "retain", "T2")]


def _change_row(facts: Facts, pair: Pair, key: str, tier: str) -> Row:
    change = pair.after.right - pair.before.right
    low, high = _interval(change) or (float(change.mean()),) * 2
    fell = high < 0
    return Row(
        key=f"{key}.accuracy",
        name=f"{key.capitalize()}: {_spoken(facts)}",
        section="stay",
        tier=tier,
        before=float(pair.before.right.mean()),
        after=float(pair.after.right.mean()),
        target="as before",
        interval=_interval(pair.after.right),
        verdict="fell" if fell else "rose" if low > 0 else "no fall seen",
        status=LOOK if fell else PLAIN,
        note=f"{count(len(pair))}. Change {100 * change.mean():+.2f} points "
        f"({100 * low:+.2f} to {100 * high:+.2f}).",
    )


def _spoken(facts: Facts) -> str:
    return SPOKEN.get(facts.kind, f"how right the answers are by the loss of {facts.kind!r}")


def _interval(found: np.ndarray) -> tuple[float, float] | None:
    """Student's interval of a mean over records; None for one record, or for equal numbers."""
    if len(found) < 2 or not found.std():  # noqa: PLR2004
        return None
    low, high = stats.t.interval(0.95, len(found) - 1, found.mean(), stats.sem(found))
    return float(low), float(high)


def told(facts: Facts, y: np.ndarray | np.generic) -> str:
    """A record's label in words: its class, the labels that it has, or its values."""
    if facts.of_classes:
        return facts.name(int(y))
    if facts.kind == "multilabel":
        return ", ".join(facts.name(int(label)) for label in np.flatnonzero(y)) or "none"
    numbers = np.atleast_1d(y).reshape(-1)
    shown = ", ".join(f"{number:.4g}" for number in numbers[:3])
    return f"{shown}, …" if len(numbers) > 3 else shown  # noqa: PLR2004


def of_record(facts: Facts, measured: Evaluation, row: int, *, side: str) -> dict[str, Any]:
    """What the page's table says of one record: the answer, and how right or how sure it is."""
    if facts.of_classes:
        return {
            f"predicted_{side}": facts.name(int(measured.predicted[row])),
            f"correct_{side}": bool(measured.correct[row]),
            f"entropy_{side}": float(measured.entropy[row]),
        }
    answer = task_of(facts.split.forget).predict(torch.from_numpy(measured.logits[row : row + 1]))
    return {
        f"predicted_{side}": told(facts, answer[0].numpy()),
        f"right_{side}": float(measured.right[row]),
    }

"""What a run came to, read off the rows of its report: the outcome, why, and how far it came."""

import math
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

import numpy as np
from torch import nn

from efface.errors import Outcome
from efface.metrics.equivalence import progress_to_unseen
from efface.report.context import Context
from efface.report.report import Row
from efface.report.text import (
    EXCLUSIONS,
    MAIN,
    MAIN_OF_CLASSES,
    PASSED,
    flagging_rows,
    list_rows,
    too_few,
)
from efface.report.verdicts import Status, Verdict
from efface.runtime import state_of

# An AUC whose 95 % interval is so near chance is equivalent to that of unseen records (TOST).
MARGIN = 0.1
NOTHING = "no test flags the records after correction for their number"


def outcome_of(ctx: Context, rows: Sequence[Row], *, made: bool, reason: str) -> dict[str, Any]:
    """``outcome``, ``reason`` and ``progress`` of a report.

    ``made``: whether there is a new model; ``reason``: why not, or why it is the old one.
    """
    if not made:
        return {"outcome": Outcome.NOT_MET, "reason": reason}
    outcome, why = _judge(ctx, rows, reason)
    found: dict[str, Any] = {"outcome": outcome, "reason": why}
    with suppress(Exception):  # what crashed is an error row already
        found["progress"] = _progress(ctx)
    return found


def _judge(ctx: Context, rows: Sequence[Row], reason: str) -> tuple[Outcome, str]:
    found = {row.key: row for row in rows}
    key = MAIN_OF_CLASSES if ctx.forget_classes else MAIN
    flagged = flagging_rows(rows, ctx.forget_classes)
    if _same_state(ctx.old, ctx.new):
        return _unchanged(found.get(MAIN, Row()), flagged, reason)
    exclusion = found["exclusion"].verdict if ctx.exact else Verdict.NOT_RUN
    if ctx.exact:
        # a test that crashed says nothing against an exact retraining
        flagged = [row for row in flagged if row.status is not Status.ERROR]
    # A test speaks against what is stated, and not against what was checked.
    if exclusion in EXCLUSIONS and not (exclusion is Verdict.STATED and flagged):
        return _judge_retrained(exclusion, found[key], flagged)
    if "holdout" not in ctx.given:
        return Outcome.NOT_JUDGED, "whether the change is enough requires a holdout"
    if flagged:
        return Outcome.PARTLY, f"tests flag the records: {list_rows(flagged)}"
    main = found[key]
    if main.verdict in PASSED:
        return Outcome.DONE, f"{NOTHING}, and the main test could have ({main.name})"
    return Outcome.PARTLY, f"{NOTHING}, but the main test could not have ({_why_untested(main)})"


def _judge_retrained(exclusion: Verdict, main: Row, flagged: Sequence[Row]) -> tuple[Outcome, str]:
    """By what is known of its data, and whether a test could have shown otherwise."""
    if exclusion is Verdict.NOT_EXCLUDED:
        return Outcome.PARTLY, "retrained from scratch, but on some of the records"
    text = "retrained from scratch, and none of the records is in its data"
    if exclusion is Verdict.STATED:
        text = f"retrained from scratch, without the records as {exclusion.words}"
    tests = f"the main test could not have shown otherwise ({_why_untested(main)})"
    if flagged:
        tests = f"tests flag them all the same: {list_rows(flagged)}"
    elif main.verdict in PASSED:
        tests = NOTHING
    return Outcome.DONE, f"{text}; {tests}"


def _why_untested(main: Row) -> str:
    """Why the main test could not have flagged the records."""
    why = main.note if main.verdict is Verdict.NOT_RUN else main.verdict.words
    if needed := too_few(main):
        why += f"; {needed[0].lower()}{needed[1:].rstrip('.')}"
    return why


def _same_state(old: nn.Module, new: nn.Module) -> bool:
    """Whether both models would be written as the same tensors."""
    one, other = ({n: t.detach().cpu() for n, t in state_of(m).items()} for m in (old, new))
    # Tensors of two dtypes cannot be compared, and are written as different ones.
    alike = (t.dtype == other[n].dtype and t.equal(other[n]) for n, t in one.items())
    return one.keys() == other.keys() and all(alike)


def _unchanged(main: Row, flagged: Sequence[Row], reason: str) -> tuple[Outcome, str]:
    low, high = main.interval or (0.0, 1.0)
    # Not significant is not equivalent: few records have a wide interval.
    if not flagged and low >= 0.5 - MARGIN and high <= 0.5 + MARGIN:
        text = f"the AUC of the membership attack is {low:.2f} to {high:.2f}, chance is 0.5"
        return Outcome.LIKE_UNSEEN, text
    return Outcome.UNCHANGED, reason or "the two models have the same weights"


def _progress(ctx: Context) -> float | None:
    """``progress_to_unseen`` of the forget records; None where that is not known.

    By the log-odds of the label they came with, or minus the task's loss. Of whole classes by
    accuracy, whose reference is known: a model that never learned a class does not predict it.
    """
    before, after = ctx.forget.before, ctx.forget.after
    if ctx.forget_classes and {*before.y.tolist()} <= {*ctx.forget_classes}:
        classes = np.array(ctx.forget_classes)
        pair, unseen = (before.accuracy, after.accuracy), np.zeros(len(classes))
    elif "holdout" not in ctx.given:
        return None
    else:
        pair = before.logit_margin, after.logit_margin
        unseen, classes = _unseen_log_odds(ctx)
    groups = {"classes": before.groups, "unseen_classes": classes}
    value = progress_to_unseen(*pair, unseen, **groups)
    return value if math.isfinite(value) else None


def _unseen_log_odds(ctx: Context) -> tuple[np.ndarray, np.ndarray]:
    """(log-odds of unseen records under the new model, the class that each stands for)."""
    unseen = ctx.holdout.after
    if not ctx.mislabelled:
        return unseen.logit_margin, unseen.groups
    # What a wrong label gets from a model that never saw it: its log-odds on other classes.
    parts = [
        unseen.take(unseen.y != label).labelled(np.full((unseen.y != label).sum(), label))
        for label in np.unique(ctx.forget.before.y)
    ]
    margins, labels = ([getattr(part, of) for part in parts] for of in ("logit_margin", "y"))
    return np.concatenate(margins), np.concatenate(labels)

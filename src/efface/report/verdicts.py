"""From an interval and a target to a word and a status: one rule for all rows."""

from scipy import stats

from efface.report.rows import LOOK, PLAIN

GONE = 0.02
"""A model that never learned a class answers with it by accident at most so often."""

TOO_WIDE = 0.5
"""An interval of a share or an area that is wider than this tells nothing."""


def against(interval: tuple[float, float], target: float) -> tuple[str, str]:
    """(verdict, status): does the interval of a share hold the value that unseen records have?"""
    low, high = interval
    if low > target:
        return "above unseen", LOOK
    if high < target:
        return "below unseen", LOOK
    if high - low > TOO_WIDE:
        return "too few records to tell", PLAIN
    return "not told from unseen", PLAIN


def still_answered_p(hits: int, n: int) -> float:
    """One-sided p of so many answers with a class that the model should never have learned."""
    return float(stats.binom.sf(hits - 1, n, GONE))


def attacked(
    interval: tuple[float, float], chance: float, *, control: bool, own_answer: bool = False
) -> tuple[str, str]:
    """(verdict, status) of an attack whose positive control said ``control``.

    ``own_answer``: the attack read the model's own answer, since the labels are wrong; below
    chance then says that the records stand out, not that they were forgotten too far.
    """
    low, high = interval
    if own_answer and not low <= chance <= high:
        return "stands out from unseen", LOOK
    if low > chance:
        return "still recognised", LOOK
    if high < chance:
        return "forgotten too far", LOOK
    if not control:
        return "void", LOOK
    if high - low > TOO_WIDE:
        return "too few records to tell", PLAIN
    return "not recognised", PLAIN


def utility(interval: tuple[float, float]) -> tuple[str, str]:
    """(verdict, status) of a change of accuracy on records that must not suffer."""
    low, high = interval
    if high < 0:
        return "fell", LOOK
    if low > 0:
        return "rose", PLAIN
    return "no fall seen", PLAIN

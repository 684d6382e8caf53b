"""How a test is declared, and the rows that tests share.

To add a row, write a generator of ``Row`` under ``@test(…)`` in ``tests_forget.py`` (T0),
``tests_unseen.py`` (T1, T2, T4), ``tests_utility.py`` (T1, T2) or ``tests_retrained.py`` (T3, TE).
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from efface.errors import InputError
from efface.metrics import permutation
from efface.metrics.equivalence import expected_from_unseen
from efface.metrics.intervals import clopper_pearson
from efface.report.context import Context
from efface.report.report import Row
from efface.report.text import SECTIONS, TIERS
from efface.report.verdicts import Verdict

Run = Callable[[Context], Iterator[Row]]
SIGNIFICANCE = 0.05

# What a tier's tests need besides models and forget records; the note of rows that lack it.
NEEDS: dict[str, tuple[set[str], str]] = {
    "T1": ({"holdout"}, "needs a holdout that was never trained on"),
    "T2": ({"holdout", "retain"}, "needs a holdout and retain records"),
    "T3": ({"retrained"}, "no retrained model was given"),
    "T4": ({"shadows"}, "no shadow models were given"),
}


@dataclass(frozen=True)
class Declaration:
    """One test; see ``test`` for what the fields mean."""

    run: Run
    key: str
    name: str
    section: str
    tier: str
    multiclass: bool | None = None
    needs_forget_classes: bool = False
    probe: bool = False
    needs_class: bool = False
    needs_correct_labels: bool = False


TESTS: list[Declaration] = []


def test(key: str, name: str, section: str, tier: str, **only: bool) -> Callable[[Run], Run]:
    """Declare a test; these four also fill what its rows leave empty.

    Args:
        key: of the row that stands for the test when it is not run or crashes.
        name: what the page calls it.
        section: a key of ``text.SECTIONS``.
        tier: what it needs, see ``NEEDS``; a key of ``text.TIERS``.
        only: ``multiclass``: only for multiclass tasks (True), or only for others
            (False); ``needs_forget_classes``: only where whole classes are forgotten; ``probe``: it
            evaluates further inputs or copies of the models, so it is left out without ``probes``;
            ``needs_class`` and ``needs_correct_labels``: the row says so where that is lacking.

    Raises:
        InputError: there is no such section or tier.
    """
    for word, known in ((section, SECTIONS), (tier, TIERS)):
        if word not in known:
            wanted = f"one of {', '.join(known)} for the test {key}"
            raise InputError(wanted, repr(word), "Choose one; they stand in text.toml.")

    def register(run: Run) -> Run:
        TESTS.append(Declaration(run, key, name, section, tier, **only))
        return run

    return register


def judge(
    p: float,
    smallest: Callable[[int], float],
    n: int,
    *,
    flagged: Verdict,
    otherwise: Verdict = Verdict.NOT_SIGNIFICANT,
    level: float = SIGNIFICANCE,
) -> dict[str, Any]:
    """The fields of a row that its p decides; inconclusive where no result would be significant.

    ``smallest``: p of the most extreme result of so many records; there are ``n``.
    """
    least = smallest(n)
    # Not significant is not equivalent: a test that could not fail must not look like a pass.
    otherwise = otherwise if least <= level else Verdict.TOO_FEW_RECORDS
    verdict = flagged if p <= level else otherwise
    few = verdict is Verdict.TOO_FEW_RECORDS
    needed = permutation.records_needed(smallest, level=level) if few else None
    return {"verdict": verdict, "p": p, "smallest_p": least, "needed": needed}


def share_row(
    before: Any, after: Any, reference: float | str | None = None, n: int = 0, /, **fields: Any
) -> Row:
    """A share of records, or of ``n`` when it is a number already, with its exact interval."""
    # Means over views are rounded to whole records: views of one record are not independent.
    value, n = float(np.mean(after)), n or len(after)
    interval = clopper_pearson(round(value * n), n)
    if reference is None:
        fields.setdefault("verdict", Verdict.NO_REFERENCE)
    old = None if before is None else float(np.mean(before))
    return Row(old, value, reference, interval, n=n, **fields)


def compare(
    after: np.ndarray, unseen: np.ndarray, classes: np.ndarray, unseen_classes: np.ndarray
) -> dict[str, Any]:
    """``reference`` and what p decides: values (0 to 1) against unseen ones of the same classes.

    Both sides are samples, so p is that of a permutation test. No reference without a class that
    both have.
    """
    reference = expected_share(classes, unseen, unseen_classes)
    if reference is None:
        return {"reference": None, "verdict": Verdict.NO_REFERENCE}
    pooled = permutation.pool(after, unseen, classes=classes, unseen_classes=unseen_classes)
    shifts = permutation.differences(pooled)
    flagged = Verdict.ABOVE_REFERENCE if shifts[0] > 0 else Verdict.BELOW_REFERENCE

    # The best possible result: all of them 1, as records that are still known would be.
    def smallest(n: int) -> float:
        return permutation.smallest_p(classes, unseen_classes, unseen < 1, n=n)

    decided = judge(permutation.two_sided_p(shifts), smallest, pooled.forget_n, flagged=flagged)
    return {"reference": reference, **decided}


def compare_row(
    before: np.ndarray,
    after: np.ndarray,
    unseen: np.ndarray,
    classes: np.ndarray,
    unseen_classes: np.ndarray,
    **fields: Any,
) -> Row:
    """A share of the forget records against that of unseen ones of their classes."""
    found = compare(after, unseen, classes, unseen_classes)
    return share_row(before, after, found.pop("reference"), len(after), **fields, **found)


def mean_row(
    before: np.ndarray, after: np.ndarray, reference: float | str | None, **fields: Any
) -> Row:
    """The mean over records, with Student's interval; described where no verdict is given."""
    verdict = Verdict.NO_REFERENCE if reference is None else Verdict.DESCRIPTIVE
    fields.setdefault("verdict", verdict)
    numbers = float(before.mean()), float(after.mean()), reference, mean_interval(after)
    return Row(*numbers, n=len(after), **fields)


def mean_interval(values: np.ndarray) -> tuple[float, float] | None:
    """Student's 95 % interval of a mean; None for one value, or for values that are all equal."""
    from scipy import stats

    # One value has no standard deviation, and equal ones would give an interval of width 0.
    if len(values) < 2 or not values.std():  # noqa: PLR2004
        return None
    low, high = stats.t.interval(0.95, len(values) - 1, values.mean(), stats.sem(values))
    return float(low), float(high)


def expected_share(y: np.ndarray, of_unseen: np.ndarray, unseen_y: np.ndarray) -> float | None:
    """The mean over unseen records, class-matched to ``y``; None without any of these classes."""
    value = expected_from_unseen(y, of_unseen * 1.0, unseen_y)
    return value if np.isfinite(value) else None

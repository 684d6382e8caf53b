"""The words of the report: numbers, headline, what is not known; its sentences: ``text.toml``.

A verdict's words stand in ``verdicts.py``, a test's title and note in its declaration, what every
page says in ``report.html.jinja``.
"""

import tomllib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from efface.errors import Outcome
from efface.report.report import LEVEL, Report, Row, significant_rows
from efface.report.verdicts import Status, Verdict

SENTENCES = tomllib.loads((Path(__file__).parent / "text.toml").read_text("utf-8"))
TIERS, SECTIONS, UNKNOWN = (SENTENCES[table] for table in ("tiers", "sections", "unknown"))
MARKS = dict(zip(Status, "■▲◇○\N{EN DASH}", strict=True))
DASH = MARKS[Status.NOT_RUN]
# Of each run that made no other weights.
OLD_STANDS = " There is no new model; the old one stands."
# So many rows stand in a sentence; the page lists them all.
NAMED = 3
# Sections whose rows compare the forget records with what a model without them would predict.
JUDGING = ("forget", "unseen", "retrained")


def count(n: int, thing: str = "record") -> str:
    """``n`` things, singular or plural."""
    plural = f"{thing}es" if thing.endswith("s") else f"{thing}s"
    return f"{n} {thing if n == 1 else plural}"


def formatted(value: float | str | None, unit: str = "share") -> str:
    """A number as the page prints it; a dash where there is none."""
    if value is None:
        return DASH
    if isinstance(value, str):
        return value
    if unit == "share":
        return f"{100 * value:.1f}\N{NO-BREAK SPACE}%"
    return f"{value:.0f}" if unit == "count" else f"{value:.3g}"


def formatted_interval(interval: tuple[float, float] | None, unit: str) -> str:
    """Both ends of an interval as the page prints them."""
    return DASH if interval is None else " to ".join(formatted(end, unit) for end in interval)


def summary(report: Report) -> str:
    """Outcome, tier and reason in a sentence, and how far the records came."""
    first = f"{report.outcome.capitalize()} (tier {report.tier}): {report.reason}."
    first += OLD_STANDS * (not report.outcome.has_new_model)
    if report.outcome is Outcome.NOT_MET:
        return first
    known = "unknown" if "holdout" in report.counts else "needs_holdout"
    known = "known" if report.progress is not None else known
    percent = 100 * (report.progress or 0)
    return f"{first} {SENTENCES['progress'][known].format(progress=percent)}"


def headline(report: Report) -> list[str]:
    """The result in sentences for readers who know no statistics; each from a row or two."""
    said = sentences(report)
    return [one for name, texts in said.items() if name != "not known" for one in texts]


def sentences(report: Report) -> dict[str, list[str]]:
    """The result for readers who know no statistics.

    ``outcome``, what was ``forgotten``, its ``cost`` in utility, what the ``tests`` say together,
    what is ``not known``.
    """
    rows = {row.key: row for row in report.rows}
    attack = rows["attack.loss"].verdict if "attack.loss" in rows else Verdict.NOT_RUN
    forgotten = [
        _before_and_after(rows.get("forget.accuracy")),
        SENTENCES["attack"].get(attack.name.lower(), ""),
    ]
    cost = _before_and_after(rows.get("holdout.accuracy"))
    # Without a new model nothing was forgotten, and nothing lost.
    made = report.outcome is not Outcome.NOT_MET
    return {
        "outcome": [summary(report)],
        "forgotten": [sentence for sentence in forgotten if sentence and made],
        "cost": [cost or SENTENCES["cost"]["unknown"]] * made,
        "tests": [sentence for sentence in [_significance(report)] if sentence and made],
        "not known": unknown(report),
    }


# Rows that always stand among the chosen: the records, the main attack with both its controls,
# what is never shown apart, and utility.
MAIN_ROWS = ("forget.accuracy", "forget_classes.accuracy", "attack.loss", "holdout.accuracy")
CONTROLS = ("control.positive", "control.negative")


def chosen_rows(report: Report, most: int = 10) -> list[Row]:
    """At most so many of the rows that ran, in the report's order.

    The main ones, then errors, then what is significant, flagged, inconclusive, judged, described.
    """
    ran = [row for row in report.rows if (row.before, row.after) != (None, None)]
    ran += [row for row in report.rows if row.status is Status.ERROR and row not in ran]
    significant, severity = report.significant, list(Status)

    def rank(row: Row) -> tuple[Any, ...]:
        described = row.verdict in (Verdict.DESCRIPTIVE, Verdict.NO_REFERENCE)
        others = row.key not in MAIN_ROWS + CONTROLS, row.key not in significant
        return *others, described, severity.index(row.status)

    chosen = sorted(ran, key=rank)[:most]
    return [row for row in report.rows if row in chosen]


def _before_and_after(row: Row | None) -> str:
    if row is None or row.before is None or row.after is None:
        return ""
    before, after = formatted(row.before, row.unit), formatted(row.after, row.unit)
    reference = ""
    if isinstance(row.reference, float):
        reference = f" (reference: {formatted(row.reference, row.unit)})"
    return f"{row.name}: {before} before, {after} now{reference}."


def too_few(row: Row) -> str:
    """How many records a test would have needed that could not have failed; empty for others."""
    if row.verdict is not Verdict.TOO_FEW_RECORDS:
        return ""
    # Rows on utility and negative controls do not count forget records.
    other = row.section == "utility" or row.key.startswith("control.negative")
    kind = "such record" if other else "forget record"
    if row.needed is None:
        return f"No number of {kind}s would be enough." * (row.smallest_p is not None)
    needed = count(row.needed, kind)
    if row.smallest_p is None:
        return f"It takes {needed}."
    return f"No result would be significant: that takes {needed}."


def list_rows(rows: Sequence[Row]) -> str:
    """The first rows with their verdicts, and how many more there are."""
    first = "; ".join(f"{row.name} ({row.verdict.words})" for row in rows[:NAMED])
    return first + f"; and {len(rows) - NAMED} more" * (len(rows) > NAMED)


def _significance(report: Report) -> str:
    """What is significant of all rows together; empty where none compares with unseen records."""
    holm = "significant after Holm correction (family-wise error 5 %)"
    if significant := significant_rows(report.rows):
        partly, marks = report.outcome is Outcome.PARTLY, (Status.FLAGGED, Status.ERROR)
        # The outcome partly has named those that flag the records.
        above = [r for r in significant if partly and r.section in JUDGING and r.status in marks]
        others = list_rows([row for row in significant if row not in above])
        named = [f"{len(above)} of the tests above"] * bool(above) + [others] * bool(others)
        return f"S{holm[1:]}: {'; '.join(named)}."
    judged = [row for row in report.rows if row.p is not None]
    # No finding of no test is no finding: at T0 nothing is compared with unseen records.
    if report.tier == "T0" or not judged:
        return ""
    # Holm compares the smallest p with the level over the number of rows: who could be below it?
    about = [row for row in judged if row.section in ("forget", "unseen")]
    if all((row.smallest_p or 0) > LEVEL / len(judged) for row in about):
        forget = count(report.counts["forget"], "forget record")
        return f"With {forget} no row on them could be {holm}: the report is inconclusive."
    marked = sum(row.status in (Status.FLAGGED, Status.INCONCLUSIVE) for row in report.rows)
    further = f" {count(marked, 'row')} flagged or inconclusive by themselves: read them."
    return f"No row is {holm}.{further * bool(marked)} What the tests cannot see may still exist."


def unknown(report: Report) -> list[str]:
    """What nobody can conclude from this report, and what it would take."""
    missing = {row.key for row in report.rows if row.status is Status.NOT_RUN}
    missing |= {"holdout", "retain", "retrained"} - report.counts.keys()
    missing -= {"retrained"} if report.tier == "TE" else set()
    missing |= {"floor"} if report.counts.get("retrained") == 1 else set()
    return [line for key, line in UNKNOWN.items() if key in missing | {"copies"}]

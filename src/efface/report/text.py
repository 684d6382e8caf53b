"""The words of the report: numbers, headline, what is not known; its sentences: ``text.toml``.

A verdict's words stand in ``verdicts.py``, a test's title and note in its declaration, what every
page says in ``report.html.jinja``.
"""

import math
import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from efface.errors import SHOWN, Outcome
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
    first = f"{report.outcome.capitalize()} (tier {report.tier}): {report.reason}"
    first += f"{_errors(report, first)}."
    first += OLD_STANDS * (not report.outcome.has_new_model)
    if report.outcome is Outcome.NOT_MET:
        return first
    fell = [row for row in report.rows if row.key in UTILITY and row.verdict is Verdict.DROPPED]
    rows = "; ".join(f"{row.name}, {_change(row)}" for row in fell)
    first += f" {SENTENCES['cost']['dropped'].format(rows=rows)}" * bool(fell)
    known = "known" if report.progress is not None else _why_progress_unknown(report)
    percent = 100 * (report.progress or 0)
    return f"{first} {SENTENCES['progress'][known].format(progress=percent)}"


def _why_progress_unknown(report: Report) -> str:
    if "holdout" not in report.counts:
        return "needs_holdout"
    # a wrong label is compared with unseen records of other classes; tasks without any have no rows
    both = [one.get("forget_n") and one.get("holdout_n") for one in report.per_class]
    alike = report.mislabelled or report.forget_classes or not both or any(both)
    return "not_known_before" if alike else "no_class"


def outcome_sentence(report: Report) -> str:
    """The outcome for readers who know no statistics; of *partly* and of retraining by why."""
    rows = {row.key: row for row in report.rows}
    flagged = flagging_rows(report.rows, report.forget_classes)
    verdict = rows.get("exclusion", Row()).verdict
    if report.tier == "TE":
        # a test that crashed says nothing against an exact retraining
        flagged = [row for row in flagged if row.status is not Status.ERROR]
    exclusion = verdict.name.lower() * (verdict in EXCLUSIONS)
    case = report.outcome.name.lower()
    if report.outcome is Outcome.PARTLY and (exclusion or not flagged):
        case = f"partly_{exclusion or 'untested'}"
    parts = {part: count(report.counts.get(part, 0)) for part in ("forget", "holdout")}
    sentence = SENTENCES["outcomes"][case].format(**parts)
    if report.outcome is Outcome.DONE and exclusion:
        main = rows.get(MAIN_OF_CLASSES if report.forget_classes else MAIN, Row())
        tested = "flagged" if flagged else "passed" if main.verdict in PASSED else "untested"
        sentence = SENTENCES["retrained"][exclusion] + SENTENCES["retrained"][tested]
    errors = _errors(report)
    return f"{sentence.rstrip('.')}{errors}." if errors else sentence


def _errors(report: Report, said: str = "") -> str:
    """The rows that ended in an error and are not ``said`` already, to end a sentence."""
    wrong = (row for row in report.rows if row.status is Status.ERROR)
    # that records were found in the data is the outcome itself
    errors = [r for r in wrong if r.name not in said and r.verdict is not Verdict.NOT_EXCLUDED]
    return f"; errors: {list_rows(errors)}" * bool(errors)


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
    forgotten = [
        _before_and_after(rows.get("forget.accuracy")),
        _attack_sentence(report),
        _more_confident(report),
    ]
    cost = []
    for key in UTILITY:
        row = rows.get(key, Row())
        if sentence := _before_and_after(row):
            on = SENTENCES["cost"]["part" if key == "holdout.accuracy" else "sample"]
            cost.append(f"{sentence} {on.format(n=row.n, records=count(row.n or 0))}")
    if "holdout" not in report.counts:
        cost.insert(0, SENTENCES["cost"]["unknown"])
    # Without a new model nothing was forgotten, and nothing lost.
    made = report.outcome is not Outcome.NOT_MET
    return {
        "outcome": [summary(report)],
        "forgotten": [sentence for sentence in forgotten if sentence and made],
        "cost": cost * made,
        "tests": [one for one in (_undetected(report), _significance(report)) if one and made],
        "not known": unknown(report),
    }


def _attack_sentence(report: Report) -> str:
    row = next((row for row in report.rows if row.key == MAIN), Row(verdict=Verdict.NOT_RUN))
    key, flagging = row.verdict.name.lower(), flagging_rows(report.rows, report.forget_classes)
    # of a class the main test is another, and this one counts with all the others
    alone = {} if row in flagging else SENTENCES["attack_by_itself"]
    return (SENTENCES["attack"] | alone).get(key, "")


# Accuracy on records that stay: never trained on, a sample of the training data, given as retain.
UTILITY = ("holdout.accuracy", "others.accuracy", "retain.accuracy")
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
        # what could not have said anything comes last: the title of the table counts it
        few = row.verdict is Verdict.TOO_FEW_RECORDS
        return *others, few, described, severity.index(row.status)

    chosen = sorted(ran, key=rank)[:most]
    return [row for row in report.rows if row in chosen]


def _change(row: Row) -> str:
    before, after = formatted(row.before, row.unit), formatted(row.after, row.unit)
    return f"{before} before, {after} now"


def _before_and_after(row: Row | None) -> str:
    if row is None or row.before is None or row.after is None:
        return ""
    reference = ""
    if isinstance(row.reference, float):
        reference = f" (reference: {formatted(row.reference, row.unit)})"
    return f"{row.name}: {_change(row)}{reference}."


def _more_confident(report: Report) -> str:
    """How many records the new model is surer of than the old one was; empty where of none."""
    # tasks without classes have a loss there
    margins = [record for record in report.records if "entropy_after" in record]
    some = sum(one["logit_margin_after"] > one["logit_margin_before"] for one in margins)
    sentence = SENTENCES["records"]["more_confident"]
    return sentence.format(some=some, all=count(len(margins))) if some else ""


def most_confident(report: Report) -> str:
    """The ids of the records whose logit margin rose most, for the files that name records."""
    risen = [one for one in report.records if one.get("logit_margin_change", 0) > 0]
    if not risen or "entropy_after" not in risen[0]:
        return ""
    risen.sort(key=lambda one: -one["logit_margin_change"])
    margins = "{id} ({logit_margin_before:.3g} before, {logit_margin_after:.3g} now)"
    records = "; ".join(margins.format(**one) for one in risen[:SHOWN])
    records += f"; and {len(risen) - SHOWN} more" * (len(risen) > SHOWN)
    return SENTENCES["records"]["most"].format(records=records)


def kept_sentence(guard: Mapping[str, Any]) -> str:
    """How much of the change the guard kept, and why; empty where that is all of it."""
    if not (kept := guard.get("interpolation")):
        return ""
    violations = guard.get("violations") or [{}]
    why = violations[-1].get("text", "it is outside the limits")
    return SENTENCES["cost"]["kept"].format(kept=formatted(kept), violation=why)


def allowance_sentence(guard: Mapping[str, Any]) -> str:
    """The accuracy on the guard's part of the holdout, and what could have been lost there."""
    measured = guard.get("measured") or {}
    if not {"utility_before", "utility_after", "utility_limit"} <= measured.keys():
        return ""
    points = measured["utility_limit"], guard["budgets"]["utility"]
    limit, budget = f"{100 * points[0]:.1f}", f"{100 * points[1]:g}"
    before, after = (formatted(measured[f"utility_{side}"]) for side in ("before", "after"))
    records, cost = count(guard["holdout_records"]), SENTENCES["cost"]["allowed"]
    how = {"records": records, "before": before, "after": after, "limit": limit, "budget": budget}
    return cost.format(**how)


def _undetected(report: Report) -> str:
    """The share that may be memorised where no test flags the records; empty where one does."""
    row = next((row for row in report.rows if row.key == "power.undetected_share"), Row())
    # of a single record a share says nothing
    alone = report.counts.get("forget") == 1
    if row.after is None or alone or flagging_rows(report.rows, report.forget_classes):
        return ""
    n, least = report.counts["forget"], math.floor(row.after * report.counts["forget"])
    many = f"{least} to {least + 1}" if least < n else f"{n}"
    return SENTENCES["records"]["undetected"].format(
        all=count(n), share=formatted(row.after), many=many
    )


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
    of = {mark: sum(row.status is mark for row in report.rows) for mark in Status}
    marked = [f"{of[mark]} {mark}" for mark in (Status.FLAGGED, Status.INCONCLUSIVE) if of[mark]]
    further = f" Rows by themselves: {', '.join(marked)}; read them."
    return f"No row is {holm}.{further * bool(marked)} What the tests cannot see may still exist."


# The test that must have passed, and could have failed: of records, and of whole classes.
MAIN, MAIN_OF_CLASSES = "attack.loss", "forget_classes.accuracy"
PASSED = (Verdict.NOT_DETECTED, Verdict.NEVER_PREDICTED, Verdict.NOT_SIGNIFICANT)
# What is known of the training data of a model that was retrained.
EXCLUSIONS = (Verdict.EXCLUDED, Verdict.NOT_EXCLUDED, Verdict.STATED)


def flagging_rows(rows: Sequence[Row], forget_classes: Sequence[Any]) -> list[Row]:
    """The rows that count: the main test at its own level, of all others what is significant.

    Without the correction one row in twenty would make a retrained model's outcome *partly*.
    """
    main = MAIN_OF_CLASSES if forget_classes else MAIN
    judging = [row for row in rows if row.section in JUDGING]
    counting = significant_rows([row for row in judging if row.key != main])
    # What is flagged without a p is no matter of chance.
    return [
        row
        for row in judging
        if row.status in (Status.FLAGGED, Status.ERROR)
        and (row.key == main or row.p is None or row in counting)
    ]


def unknown(report: Report) -> list[str]:
    """What nobody can conclude from this report, and what it would take."""
    missing = {row.key for row in report.rows if row.status is Status.NOT_RUN}
    missing |= {"holdout", "retain", "retrained"} - report.counts.keys()
    ran = {row.key for row in report.rows if row.status is not Status.NOT_RUN}
    missing -= {"retain"} if "others.accuracy" in ran else set()
    missing -= {"retrained"} if report.tier == "TE" else set()
    missing |= {"floor"} if report.counts.get("retrained") == 1 else set()
    missing |= {row.key for row in report.rows if row.verdict is Verdict.STATED}
    return [line for key, line in UNKNOWN.items() if key in missing | {"copies"}]

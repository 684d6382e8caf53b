"""The page: one self-contained HTML file for those who must judge what was done."""

import json
from collections import Counter
from html import escape
from pathlib import Path
from typing import Any

from jinja2 import ChainableUndefined, Environment, PackageLoader

from efface.display import table
from efface.evidence.figures import figures
from efface.evidence.rows import LOOK, NOT_RUN, PLAIN, RED, TIERS, Evidence, Row, plain

MOST_RECORDS = 200
MOST_IN_A_LIST = 10
DASH = "\N{EN DASH}"
SECTIONS = {
    "forget": "The forget records, before and after",
    "unseen": "Do they look like records the model never saw?",
    "stay": "What must not suffer",
    "controls": "Controls and power",
    "retrained": "Beside models retrained without the records",
    "shadow": "Record by record, with shadow models",
    "exclusion": "Trained anew without the records",
    "moved": "What moved",
    "not run": "Not run",
}


def render(evidence: Evidence, record: dict[str, Any]) -> str:
    """One HTML page that needs nothing else: no network, no script, figures inside.

    ``record`` is what ``record.json`` holds; whatever it lacks the page calls not recorded. Each
    number on the page stands in ``evidence.json`` or ``record.json`` too.
    """
    rows = _sections(evidence)
    known = sorted(evidence.records, key=_most_known, reverse=True)
    return (
        _environment()
        .get_template("report.html.jinja")
        .render(
            evidence=evidence,
            record=plain(record),
            done=evidence.outcome == "done",
            tier_says=TIERS[evidence.tier],
            sections=rows,
            tally=Counter(row.status for row in evidence.rows),
            statuses={"plain": PLAIN, "look": LOOK, "red": RED, "not_run": NOT_RUN},
            headline=[*headline(evidence), *_not_reached(record)],
            why=_why(plain(record)),
            figures=figures(evidence),
            records=known[:MOST_RECORDS],
            left_out=len(known) - len(known[:MOST_RECORDS]),
            facts=_flat(plain(record)),
        )
    )


def write(folder: Path, evidence: Evidence, record: dict[str, Any]) -> None:
    """``evidence.json``, ``record.json`` and ``report.html`` in a folder that is there already.

    Plain writes: the caller makes the folder appear whole or not at all.
    """
    folder = Path(folder)
    for name, content in (("evidence.json", evidence.as_json()), ("record.json", plain(record))):
        text = json.dumps(content, indent=1, ensure_ascii=False, allow_nan=False)
        (folder / name).write_text(text + "\n", encoding="utf-8")
    (folder / "report.html").write_text(render(evidence, record), encoding="utf-8")


MARKS = {
    PLAIN: "\N{WHITE CIRCLE}",
    LOOK: "\N{BLACK UP-POINTING TRIANGLE}",
    RED: "\N{BLACK SQUARE}",
}


def fragment(evidence: Evidence) -> str:
    """For a notebook: what came out in sentences, and each test that ran with its verdict."""
    rows = [
        [
            f"{MARKS[row.status]} {row.name}",
            *(shown(value, row.unit) for value in (row.before, row.after, row.target)),
            row.verdict,
        ]
        for row in evidence.rows
        if row.status in MARKS
    ]
    silent = len(evidence.rows) - len(rows)
    told = f"Tier {evidence.tier}, {evidence.outcome}; {silent} tests were not run."
    said = "".join(f"<p>{escape(sentence)}</p>" for sentence in (*headline(evidence), told))
    return said + table(["test", "before", "after", "target", "verdict"], rows)


def headline(evidence: Evidence) -> list[str]:
    """What came out, in plain sentences; each follows from one or two rows."""
    rows = {row.key: row for row in evidence.rows}
    if evidence.outcome != "done":
        return ["The request was not met. There is no new model; the old one stands unchanged."]
    said = [_said_of_records(rows), _said_of_attack(rows), _said_of_utility(rows)]
    return [sentence for sentence in said if sentence]


def _not_reached(record: dict[str, Any]) -> list[str]:
    """What the method itself says of how far it came."""
    found = record.get("findings") or []
    return [finding["text"] for finding in found if finding["name"] == "not reached"]


def _said_of_records(rows: dict[str, Row]) -> str:
    row = rows.get("forget.accuracy")
    if row is None or row.before is None or row.after is None:
        return ""
    target = f" (target: {shown(row.target, row.unit)})" if row.target is not None else ""
    before, after = shown(row.before, row.unit), shown(row.after, row.unit)
    return f"{row.name}: {before} before, {after} now{target}."


def _said_of_attack(rows: dict[str, Row]) -> str:
    row = rows.get("attack.loss")
    if row is None or row.status == NOT_RUN:
        return (
            "Whether they now look like records the model never saw cannot be said at this tier: "
            "that needs a holdout."
        )
    spoken = {
        "still recognised": "A membership attack still recognises the records in the new model.",
        "forgotten too far": "The records stand out in the new model by being answered worse than "
        "records it never saw: forgotten too far, which betrays them too.",
        "void": "The membership attack says nothing here: it does not see the records even in the "
        "old model.",
        "too few records to tell": "There are too few records for the membership attack to tell.",
        "stands out from unseen": "A membership attack tells the records from ones the model never "
        "saw, by how sure it is of its own answer.",
        "not recognised": "A (weak) membership attack saw the records in the old model and does "
        "not recognise them in the new one.",
    }
    return spoken.get(row.verdict, "The membership attack could not be run: see its row.")


def _said_of_utility(rows: dict[str, Row]) -> str:
    row = rows.get("holdout.accuracy")
    if row is None or row.before is None or row.after is None:
        return "What the change cost elsewhere is not known: that needs a holdout."
    return f"{row.name}: {shown(row.before, row.unit)} before, {shown(row.after, row.unit)} now."


def shown(value: float | str | None, unit: str = "share") -> str:
    """A number as the page prints it; a dash where there is none."""
    if value is None:
        return DASH
    if isinstance(value, str):
        return value
    if unit == "share":
        return f"{100 * value:.1f}\N{NO-BREAK SPACE}%"
    return f"{value:.0f}" if unit == "count" else f"{value:.3g}"


def _span(interval: tuple[float, float] | None, unit: str) -> str:
    return DASH if interval is None else " to ".join(shown(end, unit) for end in interval)


def _sections(evidence: Evidence) -> list[tuple[str, list[Row]]]:
    """Rows by section; those that did not run stand together at the end."""
    found: dict[str, list[Row]] = {name: [] for name in SECTIONS}
    for row in evidence.rows:
        found["not run" if row.status == NOT_RUN else row.section].append(row)
    return [(SECTIONS[name], rows) for name, rows in found.items() if rows]


def _most_known(entry: dict[str, Any]) -> float:
    """Order of the table: what the model still knows best comes first."""
    value = entry.get("margin_after", entry.get("margin_before"))
    return value if value is not None and value == value else float("-inf")  # noqa: PLR0124


def _why(record: dict[str, Any]) -> list[str]:
    """Why the guard said no, as far as the record tells."""
    guard = record.get("guard") or {}
    if reasons := guard.get("reasons"):
        return list(reasons)
    return [guard["failed"]] if guard.get("failed") else []


def _flat(value: Any, name: str = "") -> list[tuple[str, str]]:
    """Nested settings as lines ``a.b.c``: value."""
    if isinstance(value, dict) and value:
        parts = [_flat(part, f"{name}.{key}" if name else key) for key, part in value.items()]
        return [line for part in parts for line in part]
    if isinstance(value, list) and any(isinstance(part, (dict, list)) for part in value):
        parts = [_flat(part, f"{name}.{row}") for row, part in enumerate(value)]
        return [line for part in parts for line in part]
    if isinstance(value, list):
        first = ", ".join(map(str, value[:MOST_IN_A_LIST]))
        more = len(value) - MOST_IN_A_LIST
        return [(name, f"{first}, and {more} more in record.json" if more > 0 else first)]
    return [(name, DASH if value is None else str(value))]


def _environment() -> Environment:
    made = Environment(
        loader=PackageLoader("efface.evidence", "."),
        autoescape=True,
        undefined=ChainableUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    made.filters |= {"shown": shown, "span": _span}
    return made

"""The page: one self-contained HTML file for those who must judge what was done."""

import json
from collections import Counter
from html import escape
from pathlib import Path
from typing import Any

from jinja2 import ChainableUndefined, Environment, PackageLoader

from efface.display import table
from efface.report.figures import figures
from efface.report.rows import LOOK, NOT_RUN, PLAIN, RED, TIERS, Evidence, Row, plain
from efface.report.words import DASH, headline, shown, span, unknown

MOST_RECORDS = 200
MOST_IN_A_LIST = 10
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

    ``record`` is what ``manifest.json`` holds; whatever it lacks the page calls not recorded. Each
    number on the page stands in ``evidence.json`` or ``manifest.json`` too.
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
            attacks=_attacks(evidence),
            unknown=unknown(evidence),
            why=_why(plain(record)),
            figures=figures(evidence),
            records=known[:MOST_RECORDS],
            left_out=len(known) - len(known[:MOST_RECORDS]),
            facts=flat(plain(record)),
        )
    )


def write(folder: Path, evidence: Evidence, record: dict[str, Any]) -> None:
    """``evidence.json``, ``manifest.json`` and ``report.html`` in a folder that is there already.

    Plain writes: the caller makes the folder appear whole or not at all.
    """
    folder = Path(folder)
    text = json.dumps(evidence.as_json(), indent=1, ensure_ascii=False, allow_nan=False)
    (folder / "evidence.json").write_text(text + "\n", encoding="utf-8")
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


def _attacks(evidence: Evidence) -> list[dict[str, Any]]:
    """The attacks that the EDPB names, each with its rows instead of their keys."""
    rows = {row.key: row for row in evidence.rows}
    lists = ("rows", "controls", "power")
    return [
        {"named": named, **{name: [rows[key] for key in getattr(named, name)] for name in lists}}
        for named in evidence.attacks
    ]


def _not_reached(record: dict[str, Any]) -> list[str]:
    """What the method itself says of how far it came."""
    found = record.get("findings") or []
    return [finding["text"] for finding in found if finding["name"] == "not reached"]


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


def flat(value: Any, name: str = "") -> list[tuple[str, str]]:
    """Nested settings as lines ``a.b.c``: value."""
    if isinstance(value, dict) and value:
        parts = [flat(part, f"{name}.{key}" if name else key) for key, part in value.items()]
        return [line for part in parts for line in part]
    if isinstance(value, list) and any(isinstance(part, (dict, list)) for part in value):
        parts = [flat(part, f"{name}.{row}") for row, part in enumerate(value)]
        return [line for part in parts for line in part]
    if isinstance(value, list):
        first = ", ".join(map(str, value[:MOST_IN_A_LIST]))
        more = len(value) - MOST_IN_A_LIST
        return [(name, f"{first}, and {more} more in manifest.json" if more > 0 else first)]
    return [(name, DASH if value is None else str(value))]


def _capitalised(text: str) -> str:
    """The first letter great, the others as they are."""
    return text[:1].upper() + text[1:] + "." * bool(text)


def _environment() -> Environment:
    made = Environment(
        loader=PackageLoader("efface.report", "."),
        autoescape=True,
        undefined=ChainableUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    made.filters |= {"shown": shown, "span": span, "capitalize_first": _capitalised}
    return made

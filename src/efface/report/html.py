"""The page, one self-contained HTML file, and the view in a notebook."""

import re
from collections import Counter
from collections.abc import Mapping
from html import escape
from pathlib import Path
from typing import Any

from efface.display import table
from efface.errors import Outcome
from efface.hazards import NOUNS
from efface.report import text
from efface.report.report import Report, Row, jsonable
from efface.report.text import DASH, formatted, formatted_interval
from efface.report.verdicts import Status, Verdict

# What is longer buries the page; the JSON files hold all of it.
MAX_RECORDS_SHOWN = 200
MAX_LIST = 10
MARKED = (Status.ERROR, Status.FLAGGED, Status.INCONCLUSIVE)
LISTED = ("rows", "controls", "power")


def page(report: Report, manifest: Any = None) -> str:
    """One HTML page that needs nothing else: no network, no script, figures inside.

    Each number on it stands in ``evidence.json`` or in the manifest too.
    """
    from efface.report.figures import figures

    plain = jsonable(manifest or {})
    rows = {row.key: row for row in report.rows}
    records = sorted(report.records, key=_last_margin, reverse=True)
    findings, guard = plain.get("findings") or [], plain.get("guard") or {}
    unreached = [finding["text"] for finding in findings if finding["name"] == "not reached"]
    warnings = [one["text"] for one in findings if one["severity"] == "warn"]
    said = [*text.headline(report), text.most_confident(report), text.kept_sentence(guard)]
    shown: dict[str, Any] = {"headline": [*filter(None, said), *unreached], "guard": guard}
    shown |= {"outcome": report.outcome.name.lower(), "changed": report.outcome.has_new_model}
    shown["made"] = report.outcome is not Outcome.NOT_MET
    # the others stand in the headline
    shown["warnings"] = [line for line in warnings if line not in unreached]
    shown["keys"] = {row.name: f"row-{row.key}" for row in report.rows} | {"read them": "flagged"}
    if "attack.loss" in rows:
        shown["keys"]["membership inference attack"] = "row-attack.loss"
    marked = [row for row in report.rows if row.status in MARKED]
    shown["few"] = [row for row in marked if row.verdict is Verdict.TOO_FEW_RECORDS]
    shown["marked"] = [row for row in marked if row not in shown["few"]]
    shown["dropped"] = (plain.get("omitted") or {}).get("of the checkpoint")
    shown |= {"tally": Counter(row.status for row in report.rows), "sections": _sections(report)}
    shown["reasons"] = list(guard.get("reasons") or filter(None, [guard.get("failed")]))
    shown["attacks"] = [
        (attack, {name: [rows[key] for key in getattr(attack, name)] for name in LISTED})
        for attack in report.attacks
    ]
    shown |= {"records": records[:MAX_RECORDS_SHOWN], "omitted": len(records[MAX_RECORDS_SHOWN:])}
    shown |= {"figures": figures(report), "lines": flatten(plain), "text": text, "nouns": NOUNS}
    template = environment("efface.report").get_template("report.html.jinja")
    return template.render(report=report, manifest=plain, **shown)


def environment(package: str) -> Any:
    """The Jinja environment of the templates of a package: escaped, with the filters of text."""
    from jinja2 import ChainableUndefined, Environment, PackageLoader

    # A run without a manifest has no keys at all: undefined ones print as not recorded.
    how = {"undefined": ChainableUndefined, "trim_blocks": True, "lstrip_blocks": True}
    made: Any = Environment(loader=PackageLoader(package, "."), autoescape=True, **how)
    made.filters |= {"formatted": formatted, "interval": formatted_interval}
    made.filters |= {"sentence": _sentence, "linked": linked}
    made.globals["style"] = (Path(__file__).parent / "page.css").read_text("utf-8")
    return made


def linked(line: str, anchors: Mapping[str, str]) -> Any:
    """The sentence as HTML, where each phrase that has an anchor is a link to it."""
    from markupsafe import Markup

    # the longest first: a name may begin with another one
    phrases = sorted(anchors, key=len, reverse=True)
    parts = re.split(f"({'|'.join(map(re.escape, phrases))})", line)
    link = Markup('<a href="#{}">{}</a>')
    # every second part is a phrase
    return Markup("").join(link.format(anchors[p], p) if n % 2 else p for n, p in enumerate(parts))


def notebook_html(report: Report) -> str:
    """The headline, and each test that ran with its verdict."""
    rows = [_cells(row) for row in report.rows if row.status is not Status.NOT_RUN]
    last = f"{len(report.rows) - len(rows)} tests not run."
    lines = "".join(f"<p>{escape(line)}</p>" for line in (*text.headline(report), last))
    return lines + table(["test", "before", "after", "reference", "verdict"], rows)


def _cells(row: Row) -> list[str]:
    numbers = (formatted(value, row.unit) for value in (row.before, row.after, row.reference))
    return [f"{text.MARKS[row.status]} {row.name}", *numbers, row.verdict.words]


def _sections(report: Report) -> list[tuple[str, list[Row]]]:
    """Rows by section; those that did not run stand together at the end."""
    found: dict[str, list[Row]] = {name: [] for name in text.SECTIONS}
    for row in report.rows:
        # without a new model the old one's numbers stand in their own section
        ran = row.status is not Status.NOT_RUN or row.before is not None
        found[row.section if ran else "not run"].append(row)
    return [(text.SECTIONS[name], rows) for name, rows in found.items() if rows]


def _sentence(line: str) -> str:
    return line[:1].upper() + line[1:] + "." * bool(line)


def _last_margin(entry: dict[str, Any]) -> float:
    """Order of the table of records: the best known come first, NaN last."""
    # NaN compares false with everything and would leave the order to chance.
    value = entry.get("logit_margin_after", entry.get("logit_margin_before"))
    return value if value is not None and value == value else float("-inf")  # noqa: PLR0124


def flatten(value: Any, name: str = "") -> list[tuple[str, str]]:
    """Nested settings as lines ``a.b.c``: value."""
    nested = isinstance(value, list) and any(isinstance(part, (dict, list)) for part in value)
    if nested or (isinstance(value, dict) and value):
        parts = value.items() if isinstance(value, dict) else enumerate(value)
        lines = [flatten(part, f"{name}.{key}" if name else str(key)) for key, part in parts]
        return [line for part in lines for line in part]
    if isinstance(value, list):
        first, more = ", ".join(map(str, value[:MAX_LIST])), len(value) - MAX_LIST
        return [(name, f"{first}, and {more} more in manifest.json" if more > 0 else first)]
    return [(name, DASH if value is None else str(value))]

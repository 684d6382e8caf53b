"""Texts of users and files where they are shown: on a terminal, in a CSV, in HTML for notebooks.

The tables change nothing of the page around them: no style sheet, no script, every text escaped.
"""

import unicodedata
from html import escape
from typing import Any

# Unicode's categories of what moves the cursor, turns or ends a line, or has no width, so that two
# names look alike; and of halves of surrogate pairs
CONTROLS = {"Cc", "Cf", "Cs", "Zl", "Zp"}
# what a spreadsheet takes for a formula; the apostrophe, so that it can be taken off again
FORMULAS = ("=", "+", "-", "@", "\t", "\r", "'")

TABLE = '<table style="border-collapse:collapse">'
CELL = 'style="text-align:left;padding:.2em .8em .2em 0"'
DASH = "\N{EN DASH}"


def printable(text: str) -> str:
    """The text on one line, control characters as Python writes them in a literal."""
    return "".join(
        one.encode("unicode_escape").decode() if unicodedata.category(one) in CONTROLS else one
        for one in text
    )


def csv_cell(text: str) -> str:
    """The text as no spreadsheet takes it for a formula: after an apostrophe where it could be."""
    return f"'{text}" if text.startswith(FORMULAS) else text


def from_csv_cell(cell: str) -> str:
    """The inverse of ``csv_cell``."""
    return cell[1:] if cell[:1] == "'" and cell[1:].startswith(FORMULAS) else cell


def table(head: list[str], rows: list[list[str]]) -> str:
    """Plain HTML; the colours are the notebook's own, light or dark."""
    top = "".join(f"<th {CELL}>{escape(cell)}</th>" for cell in head)
    body = "".join(
        "<tr>" + "".join(f"<td {CELL}>{escape(cell)}</td>" for cell in row) + "</tr>"
        for row in rows
    )
    return f"{TABLE}<thead><tr>{top}</tr></thead><tbody>{body}</tbody></table>"


def split_html(split: Any) -> str:
    """Each part of a split: how many records, of what shape, with which labels."""
    rows = [[name, *_part(getattr(split, name))] for name in ("forget", "holdout", "retain")]
    forgotten = escape(", ".join(map(str, split.forget_classes)))
    shown = f"<p>Forget classes: {forgotten}</p>" * bool(forgotten)
    return table(["part", "records", "shape", "labels"], rows) + shown


def _part(part: Any) -> list[str]:
    """What is known of a part without reading it."""
    if part is None:
        return ["none", DASH, DASH]
    # Not read yet: showing a split must not load a data set.
    if not hasattr(part, "ids"):
        count = str(len(part)) if hasattr(part, "__len__") else "not counted"
        return [count, type(part).__name__, DASH]
    kind = "values" if part.y.dtype.is_floating_point else "classes"
    labels = f"{part.y.shape[1]} labels each" if part.y.ndim > 1 else kind
    if labels == "classes":
        count = len(set(part.y.tolist()))
        labels = f"{count} class{'es' * (count != 1)}"
    return [str(len(part)), " x ".join(map(str, part.x.shape[1:])), labels]

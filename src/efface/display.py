"""Tables in plain HTML for notebooks: of a split, and for ``efface.report`` and ``efface.ranking``.

Nothing here changes the page around it: no style sheet, no script, and every text is escaped.
"""

from html import escape
from typing import Any

TABLE = '<table style="border-collapse:collapse">'
CELL = 'style="text-align:left;padding:.2em .8em .2em 0"'
DASH = "\N{EN DASH}"


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

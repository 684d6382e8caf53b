"""The page of an inspection: one self-contained HTML file, and what it says in words."""

from typing import Any

from jinja2 import ChainableUndefined, Environment, PackageLoader

from efface.ranking.figures import curve, scatter
from efface.ranking.found import Inspection
from efface.ranking.pictures import pictures
from efface.ranking.reading import Reader
from efface.report.report import flat
from efface.report.rows import plain
from efface.report.words import shown

GALLERY = 24
"""Records at either end."""

MOST_VALUES = 12
"""Columns of a table that a record is shown by."""

COLUMNS = {
    "label": "the class that the data give it",
    "answer": "the class that the model gives it",
    "margin": "ln p/(1 − p) of the label: below 0 it has less than half of the probability",
    "loss": "cross-entropy of the label in nats",
    "entropy": "of the answer in nats: how spread it is",
    "content": "information content α without data: share of noisy copies of the record to which "
    "the model gives the answer that it gives the record, at the first σ; a low share is high "
    "information",
    "content_by_label": "α over the data: share of the records in its ball (itself included) that "
    "have its label",
    "content_by_answer": "the same by what the model answers to them",
    "gradient_norm": "length of the loss's gradient by the input: how fast the loss changes around "
    "the record",
    "curvature": "κ: size of the second derivatives over that of the first",
    "curvature_gradient": "the first derivatives alone: ‖∇g‖",
    "curvature_hessian": "the second alone: ‖∇²g‖ (Frobenius)",
    "curvature_error": "standard error of κ over its random directions",
    "rank": "1 is the most informative: by α, then by margin",
    "group": "high where α < τ, else low",
}
"""What each column is."""


def render(found: Inspection, reader: Reader) -> str:
    """One HTML page that needs nothing else; each number on it stands in the tables too."""
    order = found.by_rank
    ends = min(GALLERY, (len(found) + 1) // 2)
    return (
        _environment()
        .get_template("inspect.html.jinja")
        .render(
            found=found,
            record=plain(found.record),
            n=len(found),
            high=int(found.high.sum()),
            wrong=int(found.wrong.sum()),
            mean=float(found.content.mean()),
            facts=flat(plain(found.record)),
            figures={"scatter": scatter(found), "curve": curve(found)},
            thresholds=found.thresholds(),
            most=_cards(found, reader, order[:ends]),
            least=_cards(found, reader, order[::-1][: len(found) - ends][:GALLERY]),
            columns=_columns(found),
        )
    )


def _cards(found: Inspection, reader: Reader, places: Any) -> list[dict[str, Any]]:
    """What the gallery shows of each of these records."""
    if not len(places):
        return []
    rows = [int(found.rows[place]) for place in places]
    records, kept = reader.read(sorted(rows))
    seen = dict(zip(kept, pictures(records, found.preprocessing), strict=True))
    return [
        {
            "id": found.ids[place],
            "label": found.name_of(int(found["label"][place])),
            "answer": found.name_of(int(found["answer"][place])),
            "content": float(found.content[place]),
            "margin": float(found["margin"][place]),
            "rank": int(found["rank"][place]),
            "picture": seen[row],
            "values": list(reader.told(row).items())[:MOST_VALUES],
        }
        for place, row in zip(places, rows, strict=True)
    ]


def _columns(found: Inspection) -> list[tuple[str, str]]:
    """Each column that is there, and what it is."""
    more = {name: "the same at another σ" for name in found.contents if name not in COLUMNS}
    known = COLUMNS | more
    return [(name, known[name]) for name in found.columns]


def _environment() -> Environment:
    made = Environment(
        loader=PackageLoader("efface.ranking", "."),
        autoescape=True,
        undefined=ChainableUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    made.filters["shown"] = shown
    return made

"""The boundary table as a page: areas beside their floor, refusals word for word, the claims."""

from collections.abc import Mapping, Sequence
from typing import Any

from research.geometry.claims import shown
from research.geometry.contenders import searched

HEAD = """# The boundary in two dimensions

One point leaves two blobs. Area: share of the blobs' box where
the answer is not that of a model retrained without the point from a fresh start ({again} of them a
seed); weighted: by where the blobs' points lie. Nearer: area less that of the untouched model;
below 0 the method came nearer; seeds nearer, farther: by more than 0.1 % of the box. Median over
{n} seeds (each its own data and weights) with the 95 % interval of the bootstrap; n is smaller
where a method takes seconds.
"""

COLUMNS = (
    "| row | area | weighted | nearer | seeds nearer, farther | moved from the untouched model "
    "| area to the same start | accuracy | point flipped | n |"
)

LEAST = 1e-3
"""A tenth of a per cent of the box: less is neither nearer nor farther."""


def table(facts: Mapping[str, Any]) -> str:
    """The page."""
    again = facts["settings"]["retrained_models_a_seed"]
    parts = [HEAD.format(again=again, n=len(facts["seeds"]))]
    parts += [_claims(facts["claims"])]
    parts += [_case(point, case) for point, case in facts["cases"].items()]
    return "\n".join(parts)


def _claims(claims: list[dict[str, Any]]) -> str:
    """One row for each claim and way to measure it."""
    said = {True: "yes", False: "no", None: "too few seeds"}
    rows = [
        f"| {c['claim']} | {c['measured']} | {said[c['holds']]} | {c['because']} |" for c in claims
    ]
    head = "| claim | measured | holds | because |\n|---|---|---|---|\n"
    return "## The paper's claims\n" + head + "\n".join(rows) + "\n"


def _case(point: str, case: Mapping[str, Any]) -> str:
    """One point: the floor first, then every row, then who refused."""
    looked_at = {contender.name for contender in searched()}
    floor = case["floor"]
    areas = f"{shown(floor['area'])} | {shown(floor['weighted'])}"
    lines = [
        f"## The {point} point",
        COLUMNS,
        "|---|---|---|---|---|---|---|---|---|---|",
        f"| floor: retrained against retrained | {areas} | | | | | | | {floor['area']['n']} |",
    ]
    for name, row in case["rows"].items():
        if name not in looked_at:
            lines.append(_line(name, row, case["nearer_by_seed"][name]))
    for name, refusal in case["refused"].items():
        runs = f"{refusal['runs']} of {refusal['of']} runs"
        lines.append(f"\n`{name}` could not be served, {runs}: {refusal['text']}")
    return "\n".join(lines) + "\n"


def _line(name: str, row: Mapping[str, Any], nearer: Sequence[float]) -> str:
    """A row; the model from the same start is named for what it is."""
    title = {"same start": "same start (no true retraining)"}.get(name, name)
    keys = ("area", "weighted", "area_nearer", "area_to_untouched", "area_to_same_start")
    cells = [shown(row[key]) for key in keys]
    cells.insert(3, f"{sum(n < -LEAST for n in nearer)}, {sum(n > LEAST for n in nearer)}")
    right = f"{100 * row['accuracy']['median']:.1f} %"
    flipped = f"{100 * row['flipped_share']:.0f} %"
    return " | ".join((f"| {title}", *cells, right, flipped, f"{row['area']['n']} |"))

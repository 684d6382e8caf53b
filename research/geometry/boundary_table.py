"""The boundary table as a page: areas next to their floor, refusals word for word, the claims."""

from collections.abc import Mapping, Sequence
from typing import Any

from research import pages
from research.geometry.claims import shown
from research.geometry.contenders import searched
from research.pages import percent

HEAD = """
One point is removed from two blobs. Area: share of the blobs' box where the prediction is not that
of a model retrained without the point from a fresh start ({again} of them a seed); weighted: by
where the blobs' points lie. Nearer: area minus that of the untouched model; below 0 the method came
nearer; seeds nearer, farther: by more than 0.1 % of the box. Median over {n} seeds (each its own
data and weights) with the 95 % interval of the bootstrap; n is smaller where a method takes
seconds.
"""

COLUMNS = (
    "row | area | weighted | nearer | seeds nearer, farther | distance from the untouched model "
    "| area to the same start | accuracy | point flipped | n"
)

# A tenth of a per cent of the box: less is neither nearer nor farther.
LEAST = 1e-3


def table(facts: Mapping[str, Any]) -> str:
    """The page."""
    again = facts["settings"]["retrained_models_a_seed"]
    holds = {True: "yes", False: "no", None: "too few seeds"}
    claims = [(c["claim"], c["measured"], holds[c["holds"]], c["because"]) for c in facts["claims"]]
    return pages.page(
        "The boundary in two dimensions",
        HEAD.format(again=again, n=len(facts["seeds"])).strip(),
        "## The paper's claims",
        pages.table("claim | measured | holds | because", claims),
        *(part for point, case in facts["cases"].items() for part in _case(point, case)),
    )


def _case(point: str, case: Mapping[str, Any]) -> list[str]:
    """One point: the floor first, then every row, then who refused."""
    tuned, floor = {contender.name for contender in searched()}, case["floor"]
    first = ["floor: retrained against retrained", shown(floor["area"]), shown(floor["weighted"])]
    rows = [[*first, *[""] * 6, str(floor["area"]["n"])]]
    for name, row in case["rows"].items():
        if name not in tuned:
            rows.append(_line(name, row, case["nearer_by_seed"][name]))
    refused = []
    for name, refusal in case["refused"].items():
        runs = f"{refusal['runs']} of {refusal['of']} runs"
        refused.append(f"`{name}` could not be served, {runs}: {refusal['text']}")
    return [f"## The {point} point", pages.table(COLUMNS, rows), *refused]


def _line(name: str, row: Mapping[str, Any], nearer: Sequence[float]) -> list[str]:
    """A row; the model from the same start is named for what it is."""
    title = {"same start": "same start (no true retraining)"}.get(name, name)
    keys = ("area", "weighted", "area_nearer", "area_to_untouched", "area_to_same_start")
    cells = [shown(row[key]) for key in keys]
    cells.insert(3, f"{sum(n < -LEAST for n in nearer)}, {sum(n > LEAST for n in nearer)}")
    shares = (f"{percent(row['accuracy']['median'])} %", f"{percent(row['flipped_share'], 0)} %")
    return [title, *cells, *shares, str(row["area"]["n"])]

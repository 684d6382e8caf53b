"""The table, the figure and the page of a comparison."""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from matplotlib.ticker import LogLocator, NullFormatter

from efface.comparison.result import GAP, Comparison
from efface.manifest import versions
from efface.report.figures import INKS, blank, svg_of
from efface.report.html import environment
from efface.report.text import DASH, count

# Of each column: the key of its values, its heading, and the unit.
COLUMNS = {
    "gap": ("average gap to retraining, points", "points"),
    "distance": ("distance to unseen, points", "points"),
    "forget.accuracy": ("accuracy, forget records", "share"),
    "forget_classes.accuracy": ("accuracy, forget classes", "share"),
    "attack.loss": ("AUC of the loss attack", "auc"),
    "utility": ("change of holdout accuracy, points", "points"),
    "seconds": ("seconds", "seconds"),
    "passes": ("passes", "count"),
}
AXES = {"gap": "average gap to retraining", "distance": "distance to unseen records"}
# What a row of the report says of the retrained models, by its key and the column it stands in.
RETRAINED = {"gap": GAP, "forget.accuracy": "retrained.forget"}


def table(found: Comparison) -> tuple[list[str], list[list[str]]]:
    """Columns and rows as text: the given model, each method, the retrained models."""
    summary, shown = found.summary(), columns(found)
    rows = [["as given", *(_number(_before(found, key), COLUMNS[key][1]) for key in shown), ""]]
    for row in summary:
        cells = [interval(row.get(key), COLUMNS[key][1]) for key in shown]
        outcomes = ", ".join(f"{n} {words}" for words, n in row["outcomes"].items())
        rows.append([row["name"], *cells, outcomes])
    if found.measure == "gap":
        rows.append(["retrained", *(_retrained(found, key) for key in shown), ""])
    return ["method", *(COLUMNS[key][0] for key in shown), "outcomes"], rows


def columns(found: Comparison) -> list[str]:
    """Keys of the columns in which some method has a value."""
    summary = found.summary()
    return [key for key in COLUMNS if any(row.get(key) for row in summary)]


def interval(value: Sequence[float | None] | None, unit: str) -> str:
    """A mean over seeds, with its interval where there are several; a dash where there is none."""
    if not value:
        return DASH
    mean, low, high = value
    text = _number(mean, unit)
    ends = _number(low, unit), _number(high, unit)
    # a method that draws nothing has one number for all seeds
    if low is None or ends == (text, text):
        return text
    return f"{text} [{', '.join(ends)}]"


def _number(value: float | None, unit: str) -> str:
    if value is None:
        return DASH
    if unit in ("share", "points"):
        percent = "\N{NO-BREAK SPACE}%" * (unit == "share")
        return f"{100 * value:.1f}{percent}".replace("-", "\N{MINUS SIGN}")
    if unit == "count":
        return f"{value:,.0f}"
    return f"{value:.1f}" if unit == "seconds" else f"{value:.3f}"


def _before(found: Comparison, key: str) -> float | None:
    """What the given model has in a column."""
    if key == "distance":
        return found.given_distance
    return found.given.get(GAP if key == "gap" else key, {}).get("after")


def _retrained(found: Comparison, key: str) -> str:
    """What the retrained models have in a column: their own gap is the floor."""
    value = found.given.get(RETRAINED.get(key, ""), {}).get("reference")
    return _number(value if isinstance(value, float) else None, COLUMNS[key][1])


def page(found: Comparison) -> str:
    """The page: it needs nothing else, and its numbers stand in ``cells.csv`` too."""
    heads, rows = table(found)
    made = environment("efface.comparison").get_template("comparison.html.jinja")
    facts = {"efface": versions()["efface"], "count": count, "number": _number, "columns": COLUMNS}
    facts |= {"heads": heads, "rows": rows, "figure": figure(found), "sentences": sentences(found)}
    return made.render(found=found, **facts)


def sentences(found: Comparison) -> list[str]:
    """What the table comes to, for readers who do not read tables."""
    outcomes = Counter(cell["outcome"] or "failed" for cell in found.cells)
    came = "; ".join(f"{n} {words}" for words, n in outcomes.most_common())
    lines = [f"{count(len(found.by_name), 'method')}, {count(len(found.cells), 'run')}: {came}."]
    if outcomes["failed"]:
        lines.append("Why runs failed stands in the last table.")
    summary = [row for row in found.summary() if row.get(found.measure)]
    if not summary:
        text = "Nothing orders the methods: there is no holdout, so it is not known what a model "
        return [*lines, f"{text}that never saw the records would predict."]
    first, word, given = summary[0], AXES[found.measure], _before(found, found.measure)
    nearest = interval(first[found.measure], "points")
    as_given = f"; as given {_number(given, 'points')}" * (given is not None)
    lines.append(f"Nearest: {first['name']}, {word} {nearest} points{as_given}.")
    if front := found.front:
        lines.append(
            f"Pareto-optimal in that and time, and within the utility budget: {', '.join(front)}."
        )
    # what is as far but for the last digit is as far
    far = [r["name"] for r in summary if given is not None and r[found.measure][0] > given + 1e-9]
    if far:
        ends = (
            f"{len(far)} of {count(len(summary), 'method')} ended farther than the model as given"
        )
        lines.append(f"{ends}, so that doing nothing is nearer: {', '.join(far)}.")
    if over := [row["name"] for row in summary if found.too_expensive(row)]:
        budget = f"{100 * found.utility_budget:g} points"
        lines.append(f"Lost more than {budget} of holdout accuracy: {', '.join(over)}.")
    control = found.given.get("control.positive", {}).get("verdict")
    if control in ("control_failed", "too_few_records"):
        lines.append(
            "The loss attack does not detect the records in the model as given: its column decides "
            "nothing, and what it adds to the distance to unseen neither."
        )
    return lines


def figure(found: Comparison) -> str:
    """Measure against seconds, a point a method with its intervals; empty without a measure."""
    rows = [row for row in found.summary() if row.get(found.measure)]
    if not rows:
        return ""
    drawn, (axes,) = blank(6.4, 4.2)
    front = found.front
    for row in rows:
        _point(axes, row, found, on_front=row["name"] in front)
    floor = found.given.get(GAP, {}).get("reference") if found.measure == "gap" else None
    given = _before(found, found.measure)
    for value, label in ((given, "as given"), (floor, "retrained, with another seed")):
        if isinstance(value, float):
            axes.axhline(100 * value, color=INKS["soft"], lw=0.8, ls="--")
            place = {"xy": (0.01, 100 * value), "xycoords": ("axes fraction", "data")}
            style = {"va": "bottom", "fontsize": 9, "color": INKS["soft"]}
            axes.annotate(label, **place, **style)
    axes.set_xscale("log")
    axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.set_ylim(bottom=0)
    axes.margins(x=0.18, y=0.12)
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:g}")
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.set_xlabel("seconds of method and guard")
    axes.set_ylabel(f"{AXES[found.measure]}, points", color=INKS["ink"], fontsize=9.5)
    return svg_of(drawn, "pareto", f"{AXES[found.measure]} against seconds")


def _point(axes: Any, row: Mapping[str, Any], found: Comparison, *, on_front: bool) -> None:
    """The mean with its interval; filled on the front, hollow off it, a cross over the budget."""
    far, low, high = row[found.measure]
    seconds = max(row["seconds"][0], 1e-3)
    if low is not None and high is not None:
        axes.vlines(seconds, 100 * max(low, 0), 100 * high, color=INKS["line"], lw=1.4, zorder=1)
    over = found.too_expensive(row)
    face = INKS["new"] if on_front else INKS["fill"]
    style = {"color": INKS["old"]} if over else {"facecolors": face, "edgecolors": INKS["new"]}
    axes.scatter([seconds], [100 * far], s=38, marker="x" if over else "o", zorder=2, **style)
    place = {"xytext": (6, 4), "textcoords": "offset points", "fontsize": 9}
    axes.annotate(row["name"], (seconds, 100 * far), color=INKS["ink"], **place)

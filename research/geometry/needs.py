"""Who needs which data, drawn from what each method of this package declares.

The table is ``efface.methods.BUILT_IN``, so the picture cannot say anything else.
"""

from collections.abc import Mapping

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from efface.methods import Method

DATA = {
    "forget": "forget records",
    "forget labels": "their labels",
    "forget_classes": "class to forget",
    "holdout": "holdout",
    "retain": "retain records",
    "retain labels": "their labels ",
    "fresh": "untrained model",
    "train": "training recipe",
    "reference": "reference model",
}
# What comes with the records; whether a method would refuse without it is not declared.
GIVEN = {"forget", "forget labels", "retain labels"}

MARKS = {
    "needs": ("o", "black", "refuses without it"),
    "reads": ("o", "white", "reads it where it is given, works without"),
    "comes along": ("s", "0.6", "reads it; it comes with the request or the records"),
}


def mark_of(entry: Method, part: str) -> str | None:
    """How a method stands to a part of the data: a name out of ``MARKS``, or None."""
    if part in entry.needs:
        return "needs"
    if part not in entry.reads:
        return None
    return "comes along" if part in GIVEN else "reads"


def group_of(entry: Method) -> str:
    """Methods of one kind stand together; the first that fits."""
    if "retain" in entry.needs:
        return "needs retain records"
    # what holds the rest in place is no need of it
    if "retain" in entry.reads and entry.classes_only:
        return "relabels; reads retain records"
    if not entry.zero_shot:
        return "no retain records, but an untrained model"
    if "forget labels" in entry.reads:
        return "zero-shot; reads the forget labels"
    return "zero-shot; no labels"


def matrix(entries: Mapping[str, Method]) -> dict[str, dict[str, dict[str, str]]]:
    """Group, method, part of the data: how the method stands to it; the least demanding first."""
    groups = (
        "zero-shot; no labels",
        "zero-shot; reads the forget labels",
        "no retain records, but an untrained model",
        "relabels; reads retain records",
        "needs retain records",
    )
    found: dict[str, dict[str, dict[str, str]]] = {group: {} for group in groups}
    for name, entry in entries.items():
        marks = {part: mark for part in DATA if (mark := mark_of(entry, part))}
        found[group_of(entry)][name] = marks
    return {group: methods for group, methods in found.items() if methods}


def draw_needs(entries: Mapping[str, Method]) -> Figure:
    """A dot matrix: methods downwards in groups, parts of the data across."""
    found = matrix(entries)
    rows = sum(len(methods) + 1 for methods in found.values())
    figure = Figure(figsize=(8, 0.6 + 0.23 * rows), layout="constrained")
    axes = figure.subplots()
    names: list[str] = []
    for group, methods in found.items():
        axes.axhspan(len(names) - 0.45, len(names) + 0.45, color="0.93", zorder=0)
        axes.text(-0.45, len(names), group, va="center", weight="bold", fontsize=8.5)
        names.append("")
        for name, marks in methods.items():
            _row(axes, len(names), marks)
            names.append(name)
    axes.set_yticks(range(len(names)), names, fontfamily="monospace", fontsize=8.5)
    axes.set_xticks(range(len(DATA)), [label.replace(" ", "\n", 1) for label in DATA.values()])
    axes.set(xlim=(-0.5, len(DATA) - 0.5), ylim=(len(names) - 0.5, -0.5))
    axes.xaxis.tick_top()
    axes.tick_params(length=0)
    axes.grid(visible=True, color="0.9", lw=0.6)
    axes.set_axisbelow(True)
    axes.spines[:].set_visible(False)
    for marker, fill, label in MARKS.values():
        axes.plot([], [], marker, ms=7, mfc=fill, mec="black", ls="", label=label)
    figure.legend(loc="outside lower center", frameon=False, fontsize=8.5)
    return figure


def _row(axes: Axes, place: int, marks: Mapping[str, str]) -> None:
    for column, part in enumerate(DATA):
        if part in marks:
            marker, fill, _ = MARKS[marks[part]]
            axes.plot([column], [place], marker, ms=7, mfc=fill, mec="black")

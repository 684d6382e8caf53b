"""The table of every method, from research/results/every_method.json alone."""

from typing import Any

from matplotlib import pyplot as plt
from matplotlib.figure import Figure

from efface.methods import BUILT_IN
from efface.metrics.retrain_gap import gap
from research import pages
from research.benchmarks.every_method import BEARABLE
from research.jobs import seen_by
from research.pages import origin, percent, table, triple
from research.reduce import columns_of

TASKS = ("class", "sub-class", "random")
# Of D_r, as a share lost, from which a row is called a collapse.
COLLAPSE = 0.1

Row = dict[str, Any]


def of(record: Row, table: str, task: str) -> dict[str, Row]:
    """The cells of one table and task, by method."""
    cells = [c for c in record["cells"] if c["table"] == table and c["task"] == task]
    return {cell["method"]: cell for cell in cells}


def became(cell: Row) -> str:
    """A word for what one setting came to."""
    if not cell["finite"]:
        return "NaN"
    return "collapse" if cell["lost"] > COLLAPSE else ""


def line(name: str, cell: Row) -> tuple[str, ...]:
    """One row of a table."""
    passes = f"{cell['passes']['forward']:,} + {cell['passes']['backward']:,}"
    scores = (triple(cell["columns"]), percent(cell["accuracy"]["retain"]), percent(cell["gap"]))
    cost = (f"{cell['seconds']:.0f}", passes)
    return f"`{name}`", _sees(name, cell["task"]), _settings(cell), *scores, became(cell), *cost


def _sees(name: str, task: str) -> str:
    """What it got next to the model and the forget records, of what it reads."""
    entry = BUILT_IN[name]
    given = {"fresh", "train", *["forget_classes"] * (task == "class")}
    given |= {part for part, seen in seen_by(name).items() if seen}
    return ", ".join(entry.in_order(frozenset(given & entry.reads)))


def section(record: Row, task: str) -> list[str]:
    """The table of one task: as published and at the searched strength, sorted by gap."""
    model = next(m for m in record["models"] if m["task"] == task)
    target = columns_of(model["target"], forget_classes=task == "class")
    before = model["untouched"]
    cells = [*of(record, "published", task).values(), *of(record, "tuned", task).values()]

    def order(cell: Row) -> tuple[float, str]:
        # what collapsed stands last, whatever its gap
        last = cell["gap"] is None or cell["lost"] > COLLAPSE
        return 2.0 if last else cell["gap"], cell["method"]

    head = "method | also sees | strength | D_r / D_f / MIA | trained accuracy | gap |  | seconds | passes"
    return [
        f"## {task} ({model['request']})",
        f"Retrained {triple(target)}, nothing done {triple(before)} (gap {percent(gap(before, target))}).",
        table(head, [line(cell["method"], cell) for cell in sorted(cells, key=order)]),
    ]


def tried(record: Row, task: str) -> list[Row]:
    """The cells of the search."""
    return [c for c in record["cells"] if c["table"] == "tuning" and c["task"] == task]


def bearable(cell: Row) -> bool:
    """As the search has it."""
    return cell["finite"] and cell["lost"] <= BEARABLE


def collapses(record: Row) -> list[str]:
    """Which methods broke the model as published, and at which strength they did not."""
    rows = [
        (task, f"`{name}`", became(cell), _instead(record, task, name))
        for task in TASKS
        for name, cell in of(record, "published", task).items()
        if became(cell)
    ]
    head = "task | method | as published | searched on another request, scored here"
    return ["## What collapsed as published", table(head, rows)]


def _instead(record: Row, task: str, name: str) -> str:
    """What the search came to for a method that collapsed: a setting, or how far it searched."""
    searched = [cell for cell in tried(record, task) if cell["method"] == name]
    other = of(record, "tuned", task).get(name)
    if other is None:
        unscored = any(bearable(cell) for cell in searched)
        none = _nearest(searched) if searched else "not searched"
        return "bearable ones there, not scored here" if unscored else none
    word = f" ({became(other)} here)" if became(other) else ""
    return f"{_settings(other)}: gap {percent(other['gap'])}, {percent(other['lost'])} lost{word}"


def _nearest(searched: list[Row]) -> str:
    """Where none was bearable: what the least harmful one did where it was searched."""
    best = min((cell for cell in searched if cell["finite"]), key=lambda cell: cell["lost"])
    return (
        f"none of {len(searched)} searched was bearable; there {_settings(best)}: "
        f"gap {percent(best['gap'])}, {percent(best['lost'])} lost"
    )


def _settings(cell: Row) -> str:
    """Those that are not the method's own."""
    return ", ".join(f"{k} {v:g}" for k, v in cell["settings"].items()) or "published"


def page(record: Row) -> str:
    """The whole page."""
    return pages.page(
        "Every method, once",
        f"{origin(record)}. 10,000 images of CIFAR-10 (sub-class: of CIFAR-100 under its 20 "
        "coarse labels), quarter VGG11, one base model, one request a task, one true retrain of it; no guard. "
        "D_r / D_f / MIA as in the paper, on unseen records for D_r (and for D_f where a class is forgotten), gap their mean "
        "distance to the retrained model, all in %. The row `retrain` is a second retrained model, from the base model's own "
        "first weights: its gap is about what the seed alone does. Trained accuracy is that on the retain records, which methods that see `retain` are trained on. "
        "Published: the default settings. Strength: searched on base model 0 and another request, for the smallest gap at "
        "a loss of at most two points of D_r, on the same unseen images as the table ([how](../benchmarks/every_method.py)): of methods that "
        "see few records in up to 6 steps of √10, up or down; of those that train on the retain records in up to 3 steps "
        "of 10, and only down, where 1 was not bearable; on the class all, on the sub-class and random records those that collapsed as "
        "published. So what sees `retain` is shown nearly as published, and on the class the others at "
        "their best of several. `l2ul` is scaled, which changes the weights of its two terms, and searched by its number of steps; "
        "`emmn` is searched without its repair; `source_free_newton` knows "
        "how many records are retained. Seconds on one of two busy cores, so "
        "only roughly comparable ([costs side by side](method_costs.md)); passes forward + backward, counted. One model "
        "and one request a task: differences of a few points are noise. `gkt` has [its own page](gkt_curve.md).",
        "![gap of each method](every_method.svg)",
        *(part for task in TASKS for part in section(record, task)),
        *collapses(record),
    )


def figure(record: Row) -> Figure:
    """The gap of each method, as published and at the searched strength, a panel a task."""
    chart, panels = plt.subplots(1, 3, figsize=(12, 8), sharey=True, layout="constrained")
    names = [name for name in BUILT_IN if any(name in of(record, "published", t) for t in TASKS)]
    for panel, task in zip(panels, TASKS, strict=True):
        published, tuned = (of(record, table, task) for table in ("published", "tuned"))
        model = next(m for m in record["models"] if m["task"] == task)
        before = gap(
            model["untouched"], columns_of(model["target"], forget_classes=task == "class")
        )
        panel.axvline(100 * before, color="0.7", linewidth=0.8)
        panel.axvline(100 * published["retrain"]["gap"], color="0.7", linewidth=0.8, linestyle="--")
        for place, name in enumerate(names):
            for cells, mark, colour in ((published, "o", "C0"), (tuned, "D", "C1")):
                cell = cells.get(name)
                if cell is None:
                    continue
                broken = cell["gap"] is None or cell["lost"] > COLLAPSE
                x = 62 if cell["gap"] is None else 100 * cell["gap"]
                panel.plot(x, place, "x" if broken else mark, color="C3" if broken else colour)
        panel.set(title=task, xlabel="gap to the retrained model, points", xlim=(-1, 64))
        panel.grid(axis="y", linewidth=0.3)
    panels[0].set_yticks(range(len(names)), names)
    panels[0].invert_yaxis()
    chart.suptitle(
        "circle: as published, diamond: searched strength, cross: collapse or NaN (right edge); "
        "lines: nothing done, and two retrained models",
        fontsize=10,
    )
    return chart

"""The table of every method, from research/results/every_method.json alone."""

from typing import Any

from matplotlib import pyplot as plt
from matplotlib.figure import Figure

from efface.methods import BUILT_IN
from efface.metrics.retrain_gap import gap
from research.benchmarks.every_method import BEARABLE
from research.reduce import columns_of

TASKS = ("class", "sub-class", "random")
COLLAPSE = 0.1
"""Of D_r, as a share lost, from which a row is called a collapse."""

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


def line(name: str, cell: Row) -> str:
    """One row of a table."""
    columns = " / ".join("–" if v is None else f"{100 * v:.1f}" for v in cell["columns"].values())
    near = "–" if cell["gap"] is None else f"{100 * cell['gap']:.1f}"
    trained = cell["accuracy"]["retain"]
    passes = cell["passes"]
    return (
        f"| `{name}` | {_sees(name, cell['task'])} | {_settings(cell)} | {columns} | "
        f"{'–' if trained is None else f'{100 * trained:.1f}'} | {near} | {became(cell)} | "
        f"{cell['seconds']:.0f} | {passes['forward']:,} + {passes['backward']:,} |"
    )


def _sees(name: str, task: str) -> str:
    """What it was given beside the model and the forget records, of what it sees."""
    entry = BUILT_IN[name]
    given = {"retain", "holdout", "fresh", "train"} | (
        {"forget_classes"} if task == "class" else set()
    )
    return ", ".join(entry.in_order(frozenset(given & entry.reads)))


def section(record: Row, task: str) -> list[str]:
    """The table of one task: as published, sorted by gap, and the searched strength below."""
    model = next(m for m in record["models"] if m["task"] == task)
    forget_classes = task == "class"
    target = columns_of(model["target"], forget_classes=forget_classes)
    published, tuned = (of(record, table, task) for table in ("published", "tuned"))
    said = " / ".join(f"{100 * v:.1f}" for v in target.values())
    before = " / ".join(f"{100 * v:.1f}" for v in model["untouched"].values())
    head = "| method | also sees | strength | D_r / D_f / MIA | trained accuracy | gap | | seconds | passes |"
    rows = sorted(
        [*published.values(), *tuned.values()],
        key=lambda c: (2.0 if c["gap"] is None or c["lost"] > COLLAPSE else c["gap"], c["method"]),
    )
    return [
        f"## {task} ({model['request']})",
        "",
        f"Retrained {said}, nothing done {before} (gap {100 * gap(model['untouched'], target):.1f}).",
        "",
        head,
        "|---|---|---|---|---|---|---|---|---|",
        *(line(row["method"], row) for row in rows),
        "",
    ]


def tried(record: Row, task: str) -> list[Row]:
    """The cells of the search."""
    return [c for c in record["cells"] if c["table"] == "tuning" and c["task"] == task]


def bearable(cell: Row) -> bool:
    """As the search has it."""
    return cell["finite"] and cell["lost"] <= BEARABLE


def collapses(record: Row) -> list[str]:
    """Which methods broke the model as published, and at which strength they did not."""
    lines = ["## What collapsed as published", "", "| task | method | as published | searched on another request, scored here |", "|---|---|---|---|"]  # fmt: skip
    for task in TASKS:
        for name, cell in of(record, "published", task).items():
            if not (word := became(cell)):
                continue
            lines.append(f"| {task} | `{name}` | {word} | {_instead(record, task, name)} |")
    return [*lines, ""]


def _instead(record: Row, task: str, name: str) -> str:
    """What the search came to for a method that collapsed: a setting, or how far it looked."""
    searched = [cell for cell in tried(record, task) if cell["method"] == name]
    other = of(record, "tuned", task).get(name)
    if other is None:
        unscored = any(bearable(cell) for cell in searched)
        none = _nearest(searched) if searched else "not searched"
        return "bearable ones there, not scored here" if unscored else none
    near = "–" if other["gap"] is None else f"{100 * other['gap']:.1f}"
    lost = "–" if other["lost"] is None else f"{100 * other['lost']:.1f}"
    word = became(other)
    return f"{_settings(other)}: gap {near}, {lost} lost" + f" ({word} here)" * bool(word)


def _nearest(searched: list[Row]) -> str:
    """Where none was bearable: what the least harmful one did where it was searched."""
    least = min((cell for cell in searched if cell["finite"]), key=lambda cell: cell["lost"])
    return (
        f"none of {len(searched)} searched was bearable; there {_settings(least)}: "
        f"gap {100 * least['gap']:.1f}, {100 * least['lost']:.1f} lost"
    )


def _settings(cell: Row) -> str:
    """Those that are not the method's own."""
    return ", ".join(f"{k} {v:g}" for k, v in cell["settings"].items()) or "published"


def page(record: Row) -> str:
    """The whole page."""
    return "\n".join(
        [
            "# Every method, once",
            "",
            (
                f"`{record['command']}`, {record['date']}. 10,000 images of CIFAR-10 (sub-class: of CIFAR-100 under its 20 "
                "coarse labels), quarter VGG11, one base model, one request a task, one true retrain of it; no guard. "
                "D_r / D_f / MIA as in the paper, on unseen records for D_r (and for D_f where a class goes), gap their mean "
                "distance to the retrained model, all in %. The row `retrain` is a second retrained model, from the base model's own "
                "first weights: its gap is about what the seed alone does. Trained accuracy is that on the records that stay, which methods that see `retain` are trained on. "
                "Published: the settings as they come. Strength: searched on base model 0 and another request, for the least gap at "
                "two points of D_r lost at most, on the same unseen images as the table ([how](../research/benchmarks/every_method.py)): of methods that "
                "see few records in up to 6 steps of √10, up or down; of those that train on what stays in up to 3 steps "
                "of 10, and only down, where 1 was not bearable; on the class all, on the sub-class and random records those that collapsed as "
                "published. So what sees `retain` is shown nearly as published, and on the class the others at "
                "their best of several. `l2ul` is scaled, which changes the weights of its two terms, and searched by its number of steps; "
                "`emmn` is searched without its repair; `source_free_newton` is told "
                "how many records stay. Seconds on one of two busy cores, so "
                "only roughly comparable ([costs side by side](method_costs.md)); passes forward + backward, counted. One model "
                "and one request a task: differences of a few points are noise. `gkt` has [its own page](gkt_curve.md)."
            ),
            "",
            "![gap of each method](every_method.svg)",
            "",
            *(line for task in TASKS for line in section(record, task)),
            *collapses(record),
        ]
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

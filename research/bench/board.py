"""The pages of the benchmark, made of committed records alone: one a task, and the leaderboard.

A task's page has every row with what it saw, and the figure of nearness against time; the
leaderboard has every method on every task. The order is by the mean gap above the floor: how much
further from retraining a method ends than another retrained model does.
"""

import html
import itertools
from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.figure import Figure

from efface.methods import METHODS
from research import pages
from research.bench.record import Cell, above_floor, floor_line, groups_of, mean_of, said, stays_out
from research.pages import percent, table
from research.tables import RESULTS, read_record

Record = Mapping[str, Any]
# what a method may take from retained accuracy before it is marked
BEARABLE = 0.02

HEAD = (
    "method | also sees | settings | requests | gap, points | above the floor, 95 % | KS | AUC | TPR at 1 % | worst class "
    "| near / others | retained, % | relearned, % | passes a record | MiB | seconds"
)
LEGEND = (
    "Gap: mean absolute difference of D_r, D_f and MIA to the mean of the retrained models. KS: distance of the forget records' log-odds to a "
    "retrained model's. AUC, TPR: an attacker per record, by its log-odds less their mean in the retrained models, .50 and 1 % for a retrained model; "
    "TPR only where 200 unseen records of the classes are left. Worst class: the largest difference of a staying class to the retrained models, in "
    "points of accuracy; near / others: of the tenth of unseen records nearest to what goes, and of the rest. Relearned: accuracy on one half of the "
    "forget records after five epochs on the other half. Passes forward and backward, MiB above what was resident before (what an earlier "
    "cell of the same process left may be used again, so at least that much), and seconds are the method's, without the evaluation."
)


def page(record: Record) -> str:
    """The page of one task."""
    task, requests = record["task"], record["requests"]
    command = record["command"].split(" and ")[0]
    missing = record["missing"]
    return pages.page(
        f"Benchmark: {task['title']}",
        f"{record['date']}. {floor_line(requests)}. Settings searched on `{record['searched_on']}`, on a request of another base model that is not "
        f"here. One row again: `python -m research.bench {task['name']} --method METHOD` (all: `{command}`). ● zero-shot: it sees nothing that stays.",
        table(HEAD, [*_references(record), *_rows(record)]),
        LEGEND,
        f"![Gap above the floor against seconds]({task['name']}.svg)",
        "## As the paper has it",
        _paper_columns(record),
        _elsewhere(record),
        "Not made: " + "; ".join(missing) + "." if missing else "",
    )


def _elsewhere(record: Record) -> str:
    """Which methods have no row, and why."""
    other, untuned = (
        ", ".join(f"`{name}`" for name in record[which]) for which in ("not_applicable", "untuned")
    )
    return (
        "`retrain` is the reference, and `gkt`, which takes hours, has [its own page](../gkt_curve.md). "
        + f"Of classes that go as a whole, and not applicable here: {other}. " * bool(other)
        + f"Made to be set by nobody, so not searched: {untuned}. `l2ul` is shortened (its settings are in its row). Requests to one base model "
        "are not independent; the interval takes them as if they were."
    )


def _references(record: Record) -> list[list[str]]:
    """What a retrained model comes to next to the others, and the model as given: no method's."""
    requests = record["requests"]
    floors = [{**one, "seed": r["seed"]} for r in requests for one in r["floors"]]
    nothing = [{**r["untouched"], "seed": r["seed"]} for r in requests]
    return [
        [name, "", "", *_columns(cells, record), "", "", ""]
        for name, cells in (("retrained", floors), ("nothing done", nothing))
        if cells
    ]


def _rows(record: Record) -> list[list[str]]:
    return [
        [
            f"`{method}`{' ●' * stays_out(method)}",
            _reads(method),
            said(cells),
            *_numbers(cells, record),
        ]
        for (method, _), cells in groups_of(record["cells"], record["requests"])
    ]


def _reads(method: str) -> str:
    entry = METHODS.get(method)
    parts = ("retain", "holdout", "fresh", "forget_classes")
    told = [
        p for p in parts if entry and p in entry.reads and (p != "retain" or not stays_out(method))
    ]
    return ", ".join(told) or "–"


def _numbers(cells: Sequence[Cell], record: Record) -> list[str]:
    fit = [one for one in cells if one["gap"] is not None]
    count = f"{len(cells)}" + f", {len(cells) - len(fit)} not finite" * (len(fit) < len(cells))
    spent = [f"{np.mean([sum(one['passes'].values()) for one in cells]):,.0f}"]
    spent += [f"{mean_of(cells, 'peak') / 2**20:.0f}", f"{mean_of(cells, 'seconds'):.1f}"]
    if not fit:
        return [count, *["–"] * 9, *spent]
    return [*_columns(fit, record, count), *spent]


def _columns(fit: Sequence[Cell], record: Record, count: str = "") -> list[str]:
    """What finite cells score; ``count``: how many there are, if not all of these."""
    over, low, high = above_floor(fit, record["requests"])
    return [
        count or f"{len(fit)}",
        pages.points([one["gap"] for one in fit]),
        f"{over:.1f}" if low is None else f"{over:.1f} ({low:.1f} to {high:.1f})",
        f"{mean_of(fit, 'ks'):.2f}",
        f"{mean_of(fit, 'auc'):.3f}",
        percent(_some(fit, "tpr")),
        f"{100 * mean_of(fit, 'worst_class'):+.1f}",
        f"{100 * mean_of(fit, 'near'):+.1f} / {100 * mean_of(fit, 'rest'):+.1f}",
        percent(_some(fit, "retained")),
        percent(_some(fit, "relearned")),
    ]


def _some(cells: Sequence[Cell], name: str) -> float | None:
    found = mean_of(cells, name)
    return None if np.isnan(found) else found


def _paper_columns(record: Record) -> str:
    """D_r, D_f and MIA of every row, as the paper has them."""
    requests = record["requests"]
    target = pages.triple(*(one["target"] for one in requests))
    nothing = pages.triple(*(one["untouched"]["columns"] for one in requests))
    rows = [["retrained", "", target, ""], ["nothing done", "", nothing, ""]]
    for (method, how), cells in groups_of(record["cells"], requests):
        fit = [one for one in cells if one["gap"] is not None]
        if fit:
            seconds = f"{mean_of(cells, 'seconds'):.1f}"
            zs = "yes" if stays_out(method) else "no"
            columns = pages.triple(*(one["columns"] for one in fit))
            rows.append([f"`{method}`" + f", {how}" * (how != "published"), zs, columns, seconds])
    return table("method | zero-shot | D_r / D_f / MIA, % | seconds", rows)


def pareto(record: Record) -> Figure:
    """Gap above the floor over seconds, published settings; filled: sees nothing that stays."""
    chart, axes = plt.subplots(figsize=(8, 4.5), layout="constrained")
    # what is near lies within a few points, what collapsed at tens
    axes.set_yscale("symlog", linthresh=3, linscale=2)
    points = []
    for (method, how), cells in groups_of(record["cells"], record["requests"]):
        fit = [one for one in cells if one["gap"] is not None]
        if how != "published" or not fit:
            continue
        over, low, high = above_floor(fit, record["requests"])
        points.append((method, max(mean_of(cells, "seconds"), 0.01), over, low, high))
    # names above and below in turn: neighbours on the front lie close
    places = itertools.cycle([(0, 9), (0, -15), (0, 21), (0, -27)])
    for method, seconds, over, low, high in sorted(points, key=lambda one: one[1]):
        filled = stays_out(method)
        colour = "#00695c" if method == "neighbourhood" else "#444"
        bars = [[over - low], [high - over]] if low is not None and high is not None else None
        axes.errorbar(
            [seconds], [over], yerr=bars, fmt="o", ms=6, color=colour, elinewidth=0.7,
            mfc=colour if filled else "white",
        )  # fmt: skip
        if not any(s <= seconds and o <= over and m != method for m, s, o, _, _ in points):
            where = {"xytext": next(places), "textcoords": "offset points", "ha": "center"}
            axes.annotate(method, (seconds, over), fontsize=8, **where)
    over = [one[2] for one in points]
    axes.set_ylim(min(-1.5, *over) - 0.5, 1.4 * max(3, *over))
    ticks = [t for t in (-2, -1, 0, 1, 2, 3, 5, 10, 20, 50, 100) if t < 1.4 * max(3, *over)]
    axes.set_yticks(ticks, [f"{t}" for t in ticks], minor=False)
    axes.minorticks_off()
    axes.axhline(0, lw=0.7, color="#999")
    axes.set(
        xscale="log",
        xlabel="seconds of one core, the method's own",
        ylabel="gap above the floor, points",
    )
    axes.set_title(
        "Filled: sees nothing that stays. Named: none is both nearer and faster.", fontsize=9
    )
    return chart


def records() -> dict[str, Record]:
    """The committed records of the benchmark by task, in the order of the list."""
    from research.bench.tasks import TASKS

    made = [name for name in TASKS if (RESULTS / "bench" / f"{name}.json").exists()]
    return {name: read_record(f"bench/{name}") for name in made}


def leaderboard(found: Mapping[str, Record]) -> str:
    """The leaderboard as HTML: a row a method and settings, a column a task; no pixel of the data."""
    rows = {
        (method, how): None
        for record in found.values()
        for (method, how), _ in groups_of(record["cells"], record["requests"])
    }
    cells = {key: [_entry(record, *key) for record in found.values()] for key in rows}
    order = sorted(rows, key=lambda key: _rank(cells[key]))
    heads = "".join(
        f'<th scope="col"><button type="button">{html.escape(record["task"]["title"])}</button></th>'
        for record in found.values()
    )
    body = "".join(_line(*key, cells[key], list(found)) for key in order)
    return (
        '<p class="board-filter"><label>Method <input type="search" id="board-name"></label> '
        '<label><input type="checkbox" id="board-zero"> sees nothing that stays</label> '
        '<label>settings <select id="board-how"><option value="">all</option>'
        '<option value="published">published</option><option value="searched">searched</option></select></label></p>'
        '<div class="board"><table id="board"><thead><tr>'
        '<th scope="col"><button type="button">method</button></th><th scope="col"><button type="button">settings</button></th>'
        f'<th scope="col"><button type="button">seconds</button></th>{heads}</tr></thead><tbody>{body}</tbody></table></div>'
    )


def _entry(record: Record, method: str, how: str) -> dict[str, Any] | None:
    cells = [c for c in record["cells"] if (c["method"], c["how"]) == (method, how)]
    fit = [one for one in cells if one["gap"] is not None]
    if not cells:
        return None
    seconds, settings = mean_of(cells, "seconds"), said(cells)
    if not fit:
        return {"over": None, "seconds": seconds, "settings": settings}
    over, low, high = above_floor(fit, record["requests"])
    # next to what the given model has: a method may have forgotten by forgetting everything
    given = np.mean([one["untouched"]["retained"] for one in record["requests"]])
    lost = float(given - mean_of(fit, "retained"))
    about = {"lost": lost, "seconds": seconds, "settings": settings, "requests": len(cells)}
    about["broken"] = len(cells) - len(fit)
    return {"over": over, "low": low, "high": high, **about}


def _rank(entries: Sequence[dict[str, Any] | None]) -> float:
    """The mean over the tasks that the row has."""
    known = [one["over"] for one in entries if one and one["over"] is not None]
    # a method that broke a model comes after all that did not
    broken = any(one and (one["over"] is None or one["broken"]) for one in entries)
    return (float(np.mean(known)) if known else np.inf) + 1000 * broken


def _line(method: str, how: str, entries: Sequence[dict[str, Any] | None], names: list[str]) -> str:
    known = [one for one in entries if one]
    seconds = float(np.mean([one["seconds"] for one in known]))
    zero = " data-zero" * stays_out(method)
    numbers = "".join(_number(one, name) for one, name in zip(entries, names, strict=True))
    mark = " ●" * stays_out(method)
    return (
        f'<tr data-how="{how}"{zero}><th scope="row"><code>{html.escape(method)}</code>{mark}</th><td>{how}</td>'
        f'<td data-value="{seconds:.3f}">{seconds:.1f}</td>{numbers}</tr>'
    )


def _number(entry: dict[str, Any] | None, task: str) -> str:
    if entry is None:
        return '<td data-value="1e9">–</td>'
    href = f"research/results/bench/{task}.html"
    if entry["over"] is None:
        return f'<td data-value="1e8"><a href="{href}">not finite</a></td>'
    between = ""
    if entry["low"] is not None:
        between = f", 95 % {entry['low']:.1f} to {entry['high']:.1f}"
    about = f"{entry['requests']} requests{between}; {entry['settings']}; retained accuracy {-100 * entry['lost']:+.1f} points"
    dagger = " †" * (entry["lost"] > BEARABLE)
    if entry["broken"]:
        dagger += f" ({entry['requests'] - entry['broken']} of {entry['requests']} finite)"
    return (
        f'<td data-value="{entry["over"]:.3f}"><a href="{href}" title="{html.escape(about)}">'
        f"{entry['over']:.1f}{dagger}</a></td>"
    )

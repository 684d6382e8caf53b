"""The guard without a holdout as a detector of lost accuracy: fit on some nets, scored on others.

    EFFACE_DATA=… python -m research.benchmarks.guard_detector --purpose fit
    EFFACE_DATA=… python -m research.benchmarks.guard_detector --purpose score

Each run leaves one line in the folder of runs, and a run that has its line is not made again. A run
is made without a guard; then the guard, which has the model and the forget records alone, looks at
what came out. The truth is the loss of accuracy on data that nobody used, without the forgotten classes.
"""

import argparse
import inspect
import itertools
import json
import os
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from scipy.stats import beta
from torch import nn

from efface import __version__
from efface.guard import Guard
from research import pages
from research.benchmarks.guard_damage import TASKS, damaged, runs
from research.benchmarks.guard_models import NETS, Net, accuracy, request, trained, unseen
from research.pages import interval, table
from research.tables import commit, write_record

HEAD = """
It has the model and the forget records alone and refuses beyond a drift of {drift} nats or a
relative movement of {movement}. Missed: more than 5 points of true accuracy lost and not refused.
False positive: refused though no more was lost. In brackets Clopper-Pearson intervals, 95 %.
Made by `{command}`, version {code}.
How the limits came about: docs/decisions, page 0001.
"""

# Share of true accuracy beyond which the guard must notice the loss.
LOST = 0.05

# Up to this loss a run counts among those that are hard to notice.
SLIGHT = 0.15


def measured(net: Net, folder: Path) -> Iterator[dict[str, Any]]:
    """One line for each run on a net, made now or before."""
    path = folder / f"{net}.jsonl"
    lines = [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []
    yield from lines
    model = trained(net, folder)
    # the runs have a fixed order, so the number of lines says which are there
    missing = list(runs(mild=net.purpose == "score"))[len(lines) :]
    tasks = {task: _Task(model, net, task) for task in TASKS} if missing else {}
    for run in missing:
        task = tasks[run.task]
        student = damaged(model, task.split, run, seed=net.seed)
        line = {
            "model": str(net),
            **asdict(run),
            "seed": net.seed,
            "accuracy_before": task.before,
            "true_loss": task.before - accuracy(student, task.unseen),
            "movement": _number(task.guard.movement(student)),
            "drift": _number(task.guard.drift(student)),
            "code": code_version(),
        }
        with path.open("a") as file:
            file.write(json.dumps(line, allow_nan=False) + "\n")
        yield line


class _Task:
    """A request on a net, its guard, and what the given model scores on unseen records."""

    def __init__(self, model: nn.Module, net: Net, task: str) -> None:
        self.split = request(net, task)
        self.guard = Guard(model, self.split, seed=net.seed)
        self.unseen = unseen(net, self.split)
        self.before = accuracy(model, self.unseen)


def _number(value: float) -> float | None:
    """None for what is not finite: JSON has no word for it."""
    return value if abs(value) < float("inf") else None


def code_version() -> str:
    """The version and the commit."""
    return f"{__version__} {commit()}"


def trips(line: dict[str, Any], limits: dict[str, float]) -> bool:
    """Whether the guard refuses what the run made."""
    return any(line[kind] is None or line[kind] > limits[kind] for kind in ("movement", "drift"))


def clopper_pearson(count: int, total: int) -> tuple[float, float]:
    """95 % interval of a share."""
    low = float(beta.ppf(0.025, count, total - count + 1)) if count else 0.0
    high = float(beta.ppf(0.975, count + 1, total - count)) if count < total else 1.0
    return low, high


def share(hits: list[bool]) -> dict[str, Any]:
    """How many of how many, with an interval."""
    count, total = sum(hits), len(hits)
    if not hits:
        return {"count": 0, "of": 0, "share": None, "interval": None}
    both = {"share": count / total, "interval": clopper_pearson(count, total)}
    return {"count": count, "of": total, **both}


def scores(lines: list[dict[str, Any]], limits: dict[str, float]) -> dict[str, Any]:
    """Missed: lost more than 5 points and not refused. False positive: the other way round."""
    bad = [line for line in lines if line["true_loss"] > LOST]
    fine = [line for line in lines if line["true_loss"] <= LOST]
    slight = [line for line in bad if line["true_loss"] <= SLIGHT]
    return {
        "runs": len(lines),
        "lost_more_than_5": len(bad),
        "lost_5_to_15": len(slight),
        "missed": share([not trips(line, limits) for line in bad]),
        "missed_5_to_15": share([not trips(line, limits) for line in slight]),
        "false_positives": share([trips(line, limits) for line in fine]),
    }


def fitted(lines: list[dict[str, Any]]) -> dict[str, float]:
    """Limits from the fitting nets: movement spares every harmless run, drift balances errors.

    Drift minimises missed / 10 % + false positives / 20 %, averaged over the data sets, of all
    midpoints; where several are equal, the middle one.
    """
    moved = [line["movement"] for line in lines if line["true_loss"] <= LOST]
    values = sorted({line["drift"] for line in lines if line["drift"] is not None})
    groups = [
        [line for line in lines if line["model"].startswith(data)]
        for data in sorted({line["model"].split("-")[0] for line in lines})
    ]

    def cost(limit: float) -> float:
        found = [scores(group, {"movement": 1e9, "drift": limit}) for group in groups]
        return sum(10 * s["missed"]["share"] + 5 * s["false_positives"]["share"] for s in found)

    middles = [(a + b) / 2 for a, b in itertools.pairwise(values)]
    costs = [cost(limit) for limit in middles]
    # many limits cost the same: the middle of them is the most robust one
    best = [m for m, c in zip(middles, costs, strict=True) if c <= min(costs) + 1e-12]
    return {"movement": max(moved), "drift": best[len(best) // 2]}


def page(record: dict[str, Any]) -> str:
    """All runs, then by model, by task and by method."""
    lines, limits = record["runs"], record["limits"]
    rows = [_row("all", scores(lines, limits))]
    for key in ("model", "task", "method"):
        for value in sorted({line[key] for line in lines}):
            part = [line for line in lines if line[key] == value]
            rows.append(_row(f"{key} {value}", scores(part, limits)))
    return pages.page(
        "The guard without a holdout, as a detector",
        HEAD.format(**record, **limits).strip(),
        table("runs | n | lost > 5 (5 to 15) | missed | of 5 to 15 | false positives", rows),
    )


def _row(name: str, s: dict[str, Any]) -> tuple[str, ...]:
    lost = f"{s['lost_more_than_5']} ({s['lost_5_to_15']})"
    shares = [_cell(s[kind]) for kind in ("missed", "missed_5_to_15", "false_positives")]
    return name, str(s["runs"]), lost, *shares


def _cell(s: dict[str, Any]) -> str:
    if s["share"] is None:
        return "-"
    found = interval(*(100 * value for value in (s["share"], *s["interval"])), form=".0f")
    return f"{s['count']}/{s['of']} = {found.replace(' (', ' % (')}"


def main() -> None:
    """Make or read the runs, and write their record."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--purpose", choices=("fit", "score"), default="score")
    parser.add_argument("--folder", type=Path, default=Path("runs/guard"))
    parser.add_argument("--only", default="", help="models whose name begins so")
    options = parser.parse_args()
    torch.set_num_threads(1)
    nets = [n for n in NETS if n.purpose == options.purpose and str(n).startswith(options.only)]
    lines = [line for net in nets for line in measured(net, options.folder)]
    limits = guard_limits()
    if options.purpose == "fit":
        print("fitted:", fitted(lines))
    for line in lines:
        line["verdict"] = "refuse" if trips(line, limits) else "go on"
    about = {"code": code_version(), "threads": os.environ.get("OMP_NUM_THREADS", "1")}
    found = {**about, "limits": limits, "scores": scores(lines, limits), "runs": lines}
    name = "guard_detector" if options.purpose == "score" else "guard_detector_fit"
    write_record(name, f"guard_detector --purpose {options.purpose}", found)


def guard_limits() -> dict[str, float]:
    """What the guard has by default."""
    defaults = inspect.signature(Guard).parameters
    return {kind: defaults[kind].default for kind in ("movement", "drift")}


if __name__ == "__main__":
    main()

"""The guard without a holdout as a detector of lost accuracy, on models that its limits do not know.

    EFFACE_DATA=… python -m research.benchmarks.guard_detector    # a quarter of an hour of one core

Each run is made without a guard; then the guard, which has the model and the forget records alone,
reads what came out. The truth is the loss of accuracy on data that nobody used, without the forget
classes. The same runs are read with more and fewer, dearer and cheaper synthetic inputs. What was
measured stands in the folder line by line, so that the command goes on where it was stopped.
"""

import argparse
import inspect
import json
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch

from efface import guard
from efface.guard import Guard
from efface.metrics.intervals import clopper_pearson
from efface.types import Split
from research import pages
from research.benchmarks.guard_damage import TASKS, damaged, runs
from research.benchmarks.guard_models import Net, accuracy, request, trained, unseen
from research.pages import interval, origin, table
from research.tables import commit, write_record

# Other widths and seeds than those that the limits were fitted on.
NETS = (
    *(Net("digits", width, seed, 12) for width, seed in ((24, 2), (12, 3), (32, 4))),
    # two of the three nets of the table that was made with the first form of jit
    *(Net("cifar10", width, seed, 12) for width, seed in ((10, 2), (14, 3))),
)
# Unseen records that measure the true loss.
TRUTH = 2000
# Share of true accuracy beyond which the guard must notice the loss.
LOST = 0.05
# Up to this loss a run counts among those that are hard to notice.
SLIGHT = 0.15
# Steps uphill of an impression, and their length: the same way in all.
WAYS = ((20, 0.01), (10, 0.02), (5, 0.04))
COUNTS = (64, 32, 16)


def drifts(
    guards: dict[tuple[int, float], Guard], student: torch.nn.Module
) -> dict[str, float | None]:
    """The drift by inputs of each kind and steps uphill; None where it is not finite."""
    found = {}
    for (steps, _), one in guards.items():
        divergence = one._task.divergence(one._given_outputs, one._outputs_of(student))  # noqa: SLF001
        kinds = divergence.clamp_max(guard.CAP_NATS).split(COUNTS[0])
        for count in COUNTS:
            value = float(torch.cat([kind[:count] for kind in kinds]).mean())
            found[f"{count} of each, {steps} steps"] = value if abs(value) < float("inf") else None
    return found


def guards_of(model: torch.nn.Module, split: Split, seed: int) -> dict[tuple[int, float], Guard]:
    """A guard for each way uphill, which is a constant of the module."""
    found = {}
    for steps, length in WAYS:
        with patch.multiple(guard, COUNT=COUNTS[0], CLIMB=steps, STEP=length):
            found[steps, length] = Guard(model, split, seed=seed)
    return found


def measured(net: Net, folder: Path) -> Iterator[dict[str, Any]]:
    """One line for each run on a net, measured now or, at this commit, before."""
    path = folder / f"{net}-{commit()}.jsonl"
    lines = path.read_text().splitlines(keepends=True) if path.exists() else []
    # a line that was being written when the command was stopped
    lines = [line for line in lines if line.endswith("\n")]
    yield from map(json.loads, lines)
    missing = list(runs())[len(lines) :]
    if not missing:
        return
    model = trained(net, folder)
    splits = {task: request(net, task) for task in TASKS}
    guards = {task: guards_of(model, split, net.seed) for task, split in splits.items()}
    tests = {task: unseen(net, split) for task, split in splits.items()}
    tests = {task: test.take(range(min(len(test), TRUTH))) for task, test in tests.items()}
    before = {task: accuracy(model, test) for task, test in tests.items()}
    for run in missing:
        student = damaged(model, splits[run.task], run, seed=net.seed)
        line: dict[str, Any] = {"model": str(net), **asdict(run)}
        line["true_loss"] = before[run.task] - accuracy(student, tests[run.task])
        moved = guards[run.task][WAYS[0]].movement(student)
        line["movement"] = moved if abs(moved) < float("inf") else None
        line["drift"] = drifts(guards[run.task], student)
        lines.append(json.dumps(line) + "\n")
        path.write_text("".join(lines))
        yield line


def refused(line: dict[str, Any], inputs: str, limits: dict[str, float]) -> bool:
    """Whether the guard refuses what the run made."""
    pairs = (line["movement"], limits["movement"]), (line["drift"][inputs], limits["drift"])
    return any(value is None or value > limit for value, limit in pairs)


def rates(lines: list[dict[str, Any]], inputs: str, limits: dict[str, float]) -> tuple[str, ...]:
    """Runs, those that lost more than 5 points, the missed among them, and false positives."""
    bad = [line for line in lines if line["true_loss"] > LOST]
    slight = [line for line in bad if line["true_loss"] <= SLIGHT]
    fine = [line for line in lines if line["true_loss"] <= LOST]

    def share(some: list[dict[str, Any]], *, wanted: bool) -> str:
        hits = sum(refused(line, inputs, limits) is wanted for line in some)
        if not some:
            return "–"
        found = interval(
            *(100 * v for v in (hits / len(some), *clopper_pearson(hits, len(some)))), form=".0f"
        )
        return f"{hits}/{len(some)} = {found.replace(' (', ' % (')}"

    missed = (share(some, wanted=False) for some in (bad, slight))
    return str(len(lines)), f"{len(bad)} ({len(slight)})", *missed, share(fine, wanted=True)


def parts(lines: list[dict[str, Any]], key: str) -> list[tuple[str, list[dict[str, Any]]]]:
    """The lines by what they have under ``key``, each part with its name."""
    values = sorted({line[key] for line in lines})
    return [(f"{key} {value}", [one for one in lines if one[key] == value]) for value in values]


def main() -> None:
    """Make the runs, and write record and page."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--folder", type=Path, default=Path("runs/guard"))
    options = parser.parse_args()
    torch.set_num_threads(1)
    lines = [line for net in NETS for line in measured(net, options.folder)]
    defaults = inspect.signature(Guard).parameters
    limits = {kind: defaults[kind].default for kind in ("movement", "drift")}
    own = f"{guard.COUNT} of each, {guard.CLIMB} steps"
    write_record(
        "guard_detector", "guard_detector", {"limits": limits, "inputs": own, "runs": lines}
    )


def page(record: dict[str, Any]) -> str:
    """All runs, then by model, by task and by method; and with other inputs."""
    lines, limits, own = record["runs"], record["limits"], record["inputs"]
    rows = [("all", *rates(lines, own, limits))]
    lines = [{**line, "data": line["model"].split("-")[0]} for line in lines]
    for key in ("data", "model", "task", "method"):
        rows += [(name, *rates(part, own, limits)) for name, part in parts(lines, key)]
    columns = "n | lost > 5 (5 to 15) | missed | of 5 to 15 | false positives"
    others = [
        (f"{name}, {inputs}", *rates(part, inputs, limits))
        for name, part in parts(lines, "data")
        for inputs in lines[0]["drift"]
    ]
    return pages.page(
        "The guard without a holdout, as a detector",
        f"{origin(record)}. It has the model and the forget records alone and refuses beyond a drift of "
        f"{limits['drift']} nats or a relative movement of {limits['movement']}. Missed: more than 5 points of true "
        "accuracy lost and not refused. False positive: refused though no more was lost. In brackets Clopper-Pearson "
        "intervals, 95 %. How the limits came about: docs/decisions, page 0001.",
        table(f"runs | {columns}", rows),
        f"The same runs with other inputs: how many of each of the two kinds, and steps uphill of an impression, all "
        f"over the same way. The guard has {own}.",
        table(f"inputs | {columns}", others),
    )


if __name__ == "__main__":
    main()

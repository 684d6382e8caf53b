"""Runs of cells whose workers and runners are killed at random moments, and what is left of them.

A round is a store and a list of cells. A runner makes them; again and again it, or one of its
workers, is sent SIGKILL, and a runner that was killed is started anew, until every cell is done.
Whatever was seen done once must stay as it was, and at the end the store must hold each cell once,
with the numbers and margins of a store that nobody disturbed. The slow suite and
``research/benchmarks/cells_kills.py`` call this with fifty kills, every third round with models.
"""

import contextlib
import fcntl
import json
import os
import random
import signal
import subprocess
import sys
import time
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE))

from efface.cells import Cell, Ran, read, records, run  # noqa: E402
from efface.cells.local import local  # noqa: E402

PROCESSES = 2
KILLS_A_ROUND = 10
ORPHAN_SECONDS = 20.0


def cells_of(round_number, *, real):
    """Eighteen cells of 0.1 to 0.5 s, a third of them on others; if real, three with models."""
    draw = random.Random(round_number)  # noqa: S311
    made = []
    for n in range(18):
        settings = {"n": n, "round": round_number, "seconds": round(draw.uniform(0.1, 0.5), 2)}
        needs = {"one": made[n - 3], "two": made[n - 2]} if n % 3 == 2 and n > 2 else {}
        made.append(Cell("fake_cells:number", settings, needs=needs, guess_seconds=0.3))
    return made + (_with_models(round_number) if real else [])


def _with_models(seed):
    """A base, a retrained and an unlearned model of the digits, each of about a second."""
    from efface.cells.describe import training, unlearning
    from research.recipes import RECIPES

    short = replace(RECIPES["digits-conv"], epochs=1)
    base = training(short, "digits", first=300, seed=seed, keep_weights=True)
    retrained = training(short, "digits", first=300, excluded={"class": 3}, seed=seed)
    jit = unlearning(base, "jit", forget={"class": 3}, forget_classes=[3], guard=False, steps=2)
    return [base, retrained, jit]


def written(cells, path):
    """The cells as a file: a runner that reads it need not load torch to describe them."""
    places = {cell.id: place for place, cell in enumerate(cells)}
    lines = [
        {
            "function": cell.function,
            "settings": cell.settings,
            "needs": {name: places[need.id] for name, need in cell.needs.items()},
            "guess_seconds": cell.guess_seconds,
        }
        for cell in cells
    ]
    path.write_text(json.dumps(lines))


def make(store, described):
    """What a runner's process does."""
    cells = []
    for line in json.loads(Path(described).read_text()):
        needs = {name: cells[place] for name, place in line.pop("needs").items()}
        cells.append(Cell(**line, needs=needs))
    ran = run(cells, store, processes=PROCESSES, engine=partial(local, nice=0))
    return _counted(ran, cells)


def _counted(ran: Ran, cells):
    """The counts of the runner's own rows: each cell is one of them, once."""
    assert len({row.cell.id for row in ran.rows}) == len(ran.rows) == len(cells)
    return ran.counts


def started(store, described):
    """A runner in a process of its own."""
    command = [sys.executable, str(HERE / "cell_kills.py"), "runner", store, described]
    with open(os.devnull, "w") as nowhere, open(f"{store}.log", "a") as log:  # noqa: PTH123
        return subprocess.Popen(command, stdout=nowhere, stderr=log)


def workers_of(runner):
    """The process ids of a runner's workers."""
    found = subprocess.run(["pgrep", "-P", str(runner.pid)], capture_output=True, text=True,
                           check=False)  # fmt: skip
    return [int(word) for word in found.stdout.split()]


def seen(store):
    """Each record that is there, with what tells whether it was written anew."""
    paths = sorted(Path(store).glob("[0-9a-f]*/record.json"))
    return {p.parent.name: (p.stat().st_ino, p.stat().st_mtime_ns) for p in paths}


def killed(folder, *, kills, models, seed=0):
    """Kill until it is enough; the counts, or an error at the first loss."""
    draw = random.Random(seed)  # noqa: S311
    found = {"kills": 0, "of workers": 0, "of runners": 0, "at work in a cell": 0, "rounds": 0,
             "cells": 0, "records": 0, "of them with models": 0, "started anew": 0}  # fmt: skip
    while found["kills"] < kills:
        number = found["rounds"]
        real = models and number % 3 == 0
        cells, described = cells_of(number, real=real), Path(folder, f"cells{number}.json")
        written(cells, described)
        store = f"{folder}/store{number}"
        _round(store, described, draw, found, kills=min(kills, found["kills"] + KILLS_A_ROUND))
        _compare(store, f"{folder}/undisturbed{number}", cells, described)
        found["rounds"] += 1
        found["cells"] += len(cells)
        found["records"] += len(records(store))
        found["of them with models"] += 3 * real
    return found


def _round(store, described, draw, found, *, kills):
    """One store until it is done."""
    runner, done = started(store, described), {}
    while runner.poll() is None:
        time.sleep(draw.uniform(0.2, 1.5))
        if found["kills"] < kills and runner.poll() is None:
            _kill(runner, store, draw, found)
        now = seen(store)
        assert done.items() <= now.items(), "a record that was there is gone, or was written anew"
        done = now
        if runner.poll() == -signal.SIGKILL:
            runner = started(store, described)
            found["started anew"] += 1
    assert runner.returncode == 0, Path(f"{store}.log").read_text()[-2000:]


def _kill(runner, store, draw, found):
    """One SIGKILL, every other one to the runner, whose workers must then end by themselves.

    Two thirds of the moments fall into a cell, the others anywhere, starting up included.
    """
    end = time.monotonic() + (5 if draw.random() < 2 / 3 else 0)
    while not _claimed(store) and time.monotonic() < end:
        time.sleep(0.01)
    time.sleep(draw.uniform(0, 0.3))
    workers = workers_of(runner)
    if not workers:
        return  # still starting
    found["kills"] += 1
    found["at work in a cell"] += _claimed(store)
    if found["kills"] % 2:
        found["of workers"] += 1
        os.kill(draw.choice(workers), signal.SIGKILL)
        return
    found["of runners"] += 1
    runner.kill()
    runner.wait()
    end = time.monotonic() + ORPHAN_SECONDS
    while any(_alive(worker) for worker in workers):
        assert time.monotonic() < end, "a worker lives on without its runner"
        time.sleep(0.02)


def _claimed(store):
    """Whether any cell is claimed: of a killed worker's claim the file is left, not the claim."""
    return any(_held(path) for path in Path(store).glob(".*.lock"))


def _held(path):
    with contextlib.suppress(FileNotFoundError), path.open("r+") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
    return False


def _alive(process):
    """Whether a process is there, and no zombie."""
    state = subprocess.run(["ps", "-o", "stat=", "-p", str(process)], capture_output=True,
                           text=True, check=False).stdout  # fmt: skip
    return bool(state.strip()) and not state.startswith("Z")


def _compare(store, other, cells, described):
    """The store holds what one holds that nobody disturbed, each cell once, and no scratch."""
    assert make(store, described) == {"done": len(cells)}
    assert make(other, described) == {"made": len(cells)}
    assert {record.folder.name for record in records(store)} == {cell.id for cell in cells}
    assert not list(Path(store).glob("*.writing")) + list(Path(store).glob(".*.writing"))
    assert not list(Path(store).glob("failed/*"))
    for cell in cells:
        ours, theirs = read(store, cell), read(other, cell)
        assert _timeless(ours.statistics) == _timeless(theirs.statistics)
        assert ours.margins.keys() == theirs.margins.keys()
        assert all(np.array_equal(ours.margins[n], a) for n, a in theirs.margins.items())


def _timeless(statistics):
    return {name: value for name, value in statistics.items() if "seconds" not in name}


if __name__ == "__main__":
    if sys.argv[1] == "runner":
        make(sys.argv[2], sys.argv[3])
    else:
        print(json.dumps(killed(sys.argv[1], kills=int(sys.argv[2]), models="models" in sys.argv)))  # noqa: T201

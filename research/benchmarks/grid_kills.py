"""Grids of which workers, runners and nodes are killed at random moments, and 10,000 empty jobs.

    python -m research.benchmarks.grid_kills     # research/results/grid_kills.json and .md; half an hour

The code is that of the slow test (tests/grid_kills.py): it ends with an error at the first result
that is lost, changed, half written or doubled. Seeds are fixed; the moments of the kills are times.
"""

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from research import pages
from research.pages import origin, table
from research.tables import write_record

SCRIPT = Path(__file__).parents[2] / "tests" / "grid_kills.py"
KILLS, JOBS = 50, 10_000
# as the script says them
COUNTED = ("kills", "of workers", "of runners", "of nodes", "at work in a job", "rounds", "jobs")
COUNTED += ("of them with models", "results")


def counted(*words: str) -> dict[str, Any]:
    """What the script prints last."""
    with tempfile.TemporaryDirectory() as folder:
        command = [
            sys.executable,
            str(SCRIPT),
            *(folder if one == "FOLDER" else one for one in words),
        ]
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        done = subprocess.run(
            command, check=True, stdout=subprocess.PIPE, text=True, env=environment
        )
    return json.loads(done.stdout.splitlines()[-1])


def main() -> None:
    """Count on processes and on Ray, and write the record and its page."""
    found = {
        "processes": counted("FOLDER", str(KILLS), "models"),
        "ray": counted("FOLDER", str(KILLS), "models", "ray"),
    }
    load = {name: counted("load", "FOLDER", str(JOBS), name) for name in found}
    write_record("grid_kills", "grid_kills", {"seed": 0, "found": found, "load": load})


def page(record: dict[str, Any]) -> str:
    """The page from the record."""
    kills, load = record["found"], record["load"]
    names = {"processes": "processes", "ray": "Ray, two nodes"}
    rows = [[what, *(f"{kills[one].get(what, 0)}" for one in names)] for what in COUNTED]
    rows += [["lost, half written or different", "0", "0"], ["written twice", "0", "0"]]
    costs = [
        [one, f"{found['jobs']:,}", f"{1000 * found['seconds'] / found['jobs']:.0f}",
         *(f"{size:.0f}" for size in found["resident"])]
        for one, found in load.items()
    ]  # fmt: skip
    return pages.page(
        "Grids: nothing lost, nothing counted twice",
        f"{origin(record)}. SIGKILL at a random moment, to a worker, to the runner (whose workers then end by themselves) or, on Ray, to a whole "
        "node, another one taking its place. Two workers a runner, several stores one after another, some with models of the digits (trained, "
        "retrained, unlearned). A killed runner was started again until every job was done. After each kill every "
        "result that had been there was checked (the same file, unchanged); at the end each store held each "
        "job once, no scratch, and the numbers and arrays, bit for bit, of a store that nobody disturbed. The count ends with an error at the first "
        "that is lost, changed or written again.",
        table("what | processes | Ray, two nodes", rows),
        "Jobs that do nothing, two at a time: what the grid itself costs, and how much memory the runner has with a tenth of them done and at the end: each job described and each row known to it takes some 2.6 kB. Both on a machine that was busy with other work.",
        table("on | jobs | ms a job | MiB after a tenth | MiB at the end", costs),
    )


if __name__ == "__main__":
    main()

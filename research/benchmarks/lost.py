"""Requests that are stopped, disks that fill up, files and arguments that are broken: the counts.

    python -m research.benchmarks.lost            # writes research/results/lost.json and .md; about ten minutes
    python -m research.benchmarks.lost SIGINT fuzz     # some counts again, the others as recorded

The code is that of the slow tests; seeds are fixed, moments of the kills are not (they are times).
"""

import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from research import pages
from research.pages import table
from research.tables import read_record, write_record

TESTS = Path(__file__).parents[2] / "tests"
# most kills are SIGKILL: the one signal that no handler softens
KILLS = {"SIGKILL": 210, "SIGINT": 40, "SIGTERM": 40}
INPUTS = 10_000


def run(script: str, *arguments: str) -> dict:
    """One of the tests' scripts in a process and a folder of its own; what it prints last."""
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, TESTS / script, f"{folder}/work", *arguments]
        Path(folder, "work").mkdir()
        done = subprocess.run(command, check=True, capture_output=True, text=True)
    return json.loads(done.stdout.splitlines()[-1])


def main() -> None:
    """Kills of three kinds, then broken input."""
    only = sys.argv[1:]
    old = read_record("lost") if only else {}
    kills = {
        kind: run("kills.py", str(count), kind) if not only or kind in only else old["kills"][kind]
        for kind, count in KILLS.items()
    }
    fuzz = run("fuzz.py", str(INPUTS)) if not only or "fuzz" in only else old["fuzz"]
    write_record("lost", "lost", {"kills": kills, "fuzz": fuzz})


def page(record: dict[str, Any]) -> str:
    """The table from the record."""
    fuzz, rows = record["fuzz"], []
    for kind, found in record["kills"].items():
        counts = (found["absent"] + found["whole"], found["absent"], found["whole"])
        rows.append((kind, *map(str, counts), str(found["scratch left"])))
    refused = sum(n for name, n in fuzz["counts"].items() if name.endswith("refused"))
    return pages.page(
        "Nothing lost",
        f"{record['date']}, `{record['command']}`. Every old file was compared byte for byte after "
        "each stop; an existing result was loaded and compared with the digest in its manifest; "
        "the count ends with an error at the first half result or changed file, and it did not.",
        table(
            "stopped by | requests | new folder absent | whole | hidden scratch left for the next run",
            rows,
        ),
        f"Broken input: {fuzz['inputs']} files and command lines, {refused} refused in a sentence, "
        f"{len(fuzz['bad'])} otherwise (crash, no words, something run or written, over 20 s).",
    )


if __name__ == "__main__":
    main()

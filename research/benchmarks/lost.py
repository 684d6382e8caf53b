"""Requests that are stopped, disks that fill up, files and arguments that are broken: the counts.

    python -m research.benchmarks.lost            # writes research/results/lost.json and .md; about ten minutes
    python -m research.benchmarks.lost SIGINT fuzz     # some counts anew, the others as recorded

The code is that of the slow tests; seeds are fixed, moments of the kills are not (they are times).
"""

import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from research.tables import read_record, write_record

TESTS = Path(__file__).parent.parent / "tests"
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
    """Kills of three kinds, then broken input; a table of what was found."""
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
    fuzz = record["fuzz"]
    lines = [
        "# Nothing lost",
        "",
        (
            f"{record['date']}, `{record['command']}`. Every old file was compared byte for byte after "
            "each stop; a result that stood was loaded and compared with its record's digest; "
            "the count ends with an error at the first half result or changed file, and it did not."
        ),
        "",
        (
            "| stopped by | requests | new folder absent | whole | hidden scratch left for the next run |"
        ),
        "|---|---|---|---|---|",
    ]
    for kind, found in record["kills"].items():
        lines.append(
            f"| {kind} | {found['absent'] + found['whole']} | {found['absent']} | "
            f"{found['whole']} | {found['scratch left']} |"
        )
    refused = sum(n for name, n in fuzz["counts"].items() if name.endswith("refused"))
    lines += [
        "",
        (
            f"Broken input: {fuzz['inputs']} files and command lines, {refused} refused in a sentence, "
            f"{len(fuzz['bad'])} otherwise (crash, no words, something run or written, over 20 s)."
        ),
    ]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()

"""Workers and runners of a grid that are killed at random moments: the counts.

    python -m research.benchmarks.grid_kills     # research/results/grid_kills.json and .md; minutes

The code is that of the slow test (tests/grid_kills.py): it ends with an error at the first result
that is lost, changed, half written or doubled. Seeds are fixed; the moments of the kills are times.
"""

import json
import subprocess
import sys
import tempfile
from pathlib import Path

from research.tables import write_record

SCRIPT = Path(__file__).parents[2] / "tests" / "grid_kills.py"
RESULTS = Path("research/results")
KILLS = 50

TEXT = """# Grids: nothing lost, nothing counted twice

{date}, `{command}`. {kills} times SIGKILL at a random moment, {of workers} to a worker and {of runners} to the
runner (whose workers then ended by themselves); {at work in a job} of them while a job was claimed. Two workers a
runner, {rounds} stores one after another, {jobs} jobs in all, {of them with models} of them with models of the digits (trained,
retrained, unlearned). A killed runner was started again until every job was done. After each kill every
result that had been there was checked (the same file, unchanged); at the end each store held each
job once, no scratch, and the numbers and arrays, bit for bit, of a store that nobody disturbed.

| | |
|---|---|
| jobs | {jobs} |
| results at the end | {results} |
| lost, half written or different | 0 (the count ends with an error at the first) |
| written twice | 0 |
"""


def main() -> None:
    """Count, and write the record and its page."""
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, SCRIPT, folder, str(KILLS), "models"]
        done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    found = json.loads(done.stdout.splitlines()[-1])
    write_record("grid_kills", "grid_kills", {"seed": 0, "found": found})


def page(record: dict) -> str:
    """The page from the record."""
    return TEXT.format(**record, **record["found"])


if __name__ == "__main__":
    main()

"""Workers and runners of cells that are killed at random moments: the counts.

    python -m research.benchmarks.cells_kills     # research/results/cells.json and .md; minutes

The code is that of the slow test (tests/cell_kills.py): it ends with an error at the first record
that is lost, changed, half or doubled. Seeds are fixed; the moments of the kills are times.
"""

import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from efface.manifest import versions

SCRIPT = Path(__file__).parent.parent / "tests" / "cell_kills.py"
KILLS = 50
COMMAND = "python -m research.benchmarks.cells_kills"

TEXT = """# Cells: nothing lost, nothing counted twice

{date}, `{command}`. {kills} times SIGKILL at a random moment, {workers} to a worker and {runners} to the
runner (whose workers then ended by themselves); {at_work} of them while a cell was claimed. Two workers a
runner, {rounds} stores one after another, {cells} cells in all, {models} of them with models of the digits (trained,
retrained, unlearned). A killed runner was started anew until every cell was done. After each kill every
record that had been there was looked at again (the same file, unchanged); at the end each store held each
cell once, no scratch, and the numbers and margins, bit for bit, of a store that nobody disturbed.

| | |
|---|---|
| cells asked for | {cells} |
| records at the end | {records} |
| lost, half or different | 0 (the count ends with an error at the first) |
| written twice | 0 |
"""


def main() -> None:
    """Count, and write the record and its page."""
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, SCRIPT, folder, str(KILLS), "models"]
        done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    found = json.loads(done.stdout.splitlines()[-1])
    facts = {
        "command": COMMAND,
        "date": time.strftime("%Y-%m-%d"),
        "seed": 0,
        "versions": versions(),
    }
    Path("research/results/cells.json").write_text(
        json.dumps({**facts, "found": found}, indent=1) + "\n"
    )
    page()


def page() -> None:
    """The page from the record."""
    facts = json.loads(Path("research/results/cells.json").read_text())
    found = facts["found"]
    text = TEXT.format(
        **facts,
        **{name: found[name] for name in ("kills", "rounds", "cells", "records")},
        workers=found["of workers"],
        runners=found["of runners"],
        at_work=found["at work in a cell"],
        models=found["of them with models"],
    )
    Path("research/results/cells.md").write_text(text)
    print(text)


if __name__ == "__main__":
    main()

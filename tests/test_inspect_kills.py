"""``kill -9`` at any moment: what was there stays, the new folder is whole or absent, and on."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parent / "inspect_kills.py"


@pytest.mark.parametrize("count", [5, pytest.param(100, marks=pytest.mark.slow)])
def test_a_killed_inspection_goes_on_and_ends_with_the_same_bytes(tmp_path, count):
    """In a process of its own: one with threads of other tests must not fork."""
    done = subprocess.run(
        [sys.executable, SCRIPT, tmp_path, str(count)],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    assert found["kills"] == count
    assert found["went on from a shard"] >= count / 5

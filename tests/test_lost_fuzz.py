"""Broken input costs a sentence: no crash, nothing run, nothing written."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parent / "fuzz.py"


@pytest.mark.parametrize("count", [300, pytest.param(10_000, marks=pytest.mark.slow)])
def test_broken_files_and_arguments_end_in_words(tmp_path, count):
    """Each line of ``bad`` names the batch and the row that make it again."""
    done = subprocess.run(
        [sys.executable, SCRIPT, tmp_path / "fuzz", str(count)],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    assert found["bad"] == []
    assert found["inputs"] == count
    refused = sum(n for name, n in found["counts"].items() if name.endswith("refused"))
    assert refused > count / 2

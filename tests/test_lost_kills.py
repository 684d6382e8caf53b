"""Whatever stops a request, at any moment: old files are as they were, new ones whole or absent."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parent / "kills.py"


def run(folder, count, kind):
    """In a process of its own: one with threads of other tests must not fork."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, SCRIPT, folder, str(count), kind],
        capture_output=True,
        text=True,
        check=False,
        env=environment,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


@pytest.mark.parametrize(
    ("kind", "count"),
    [
        ("SIGKILL", 6),
        ("SIGTERM", 2),
        pytest.param("SIGKILL", 200, marks=pytest.mark.slow),
        pytest.param("SIGINT", 40, marks=pytest.mark.slow),
        pytest.param("SIGTERM", 40, marks=pytest.mark.slow),
    ],
)
def test_a_stopped_request_leaves_the_old_state_or_the_whole_result(tmp_path, kind, count):
    """Law 4; ``kill -9`` gives no program a chance to clean up."""
    found = run(tmp_path, count, kind)
    assert found["absent"] + found["whole"] == count
    assert count < 20 or found["absent"] > count / 4  # else no signal arrived


@pytest.mark.parametrize("count", [5, pytest.param(60, marks=pytest.mark.slow)])
def test_a_training_that_was_killed_and_started_again_ends_with_the_same_bytes(tmp_path, count):
    """A week of training must not be lost, nor become another model for having been stopped."""
    found = run(tmp_path, count, "training")
    assert found["kills"] == count
    assert found["went on from an epoch"] >= count / 5

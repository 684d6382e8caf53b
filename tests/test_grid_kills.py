"""Whatever kills workers and runners, at any moment: nothing is lost, nothing counted twice."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parent / "grid_kills.py"


KILLS = [
    (8, ()),
    (4, ("ray",)),
    pytest.param(50, ("models",), marks=pytest.mark.slow),
    pytest.param(50, ("models", "ray"), marks=pytest.mark.slow),
]


@pytest.mark.parametrize(("kills", "how"), KILLS)
def test_killed_runs_come_to_the_store_of_an_undisturbed_one(tmp_path, kills, how):
    """The script ends with an error at the first result that is lost, changed or doubled."""
    if "ray" in how:
        pytest.importorskip("ray")
    command = [sys.executable, SCRIPT, tmp_path, str(kills), *how]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    assert found["kills"] == kills
    assert min(found["of workers"], found["of runners"]) > 0
    assert (found.get("of nodes", 0) > 0) == ("ray" in how)
    assert found["at work in a job"] > kills / 3

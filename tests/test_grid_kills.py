"""Whatever kills workers and runners, at any moment: nothing is lost, nothing counted twice."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parent / "grid_kills.py"


KILLS = [(8, ()), pytest.param(50, ("models",), marks=pytest.mark.slow)]


@pytest.mark.parametrize(("kills", "models"), KILLS)
def test_killed_runs_come_to_the_store_of_an_undisturbed_one(tmp_path, kills, models):
    """The script ends with an error at the first result that is lost, changed or doubled."""
    command = [sys.executable, SCRIPT, tmp_path, str(kills), *models]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    assert found["kills"] == kills
    assert min(found["of workers"], found["of runners"]) > 0
    assert found["at work in a job"] > kills / 3

"""Jobs that cost next to nothing, for tests of the grid; workers import this file."""

import os
import signal
import time
from pathlib import Path

import numpy as np
from fake_helper import doubled

from efface.grid import JobOutput, read


def number(settings, needs, shared):  # noqa: ARG001
    """Take its time, then give its number and that of the jobs that it needs."""
    print("a job may print")  # noqa: T201
    time.sleep(settings.get("seconds", 0.0))
    needed = [read(folder.parent, folder.name).statistics["total"] for folder in needs.values()]
    n = settings["n"]
    return JobOutput({"total": doubled(n) + sum(needed)}, {"n": np.full(3, n / 3, np.float16)})


def broken(settings, needs, shared):  # noqa: ARG001
    """Fail, until a file says that it is mended."""
    if not Path(settings["mended"]).exists():
        raise ValueError("it is [red]broken[/red]")
    return JobOutput({"total": 1})


def deadly(settings, needs, shared):  # noqa: ARG001
    """End its own worker, as a machine without memory does."""
    time.sleep(settings.get("seconds", 0.0))
    os.kill(os.getpid(), signal.SIGKILL)


def unheard(settings, needs, shared):  # noqa: ARG001
    """End its own worker once the result is there, before the runner hears of it."""
    # what follows the rename of a result
    Path.unlink = lambda *_, **__: os.kill(os.getpid(), signal.SIGKILL)
    return JobOutput({"total": 1})


def surroundings(settings, needs, shared):  # noqa: ARG001
    """How a worker runs."""
    return JobOutput({"nice": os.nice(0), "threads": os.environ["OMP_NUM_THREADS"]})

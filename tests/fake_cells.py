"""Cells that cost next to nothing, for tests of the runner; workers import this file."""

import os
import signal
import time
from pathlib import Path

import numpy as np
from fake_helper import doubled

from efface.cells import Reduced, read


def number(settings, inputs, shared):  # noqa: ARG001
    """Take its time, then give its number and that of the cells that it needs."""
    print("a cell may print")  # noqa: T201
    time.sleep(settings.get("seconds", 0.0))
    needed = [read(folder.parent, folder.name).statistics["total"] for folder in inputs.values()]
    n = settings["n"]
    return Reduced({"total": doubled(n) + sum(needed)}, {"n": np.full(3, n / 3)})


def broken(settings, inputs, shared):  # noqa: ARG001
    """Fail, until a file says that it is mended."""
    if not Path(settings["mended"]).exists():
        raise ValueError("it is [red]broken[/red]")
    return Reduced({"total": 1})


def deadly(settings, inputs, shared):  # noqa: ARG001
    """End its own worker, as a machine without memory does."""
    os.kill(os.getpid(), signal.SIGKILL)


def surroundings(settings, inputs, shared):  # noqa: ARG001
    """How a worker runs."""
    return Reduced({"nice": os.nice(0), "threads": os.environ["OMP_NUM_THREADS"]})

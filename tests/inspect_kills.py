"""Inspections that are killed at random moments and started again until they end.

As ``kills.py`` does it for requests and trainings, whose helpers these are.
"""

import contextlib
import json
import os
import random
import shutil
import signal
import sys
import time
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).parent))
from kills import contents, ended, prepared, started

from efface.ranking import run


def inspection(folder):
    """The words of a whole inspection."""
    f = str(folder)
    return ["inspect", f"{f}/model", "--data", f"{f}/data:test", "--out", f"{f}/looked", "--sigma",
            "0.2", "--copies", "4", "--device", "cpu"]  # fmt: skip


def killed(folder, *, count, seed=0):
    """Kill ``count`` times, each started again until it ends, with the bytes of one undisturbed."""
    draw, out = random.Random(seed), folder / "looked"  # noqa: S311
    kept = folder / ".looked.inspecting"
    began = time.perf_counter()
    assert ended(started(folder, inspection)) == 0
    seconds, expected = time.perf_counter() - began, contents(out)
    shutil.rmtree(out)
    old = contents(folder)
    found = {"kills": 0, "ended": 0, "went on from a shard": 0}
    while found["kills"] < count or kept.exists():
        shutil.rmtree(out, ignore_errors=True)
        found["went on from a shard"] += any(kept.glob("[0-9]*.npz"))
        child = started(folder, inspection)
        if found["kills"] < count:
            time.sleep(draw.uniform(0.1, 1.0) * seconds)
            with contextlib.suppress(ProcessLookupError):
                os.kill(child, signal.SIGKILL)
        code = ended(child)
        assert code in {0, -signal.SIGKILL}, f"exit {code}"
        found["kills" if code else "ended"] += 1
        assert not out.exists() or contents(out) == expected, "not the files of a whole inspection"
        seen = contents(folder)
        assert {name: seen[name] for name in old} == old, "an old file is not what it was"
    assert ended(started(folder, inspection)) == (2 if out.exists() else 0)
    assert contents(out) == expected
    assert not [path.name for path in folder.iterdir() if path.name.startswith(".looked")]
    return {"seconds of a whole inspection": round(seconds, 2), **found}


if __name__ == "__main__":
    torch.set_num_threads(1)
    run.SHARD = 50
    print(json.dumps(killed(prepared(Path(sys.argv[1])), count=int(sys.argv[2]))))  # noqa: T201

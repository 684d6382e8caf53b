"""Requests, trainings and inspections that are stopped at random moments, and what is left of them.

A process that has imported everything forks a child for each run, so that a kill lands in the run
and not in the imports. The slow suite and ``research/benchmarks/lost.py`` call this with hundreds.
"""

import contextlib
import hashlib
import json
import os
import random
import shutil
import signal
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from run_files import MADE

from efface import cli
from efface.errors import Outcome
from efface.io.data import load_data
from efface.io.models import load_model, save_trained
from efface.manifest import Manifest, state_digest
from efface.ranking import run
from examples.demo import write_data
from research.recipes import RECIPES, description, fresh
from research.train import app as train_app

FILES = {f"model/{name}" for name in ("model.safetensors", "recipe.json")}
FILES |= {f"evidence/{name}" for name in ("manifest.json", "evidence.json", "report.html")}
FILES |= {"evidence/exclude.csv", "evidence/records.csv"}
# of what ran to its end, whatever came of it
ENDED = {outcome.exit_code for outcome in Outcome}


def prepared(folder, ids=12, net=None, **facts):
    """A model that was shown each digit twice, its data, and the ids of the first to forget."""
    write_data(folder / "data")
    table, recipe = load_data(folder / "data"), RECIPES["digits-conv"]
    records = table.records(None, recipe.preprocessing)
    net = net or fresh(recipe, 10, seed=0)
    optimizer = torch.optim.Adam(net.parameters(), lr=0.01)
    for rows in np.array_split(np.tile(np.arange(len(records)), 2), 40):
        optimizer.zero_grad()
        torch.nn.functional.cross_entropy(net(records.x[rows]), records.y[rows]).backward()
        optimizer.step()
    facts = {**description("digits-conv", table, seed=0, command="a test"), **facts}
    save_trained(folder / "model", net.eval(), facts)
    (folder / "ids.csv").write_text("\n".join(["id", *table.ids[1 : ids + 1]]) + "\n")
    return folder


def contents(folder):
    """Each file under a folder with the digest of its bytes."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {str(p.relative_to(folder)): hashlib.sha256(p.read_bytes()).hexdigest() for p in files}


def request(f):
    """A whole request, run in this process."""
    line = f"forget {f}/model --data {f}/data --ids {f}/ids.csv --holdout {f}/data:test"
    cli.main(f"{line} --out {f}/out --setting steps=6 --device cpu".split())


def inspection(f):
    """A whole inspection."""
    line = f"inspect {f}/model --data {f}/data:test --out {f}/out"
    cli.main(f"{line} --sigma 0.2 --copies 4 --device cpu".split())


def training(f):
    """A whole training."""
    with cli.exits():
        train_app(["digits-conv", "--data", f"{f}/data", "--out", f"{f}/out", "--device", "cpu"],
                  exit_on_error=False)  # fmt: skip


def started(command, folder):
    """A child that runs a command; gives its process id."""
    child = os.fork()
    if child:
        return child
    code = 70
    try:
        signal.signal(signal.SIGINT, signal.default_int_handler)  # a background job ignores it
        torch.set_num_threads(1)
        quiet = os.open(os.devnull, os.O_WRONLY)
        for stream in (1, 2):
            os.dup2(quiet, stream)
        command(folder)
        code = 0
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else 1
        code = 0 if code in MADE else code
    except BaseException:  # noqa: BLE001  # a child must never come back into the tests
        code = 71
    finally:
        os._exit(code)


def ended(child, kill_after=None, number=signal.SIGKILL):
    """The exit code of a child, or minus the signal that ended it; killed after some seconds."""
    if kill_after is not None:
        time.sleep(kill_after)
        with contextlib.suppress(ProcessLookupError):
            os.kill(child, number)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def undisturbed(command, folder):
    """Seconds of a run that nobody stops, which must end well, and the files that it wrote."""
    began = time.perf_counter()
    code = ended(started(command, folder))
    assert code in ENDED, f"an undisturbed run ended with {code}"
    return time.perf_counter() - began, contents(folder / "out")


def whole(out):
    """Whether what stands at ``out`` is the whole result: loads, and is what its manifest says."""
    assert set(contents(out)) == FILES
    digest = state_digest(load_model(out / "model").model.state_dict())
    return digest == Manifest.read(out / "evidence").weights["new"]


def stopped(folder, *, count, number=signal.SIGKILL, seed=0):
    """Stop ``count`` requests at random moments; the counts, or an error at the first loss.

    A third of the moments fall into the last eighth of a request, where it writes.
    """
    draw, old, out = random.Random(seed), contents(folder), folder / "out"  # noqa: S311
    seconds = []
    for _ in range(2 if count > 10 else 1):  # a few kills need no exact time
        seconds.append(undisturbed(request, folder)[0])
        assert whole(out)
        shutil.rmtree(out)
    found = {"absent": 0, "whole": 0, "ended before the signal": 0, "scratch left": 0}
    for attempt in range(count):
        low, high = (0.85, 1.05) if attempt % 3 == 0 else (0, 1.0)
        child = started(request, folder)
        code = ended(child, min(seconds) * draw.uniform(low, high), number)
        assert code in {*ENDED, -number, 128 + number}, f"attempt {attempt}: exit {code}"
        found["ended before the signal"] += code in ENDED
        if out.exists():
            assert whole(out), f"attempt {attempt}: the result is not what its manifest says"
            shutil.rmtree(out)
        found["whole" if code in ENDED else "absent"] += 1
        left = sorted(path for path in folder.iterdir() if path.name.startswith(".out"))
        found["scratch left"] += bool(left)
        assert number == signal.SIGKILL or not left, f"attempt {attempt}: {left}"
        for path in left:  # a killed run's; the next run would remove it too
            shutil.rmtree(path, ignore_errors=True) if path.is_dir() else path.unlink()
        assert contents(folder) == old, f"attempt {attempt}: an old file is not what it was"
    return {"seconds of a whole request": round(min(seconds), 2), **found}


def resumed(folder, command, progress, *, count, seed=0):
    """Kill a command ``count`` times, each started again until it ends, with the bytes of one run.

    ``progress``: the pattern of the files next to ``out`` from which it resumes.
    """
    draw, out = random.Random(seed), folder / "out"  # noqa: S311
    seconds, expected = undisturbed(command, folder)
    shutil.rmtree(out)
    old, found = contents(folder), {"kills": 0, "ended": 0, "resumed": 0}
    while found["kills"] < count or list(folder.glob(progress)):
        shutil.rmtree(out, ignore_errors=True)
        found["resumed"] += bool(list(folder.glob(progress)))
        moment = draw.uniform(0.1, 1.0) * seconds if found["kills"] < count else None
        code = ended(started(command, folder), moment)
        assert code in {*ENDED, -signal.SIGKILL}, f"exit {code}"
        found["ended" if code in ENDED else "kills"] += 1
        assert not out.exists() or contents(out) == expected, "not the files of a whole run"
        seen = contents(folder)
        assert {name: seen[name] for name in old} == old, "an old file is not what it was"
    assert ended(started(command, folder)) == (2 if out.exists() else 0)
    assert contents(out) == expected
    assert not [path.name for path in folder.iterdir() if path.name.startswith(".out")]
    return {"seconds of a whole run": round(seconds, 2), **found}


def main(folder, count, kind):
    """What the tests and the benchmark start: stopped requests, or killed and resumed runs."""
    torch.set_num_threads(1)
    prepared(folder)
    if kind == "training":
        RECIPES["digits-conv"] = replace(RECIPES["digits-conv"], epochs=6)
        return resumed(folder, training, ".out.training", count=count)
    if kind == "inspection":
        run.SHARD = 50
        return resumed(folder, inspection, ".out.inspecting/[0-9]*.npz", count=count)
    return stopped(folder, count=count, number=getattr(signal, kind))


if __name__ == "__main__":
    print(json.dumps(main(Path(sys.argv[1]), int(sys.argv[2]), sys.argv[3])))  # noqa: T201

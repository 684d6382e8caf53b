"""Requests and trainings that are stopped at random moments, and what is left of them.

A process that has imported everything forks a child for each request, so that a kill lands in the
request and not in the imports. The slow suite and ``research/benchmarks/lost.py`` call this with hundreds.
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

import torch

from efface import cli
from efface.io.data import load_data
from efface.io.models import load_model, save_trained
from efface.manifest import state_digest
from examples.demo import write_data
from research.recipes import RECIPES, description, fresh

IDS = 12


def prepared(folder):
    """A small model (its head alone has moved from chance), its data, and twelve ids to forget."""
    write_data(folder / "data")
    table, recipe = load_data(str(folder / "data")), RECIPES["digits-conv"]
    records = table.records(None, recipe.preprocessing)
    model = fresh(recipe, 10, seed=0)
    optimizer = torch.optim.Adam(model.parameters(), 1e-2)
    for _ in range(15):
        optimizer.zero_grad()
        torch.nn.functional.cross_entropy(model(records.x), records.y).backward()
        optimizer.step()
    save_trained(
        folder / "model", model.eval(), description("digits-conv", table, seed=0, command="")
    )
    (folder / "ids.csv").write_text("\n".join(["id", *table.ids[:IDS]]) + "\n")
    return folder


def contents(folder):
    """Each file under a folder with the digest of its bytes."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {str(p.relative_to(folder)): hashlib.sha256(p.read_bytes()).hexdigest() for p in files}


def request(folder):
    """The words of a whole request."""
    f = str(folder)
    return ["forget", f"{f}/model", "--data", f"{f}/data", "--ids", f"{f}/ids.csv", "--holdout",
            f"{f}/data:test", "--out", f"{f}/out", "--setting", "steps=6",
            "--device", "cpu"]  # fmt: skip


def training(folder):
    """The words of a whole training."""
    f = str(folder)
    return ["train", "digits-conv", "--data", f"{f}/data", "--out", f"{f}/net", "--device", "cpu"]


def started(folder, words=request):
    """A child that runs one whole command; gives its process id."""
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
        cli.main(words(folder))
        code = 0
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else 1
    except BaseException:  # noqa: BLE001  # a child must never come back into the tests
        code = 71
    finally:
        os._exit(code)


def ended(child):
    """The exit code of a child, or minus the signal that ended it."""
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def whole(out):
    """Whether what stands at ``out`` is the whole result: loads, and is what its record says."""
    loaded, record = load_model(out), json.loads((out / "manifest.json").read_text())
    expected = {"model.safetensors", "recipe.json", "manifest.json", "evidence.json", "report.html",
                "exclude.csv", "exclude.key"}  # fmt: skip
    assert {path.name for path in out.iterdir()} == expected
    return state_digest(loaded.model.state_dict()) == record["weights"]["new"]


def stopped(folder, *, count, number=signal.SIGKILL, seed=0):
    """Stop ``count`` requests at random moments; what was found, or an error at the first loss.

    A third of the moments fall into the last eighth of a request, where it writes.
    """
    draw, old = random.Random(seed), contents(folder)  # noqa: S311
    seconds = min(_undisturbed(folder) for _ in range(2))
    found = {"absent": 0, "whole": 0, "ended before the signal": 0, "scratch left": 0}
    for attempt in range(count):
        late = attempt % 3 == 0
        moment = seconds * (draw.uniform(0.85, 1.05) if late else draw.uniform(0, 1.0))
        child = started(folder)
        time.sleep(moment)
        with contextlib.suppress(ProcessLookupError):
            os.kill(child, number)
        code = ended(child)
        assert code in {0, -number, 128 + number}, f"attempt {attempt}: exit {code}"
        found["ended before the signal"] += code == 0
        out = folder / "out"
        if out.exists():
            assert whole(out), f"attempt {attempt}: the result is not what its record says"
            shutil.rmtree(out)
        found["whole" if code == 0 else "absent"] += 1
        left = sorted(path for path in folder.iterdir() if path.name.startswith(".out"))
        found["scratch left"] += bool(left)
        assert number == signal.SIGKILL or not left, f"attempt {attempt}: {left}"
        for path in left:  # a killed run's; the next run would remove it too
            shutil.rmtree(path, ignore_errors=True) if path.is_dir() else path.unlink()
        assert contents(folder) == old, f"attempt {attempt}: an old file is not what it was"
    return {"seconds of a whole request": round(seconds, 2), **found}


def trained(folder, *, count, seed=0):
    """Kill trainings ``count`` times, each started again until it ends; or an error at a loss.

    Each must end with the very files of a training that nobody stopped.
    """
    draw, out, state = random.Random(seed), folder / "net", folder / ".net.training"  # noqa: S311
    began = time.perf_counter()
    assert ended(started(folder, training)) == 0
    seconds, old, expected = time.perf_counter() - began, contents(folder), contents(out)
    found = {"kills": 0, "ended": 0, "went on from an epoch": 0}
    while found["kills"] < count or state.exists():
        shutil.rmtree(out, ignore_errors=True)
        found["went on from an epoch"] += state.exists()
        child = started(folder, training)
        if found["kills"] < count:
            time.sleep(draw.uniform(0.1, 0.9) * seconds)
            with contextlib.suppress(ProcessLookupError):
                os.kill(child, signal.SIGKILL)
        code = ended(child)
        assert code in {0, -signal.SIGKILL}, f"exit {code}"
        found["kills" if code else "ended"] += 1
        assert not out.exists() or contents(out) == expected, "not the files of a whole training"
        if state.exists():
            torch.load(state, weights_only=True)
        seen = {name: digest for name, digest in contents(folder).items() if name[0] != "."}
        assert seen == {n: d for n, d in old.items() if out.exists() or not n.startswith("net/")}
    assert ended(started(folder, training)) == (0 if not out.exists() else 2)
    assert contents(out) == expected
    assert not [path.name for path in folder.iterdir() if path.name.startswith(".net")]
    return {"seconds of a whole training": round(seconds, 2), **found}


def _undisturbed(folder):
    """Seconds of a request that nobody stops; it must end well, and its result is removed."""
    began = time.perf_counter()
    code = ended(started(folder))
    assert code == 0, f"an undisturbed request ended with {code}"
    assert whole(folder / "out")
    shutil.rmtree(folder / "out")
    return time.perf_counter() - began


def main(folder, count, kind):
    """What the tests and the benchmark start: stopped requests, or killed trainings."""
    torch.set_num_threads(1)
    prepared(folder)
    if kind == "training":
        RECIPES["digits-conv"] = replace(RECIPES["digits-conv"], epochs=6)
        return trained(folder, count=count)
    return stopped(folder, count=count, number=getattr(signal, kind))


if __name__ == "__main__":
    print(json.dumps(main(Path(sys.argv[1]), int(sys.argv[2]), sys.argv[3])))  # noqa: T201

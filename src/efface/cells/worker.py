"""One worker: takes cells from its standard input, one JSON line each, and answers in kind.

When the input ends, because the runner has ended however that came about, the worker ends at once:
what it was at is claimed by nobody from then on, and its scratch goes with the next claim.
"""

import contextlib
import importlib
import json
import os
import queue
import sys
import threading
import time
import traceback
from pathlib import Path
from typing import Any, TextIO

from efface.cells.cell import canonical
from efface.cells.sources import addresses_in, digest_of
from efface.cells.store import failure, is_done, write, write_failure
from efface.errors import InputError
from efface.io.atomic import claimed

Job = dict[str, Any]
"""``store``, ``id``, ``description``, ``kind``, and ``again``: whether a failed cell is retried."""


def attempt(job: Job) -> dict[str, Any]:
    """Make one cell, unless it is there, has failed, or is claimed: ``state`` and ``seconds``."""
    store, identity = Path(job["store"]), job["id"]
    out = store / identity
    with contextlib.ExitStack() as held:
        try:
            held.enter_context(claimed(out))
        except InputError:
            return {"state": "done" if is_done(store, identity) else "elsewhere"}
        if not job["again"] and failure(store, identity):
            return {"state": "failed"}
        began, busy = time.perf_counter(), time.process_time()
        try:
            reduced = _called(job)
            seconds = time.perf_counter() - began
            cpu = time.process_time() - busy
            facts = {"kind": job["kind"], "description": job["description"]}
            write(store, identity, reduced, facts={**facts, "seconds": seconds, "cpu_seconds": cpu})
        except (Exception, SystemExit) as error:  # noqa: BLE001  # a failed cell is a row
            said = f"{type(error).__name__}: {error}"
            whole = {"error": said, "traceback": traceback.format_exc()}
            write_failure(store, identity, description=job["description"], **whole)
            return {"state": "failed"}
    return {"state": "made", "seconds": seconds}


def _called(job: Job) -> Any:
    """Call the cell's function, if the sources still say what the cell was described with."""
    what, store = job["description"], Path(job["store"])
    if digest_of([what["function"], *addresses_in(what["settings"])]) != what["sources"]:
        raise InputError(
            "the source files that the cell was described with",
            "files that have changed since",
            "Run cells from a checkout that stays as it is, and describe them anew.",
        )
    module, name = what["function"].split(":")
    function = getattr(importlib.import_module(module), name)
    shared = store / "shared"
    shared.mkdir(parents=True, exist_ok=True)
    settings = json.loads(canonical(what["settings"]))
    return function(settings, {n: store / need for n, need in what["needs"].items()}, shared)


def serve(inputs: TextIO, answers: TextIO) -> None:
    """Make cells until the input ends."""
    jobs: queue.Queue[str] = queue.Queue()
    threading.Thread(target=_read_until_end, args=(inputs, jobs), daemon=True).start()
    while True:
        answer = attempt(json.loads(jobs.get()))
        answers.write(json.dumps(answer) + "\n")
        answers.flush()


def _read_until_end(inputs: TextIO, jobs: "queue.Queue[str]") -> None:
    """Hand lines on; the end of the input ends the process, whatever it is at."""
    for line in inputs:
        jobs.put(line)
    os._exit(0)


if __name__ == "__main__":
    if hasattr(os, "nice"):
        os.nice(int(sys.argv[1]))
    private = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what a cell prints must not stand among the answers
    serve(sys.stdin, private)

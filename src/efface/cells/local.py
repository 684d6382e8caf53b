"""The engine of one machine: a few processes, each ``nice`` and with one thread.

Another engine is another function of the same form: ``engine(processes)`` is a context that gives
``submit(job) -> Future`` of the worker's answer; ``{"state": "lost"}`` when the worker was killed.
"""

import json
import os
import queue
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager, suppress
from typing import Any

from efface.cells.worker import Job

Submit = Callable[[Job], "Future[dict[str, Any]]"]

ONE_THREAD = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")
"""Read when torch and numpy are loaded; two processes with two threads each starve each other."""


@contextmanager
def local(processes: int, *, nice: int = 10) -> Iterator[Submit]:
    """Workers on this machine; they are started when there is work, and end with the block.

    ``nice``: how far they stand back behind other programs (0: not at all; Windows knows none).
    """
    idle: queue.SimpleQueue[_Worker] = queue.SimpleQueue()
    workers = [_Worker(nice) for _ in range(processes)]
    for worker in workers:
        idle.put(worker)

    def work(job: Job) -> dict[str, Any]:
        worker = idle.get()
        try:
            return worker.ask(job)
        finally:
            idle.put(worker)

    pool = ThreadPoolExecutor(processes)
    try:
        yield lambda job: pool.submit(work, job)
    finally:
        pool.shutdown(wait=False, cancel_futures=True)
        for worker in workers:
            worker.end()


class _Worker:
    """One process that makes cells; a new one takes its place when it was killed."""

    def __init__(self, nice: int) -> None:
        self._nice = nice
        self._process: subprocess.Popen[str] | None = None
        self._ended = False
        self._said = tempfile.TemporaryFile("w+", errors="replace")  # noqa: SIM115

    def ask(self, job: Job) -> dict[str, Any]:
        """The worker's answer; ``lost`` with the end of what it said when it has gone."""
        if self._ended:
            return {"state": "lost"}
        if self._process is None or self._process.poll() is not None:
            self._process = self._started()
        process = self._process
        answer = ""
        with suppress(OSError):
            process.stdin.write(json.dumps(job) + "\n")  # type: ignore[union-attr]
            process.stdin.flush()  # type: ignore[union-attr]
            answer = process.stdout.readline()  # type: ignore[union-attr]
        if answer.endswith("\n"):
            return json.loads(answer)
        self._process = None
        code = _gone(process)
        self._said.seek(0)
        return {"state": "lost", "code": code, "said": self._said.read()[-2000:]}

    def end(self) -> None:
        """End the process at once; what it was at is not written."""
        self._ended = True
        if self._process:
            _gone(self._process)
        self._said.close()

    def _started(self) -> "subprocess.Popen[str]":
        self._said.seek(0)
        self._said.truncate()
        return subprocess.Popen(  # noqa: S603  # ourselves
            [sys.executable, "-P", "-m", "efface.cells.worker", str(self._nice)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._said,
            text=True,
            env={**os.environ, **dict.fromkeys(ONE_THREAD, "1"), "PYTHONPATH": _path()},
        )


def _gone(process: "subprocess.Popen[str]") -> int:
    """End a process, close what leads to it, and give its exit code."""
    process.kill()
    with suppress(OSError), process:
        pass
    return process.wait()


def _path() -> str:
    """Where a worker finds what the runner finds."""
    return os.pathsep.join(part or os.getcwd() for part in sys.path)  # noqa: PTH109

"""Grids whose workers and runners are killed at random moments, and what is left of them.

A round is a store and a list of jobs. A runner makes them; again and again it, or one of its
workers, is sent SIGKILL, and a runner that was killed is started again, until every job is done.
Whatever was seen done once must stay as it was, and at the end the store must hold each job once,
with the numbers and arrays of a store that nobody disturbed. The slow suite and
``research/benchmarks/grid_kills.py`` call this with fifty kills, every third round with models.
With the word ``ray`` the jobs are tasks of a Ray cluster of two nodes of one CPU each, and every
third kill is that of a node, another one taking its place.
"""

import contextlib
import fcntl
import json
import os
import pickle
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE), str(HERE.parent)]

from efface.grid import Job, read, results, run  # noqa: E402

PROCESSES = 2
KILLS_A_ROUND = 10
ORPHAN_SECONDS = 20.0


def jobs_of(round_number, *, real):
    """Eighteen jobs of 0.1 to 0.5 s, a third of them on others; if real, three with models."""
    draw = random.Random(round_number)  # noqa: S311
    jobs = []
    for n in range(18):
        settings = {"n": n, "round": round_number, "seconds": round(draw.uniform(0.1, 0.5), 2)}
        needs = {"one": jobs[n - 3], "two": jobs[n - 2]} if n % 3 == 2 and n > 2 else {}
        jobs.append(Job("fake_jobs:number", settings, needs=needs))
    return jobs + (_with_models(round_number) if real else [])


def _with_models(seed):
    """A base, a retrained and an unlearned model of the digits, each of about a second."""
    from research.jobs import training, unlearning
    from research.recipes import RECIPES

    short = replace(RECIPES["digits-conv"], epochs=1)
    base = training(short, "digits", first=300, seed=seed, keep_weights=True)
    retrained = training(short, "digits", first=300, excluded={"class": 3}, seed=seed)
    jit = unlearning(base, "jit", forget={"class": 3}, forget_classes=[3], guard=False, steps=2)
    return [base, retrained, jit]


def make(store, described, backend="processes"):
    """What a runner's process does; the states of its rows, each job one of them, once."""
    jobs = pickle.loads(Path(described).read_bytes())  # noqa: S301  # our own file
    rows = run(jobs, store, processes=PROCESSES, nice=0, backend=backend)
    assert list(rows) == [job.id for job in jobs]
    return Counter(row.state for row in rows.values())


def start(store, described):
    """A runner in a process of its own."""
    command = [sys.executable, str(HERE / "grid_kills.py"), "runner", store, described]
    with open(os.devnull, "w") as nowhere, open(f"{store}.log", "a") as log:  # noqa: PTH123
        return subprocess.Popen(command, stdout=nowhere, stderr=log)


def workers_of(runner):
    """The process ids of a runner's workers (joblib's tracker of resources is none)."""
    own = ["-P", str(runner.pid), "-f", "popen_loky"]
    command = [
        "pgrep",
        *(["-f", "^ray::_attempt_on_ray"] if os.environ.get("RAY_ADDRESS") else own),
    ]
    found = subprocess.run(command, capture_output=True, text=True, check=False)
    return [int(word) for word in found.stdout.split()]


def results_in(store):
    """Each result that is there, with what tells whether it was written again."""
    paths = sorted(Path(store).glob("[0-9a-f]*/result.json"))
    return {p.parent.name: (p.stat().st_ino, p.stat().st_mtime_ns) for p in paths}


class Nodes:
    """A Ray cluster on this machine: a head without CPUs and two nodes of one."""

    def __init__(self):
        from ray.cluster_utils import Cluster

        os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
        self.cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0})
        self.nodes = [self.cluster.add_node(num_cpus=1) for _ in range(2)]
        os.environ["RAY_ADDRESS"] = self.cluster.address

    def kill_one(self, draw):
        """SIGKILL to a node, without a word to the others; then another one comes."""
        gone = self.nodes.pop(draw.randrange(len(self.nodes)))
        self.cluster.remove_node(gone, allow_graceful=False)
        self.nodes.append(self.cluster.add_node(num_cpus=1))

    def end(self):
        """All of them."""
        del os.environ["RAY_ADDRESS"]
        self.cluster.shutdown()


def kill_repeatedly(folder, *, kills, models, nodes=None, seed=0):
    """Kill until it is enough; the counts, or an error at the first loss."""
    draw = random.Random(seed)  # noqa: S311
    found = Counter(dict.fromkeys(("kills", "of workers", "of runners", "at work in a job"), 0))
    while found["kills"] < kills:
        number = found["rounds"]
        real = models and number % 3 == 0
        jobs, described = jobs_of(number, real=real), Path(folder, f"jobs{number}")
        # a runner that reads them need not load torch to describe them
        described.write_bytes(pickle.dumps(jobs))
        store = f"{folder}/store{number}"
        enough = min(kills, found["kills"] + KILLS_A_ROUND)
        _round(store, described, draw, found, kills=enough, nodes=nodes)
        _compare(store, f"{folder}/undisturbed{number}", jobs, described)
        found.update({"rounds": 1, "jobs": len(jobs), "results": len(results(store))})
        found["of them with models"] += 3 * real
    return found


def _round(store, described, draw, found, *, kills, nodes):
    """One store until it is done."""
    runner, done = start(store, described), {}
    while runner.poll() is None:
        time.sleep(draw.uniform(0.2, 1.5))
        if found["kills"] < kills and runner.poll() is None:
            _kill(runner, store, draw, found, nodes)
        now = results_in(store)
        assert done.items() <= now.items(), "a result that was there is gone, or was written again"
        done = now
        if runner.poll() == -signal.SIGKILL:
            runner = start(store, described)
            found["started again"] += 1
    assert runner.returncode == 0, Path(f"{store}.log").read_text()[-2000:]


def _kill(runner, store, draw, found, nodes):
    """One SIGKILL, to a worker or to the runner, whose workers must then end by themselves.

    Two thirds of the moments fall into a job, the others anywhere, starting up included.
    """
    end = time.monotonic() + (5 if draw.random() < 2 / 3 else 0)
    while not _claimed(store) and time.monotonic() < end:
        time.sleep(0.01)
    time.sleep(draw.uniform(0, 0.3))
    workers = workers_of(runner)
    if not workers:
        return  # still starting
    found["kills"] += 1
    found["at work in a job"] += _claimed(store)
    if nodes and found["kills"] % 3 == 0:
        found["of nodes"] += 1
        nodes.kill_one(draw)
        return
    if found["kills"] % 2:
        found["of workers"] += 1
        with contextlib.suppress(ProcessLookupError):
            os.kill(draw.choice(workers), signal.SIGKILL)
        return
    found["of runners"] += 1
    runner.kill()
    runner.wait()
    end = time.monotonic() + ORPHAN_SECONDS
    while any(_alive(worker) for worker in workers):
        assert time.monotonic() < end, "a worker lives on without its runner"
        time.sleep(0.02)


def _claimed(store):
    """Whether any job is claimed: of a killed worker's claim the file is left, not the claim."""
    return any(_locked(path) for path in Path(store).glob(".*.lock"))


def _locked(path):
    with contextlib.suppress(FileNotFoundError), path.open("r+") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
    return False


def _alive(process):
    """Whether a process is there, and no zombie."""
    command = ["ps", "-o", "stat=", "-p", str(process)]
    state = subprocess.run(command, capture_output=True, text=True, check=False).stdout
    return bool(state.strip()) and not state.startswith("Z")


def _compare(store, other, jobs, described):
    """The store holds what one holds that nobody disturbed, each job once, and no scratch."""
    assert make(store, described) == {"done": len(jobs)}
    assert make(other, described) == {"made": len(jobs)}
    assert {result.folder.name for result in results(store)} == {job.id for job in jobs}
    assert not list(Path(store).glob("*.writing")) + list(Path(store).glob(".*.writing"))
    assert not list(Path(store).glob("failed/*"))
    for job in jobs:
        ours, theirs = read(store, job), read(other, job)
        assert _timeless(ours.statistics) == _timeless(theirs.statistics)
        assert ours.arrays.keys() == theirs.arrays.keys()
        assert all(np.array_equal(ours.arrays[n], a) for n, a in theirs.arrays.items())


def _timeless(statistics):
    return {name: value for name, value in statistics.items() if "seconds" not in name}


def load(folder, count, backend):
    """Empty jobs: seconds, and the runner's resident MiB after a tenth of them and at the end."""
    jobs = [Job("fake_jobs:number", {"n": n}) for n in range(count)]
    began, resident = time.monotonic(), []
    for part in (jobs[: count // 10], jobs):
        rows = run(part, folder, processes=PROCESSES, backend=backend)
        assert {row.state for row in rows.values()} <= {"made", "done"}
        lines = Path("/proc/self/status").read_text().splitlines()
        resident.append(next(int(x.split()[1]) for x in lines if x.startswith("VmRSS")) / 1024)
    assert len(results(folder)) == count
    return {"jobs": count, "seconds": time.monotonic() - began, "resident": resident}


if __name__ == "__main__":
    if sys.argv[1] == "load":
        print(json.dumps(load(sys.argv[2], int(sys.argv[3]), sys.argv[4])))  # noqa: T201
    elif sys.argv[1] == "runner":
        make(sys.argv[2], sys.argv[3], "ray" if os.environ.get("RAY_ADDRESS") else "processes")
    else:
        nodes = Nodes() if "ray" in sys.argv else None
        try:
            found = kill_repeatedly(
                sys.argv[1], kills=int(sys.argv[2]), models="models" in sys.argv, nodes=nodes
            )
        finally:
            if nodes:
                nodes.end()
        print(json.dumps(found))  # noqa: T201

"""Many runs as independent, addressed, claimed jobs on joblib's pool.

A ``Job`` is a description: the address of a function, JSON settings, the jobs that it needs, and
the source files that the function imports. The digest of the description is the job's id and the
address of its result in a *store*, a folder: the same description is the same result, a changed
setting or a changed line of code is another one.

``run(jobs, store)`` makes what the store does not hold: what is needed first, several at a time.
``read(store, job)`` gives a result. Any function ``name(settings, needs, shared) -> JobOutput`` of
a module can be a job; ``efface.forget_jobs`` has the one that makes one's own checkpoint forget.

In a store: ``ID/result.json``, ``ID/arrays.safetensors`` and, where asked for, weights, all of them
there or none; ``failed/ID.json`` says how a job failed, until it succeeds; ``shared/`` is for what
jobs have in common.
"""

import ast
import hashlib
import importlib
import json
import logging
import os
import re
import signal
import sys
import threading
import time
import traceback
import uuid
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, field
from functools import cached_property, lru_cache, partial
from importlib.util import find_spec
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any

import joblib
import numpy as np
from joblib.externals.loky import get_reusable_executor
from safetensors.numpy import load_file, save_file

from efface import terminal
from efface.errors import InputError, did_you_mean, import_extra
from efface.io.atomic import atomic_folder, atomic_write, claim
from efface.manifest import SCHEMA, versions

if TYPE_CHECKING:
    from torch import Tensor

ADDRESS = re.compile(r"[A-Za-z_][\w.]*:[A-Za-z_]\w*")  # package.module:function
# a job whose worker died so often has failed: it may be what kills it
MAX_DEATHS = 3
# how often the store is read for jobs that another runner has claimed
POLL_SECONDS = 0.5
BACKENDS = ("processes", "ray", "sequential")
BLOCKED = "a job that it needs has failed"

# ---------------------------------------------------------------- jobs and their results


@dataclass(frozen=True, eq=False)
class JobOutput:
    """What a job's function returns.

    ``statistics``: JSON; ``arrays``: by name, written as they are; ``weights``: a state dict, only
    where another job starts from it.
    """

    statistics: Mapping[str, Any]
    arrays: Mapping[str, np.ndarray] = field(default_factory=dict)
    weights: "Mapping[str, Tensor] | None" = None


@dataclass(frozen=True, eq=False)
class Job:
    """One run, described; ``id`` is the digest of the description.

    ``function``: ``package.module:name`` of ``name(settings, needs, shared) -> JobOutput``, where
    ``needs`` maps each needed job's name to the folder of its result and ``shared`` is a folder for
    what jobs have in common. ``kind``: jobs of one kind take about as long; only the estimate reads
    it. Raises InputError for an unknown function and for settings that JSON cannot hold.
    """

    function: str
    settings: Mapping[str, Any] = field(default_factory=dict)
    needs: Mapping[str, "Job"] = field(default_factory=dict)
    kind: str = ""

    def __post_init__(self) -> None:
        module = self.function.partition(":")[0]
        if not ADDRESS.fullmatch(self.function):
            remedy = "Such as efface.forget_jobs:forget_checkpoint."
            raise InputError("a function as package.module:function", repr(self.function), remedy)
        if source_file(module) is None:
            remedy = "Put its folder on PYTHONPATH; functions of installed packages are no jobs."
            raise InputError(f"a source file of the module {module}", "none", remedy)
        # Tuples become lists here, so that every process reads, and hashes, the same settings.
        object.__setattr__(self, "settings", json.loads(canonical(self.settings)))
        object.__setattr__(self, "kind", self.kind or self.function)

    @cached_property
    def description(self) -> dict[str, Any]:
        """All that the result depends on, installed packages excepted (their versions are kept)."""
        return {
            "function": self.function,
            "settings": self.settings,
            "needs": {name: need.id for name, need in self.needs.items()},
            "sources": source_digest(self.addresses),
        }

    @property
    def addresses(self) -> list[str]:
        """The function and every address in the settings: it is imported where no import stands."""
        return [self.function, *_addresses(self.settings)]

    @cached_property
    def id(self) -> str:
        """Half a SHA-256 over the description."""
        return hashlib.sha256(canonical(self.description).encode()).hexdigest()[:32]


@dataclass(frozen=True, eq=False)
class JobResult:
    """A finished job: ``facts`` is its result.json, ``folder`` holds arrays and weights."""

    folder: Path
    facts: dict[str, Any]

    @property
    def statistics(self) -> dict[str, Any]:
        """What the job's function returned as such."""
        return self.facts["statistics"]

    @cached_property
    def arrays(self) -> dict[str, np.ndarray]:
        """The arrays by name."""
        return load_file(self.folder / "arrays.safetensors")


def canonical(value: Any) -> str:
    """The one JSON text of a value. Raises InputError for what JSON cannot hold, nan included."""
    try:
        return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)
    except (TypeError, ValueError) as error:
        remedy = "Use numbers, strings, lists and mappings."
        raise InputError("settings that JSON can hold", str(error), remedy) from error


def read(store: str | Path, job: Job | str) -> JobResult:
    """The result of a job, or of an id. Raises InputError when there is none."""
    identity = job if isinstance(job, str) else job.id
    if not is_done(store, identity):
        failure = read_failure(store, identity)
        came = f"a failure: {failure['error']}" if failure else "none"
        raise InputError(f"a result of job {identity}", came, "Run the job first.")
    folder = Path(store, identity)
    return JobResult(folder, json.loads((folder / "result.json").read_text()))


def results(store: str | Path) -> list[JobResult]:
    """Every result of a store, in the order of the ids."""
    return [read(store, path.parent.name) for path in sorted(Path(store).glob("*/result.json"))]


def is_done(store: str | Path, identity: str) -> bool:
    """Whether the result is there; it is then whole."""
    return Path(store, identity, "result.json").is_file()


def read_failure(store: str | Path, identity: str) -> dict[str, Any] | None:
    """How a job failed: description, ``error`` and ``traceback``; None when it did not."""
    path = Path(store, "failed", f"{identity}.json")
    return None if is_done(store, identity) or not path.is_file() else json.loads(path.read_text())


def _write_failure(store: Path, job: Job, error: str, trace: str = "") -> "Row":
    (store / "failed").mkdir(parents=True, exist_ok=True)
    facts = {"description": job.description, "error": error, "traceback": trace}
    atomic_write(store / "failed" / f"{job.id}.json", (json.dumps(facts, indent=1) + "\n").encode())
    return Row(job, "failed", error=error)


# ---------------------------------------------------------------- the plan and the run


@dataclass(frozen=True, eq=False)
class Row:
    """What became of one job.

    ``state``: ``done`` (was there, or another runner made it), ``made`` (by this run), ``failed``,
    ``not run`` (a job that it needs failed), and in a plan ``missing``.
    """

    job: Job
    state: str
    seconds: float | None = None
    error: str = ""


def plan(jobs: Iterable[Job], store: str | Path, *, retry: bool = False) -> dict[str, Row]:
    """The jobs and all that they need by id, each once, what is needed first, with their states.

    ``retry`` counts what has failed before as missing.
    """
    rows: dict[str, Row] = {}

    def visit(job: Job) -> None:
        if job.id in rows:
            return
        for need in job.needs.values():
            visit(need)
        blocked = any(rows[need.id].state in {"failed", "not run"} for need in job.needs.values())
        fresh = Row(job, "not run", error=BLOCKED) if blocked else Row(job, "missing")
        rows[job.id] = _known(store, job, retry=retry) or fresh

    for job in jobs:
        visit(job)
    return rows


def _known(store: str | Path, job: Job, *, retry: bool) -> Row | None:
    if is_done(store, job.id):
        return Row(job, "done")
    failure = None if retry else read_failure(store, job.id)
    return Row(job, "failed", error=failure["error"]) if failure else None


def estimate_seconds(rows: Mapping[str, Row], store: str | Path, processes: int) -> float | None:
    """Wall-clock seconds of what is missing, each as long as the median of its kind in the store.

    None while a kind has no finished job.
    """
    known: dict[str, list[float]] = defaultdict(list)
    for result in results(store):
        known[result.facts["kind"]].append(result.facts["seconds"])
    kinds = [row.job.kind for row in rows.values() if row.state == "missing"]
    if not all(known[kind] for kind in kinds):
        return None
    return round(sum(median(known[kind]) for kind in kinds) / processes, 1)


def run(
    jobs: Iterable[Job],
    store: str | Path,
    *,
    processes: int | None = None,
    retry: bool = False,
    backend: str = "processes",
    nice: int = 10,
) -> dict[str, Row]:
    """Make what the store does not hold of these jobs and of all that they need: a row for each.

    It may be killed at any moment and started again; several runners may share one store.

    Args:
        jobs: what is wanted; what they need comes along.
        store: the folder of results; made when it is not there.
        processes: how many jobs at a time; one for each core of the machine, or of all nodes, when
            not given.
        retry: try what has failed before once more.
        backend: ``processes`` of this machine, one thread each, or ``ray``: tasks on the cluster
            that ``RAY_ADDRESS`` or ``ray.init`` names or ``ray start`` left on this machine, else
            one of this machine alone. The store
            is then a folder that every node sees. ``sequential``: this process, to debug a job.
        nice: how far the processes stand back behind other programs (0: not at all); Ray's do so by
            its own setting.

    Raises InputError for another backend, MissingExtra where Ray is not installed.
    """
    if backend not in BACKENDS:
        remedy = did_you_mean(str(backend), BACKENDS)
        raise InputError(f"a backend out of {', '.join(BACKENDS)}", repr(backend), remedy)
    store, given = Path(store).absolute(), processes
    cores = _cpus_of_ray() if backend == "ray" else os.cpu_count()
    processes = given or cores or 1
    rows, began = plan(jobs, store, retry=retry), time.perf_counter()
    estimate = {"estimated_seconds": estimate_seconds(rows, store, processes)}
    counts = Counter(row.state for row in rows.values())
    terminal.event("plan", **counts, processes=processes, **estimate)
    # in each result: the row of one may be lost with the pool, by the death of another worker
    attempt = partial(_attempt, store=store, retry=retry, run_id=uuid.uuid4().hex)
    attempts: Callable[[list[Job]], Iterator[Row]] = {
        "processes": partial(_on_processes, attempt=attempt, processes=processes, nice=nice),
        "ray": partial(_on_ray, attempt=attempt, processes=given),
        "sequential": partial(map, attempt),
    }[backend]

    try:
        with terminal.show_count("jobs", counts["missing"]) as shown:
            for row in _rows_as_they_end(rows, store, attempts):
                rows[row.job.id] = row
                facts = {"id": row.job.id, "seconds": row.seconds, "error": row.error}
                shown(row.job.kind, state=row.state, **facts)
    finally:
        # workers keep what they imported, and the next run's sources may differ
        if backend == "processes":
            get_reusable_executor(reuse=True).shutdown(wait=True, kill_workers=True)
    for identity, row in rows.items():
        if row.state == "missing":
            rows[identity] = Row(row.job, "not run", error=BLOCKED)
        if rows[identity].error:
            facts = {"id": identity, "kind": row.job.kind, "error": rows[identity].error}
            terminal.event(rows[identity].state, level=logging.ERROR, **facts)
    counts = Counter(row.state for row in rows.values())
    seconds = round(time.perf_counter() - began, 1)
    terminal.event("ran", **counts, seconds=seconds, **estimate)
    return rows


def _rows_as_they_end(
    rows: Mapping[str, Row], store: Path, attempts: Callable[[list[Job]], Iterator[Row]]
) -> Iterator[Row]:
    """Keep the workers busy until nothing is left that can be made; ``run`` keeps ``rows`` current.

    One dead worker ends joblib's whole pool, and a new one takes its place. The jobs that it was at
    run alone from then on, so that a second death is counted against the job that caused it.
    """
    deaths: Counter[str] = Counter()
    while ready := [row.job for row in rows.values() if _is_ready(row, rows)]:
        # A batch holds no job that needs another of it: the next one comes when all have ended.
        batch = [job for job in ready if not deaths[job.id]] or ready[:1]
        try:
            for row in attempts(batch):
                if row.state == "elsewhere":
                    time.sleep(POLL_SECONDS)
                else:
                    yield row
        except BrokenProcessPool:
            # The claim of a dead worker is free, but its file is left.
            locks = {job.id: store / f".{job.id}.lock" for job in batch}
            left = [j for j in batch if _is_ready(rows[j.id], rows) and locks[j.id].exists()]
            deaths.update([job.id for job in left] or ["no job"])
            # the workers cannot even start
            if deaths["no job"] == MAX_DEATHS:
                raise
            for job in left:
                if deaths[job.id] == MAX_DEATHS:
                    yield _write_failure(store, job, f"its worker died {MAX_DEATHS} times")


def _on_processes(
    batch: list[Job], *, attempt: Callable[[Job], Row], processes: int, nice: int
) -> Iterator[Row]:
    """Rows of jobs that do not wait for each other, as processes of this machine end with them."""
    pool: dict[str, Any] = {"inner_max_num_threads": 1, "initializer": _start_worker}
    with joblib.parallel_config(backend="loky", **pool, initargs=(nice, os.getpid())):
        # With one job at a time joblib would make it in this process, which must not die with
        # it: so there are two workers, of which pre_dispatch keeps one busy.
        how = {"pre_dispatch": processes, "batch_size": 1, "return_as": "generator_unordered"}
        yield from joblib.Parallel(n_jobs=max(processes, 2), **how)(
            map(joblib.delayed(attempt), batch)
        )


def _on_ray(batch: list[Job], *, attempt: "partial[Row]", processes: int | None) -> Iterator[Row]:
    """The same as tasks of a Ray cluster, which tries those of a dead worker again.

    Rows alone come back: results go from the worker to the store. A node that dies is not held
    against its jobs: it may have been taken back.
    """
    ray = import_extra("ray")
    # What a worker of any node imports and reads is found there under the same names; a run of its
    # own has workers of its own, which have imported nothing yet.
    names = {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    names |= {"EFFACE_RUN": attempt.keywords["run_id"]}
    names |= {name: os.environ[name] for name in ("EFFACE_DATA",) if name in os.environ}
    how = {"num_cpus": 1, "max_retries": MAX_DEATHS - 1, "runtime_env": {"env_vars": names}}
    make = ray.remote(_attempt_on_ray).options(**how)
    waiting, running = batch[::-1], {}
    while waiting or running:
        # Nodes come and go: each CPU has one job and the next. No more are submitted, which takes
        # memory.
        while waiting and len(running) < (processes or 2 * _cpus_of_ray()):
            job = waiting.pop()
            running[make.remote(job, **attempt.keywords)] = job
        for ended in ray.wait(list(running))[0]:
            job = running.pop(ended)
            try:
                yield ray.get(ended)
            except ray.exceptions.NodeDiedError:
                waiting.append(job)
            # all else, such as a disk that is full, ends the run and leaves the jobs missing
            except (ray.exceptions.WorkerCrashedError, ray.exceptions.OutOfMemoryError) as error:
                text = f"its worker died {MAX_DEATHS} times: {type(error).__name__}"
                yield _write_failure(attempt.keywords["store"], job, text, str(error))


def _cpus_of_ray() -> int:
    """Those of all nodes; connects to the cluster, or starts one of this machine alone."""
    # Ray reports its use to its makers unless told not to
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    ray = import_extra("ray")
    if not ray.is_initialized():
        quiet = {"log_to_driver": False, "logging_level": logging.ERROR}
        ray.init(include_dashboard=False, **quiet)
    return int(ray.cluster_resources().get("CPU", 1))


def _is_ready(row: Row, rows: Mapping[str, Row]) -> bool:
    needs = {rows[need.id].state for need in row.job.needs.values()}
    return row.state == "missing" and needs <= {"done", "made"}


# ---------------------------------------------------------------- in a worker


def _attempt(job: Job, *, store: Path, retry: bool, run_id: str) -> Row:
    """Make one job unless it is there, has failed, or is claimed (``elsewhere``)."""
    try:
        with claim(store / job.id):
            try:
                known = _known(store, job, retry=retry)
                return known or Row(job, "made", _make(job, store, run_id))
            except (Exception, SystemExit) as error:  # noqa: BLE001  # a failed job is a row
                text = f"{type(error).__name__}: {error}"
                return _write_failure(store, job, text, traceback.format_exc())
    except InputError:  # of claim(): whatever the job raises is caught above
        if not is_done(store, job.id):
            return Row(job, "elsewhere")
        facts = read(store, job).facts
        own = facts.get("run") == run_id
        return Row(job, "made", facts["seconds"]) if own else Row(job, "done")


def _attempt_on_ray(job: Job, **how: Any) -> Row:
    """``_attempt`` in a worker that SIGTERM ends at once.

    Ray sends it when a runner has died or a node is taken back, and turns it into SystemExit, which
    would file a job as failed that has only been interrupted.
    """
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    return _attempt(job, **how)


def _start_worker(nice: int, runner: int) -> None:
    """Stand back, and end when the runner has ended, however that came about.

    An orphan would hold the claim of its job, for hours perhaps, against the next runner.
    """
    if hasattr(os, "nice"):
        os.nice(nice)

    def end_with_runner() -> None:
        while os.getppid() == runner:
            time.sleep(POLL_SECONDS)
        os._exit(1)

    threading.Thread(target=end_with_runner, daemon=True).start()


def _make(job: Job, store: Path, run_id: str) -> float:
    """Call the job's function, write its result whole or not at all, and return the seconds."""
    # A file that was edited since the job was described: its result would be filed under code that
    # did not make it.
    if source_digest(job.addresses) != job.description["sources"]:
        wanted = "the source files that the job was described with"
        remedy = "Run jobs from a checkout that stays as it is, and describe them again."
        raise InputError(wanted, "files that have changed since", remedy)
    module, name = job.function.split(":")
    function, shared = getattr(importlib.import_module(module), name), store / "shared"
    shared.mkdir(parents=True, exist_ok=True)
    began, busy = time.perf_counter(), time.process_time()
    needs = {name: store / need.id for name, need in job.needs.items()}
    outcome = function(json.loads(canonical(job.settings)), needs, shared)
    seconds, cpu = time.perf_counter() - began, time.process_time() - busy
    facts = {"schema": SCHEMA, "id": job.id, "kind": job.kind, "description": job.description}
    facts |= {"seconds": seconds, "cpu_seconds": cpu, "versions": versions(), "run": run_id}
    text = json.dumps({**facts, "statistics": outcome.statistics}, indent=1, allow_nan=False)
    with atomic_folder(store / job.id) as folder:
        arrays = {name: np.ascontiguousarray(array) for name, array in outcome.arrays.items()}
        save_file(arrays, folder / "arrays.safetensors")
        if outcome.weights is not None:
            from safetensors.torch import save_file as save_tensors

            # The format refuses tensors that share memory: each gets its own.
            state = {n: t.detach().cpu().contiguous().clone() for n, t in outcome.weights.items()}
            save_tensors(state, folder / "weights.safetensors")
        # Last, so that a result that is there is whole, also where a rename is not atomic.
        (folder / "result.json").write_text(text + "\n")
    Path(store, "failed", f"{job.id}.json").unlink(missing_ok=True)
    return seconds


# ---------------------------------------------------------------- which sources a job rests on


def source_digest(addresses: Iterable[str]) -> str:
    """SHA-256 over the source files that these functions rest on, as ``source_files`` finds them.

    Comments, docstrings and layout do not count.
    """
    found = source_files(addresses)
    digests = {name: _parse(str(p), name, p.stat().st_mtime_ns)[0] for name, p in found.items()}
    return hashlib.sha256(canonical(digests).encode()).hexdigest()


def source_files(addresses: Iterable[str]) -> dict[str, Path]:
    """Module names with their files: those of the functions, and all that they import.

    Imports are read off the syntax, wherever they stand in a file. What is installed, and Python's
    own library, is left to the versions in the result.
    """
    # Found without importing anything: to describe a thousand jobs must not load torch, and an
    # import could run what the file does on import.
    waiting = [address.partition(":")[0] for address in addresses]
    found: dict[str, Path] = {}
    while waiting:
        name = waiting.pop()
        path = None if name in found else source_file(name)
        if path is not None:
            found[name] = path
            waiting += _parse(str(path), name, path.stat().st_mtime_ns)[1]
    return found


def source_file(name: str) -> Path | None:
    """The source file of a module, found without importing it; None for an installed one."""
    top, *rest = name.split(".")
    spec = None if top in {*sys.stdlib_module_names, "__main__"} else find_spec(top)
    places = [Path(place, *rest) for place in (spec and spec.submodule_search_locations) or ()]
    files = [file for place in places for file in (place.with_suffix(".py"), place / "__init__.py")]
    if spec and not places and not rest:
        files = [Path(spec.origin or "")]
    # efface counts even where it is installed: its code makes the results.
    installed = set() if top == "efface" else {"site-packages", "dist-packages"}
    files = [f for f in files if f.suffix == ".py" and f.is_file() and not installed & {*f.parts}]
    return files[0] if files else None


def _addresses(value: Any) -> Iterator[str]:
    """Every address among the strings of JSON settings."""
    if isinstance(value, str) and ADDRESS.fullmatch(value):
        yield value
    elif isinstance(value, dict | list):
        for part in value.values() if isinstance(value, dict) else value:
            yield from _addresses(part)


@lru_cache(maxsize=4096)
def _parse(path: str, name: str, changed: int) -> tuple[str, tuple[str, ...]]:  # noqa: ARG001  # changed: part of the key
    """The digest of what a file says, and the modules that it imports."""
    # a docstring may be corrected without making every result again
    tree, imported = ast.parse(Path(path).read_bytes()), {}
    package = name if path.endswith("__init__.py") else name.rpartition(".")[0]
    for node in ast.walk(tree):
        imported.update(dict.fromkeys(_imports(node, package)))
        documented = ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef
        if isinstance(node, documented) and ast.get_docstring(node, clean=False) is not None:
            node.body = node.body[1:] or [ast.Pass()]
    # Written again from its syntax a file has one layout and no comments.
    return hashlib.sha256(ast.unparse(tree).encode()).hexdigest(), tuple(imported)


def _imports(node: ast.AST, package: str) -> list[str]:
    """The modules that one statement imports; of a name that is no module, its package."""
    if isinstance(node, ast.Import):
        return [alias.name for alias in node.names]
    if not isinstance(node, ast.ImportFrom):
        return []
    base = ".".join(package.split(".")[: len(package.split(".")) + 1 - node.level])
    source = ".".join(filter(None, [base if node.level else "", node.module]))
    parts = [f"{source}.{alias.name}" for alias in node.names]
    return [part if source_file(part) else source for part in parts]

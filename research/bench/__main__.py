"""``python -m research.bench``: make a row, a task, or what a task is searched on."""

import sys
from pathlib import Path
from typing import Annotated, Any

from cyclopts import App, Parameter

from efface.cli import exits
from efface.cli.methods import import_method
from efface.errors import InputError
from efface.grid import estimate_seconds, plan, run
from efface.methods import METHODS
from efface.methods._base import find_method
from research.bench import protocol, record
from research.bench.protocol import Row
from research.bench.tasks import TASKS, Task, find_task

app = App(name="python -m research.bench")
Runs = dict[str, Any]


@app.default
def row(
    task: str,
    /,
    *,
    method: Annotated[list[str], Parameter(consume_multiple=True)],
    store: Path = Path("runs/bench"),
    settings: str = "published",
    first: bool = False,
    processes: int | None = None,
    backend: str = "processes",
    retry: bool = False,
) -> None:
    """Make one or more rows of a task from nothing, and print them next to the published ones.

    Args:
        task: A task of the benchmark, as `tasks` lists them.
        method: Methods by name, or your own as `package.module:function` or `file.py:function`.
        store: A folder for results; what is there is not made again.
        settings: `published` (the defaults) or `searched` (twelve trials on another request first).
        first: Only the first request of each base model.
        processes: How many jobs at a time; one for each core when not given.
        backend: `processes` of this machine, or `ray`.
        retry: Try what has failed before once more.
    """
    chosen, how = find_task(task), {"processes": processes, "backend": backend, "retry": retry}
    names = [_known(name) for name in method]
    if settings not in ("published", "searched"):
        raise InputError("settings: published or searched", repr(settings), "Give one of these.")
    fixed = [n for n in names if settings == "searched" and not protocol.can_be_searched(n)]
    if fixed:
        wanted, remedy = "methods with a setting to search for", "Leave out --settings searched."
        raise InputError(wanted, ", ".join(fixed), remedy)
    every = [one for one in chosen.requests() if not (first and one.turn)]
    _make(protocol.models(every), store, how)
    if settings == "searched":
        _search(chosen, names, store, how)
    made = protocol.published if settings == "published" else protocol.searched
    more = () if settings == "published" else (str(store),)
    rows = [one for one in made(chosen, *more, methods=names) if not (first and one.request.turn)]
    _make([one.job for one in rows], store, how)
    sys.stdout.write(record.shown(chosen, rows, str(store)))


@app.command
def tasks() -> None:
    """List the tasks, with the number of base models, requests and retrained models."""
    for one in TASKS.values():
        count = one.asked if isinstance(one.asked, int) else len(one.asked)
        sys.stdout.write(
            f"{one.name:20} {one.title}: {len(one.bases)} bases, {count} requests to each, "
            f"{one.retrained} retrained models a request\n"
        )


@app.command
def make(
    *names: str, store: Path, processes: int | None = None, backend: str = "processes",
    retry: bool = False, dry_run: bool = False,
) -> None:  # fmt: skip
    """Make every cell of some tasks: models, published rows, the search, searched rows.

    Args:
        names: Tasks; all when not given.
        store: A folder for results; what is there is not made again.
        processes: How many jobs at a time; one for each core when not given.
        backend: `processes` of this machine, or `ray`.
        retry: Try what has failed before once more.
        dry_run: Only say how many jobs and about how many core-hours are missing.
    """
    how = {"processes": processes, "backend": backend, "retry": retry}
    for one in map(find_task, names or TASKS):
        if dry_run:
            _announce(one, store)
            continue
        _make(protocol.models(one.requests()), store, how)
        _make([row.job for row in protocol.published(one)], store, how)
        _search(one, protocol.applicable(one), store, how)
        _make([row.job for row in protocol.searched(one, str(store))], store, how)


@app.command(name="record")
def write(*names: str, store: Path) -> None:
    """Write the record of each task that is whole: research/results/bench/TASK.json and its page."""
    for one in map(find_task, names or TASKS):
        record.write(one, str(store))


def _known(name: str) -> str:
    """A method by name; of ``file.py:function`` or ``package.module:function`` the one registered there.

    Its folder joins the path, where the workers find it too.
    """
    path, _, function = name.rpartition(":")
    if path:
        sys.path.insert(
            0, str(Path(path).parent.absolute() if path.endswith(".py") else Path.cwd())
        )
        name = import_method(f"{Path(path).stem if path.endswith('.py') else path}:{function}")
    known = find_method(name)
    if getattr(sys.modules[known.function.__module__], known.name, None) is not known.function:
        wanted = f"a method that is called as its function, {known.function.__name__}"
        raise InputError(wanted, known.name, "Workers find it by its name: call both the same.")
    return known.name


def _search(task: Task, names: list[str], store: Path, how: Runs) -> None:
    where = protocol.search_task(task)
    _make(protocol.models([where.tuning()]), store, how)
    for rows in protocol.search(where, [n for n in names if n in METHODS], str(store)):
        _make([one.job for one in rows], store, how)


def _make(jobs: list[Any], store: Path, how: Runs) -> None:
    run(jobs, store, **how)


def _announce(task: Task, store: Path) -> None:
    """What is missing of a task, in jobs and core-hours where the store knows their kinds."""
    rows: list[Row] = protocol.published(task)
    planned = plan([*protocol.models(task.requests()), *(one.job for one in rows)], store)
    missing = sum(one.state == "missing" for one in planned.values())
    seconds = estimate_seconds(planned, store, 1)
    hours = "unknown" if seconds is None else f"{seconds / 3600:.1f}"
    sys.stdout.write(
        f"{task.name}: {missing} of {len(planned)} jobs, {hours} core-hours, without the search\n"
    )


if __name__ == "__main__":
    with exits():
        app()

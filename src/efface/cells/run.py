"""Make the cells that a store does not hold: what is needed first, several at a time."""

import os
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import FIRST_COMPLETED, Future, wait
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from efface import terminal
from efface.cells.cell import Cell
from efface.cells.local import Submit, local
from efface.cells.plan import Plan, plan
from efface.cells.store import failure, write_failure
from efface.cells.worker import Job

Engine = Callable[[int], AbstractContextManager[Submit]]
"""``engine(processes)``: see ``efface.cells.local``."""

DEATHS = 5
"""A cell whose worker was killed so many times has failed: it may be what kills it."""

AGAIN_SECONDS = 0.5
"""How often it is asked whether another runner has finished, or left, a cell that it claimed."""


@dataclass(frozen=True, eq=False)
class Row:
    """What became of one cell.

    ``state``: ``done`` (was there, or another runner made it), ``made`` (here), ``failed``, or
    ``not run`` (a cell that it needs failed); ``error`` and ``traceback`` of a failure.
    """

    cell: Cell
    state: str
    seconds: float | None = None
    error: str = ""
    traceback: str = ""


@dataclass(frozen=True, eq=False)
class Ran:
    """One row for each cell, none missing; ``seconds`` is the wall-clock time of the run."""

    plan: Plan
    rows: tuple[Row, ...]
    seconds: float

    @property
    def counts(self) -> dict[str, int]:
        """How many cells came to which state."""
        return dict(Counter(row.state for row in self.rows))

    @property
    def failures(self) -> tuple[Row, ...]:
        """The red rows."""
        return tuple(row for row in self.rows if row.state in {"failed", "not run"})

    @property
    def estimate_error(self) -> float | None:
        """(estimated - taken) / taken; None when there was nothing to make."""
        return (self.plan.seconds - self.seconds) / self.seconds if self.plan.missing else None

    def as_json(self) -> dict[str, Any]:
        """Counts, time, and how far the estimate was off."""
        error = None if self.estimate_error is None else round(self.estimate_error, 3)
        facts = {
            "seconds": round(self.seconds, 1),
            "estimated_seconds": round(self.plan.seconds, 1),
        }
        return {**self.counts, **facts, "estimate_error": error}


def run(
    cells: Iterable[Cell],
    store: str | Path,
    *,
    processes: int | None = None,
    again: bool = False,
    engine: Engine = local,
) -> Ran:
    """Make what the store does not hold of these cells and of all that they need.

    It may be killed at any moment and started again; several runners may share one store.

    Args:
        cells: what is wanted; what they need comes along.
        store: the folder of records; made when it is not there.
        processes: how many cells at a time; one for each core when not given.
        again: try what has failed before once more.
        engine: who makes the cells; ``local`` is this machine.
    """
    processes = processes or os.cpu_count() or 1
    planned = plan(cells, store, processes=processes, again=again)
    terminal.event("plan", **planned.as_json())
    for name, kind in planned.kinds.items():
        terminal.event("estimate", kind=name, cells=kind.cells, seconds_each=round(kind.seconds, 1),
                   known_from=kind.known_from)  # fmt: skip
    began = time.perf_counter()
    state = _State(planned, Path(store).absolute(), again)
    with terminal.show_count("cells", len(planned.missing)) as told, engine(processes) as submit:
        for row in state.rows_as_they_come(submit):
            told(
                row.cell.kind, state=row.state, id=row.cell.id, seconds=row.seconds, error=row.error
            )
    ran = Ran(planned, state.rows(), time.perf_counter() - began)
    _show_failures(ran)
    terminal.event("ran", **ran.as_json())
    return ran


class _State:
    """Which cells are open, at work, claimed by another runner, and ended."""

    def __init__(self, planned: Plan, store: Path, again: bool) -> None:
        self.plan, self.store, self.again = planned, store, again
        self.ended: dict[str, Row] = {}
        self.deaths: Counter[str] = Counter()
        self.open = list(planned.missing)
        self.at_work: dict[Future[dict[str, Any]], str] = {}
        self.elsewhere: list[str] = []
        for identity in planned.done:
            self.ended[identity] = Row(planned.cells[identity], "done")
        for identity in planned.failed:
            self.ended[identity] = self._failed(identity)

    def rows(self) -> tuple[Row, ...]:
        """A row for each cell, in the order of the plan."""
        error = "a cell that it needs has failed"
        return tuple(
            self.ended.get(identity) or Row(cell, "not run", error=error)
            for identity, cell in self.plan.cells.items()
        )

    def rows_as_they_come(self, submit: Submit) -> Iterator[Row]:
        """Keep the engine busy until nothing is left that can be made."""
        asked = time.monotonic()
        while True:
            self._hand_out(submit)
            if not self.at_work and not self.elsewhere:
                return
            if not self.at_work:
                time.sleep(AGAIN_SECONDS)
            timeout = AGAIN_SECONDS if self.elsewhere else None
            for future in wait(self.at_work, timeout, FIRST_COMPLETED).done:
                identity = self.at_work.pop(future)
                if row := self._row(identity, future.result()):
                    self.ended[identity] = row
                    yield row
            if time.monotonic() - asked > AGAIN_SECONDS:
                asked = time.monotonic()
                self.open, self.elsewhere = self.open + self.elsewhere, []

    def _hand_out(self, submit: Submit) -> None:
        """Give the engine every open cell whose needs are there."""
        there = {i for i, row in self.ended.items() if row.state in {"done", "made"}}
        for identity in list(self.open):
            cell = self.plan.cells[identity]
            if all(need.id in there for need in cell.needs.values()):
                self.open.remove(identity)
                self.at_work[submit(self._job(cell))] = identity

    def _job(self, cell: Cell) -> Job:
        return {
            "store": str(self.store),
            "id": cell.id,
            "description": cell.description,
            "kind": cell.kind,
            "again": self.again,
        }

    def _row(self, identity: str, answer: Mapping[str, Any]) -> Row | None:
        """What a worker's answer comes to; None when the cell is still to be made."""
        if answer["state"] in {"done", "made"}:
            return Row(self.plan.cells[identity], answer["state"], answer.get("seconds"))
        if answer["state"] == "failed":
            return self._failed(identity)
        if answer["state"] == "elsewhere":
            self.elsewhere.append(identity)
            return None
        self.deaths[identity] += 1
        if self.deaths[identity] < DEATHS:
            self.open.append(identity)
            return None
        return self._given_up(identity, answer)

    def _given_up(self, identity: str, answer: Mapping[str, Any]) -> Row:
        """The failure of a cell whose workers were killed, each of them."""
        write_failure(
            self.store,
            identity,
            description=self.plan.cells[identity].description,
            error=f"its worker ended {DEATHS} times, the last time with {answer.get('code')}",
            traceback=answer.get("said", ""),
        )
        return self._failed(identity)

    def _failed(self, identity: str) -> Row:
        said = failure(self.store, identity) or {"error": "unknown", "traceback": ""}
        return Row(self.plan.cells[identity], "failed", None, said["error"], said["traceback"])


def _show_failures(ran: Ran) -> None:
    """The red rows, after the bar has gone."""
    for row in ran.failures:
        terminal.event(row.state, style="red", id=row.cell.id, kind=row.cell.kind, error=row.error)

"""What is seen of a run: bars and tables on a terminal, one JSON line per event when piped."""

import json
import re
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from rich import box
from rich.console import Console
from rich.markup import escape
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    TextColumn,
    TimeElapsedColumn,
)
from rich.table import Table


def event(name: str, **facts: Any) -> None:
    """One line for a person on a terminal, one JSON line for a program."""
    _line(name, facts, style=None)


def choice(record: Mapping[str, Any]) -> None:
    """Which method was chosen where it was left open, and why."""
    for finding in record["findings"]:
        if finding["name"] == "auto":
            event("method", chosen=record["method"], why=finding["text"])


def failure(name: str, **facts: Any) -> None:
    """The same in red."""
    _line(name, facts, style="red")


def _line(name: str, facts: dict[str, Any], style: str | None) -> None:
    console = Console(stderr=True, highlight=False)
    if console.is_terminal:
        text = "  ".join(f"{key} {value}" for key, value in facts.items())
        console.print(f"[bold]{name}[/bold]  {escape(text)}", style=style)
    else:
        sys.stderr.write(json.dumps({"event": name, **facts}) + "\n")


@contextmanager
def show_progress(title: str, steps: int | None) -> Iterator[Callable[..., None]]:
    """Show the steps of a run: a bar on a terminal and in a notebook, else a line now and then.

    It is given whole, as ``progress=show_progress``, to ``efface.forget`` and ``recipes.train``. In
    a loop of one's own: ``with show_progress(title, steps) as shown``, and
    ``shown(step, loss, note)`` after each step.
    """
    console = Console(stderr=True)
    if not console.is_terminal and not console.is_jupyter:
        yield _lines(title, steps)
        return
    columns: list[ProgressColumn] = [
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
    ]
    if not console.is_jupyter:  # a saved notebook should not change with the speed of a machine
        columns.append(TimeElapsedColumn())
    bar = Progress(*columns, console=console, disable=console.is_jupyter)
    task = bar.add_task(title, total=steps)
    draw = _in_notebook(bar) if console.is_jupyter else lambda: None

    def shown(step: int, loss: float, note: str = "") -> None:
        text = f"{title}  loss {loss:.4f}  {note}"
        bar.update(task, completed=step, description=text)
        draw()

    with bar:
        yield shown
        bar.update(task, total=bar.tasks[0].completed)  # a method may end before its last step
        draw()


def _in_notebook(bar: Progress, every_seconds: float = 0.2) -> Callable[[], None]:
    """One output that is drawn again in its place.

    rich's own way needs a widget, which is gone from the page once the notebook is saved.
    """
    from IPython.display import DisplayHandle

    handle, last = DisplayHandle(), time.monotonic()
    handle.display(bar)

    def draw() -> None:
        nonlocal last
        if bar.finished or time.monotonic() - last >= every_seconds:
            last = time.monotonic()
            handle.update(bar)

    return draw


def _lines(title: str, steps: int | None, every_seconds: float = 5.0) -> Callable[..., None]:
    last = 0.0

    def shown(step: int, loss: float, note: str = "") -> None:
        nonlocal last
        if time.monotonic() - last >= every_seconds or step == steps:
            last = time.monotonic()
            event(title, step=step, steps=steps, loss=round(loss, 6), note=note)

    return shown


@contextmanager
def counted(title: str, total: int) -> Iterator[Callable[..., None]]:
    """A function ``told(what, **facts)``, called once a thing: it moves a bar, or writes a line."""
    console, began, done = Console(stderr=True), time.monotonic(), 0

    def line(what: str, **facts: Any) -> None:
        nonlocal done
        done += 1
        seconds = round(time.monotonic() - began, 1)
        event(title, done=done, total=total, after_seconds=seconds, what=what, **facts)

    if not console.is_terminal:
        yield line
        return
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
    with Progress(*columns, TimeElapsedColumn(), console=console) as bar:
        task = bar.add_task(title, total=total)
        yield lambda what, **_: bar.update(task, advance=1, description=f"{title}  {escape(what)}")


NUMBERS = re.compile(r"[\d\s.,%+\-−–e→]+")
"""What a column of numbers is made of."""


def table(title: str, columns: list[str], rows: list[list[str]]) -> None:
    """A table on standard output, no column cut short; numbers stand to the right.

    A row may end early: a heading of one cell stands over the rows below it.
    """
    shown = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False)
    names = min(20, max((len(row[0]) for row in rows), default=0))  # a name is not cut in two
    for place, column in enumerate(columns):
        said = "".join(row[place] for row in rows if place < len(row))
        justify = "right" if place and NUMBERS.fullmatch(said) else "left"
        head = max((len(word) for word in column.split()), default=0)  # nor is a word of the head
        least = max(head, 0 if place else names)
        shown.add_column(column, justify=justify, overflow="fold", min_width=least)
    for row in rows:
        shown.add_row(*row)
    console = Console(highlight=False)
    if not console.is_terminal:
        console.width = 140
    console.print(shown)


def number(value: float | str | None, unit: str) -> str:
    """A number as a person reads it: shares as percent, the rest with three digits."""
    if value is None or isinstance(value, str):
        return value or ""
    return f"{100 * value:.1f} %" if unit == "share" else f"{value:.3g}"

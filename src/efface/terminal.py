"""Terminal output: progress bars and tables on a terminal, one JSON line per event on a pipe.

``event``, ``show_progress`` and ``show_count`` write to standard error, ``table`` to standard
output, so that a pipe can take the table apart from the progress. Ids, classes and paths are shown
as they are: no brackets in them are markup, and control characters are written out.
"""

import json
import re
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext, suppress
from functools import partial
from typing import Any

from rich import box
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table
from rich.text import Text

from efface.display import printable
from efface.errors import EffaceError

# Columns of a table that is not printed to a terminal.
PIPE_WIDTH = 140
# What a column of numbers is made of.
NUMBERS = re.compile(r"[\d\s.,%+\-−–e→]+")


def event(name: str, *, style: str | None = None, **facts: Any) -> None:
    """One line for a person on a terminal, one JSON line for a program; ``style`` as in rich."""
    console = Console(stderr=True, highlight=False)
    if console.is_terminal:
        text = printable("  ".join(f"{key} {value}" for key, value in facts.items()))
        console.print(Text.assemble((name, "bold"), "  ", text), style=style)
    else:
        # a log that cannot be written is no reason to lose the run
        with suppress(OSError):
            sys.stderr.write(json.dumps({"event": name, **facts}) + "\n")


@contextmanager
def show_progress(title: str, steps: int | None) -> Iterator[Callable[..., None]]:
    """Show the steps of a run: a bar on a terminal or in a notebook, else a line every 5 seconds.

    Give it to ``efface.forget`` as ``progress=show_progress``. In a loop of your own:
    ``with show_progress(title, steps) as shown``, and ``shown(step, loss, note)`` after each step.
    """
    console, last = Console(stderr=True), 0.0
    bar, draw, every_seconds = _bar(console), lambda **_: None, 0.0
    task = bar.add_task(printable(title), total=steps)
    piped = not console.is_terminal and not console.is_jupyter
    if piped:  # A log of hundreds of lines would hide the one that matters.
        draw, every_seconds = partial(event, title, steps=steps), 5.0
    elif console.is_jupyter:
        from IPython.display import DisplayHandle

        # rich's own way needs a widget, which is gone from the page once the notebook is saved.
        handle = DisplayHandle()
        handle.display(bar)
        draw, every_seconds = lambda **_: handle.update(bar), 0.2

    def shown(step: int, loss: float, note: str = "") -> None:
        nonlocal last
        bar.update(task, completed=step, description=printable(f"{title}  loss {loss:.4f}  {note}"))
        if time.monotonic() - last >= every_seconds or step == steps:
            last = time.monotonic()
            draw(step=step, loss=round(loss, 6), note=note)

    # Entered on a pipe, rich's bar would leave an empty line among the JSON lines.
    with nullcontext() if piped else bar:
        yield shown
        # A method may stop by itself: a bar left at a third would look like a fault. After an
        # exception this line is not reached, and the bar stays where it was.
        bar.update(task, total=bar.tasks[0].completed)
        if console.is_jupyter:
            draw()


@contextmanager
def show_count(title: str, total: int) -> Iterator[Callable[..., None]]:
    """A function ``advance(what, **facts)``, called once an item: it moves a bar or writes a line.

    On a pipe each call is an event with the facts and the seconds since the start.
    """
    console, began, done = Console(stderr=True), time.monotonic(), 0

    def line(what: str, **facts: Any) -> None:
        nonlocal done
        done += 1
        seconds = round(time.monotonic() - began, 1)
        event(title, done=done, total=total, after_seconds=seconds, what=what, **facts)

    # No bar in a notebook here: this shows hours of shards, of which each deserves its line.
    if not console.is_terminal:
        yield line
        return
    with _bar(console) as bar:
        task = bar.add_task(printable(title), total=total)

        def advance(what: str, **_: Any) -> None:
            bar.update(task, advance=1, description=printable(f"{title}  {what}"))

        yield advance


def table(title: str, columns: list[str], rows: list[list[str]]) -> None:
    """A table on standard output, no column truncated; numbers are right-aligned.

    A row may have fewer cells than columns: a single cell is a heading of the rows below it.
    Raises EffaceError where standard output takes no more, BrokenPipeError where nobody reads it.
    """
    heading = Text(printable(title), "table.title")
    shown = Table(title=heading, title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False)
    # rich breaks words to fit: neither a name of a row nor a word of the head may be broken
    longest_name = min(20, max((len(row[0]) for row in rows), default=0))
    for index, column in enumerate(columns):
        cells = "".join(row[index] for row in rows if index < len(row))
        justify = "right" if index and NUMBERS.fullmatch(cells) else "left"
        width = max(0 if index else longest_name, *map(len, column.split()), 0)
        # folded, never cut: half an id names nothing
        shown.add_column(Text(printable(column)), justify=justify, overflow="fold", min_width=width)
    for row in rows:
        style = "bold" if len(row) == 1 else ""
        shown.add_row(*(Text(printable(cell), style) for cell in row))
    console = _Console(highlight=False)
    # a pipe has no width, and rich would fold everything at 80 columns
    if not console.is_terminal:
        console.width = PIPE_WIDTH
    try:
        console.print(shown)
        console.file.flush()
    except BrokenPipeError:
        raise
    except OSError as error:
        remedy = "What was written to files is whole."
        raise EffaceError("to print the table", f"{error.strerror}", remedy) from error


class _Console(Console):
    def on_broken_pipe(self) -> None:
        """Rich would end the program with a code that says nothing."""
        raise BrokenPipeError


def format_number(value: float | str | None, unit: str) -> str:
    """A share as percent, other numbers with three significant digits; texts as they are."""
    if value is None or isinstance(value, str):
        return value or ""
    return f"{100 * value:.1f} %" if unit == "share" else f"{value:.3g}"


def _bar(console: Console) -> Progress:
    columns = (TextColumn("{task.description}", markup=False), BarColumn(), MofNCompleteColumn())
    # a saved notebook should not change with the speed of a machine
    clock = () if console.is_jupyter else (TimeElapsedColumn(),)
    return Progress(*columns, *clock, console=console, disable=console.is_jupyter)

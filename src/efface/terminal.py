"""Terminal output: progress bars and tables on a terminal, one JSON line per event on a pipe.

``event``, ``show_progress`` and ``show_count`` write to standard error; ``table``, ``lines`` and
``document`` to standard output, so that a pipe can take the result apart from the progress.
``configure_display`` says how much is shown. Ids, classes and paths are shown as they are: no
brackets in them are markup, and control characters are written out.
"""

import json
import logging
import math
import re
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext, suppress
from datetime import UTC, datetime
from functools import partial
from types import MappingProxyType
from typing import Any

from rich import box
from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    Task,
    TextColumn,
    TimeElapsedColumn,
)
from rich.table import Table
from rich.text import Text

from efface.display import printable
from efface.errors import EffaceError

# Columns of a table that is not printed to a terminal.
PIPE_WIDTH = 140
# What a column of numbers is made of.
NUMBERS = re.compile(r"[\d\s.,%+\-−–e→]+")
# Seconds between two lines of a stage on a pipe.
EVERY_SECONDS = 5.0
STYLES = {logging.WARNING: "yellow", logging.ERROR: "red"}
LOG = logging.getLogger("efface")


class _Shown(logging.Handler):
    """What is shown: events and log records of this level, tables or one JSON document."""

    # what the document holds so far, None where text and tables are shown
    content: dict[str, Any] | None = None
    # of the bar that is drawn now: a line of another console would tear it
    console: Console | None = None

    def emit(self, record: logging.LogRecord) -> None:
        """Show what the library logs as an event."""
        facts: dict[str, Any] = getattr(record, "facts", {})
        level, name = record.levelno, record.levelname.lower()
        # what a library finds worth its log is a detail here, unless it is a warning
        level = level if level >= logging.WARNING else logging.DEBUG
        event(name, level=level, **{"text": record.getMessage(), **facts})


_shown = _Shown(logging.INFO)


@contextmanager
def configure_display(
    *, quiet: bool = False, verbose: bool = False, as_json: bool = False
) -> Iterator[None]:
    """Show warnings alone (``quiet``) or details too (``verbose``), and what ``efface`` logs.

    ``as_json``: standard output gets one JSON document in place of text and tables.
    """
    before = LOG.level, LOG.propagate, _shown.level, _shown.content
    level = logging.WARNING if quiet else logging.DEBUG if verbose else logging.INFO
    _shown.setLevel(level)
    _shown.content = {"exit_code": 0} if as_json else None
    LOG.setLevel(level)
    # the handlers of the root, if another library made some, would show each record twice
    LOG.propagate = False
    LOG.addHandler(_shown)
    try:
        yield
    finally:
        content = _shown.content
        LOG.removeHandler(_shown)
        LOG.level, LOG.propagate, level, _shown.content = before
        _shown.setLevel(level)
        if content is not None:
            _print(json.dumps(content, allow_nan=False))


def shows(level: int) -> bool:
    """Whether events of this level are shown."""
    return level >= _shown.level


def event(name: str, *, level: int = logging.INFO, **facts: Any) -> None:
    """One line for a person on a terminal, one JSON line with the time for a program."""
    if not shows(level):
        return
    console = _shown.console or Console(stderr=True, highlight=False)
    if console.is_terminal:
        sentence = [str(facts["text"])] if "text" in facts else []
        others = [f"{key} {value}" for key, value in facts.items() if key != "text"]
        text = printable("  ".join(sentence + others))
        line = Text.assemble((name, "bold"), "  ", text)
        console.print(line, style=STYLES.get(level), highlight=False)
    else:
        now = datetime.now(UTC).isoformat(timespec="seconds")
        # a log that cannot be written is no reason to lose the run
        with suppress(OSError):
            text = json.dumps({"time": now, "event": name, **facts}, default=str)
            sys.stderr.write(f"{text}\n")


warn = partial(event, "warning", level=logging.WARNING)


@contextmanager
def show_progress(title: str, steps: int | None) -> Iterator[Callable[..., None]]:
    """Show a stage: a bar with the time left on a terminal or in a notebook, else lines.

    On a pipe that is a line every 5 seconds and one at the end. Give it to ``efface.forget`` as
    ``progress=show_progress``. In a loop of your own: ``with show_progress(title, steps) as
    shown``, and ``shown(step, loss, note)`` after each step; ``steps=`` tells their number later.
    """
    if not shows(logging.INFO):
        yield lambda *_, **__: None
        return
    console = Console(stderr=True)
    stage = _Stage(title, steps, console)
    # Entered on a pipe, rich's bar would leave an empty line among the JSON lines.
    with nullcontext() if stage.piped else _draw_bar(stage.bar):
        yield stage.shown
        # A method may stop by itself: a bar left at a third would look like a fault. After an
        # exception this line is not reached, and the bar stays where it was.
        stage.end()


class _Stage:
    """A stage on its way: a bar, or a line now and then."""

    def __init__(self, title: str, steps: int | None, console: Console) -> None:
        self.title, self.console, self.bar = title, console, _bar(console)
        self.task = self.bar.add_task(printable(title), total=steps)
        self.piped = not console.is_terminal and not console.is_jupyter
        self.facts: dict[str, Any] = {"step": 0, "steps": steps}
        self.began = self.last = time.monotonic()
        # when the first steps were done, and how many: the speed is that of those after them
        self.first: tuple[float, int] | None = None
        # of a notebook, once there is something to show
        self.handle: Any = None
        # on a terminal the bar draws itself
        self.every = math.inf if console.is_terminal else EVERY_SECONDS if self.piped else 0.2

    def shown(
        self, step: int, loss: float | None = None, note: str = "", *, steps: int | None = None
    ) -> None:
        """Where the stage is; ``steps`` as soon as their number is known."""
        now = time.monotonic()
        self.first = self.first or (now, step)
        new = {"steps": steps, "loss": None if loss is None else round(loss, 6), "note": note}
        self.facts |= {"step": step, **{k: one for k, one in new.items() if one not in (None, "")}}
        words = [self.title, "" if loss is None else f"loss {loss:.4f}", note]
        text = printable("  ".join(filter(None, words)))
        # a stage may turn out longer than was thought
        total = self.facts["steps"] and max(self.facts["steps"], step)
        self.bar.update(self.task, completed=step, total=total, description=text)
        if now - self.last >= self.every:
            self.last = now
            self.draw()

    def end(self) -> None:
        """The stage is done, whatever number of steps was thought."""
        self.facts["steps"] = self.facts["step"]
        self.bar.update(self.task, total=self.facts["step"])
        if not self.console.is_terminal:
            self.draw()

    def draw(self) -> None:
        """A line with the seconds so far and those left at this speed; in a notebook the bar."""
        now, step, of = time.monotonic(), self.facts["step"], self.facts["steps"]
        if self.piped:
            facts: dict[str, Any] = {**self.facts, "seconds": round(now - self.began, 1)}
            # what precedes the first step, such as opening a model, says nothing of the others
            began, already = self.first or (now, step)
            if of and already < step < of:
                facts["left"] = round((now - began) / (step - already) * (of - step), 1)
            event(self.title, **facts)
        elif self.handle:
            self.handle.update(self.bar)
        # the method alone: three bars would hide the result below them
        elif "loss" in self.facts:
            from IPython.display import DisplayHandle

            # rich's own way needs a widget, which is gone from the page once the notebook is saved.
            self.handle = DisplayHandle()
            self.handle.display(self.bar)


@contextmanager
def _draw_bar(bar: Progress) -> Iterator[Progress]:
    """The bar on the terminal, below the events of that time."""
    before, _shown.console = _shown.console, bar.console
    try:
        with bar:
            yield bar
    finally:
        _shown.console = before


@contextmanager
def show_count(title: str, total: int) -> Iterator[Callable[..., None]]:
    """A function ``advance(what, **facts)``, called once an item: it moves a bar or writes a line.

    On a pipe each call is an event with the facts, the seconds since the start, and those left if
    the others take as long.
    """
    console, began, done = Console(stderr=True), time.monotonic(), 0

    def line(what: str, **facts: Any) -> None:
        nonlocal done
        done += 1
        seconds = round(time.monotonic() - began, 1)
        left = round(seconds / done * (total - done), 1)
        times = {"after_seconds": seconds, "seconds_left": left}
        event(title, done=done, total=total, **times, what=what, **facts)

    # No bar in a notebook here: this shows hours of shards, of which each deserves its line.
    if not console.is_terminal:
        yield line
        return
    with _draw_bar(_bar(console)) as bar:
        task = bar.add_task(printable(title), total=total)

        def advance(what: str, **_: Any) -> None:
            bar.update(task, advance=1, description=printable(f"{title}  {what}"))

        yield advance


def table(
    title: str,
    columns: list[str],
    rows: list[list[str]],
    styles: Mapping[str, str] = MappingProxyType({}),
) -> None:
    """A table on standard output, no column truncated; numbers are right-aligned.

    A row may have fewer cells than columns: a single cell is a heading of the rows below it.
    ``styles``: of rows, by the text of their last cell, as in rich.
    Raises EffaceError where standard output takes no more, BrokenPipeError where nobody reads it.
    """
    if (content := _shown.content) is not None:
        # of a command that says its result in no other way
        if content.keys() <= {"exit_code", "tables"}:
            more = {"title": title, "columns": columns, "rows": rows}
            content.setdefault("tables", []).append(more)
        return
    if not shows(logging.INFO):
        return
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
        style = "bold" if len(row) == 1 else styles.get(row[-1], "")
        shown.add_row(*(Text(printable(cell), style) for cell in row))
    _print(shown)


def lines(pairs: Sequence[tuple[str, str]]) -> None:
    """A heading and its text in each line, on standard output; equal headings stand once."""
    grid, last = Table.grid(padding=(0, 2)), None
    grid.add_column(min_width=max((len(name) for name, _ in pairs), default=0))
    grid.add_column(overflow="fold")
    for name, text in pairs:
        grid.add_row(Text("" if name == last else name, "bold"), Text(printable(text)))
        last = name
    if _shown.content is None and shows(logging.INFO):
        _print(grid)


def command(line: str) -> None:
    """A command on standard output, on a line of its own and never folded: it is to be copied."""
    if _shown.content is None and shows(logging.INFO):
        _print(f"  {printable(line)}")


def document(**content: Any) -> None:
    """Add to the JSON document, where that was asked for."""
    if _shown.content is not None:
        _shown.content.update(content)


def _print(what: Table | str) -> None:
    console = _Console(highlight=False)
    # a pipe has no width, and rich would fold everything at 80 columns
    if not console.is_terminal:
        console.width = PIPE_WIDTH
    try:
        if isinstance(what, str):
            console.file.write(f"{what}\n")
        else:
            console.print(what)
        console.file.flush()
    except BrokenPipeError:
        raise
    except OSError as error:
        remedy = "What was written to files is whole."
        raise EffaceError("to print the result", f"{error.strerror}", remedy) from error


class _Console(Console):
    def on_broken_pipe(self) -> None:
        """Rich would end the program with a code that says nothing."""
        raise BrokenPipeError


def format_number(value: float | str | None, unit: str) -> str:
    """A share as percent, other numbers with three significant digits; texts as they are."""
    if value is None or isinstance(value, str):
        return value or ""
    return f"{100 * value:.1f} %" if unit == "share" else f"{value:.3g}"


class _Left(ProgressColumn):
    """The seconds that are left at the speed so far."""

    max_refresh = 0.5

    def render(self, task: Task) -> Text:
        left = None if task.finished else task.time_remaining
        return Text("" if left is None else f"about {left:.0f} s left")


def _bar(console: Console) -> Progress:
    columns = (TextColumn("{task.description}", markup=False), BarColumn(), MofNCompleteColumn())
    # a saved notebook should not change with the speed of a machine
    clock = () if console.is_jupyter else (TimeElapsedColumn(), _Left())
    return Progress(*columns, *clock, console=console, disable=console.is_jupyter)

"""What is seen of a run: bars and tables on a terminal, one JSON line per event when piped."""

import json
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from rich import box
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table


def event(name: str, **facts: Any) -> None:
    """One line for a person on a terminal, one JSON line for a program."""
    console = Console(stderr=True, highlight=False)
    if console.is_terminal:
        text = "  ".join(f"{key} {value}" for key, value in facts.items())
        console.print(f"[bold]{name}[/bold]  {text}")
    else:
        sys.stderr.write(json.dumps({"event": name, **facts}) + "\n")


@contextmanager
def steps_shown(title: str, total: int | None) -> Iterator[Callable[..., None]]:
    """A function ``shown(step, loss, note)``: it moves a bar, or writes a line now and then."""
    console = Console(stderr=True)
    if not console.is_terminal:
        yield _lines(title, total)
        return
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
    with Progress(*columns, TimeElapsedColumn(), console=console) as bar:
        task = bar.add_task(title, total=total)

        def shown(step: int, loss: float, note: str = "") -> None:
            text = f"{title}  loss {loss:.4f}  {note}"
            bar.update(task, completed=step, description=text)

        yield shown


def _lines(title: str, total: int | None, every_seconds: float = 5.0) -> Callable[..., None]:
    last = 0.0

    def shown(step: int, loss: float, note: str = "") -> None:
        nonlocal last
        if time.monotonic() - last >= every_seconds or step == total:
            last = time.monotonic()
            event(title, step=step, steps=total, loss=round(loss, 6), note=note)

    return shown


def table(title: str, columns: list[str], rows: list[list[str]]) -> None:
    """A table on standard output, no column cut short; the first column is text."""
    shown = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False)
    for place, column in enumerate(columns):
        shown.add_column(column, justify="left" if place == 0 else "right", overflow="fold")
    for row in rows:
        shown.add_row(*row)
    console = Console(highlight=False)
    if not console.is_terminal:
        console.width = 120
    console.print(shown)


def number(value: float | str | None, unit: str) -> str:
    """A number as a person reads it: shares as percent, the rest with three digits."""
    if value is None or isinstance(value, str):
        return value or ""
    return f"{100 * value:.1f} %" if unit == "share" else f"{value:.3g}"

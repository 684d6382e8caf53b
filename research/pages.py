"""What result pages share: their parts, Markdown tables, means with an interval or a range."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np


def page(title: str, *parts: str | Iterable[str]) -> str:
    """A page in Markdown, an empty line between its parts; lines of text are one part."""
    blocks = [part if isinstance(part, str) else "\n".join(part) for part in parts]
    return "\n\n".join([f"# {title}", *filter(None, blocks)]) + "\n"


def table(head: str, rows: Iterable[Iterable[str]]) -> str:
    """A table in Markdown; ``head``: the titles of its columns, as in "method | gap"."""
    first, *others = [f"| {' | '.join(cells)} |" for cells in (head.split(" | "), *rows)]
    return "\n".join([first, "|---" * len(head.split(" | ")) + "|", *others])


def origin(record: Mapping[str, Any]) -> str:
    """The command that made a record, and its date."""
    return f"`{record['command']}`, {record['date']}"


def percent(share: float | None, digits: int = 1) -> str:
    """A share (0 to 1) in %, without the sign; a dash for None."""
    return "–" if share is None else f"{100 * share:.{digits}f}"


def triple(*models: Mapping[str, float | None]) -> str:
    """D_r / D_f / MIA in %: the columns of one model, or their means over several."""
    columns = [[model[name] for model in models] for name in models[0]]
    return " / ".join(percent(None if None in c else float(np.mean(c))) for c in columns)  # pyrefly: ignore


def interval(value: float, low: float, high: float, form: str = ".3f") -> str:
    """A value and its interval, each in the format ``form``."""
    return f"{value:{form}} ({low:{form}} to {high:{form}})"


def mean_range(values: Sequence[float], form: str = ".1f") -> str:
    """Mean, minimum and maximum."""
    return interval(float(np.mean(values)), min(values), max(values), form=form)


def points(values: Sequence[float]) -> str:
    """Mean and range of shares, in percentage points."""
    return mean_range([100 * one for one in values])

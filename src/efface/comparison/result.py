"""What a comparison found: its cells, a row a method, the front; made by ``comparison.run``."""

import json
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np

from efface.calibration import UTILITY, distance_to_unseen
from efface.display import table as html_table
from efface.errors import Outcome
from efface.guard import UTILITY_BUDGET
from efface.report import Row

LEVEL = 0.95
GAP = "retrained.gap"
COSTS = ("seconds", "passes")
# Rows of a cell's report that the table shows; a request of classes has the second, others the
# first, as far as the data allow.
SHOWN = ("forget.accuracy", "forget_classes.accuracy", "attack.loss", UTILITY, GAP)


@dataclass(frozen=True, eq=False)
class Comparison:
    """What ``compare`` returns: ``cells``, one mapping a run, and what the model was before.

    Of a cell: ``method``, ``seed``, ``guard``, ``settings``, ``outcome`` (None where it failed,
    with the ``error``), ``seconds`` and ``passes`` of method and guard, ``rows`` (the report's, by
    key), ``distance`` (``calibration.distance_to_unseen`` on the evaluation part), ``gap`` (average
    gap to the retrained models), ``folder``. ``trials``: the same of the search for a strength.
    ``given``: the rows of the given model, as if it were a new one.
    """

    cells: list[dict[str, Any]]
    trials: list[dict[str, Any]] = field(default_factory=list)
    utility_budget: float = UTILITY_BUDGET
    given: dict[str, dict[str, Any]] = field(default_factory=dict)

    def __str__(self) -> str:
        columns, rows = self.table()
        widths = [max(map(len, column)) for column in zip(columns, *rows, strict=True)]
        lines = [
            "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
            for row in (columns, *rows)
        ]
        return "\n".join(lines)

    def _repr_html_(self) -> str:
        """The table: what a notebook shows."""
        return html_table(*self.table())

    @cached_property
    def by_name(self) -> dict[str, list[dict[str, Any]]]:
        """All cells, those that failed too, by the name of their row."""
        found: dict[str, list[dict[str, Any]]] = {}
        for cell in self.cells:
            found.setdefault(cell["name"], []).append(cell)
        return found

    @property
    def measure(self) -> str:
        """What methods are ordered by: ``gap``, else ``distance``; empty where there is neither."""
        known = (m for m in ("gap", "distance") if any(c.get(m) is not None for c in self.cells))
        return next(known, "")

    def summary(self) -> list[dict[str, Any]]:
        """A row for each method, the nearest first: means over its seeds with 95 % intervals.

        ``seconds`` and ``passes`` are medians: what a first run loads should not count.
        """
        rows = [self._summarize(name, cells) for name, cells in self.by_name.items()]
        none = math.inf
        return sorted(rows, key=lambda r: r[self.measure][0] if r.get(self.measure) else none)

    def _summarize(self, name: str, cells: Sequence[dict[str, Any]]) -> dict[str, Any]:
        ran = [cell for cell in cells if cell["outcome"]]
        outcomes = Counter(cell["outcome"] or "failed" for cell in cells)
        row = {"name": name, "cells": cells, "outcomes": dict(outcomes)}
        # a request that was not met has no new model, and nothing to take a mean of
        made = [cell for cell in ran if cell["outcome"] != Outcome.NOT_MET]
        values = {key: [c["rows"][key]["after"] for c in made if key in c["rows"]] for key in SHOWN}
        values |= {m: [cell[m] for cell in made] for m in ("gap", "distance")}
        values["utility"] = [
            c["rows"][UTILITY]["after"] - c["rows"][UTILITY]["before"]
            for c in made
            if UTILITY in c["rows"] and c["rows"][UTILITY]["after"] is not None
        ]
        values |= {m: [cell[m] for cell in ran] for m in COSTS}
        known = {k: [float(v) for v in found if v is not None] for k, found in values.items()}
        costs = {k: (float(np.median(v)), None, None) for k in COSTS if (v := known.pop(k, []))}
        means = {k: mean_interval(v, share=k != "utility") for k, v in known.items() if v}
        return row | means | costs

    @property
    def given_distance(self) -> float | None:
        """``distance_to_unseen`` of the given model."""
        rows = [
            Row(row["before"], row["after"], row["reference"], key=key)
            for key, row in self.given.items()
        ]
        return distance_to_unseen(rows)

    @property
    def front(self) -> tuple[str, ...]:
        """The Pareto-optimal rows by name: no other one is as near and as fast, and better in one.

        Those that lost more utility than the budget allows do not count.
        """
        points = [
            (row[self.measure][0], row["seconds"][0], row["name"])
            for row in self.summary()
            if row.get(self.measure) and not self.too_expensive(row)
        ]
        return tuple(
            name
            for far, long, name in points
            if not any(f <= far and s <= long and (f, s) != (far, long) for f, s, _ in points)
        )

    def too_expensive(self, row: Mapping[str, Any]) -> bool:
        """Whether the mean loss of utility is above the budget."""
        # shares of few records hit the budget exactly, but for the last digit
        return bool(row.get("utility")) and row["utility"][0] < -self.utility_budget - 1e-9

    def table(self) -> tuple[list[str], list[list[str]]]:
        """Columns and rows of the table in words, the given and the retrained model included."""
        from efface.comparison.page import table

        return table(self)

    def to_frame(self) -> Any:
        """A pandas data frame, one row a cell."""
        import pandas as pd

        plain = ("name", "method", "seed", "guard", "outcome", "gap", "distance")
        plain += ("seconds", "passes", "folder", "error")
        rows = [
            {key: cell.get(key) for key in plain}
            | {key: cell["rows"].get(key, {}).get("after") for key in SHOWN}
            | {"settings": json.dumps(cell["settings"])}
            for cell in self.cells
        ]
        return pd.DataFrame(rows)

    def to_html(self) -> str:
        """One self-contained page: the table, the figure, each cell with a link to its report."""
        from efface.comparison.page import page

        return page(self)


def mean_interval(
    values: Sequence[float], *, share: bool = False
) -> tuple[float, float | None, float | None]:
    """Mean over seeds, and its 95 % interval by Student's t; None for one seed.

    It says how much the method's own randomness moves the number, not how few the records are.
    ``share``: the interval is cut to 0 to 1 , where its values lie.
    """
    from scipy import stats

    mean, n = float(np.mean(values)), len(values)
    if n < 2:  # noqa: PLR2004
        return mean, None, None
    half = float(stats.t.ppf((1 + LEVEL) / 2, n - 1) * np.std(values, ddof=1) / math.sqrt(n))
    low, high = mean - half, mean + half
    return (mean, max(low, 0.0), min(high, 1.0)) if share else (mean, low, high)

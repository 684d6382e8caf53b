"""Several methods and seeds on one model and one request: a table, a figure, one page.

Each cell is one call of ``efface.forget``, with the arguments of a single run, so that it has the
numbers of a single run. Cells are folders, written whole or not at all: a comparison that was
stopped goes on where it was, and what was changed is made again.
"""

import hashlib
import json
import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property
from itertools import product
from pathlib import Path
from typing import Any

import joblib
import numpy as np
import torch
from joblib.externals.loky import get_reusable_executor
from torch import nn

from efface import prepare, terminal
from efface.calibration import UTILITY, calibration_distance, distance_to_unseen, need_holdout
from efface.display import table as html_table
from efface.errors import InputError, NotMet, Outcome
from efface.grid import canonical, source_digest
from efface.io.atomic import atomic_folder, atomic_write, claim
from efface.io.data import as_records
from efface.manifest import state_digest, versions
from efface.methods import METHODS, Natural, check_settings, check_value, find_method
from efface.report import Row, jsonable
from efface.types import PARTS, Records, Split, split_holdout
from efface.unlearn import forget, score

CELL, CELLS, PAGE, TABLE = "cell.json", "cells", "compare.html", "cells.csv"
# Strengths of a search: from a tenth to ten times the default, in equal ratios.
WEAKEST, STRONGEST, MOST_STRENGTHS = 0.1, 10.0, 12
LEVEL = 0.95
GAP = "retrained.gap"
# Rows of a cell's report that the table shows; a request of classes has the second, others the
# first, as far as the data allow.
SHOWN = ("forget.accuracy", "forget_classes.accuracy", "attack.loss", UTILITY, GAP)


@dataclass(frozen=True)
class Cell:
    """One run: a method with its settings, a seed, and whether the guard limits it."""

    method: str
    seed: int
    guard: bool = True
    settings: Mapping[str, Any] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """What the table calls its row: cells that differ in the seed alone share it."""
        return self.method + " without guard" * (not self.guard)


@dataclass(frozen=True, eq=False)
class Comparison:
    """What ``compare`` returns: ``cells``, one mapping a run, and what the model was before.

    Of a cell: ``method``, ``seed``, ``guard``, ``settings``, ``outcome`` (None where it failed,
    with the ``error``), ``seconds`` and ``passes`` of method and guard, ``rows`` (the report's, by
    key), ``distance`` (``calibration.distance_to_unseen`` on the evaluation half), ``gap`` (average
    gap to the retrained models), ``folder``. ``trials``: the same of the search for a strength.
    """

    cells: list[dict[str, Any]]
    trials: list[dict[str, Any]] = field(default_factory=list)
    utility_budget: float = 0.02

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
        """The cells that made a report, by the name of their row."""
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
        """A row for each method: means over its seeds with 95 % intervals; the nearest first."""
        rows = [self._summarised(name, cells) for name, cells in self.by_name.items()]
        none = math.inf
        return sorted(rows, key=lambda r: r[self.measure][0] if r.get(self.measure) else none)

    def _summarised(self, name: str, cells: Sequence[dict[str, Any]]) -> dict[str, Any]:
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
        values |= {m: [cell[m] for cell in ran] for m in ("seconds", "passes")}
        known = {k: [float(v) for v in found if v is not None] for k, found in values.items()}
        others = ("utility", "seconds", "passes")
        return row | {k: mean_interval(v, share=k not in others) for k, v in known.items() if v}

    @property
    def before(self) -> dict[str, Any]:
        """The rows of the given model, by key: values and references; empty where no cell ran."""
        ran = [cell for cell in self.cells if cell["outcome"]]
        # the rows of a request that was not met lack those on retrained models
        ran.sort(key=lambda cell: cell["outcome"] == Outcome.NOT_MET)
        return ran[0]["rows"] if ran else {}

    @property
    def given_distance(self) -> float | None:
        """``distance_to_unseen`` of the given model, by the same rows."""
        rows = [
            Row(row["before"], row["before"], row["reference"], key=key)
            for key, row in self.before.items()
        ]
        return distance_to_unseen(rows)

    @property
    def front(self) -> tuple[str, ...]:
        """Names of the rows that no other one beats in both the measure and the seconds.

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


def compare(
    model: nn.Module,
    data: Any,
    *,
    methods: Sequence[str],
    out: str | Path,
    seeds: Sequence[int] = (0, 1, 2),
    guard: Sequence[bool] = (True,),
    settings: Mapping[str, Mapping[str, Any]] | None = None,
    search_strength: int = 0,
    retrained: Sequence[nn.Module] = (),
    processes: int = 1,
    **request: Any,
) -> Comparison:
    """Run each method with each seed on one request, and put the results next to each other.

    Args:
        model: as for ``efface.forget``; it is not changed.
        data: as for ``efface.forget``, and so are the names of the records in ``request``.
        methods: names in ``efface.METHODS``.
        out: a folder of cells, ``compare.html`` and ``cells.csv``, made where there is none. Cells
            that are there are read, not made again.
        seeds: of the methods; the holdout is split by ``holdout_seed``, the same for all.
        guard: ``(True,)``, ``(False,)``, or both.
        settings: by the name of a method.
        search_strength: so many strengths of 0.1 to 10 are tried for each method that has one, 2 to
            12, with the first seed; the nearest to unseen records on the calibration half of the
            holdout is taken. 0: the default strength.
        retrained: models trained without the forget records, which give the average gap.
        processes: cells at a time, on this machine; their seconds are longer then.
        **request: what else ``efface.forget`` takes, the same for every cell.

    Raises:
        InputError: a method, a setting or a part that it needs is not there; before anything runs.
    """
    settings = dict(settings or {})
    cells = [
        Cell(method, seed, on, dict(settings.get(method, {})))
        for method, on, seed in product(dict.fromkeys(methods), guard, dict.fromkeys(seeds))
    ]
    split = _named(data, request)
    _refuse(cells, split, settings, search_strength, request)
    study = _Study.of(model, split, request, tuple(retrained), Path(out), tuple(methods))
    trials: list[dict[str, Any]] = []
    study.rehearse(cells)
    if search_strength:
        trials = study.run(_trials(cells, search_strength), processes, trial=True)
        best = _best_strengths(trials)
        cells = [
            replace(one, settings={**one.settings, "strength": best[one.name]})
            if one.name in best
            else one
            for one in cells
        ]
    found = Comparison(study.run(cells, processes), trials, request.get("utility_budget", 0.02))
    atomic_write(Path(out, TABLE), found.to_frame().to_csv(index=False).encode())
    atomic_write(Path(out, PAGE), found.to_html().encode())
    return found


def _named(data: Any, request: dict[str, Any]) -> Split:
    """The split of the request, whose names of records are taken out of ``request``."""
    records, parts = (
        {name: request.pop(name, None) for name in names}
        for names in (("ids", "where", "indices", "forget_class"), ("holdout", "retain"))
    )
    how = request.get("preprocessing"), request.get("classes")
    split, unnamed, _ = prepare.name_records(data, records, parts, *how)
    if request.get("others") is None:
        request["others"] = unnamed
    return split


def _refuse(
    cells: Sequence[Cell],
    split: Split,
    settings: Mapping[str, Any],
    search: int,
    request: Mapping[str, Any],
) -> None:
    """Raise InputError for what a run would refuse, before the first of them starts."""
    if not cells:
        raise InputError("methods and seeds to compare", "none", "Name one of each at least.")
    if other := settings.keys() - {cell.method for cell in cells}:
        raise InputError("settings of the methods compared", min(other), "Name it in methods too.")
    if search:
        _refuse_search(search, split, request)
    if request.get("report") == prepare.OFF:
        raise InputError("report full or quick", "off", "A comparison needs numbers.")
    for cell in cells:
        check_settings(cell.method, dict(cell.settings))
        check_value("seed", cell.seed, Natural)
        method = find_method(cell.method)
        # before anything is loaded or run: the tenth method must not fail after hours
        missing = [part for part in method.in_order(method.needs) if not _given(split, part)]
        if missing:
            from efface.methods._base import NEEDED

            what, remedy = NEEDED[missing[0]]
            wanted = f"{missing[0]} for {cell.method}: {what}"
            raise InputError(wanted, "a split without it", f"{remedy} Or omit the method.")


def _refuse_search(count: int, split: Split, request: Mapping[str, Any]) -> None:
    """Raise InputError for a search that cannot be made."""
    if not 2 <= count <= MOST_STRENGTHS:  # noqa: PLR2004
        wanted = f"2 to {MOST_STRENGTHS} strengths to search among"
        raise InputError(wanted, f"{count}", "Omit it for the default strength.")
    if "strength" in request:
        raise InputError("a strength, or a search for one", "both", "Omit one of them.")
    need_holdout(split)


def _given(split: Split, part: str) -> bool:
    value = getattr(split, part)
    return value is not None and value != ()


def _trials(cells: Sequence[Cell], count: int) -> list[Cell]:
    """Each method that has a strength, at ``count`` strengths, with the first seed."""
    strengths = np.geomspace(WEAKEST, STRONGEST, count)
    first = {cell.name: cell for cell in reversed(cells)}
    return [
        replace(cell, settings={**cell.settings, "strength": float(f"{strength:.3g}")})
        for cell in reversed(first.values())
        if "strength" in METHODS[cell.method].settings and "strength" not in cell.settings
        for strength in strengths
    ]


def _best_strengths(trials: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    """By the name of a row the strength with the smallest distance on the calibration half."""
    best: dict[str, tuple[float, float]] = {}
    for trial in trials:
        distance = trial["calibration_distance"]
        if distance is not None:
            # of equals the weakest: it changes the least
            one = distance, trial["settings"]["strength"]
            best[trial["name"]] = min(best.get(trial["name"], one), one)
    return {name: strength for name, (_, strength) in best.items()}


@dataclass(frozen=True, eq=False)
class _Study:
    """What every cell has in common, and where cells are kept."""

    model: nn.Module
    split: Split
    request: dict[str, Any]
    retrained: tuple[nn.Module, ...]
    out: Path
    digest: str
    sources: dict[str, dict[str, str]]
    threads: int

    @classmethod
    def of(
        cls,
        model: nn.Module,
        split: Split,
        request: dict[str, Any],
        retrained: tuple[nn.Module, ...],
        out: Path,
        methods: Sequence[str],
    ) -> "_Study":
        """The parts read once, and the digest of all that a cell depends on but itself."""
        how = request.get("preprocessing"), request.get("classes")
        parts = {name: getattr(split, name) for name in PARTS}
        records: dict[str, Any] = {
            n: as_records(part, *how) for n, part in parts.items() if part is not None
        }
        split = replace(split, **records)
        rest = {name: part for name, part in vars(split).items() if name not in records}
        about = {"model": model, "retrained": retrained, **records, **rest, **request}
        about["versions"], threads = versions(), torch.get_num_threads()
        text = canonical(_described(about | {"threads": threads}))
        digest = hashlib.sha256(text.encode()).hexdigest()
        # methods are found by a look at their folder, which no import statement shows; described
        # once, so that a file that is edited meanwhile moves no cell
        homes = {name: METHODS[name].function.__module__ for name in methods}
        sources = {
            name: {"sources": source_digest(["efface.unlearn:forget", f"{home}:{name}"])}
            for name, home in homes.items()
        }
        return cls(model, split, request, retrained, out, digest, sources, threads)

    def rehearse(self, cells: Sequence[Cell]) -> None:
        """Raise what each cell would: of the model, the data and the request, before any runs."""
        if all((self.folder(cell, trial=False) / CELL).exists() for cell in cells):
            return
        how: dict[str, Any] = {**self.request, "dry_run": True, "method": cells[0].method}
        forget(self.model, self.split, settings=dict(cells[0].settings), **how)

    def run(
        self, cells: Sequence[Cell], processes: int, *, trial: bool = False
    ) -> list[dict[str, Any]]:
        """Every cell in the given order; those that are not there are made."""
        missing = [cell for cell in cells if not (self.folder(cell, trial=trial) / CELL).exists()]
        failures: dict[int, str] = {}
        title = "strengths" if trial else "cells"
        with terminal.show_count(title, len(missing)) as shown:
            for place, error in self._attempts(missing, processes, trial=trial):
                cell = missing[place]
                shown(f"{cell.name} seed {cell.seed}", **{"error": error} if error else {})
                if error:
                    failures[id(cell)] = error
        return [self._read(cell, failures.get(id(cell), ""), trial=trial) for cell in cells]

    def _attempts(
        self, cells: Sequence[Cell], processes: int, *, trial: bool
    ) -> Iterator[tuple[int, str]]:
        if processes == 1:
            yield from (
                (place, self.attempt(cell, trial=trial)) for place, cell in enumerate(cells)
            )
            return
        # each worker gets model and records once, and not with every cell
        pool: dict[str, Any] = {"initializer": _start, "initargs": (self,)}
        with joblib.parallel_config("loky", **pool):
            how: dict[str, Any] = {"batch_size": 1, "return_as": "generator_unordered"}
            jobs = (
                joblib.delayed(_attempt)(place, cell, trial) for place, cell in enumerate(cells)
            )
            try:
                yield from joblib.Parallel(n_jobs=processes, **how)(jobs)
            finally:
                # they would hold the records for minutes
                get_reusable_executor(reuse=True).shutdown(wait=True, kill_workers=True)

    def folder(self, cell: Cell, *, trial: bool) -> Path:
        """The place of a cell: its name for people, and the digest of all that it depends on."""
        text = canonical({**asdict(cell), "request": self.digest} | self.sources[cell.method])
        address = hashlib.sha256(text.encode()).hexdigest()[:12]
        words = [cell.method, "unguarded" * (not cell.guard), f"seed{cell.seed}", address]
        return self.out / ("trials" if trial else CELLS) / "-".join(filter(None, words))

    def attempt(self, cell: Cell, *, trial: bool) -> str:
        """Make a cell; returns what went wrong, empty where nothing did."""
        folder = self.folder(cell, trial=trial)
        try:
            with claim(folder), atomic_folder(folder) as scratch:
                self._make(cell, scratch, trial=trial)
        except Exception as error:  # noqa: BLE001  # a method that fails is a row of the table
            return f"{type(error).__name__}: {error}"
        return ""

    def _make(self, cell: Cell, folder: Path, *, trial: bool) -> None:
        """Run the cell as a single run would, and write what that would write."""
        how: dict[str, Any] = {
            **self.request,
            "method": cell.method,
            "settings": dict(cell.settings),
        }
        how |= {"seed": cell.seed, "guard": cell.guard} | ({"report": "off"} if trial else {})
        new = None
        try:
            result = forget(self.model, self.split, **how)
            new = result.model
        except NotMet as error:
            result = error.result
        facts: dict[str, Any] = {"outcome": result.outcome, "summary": result.manifest.summary}
        took, passes = result.manifest.seconds, result.manifest.passes or {}
        facts["seconds"] = sum(took.get(phase, 0.0) for phase in ("guard", "method", "settle"))
        facts["passes"] = sum(passes.values()) + (result.manifest.guard or {}).get("passes", 0)
        facts |= {"gap": None, "distance": None, "rows": {}, "calibration_distance": None}
        if trial:
            facts["calibration_distance"] = self._calibration_distance(new, cell)
        else:
            report: Any = result.report
            rows = {row.key: row for row in report.rows}
            if new is not None and self.retrained:
                rows |= self._retrained_rows(new, cell)
            if new is not None:
                facts["distance"] = distance_to_unseen(report.rows)
                facts["gap"] = rows[GAP].after if GAP in rows else None
            facts["rows"] = {
                key: vars(row) | {"verdict": row.verdict.name.lower()} for key, row in rows.items()
            }
            result.save(folder)
        text = json.dumps(jsonable(asdict(cell) | facts), indent=1, allow_nan=False)
        (folder / CELL).write_text(f"{text}\n", "utf-8")

    def _retrained_rows(self, new: nn.Module, cell: Cell) -> dict[str, Any]:
        """The rows that compare with the retrained models, as ``efface.score`` gives them."""
        known = ("mislabelled", "classes", "preprocessing", "others", "accept", "holdout_seed")
        how: dict[str, Any] = {n: value for n, value in self.request.items() if n in known}
        how |= {"retrained": self.retrained, "seed": cell.seed, "report": prepare.QUICK}
        report: Any = score(self.model, new, self.split, **how).report
        return {row.key: row for row in report.rows if row.key.startswith("retrained.")}

    def _calibration_distance(self, new: nn.Module | None, cell: Cell) -> float | None:
        """Of a trial; None where there is no model."""
        if new is None:
            return None
        how = self.request.get("preprocessing"), self.request.get("classes")
        split, _ = prepare.validate_split(self.split, *how)
        auxiliary, _ = split_holdout(split, seed=self.request.get("holdout_seed", 0))
        about = {n: self.request[n] for n in ("mislabelled", "classes") if n in self.request}
        found = calibration_distance(self.model, new, auxiliary, seed=cell.seed, **about)
        return found if math.isfinite(found) else None

    def _read(self, cell: Cell, error: str, *, trial: bool) -> dict[str, Any]:
        folder = self.folder(cell, trial=trial)
        place = f"{folder.relative_to(self.out)}"
        if error:
            empty = dict.fromkeys(("outcome", "gap", "distance", "seconds", "passes"))
            facts = asdict(cell) | empty | {"rows": {}, "calibration_distance": None}
            return facts | {"name": cell.name, "error": error, "folder": ""}
        facts = json.loads((folder / CELL).read_text("utf-8"))
        return facts | {"name": cell.name, "error": "", "folder": place}


# In a worker: what all its cells have in common.
_STUDY: _Study | None = None


def _start(study: _Study) -> None:
    global _STUDY  # noqa: PLW0603  # joblib's workers have no other place
    _STUDY = study
    # the same threads as in a single run: sums of floats depend on their number
    torch.set_num_threads(study.threads)


def _attempt(place: int, cell: Cell, trial: bool) -> tuple[int, str]:
    return place, _STUDY.attempt(cell, trial=trial)  # type: ignore[union-attr]  # _start ran first


def _described(value: Any) -> Any:
    """What a cell depends on, as JSON: tensors and models by their digests."""
    if isinstance(value, Records):
        tensors = state_digest(value.tensors())
        return [tensors, list(value.ids), value.task.name if value.task else None]
    if isinstance(value, nn.Module):
        return [type(value).__qualname__, state_digest(value.state_dict())]
    if isinstance(value, Mapping):
        return {str(key): _described(part) for key, part in value.items()}
    if isinstance(value, tuple | list):
        return [_described(part) for part in value]
    if callable(value):
        return f"{getattr(value, '__module__', '')}:{getattr(value, '__qualname__', '')}"
    return jsonable(value)


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

"""Several methods and seeds on one model and one request: a table, a figure, one page.

Each cell is one call of ``efface.forget``, with the arguments of a single run, so that it has the
numbers of a single run. Cells are folders, written whole or not at all: a comparison that was
stopped goes on where it was, and what was changed is made again.
"""

import hashlib
import json
import math
import sys
import uuid
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from itertools import product
from pathlib import Path
from types import ModuleType
from typing import Any

import joblib
import numpy as np
import torch
from joblib.externals.loky import get_reusable_executor
from torch import nn

from efface import prepare, terminal
from efface.calibration import calibration_distance, distance_to_unseen, need_holdout
from efface.comparison.result import GAP, Comparison
from efface.errors import InputError, NotMet
from efface.grid import canonical, source_digest
from efface.guard import UTILITY_BUDGET
from efface.io.atomic import atomic_folder, atomic_write, claim
from efface.io.data import as_records
from efface.manifest import state_digest, versions
from efface.methods import METHODS, Natural, check_settings, check_value
from efface.report import Row, jsonable
from efface.types import PARTS, Records, Split, Task, split_holdout
from efface.unlearn import forget, refuse_other_widths, score

CELL, CELLS, TRIALS = "cell.json", "cells", "trials"
PAGE, TABLE = "compare.html", "cells.csv"
# Strengths of a search: from a tenth to ten times the default, in equal ratios.
WEAKEST, STRONGEST, MOST_STRENGTHS = 0.1, 10.0, 12


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
            that are there are read, not made again; those of a recipe, a task or a model that
            cannot be pickled are.
        seeds: of the methods; the holdout is split by ``holdout_seed``, the same for all.
        guard: ``(True,)``, ``(False,)``, or both.
        settings: by the name of a method.
        search_strength: so many strengths of 0.1 to 10 are tried for each method that has one, 2 to
            12, with the first seed; the nearest to unseen records on the auxiliary part of the
            holdout is taken. 0: the default strength.
        retrained: models trained without the forget records, which give the average gap.
        processes: cells at a time, on this machine; their seconds are longer then.
        **request: what else ``efface.forget`` takes, the same for every cell.

    Raises:
        InputError: a method, a setting or a part that it needs is not there; before anything runs.
    """
    settings = dict(settings or {})
    _refuse_request({"methods": methods, "seeds": seeds, "guard": guard}, request)
    cells = [
        Cell(method, seed, on, dict(settings.get(method, {})))
        for method, on, seed in product(dict.fromkeys(methods), guard, dict.fromkeys(seeds))
    ]
    _refuse_cells(cells, settings, request)
    split = _request_split(data, request)
    if search_strength:
        _refuse_search(search_strength, split, request)
    study = _Study.of(model, split, request, tuple(retrained), Path(out), tuple(methods))
    trials: list[dict[str, Any]] = []
    study.rehearse(cells)
    # first: a cell that fails would take an empty folder with it
    study.out.mkdir(parents=True, exist_ok=True)
    if search_strength:
        trials = study.run(_trials(cells, search_strength), processes, trial=True)
        best = _best_strengths(trials)
        cells = [
            replace(one, settings={**one.settings, "strength": best[one.name]})
            if one.name in best
            else one
            for one in cells
        ]
    budget = request.get("utility_budget", UTILITY_BUDGET)
    # by its own unseen answers: those of a new model are another reference
    given = _plain(study.scored(model))
    found = Comparison(study.run(cells, processes), trials, budget, given)
    atomic_write(Path(out, TABLE), found.to_frame().to_csv(index=False).encode())
    atomic_write(Path(out, PAGE), found.to_html().encode())
    return found


def _request_split(data: Any, request: dict[str, Any]) -> Split:
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


def _refuse_request(listed: Mapping[str, Any], request: Mapping[str, Any]) -> None:
    """Raise InputError for a single value where several are wanted, and for a single run's own."""
    for name, value in listed.items():
        if isinstance(value, str) or not isinstance(value, Iterable):
            raise InputError(f"{name} as a list", repr(value), f"Write {name}=({value!r},).")
    instead = {"method": "methods", "seed": "seeds", "dry_run": "forget for a dry run"}
    if own := [name for name in instead if name in request]:
        remedy = f"Give {instead[own[0]]}."
        raise InputError("what all cells of a comparison share", f"{own[0]}=", remedy)
    if request.get("report") == prepare.OFF:
        raise InputError("report full or quick", "off", "A comparison needs numbers.")


def _refuse_cells(
    cells: Sequence[Cell], settings: Mapping[str, Any], request: Mapping[str, Any]
) -> None:
    """Raise InputError for a slip in a method, a seed or a setting, before data are read."""
    if not cells:
        raise InputError("methods and seeds to compare", "none", "Name one of each at least.")
    if other := settings.keys() - {cell.method for cell in cells}:
        raise InputError("settings of the methods compared", min(other), "Name it in methods too.")
    shared = {name: request.get(name) for name in ("strength", "expected_accuracy")}
    for cell in cells:
        check_settings(cell.method, {**cell.settings, **shared})
        check_value("seed", cell.seed, Natural)


def _refuse_search(count: int, split: Split, request: Mapping[str, Any]) -> None:
    """Raise InputError for a search that cannot be made."""
    if not 2 <= count <= MOST_STRENGTHS:  # noqa: PLR2004
        wanted = f"2 to {MOST_STRENGTHS} strengths to search among"
        raise InputError(wanted, f"{count}", "Omit it for the default strength.")
    if "strength" in request:
        raise InputError("a strength, or a search for one", "both", "Omit one of them.")
    need_holdout(split)


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
    """By the name of a row the strength with the smallest distance on the auxiliary part."""
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
        # how it is shown changes no number
        for name in ("progress", "started"):
            about.pop(name, None)
        text = canonical(_describe(about | {"threads": threads}))
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
        missing = [one for one in cells if not (self.folder(one, trial=False) / CELL).exists()]
        if not missing:
            return
        how = self.request.get("preprocessing"), self.request.get("classes")
        split, _ = prepare.validate_split(self.split, *how)
        for method, cell in {cell.method: cell for cell in missing}.items():
            settings = dict(cell.settings)
            METHODS[method].refuse(split, settings)
            dry: dict[str, Any] = {**self.request, "dry_run": True, "settings": settings}
            forget(self.model, self.split, method=method, **dry)
        models = {f"retrained model {n}": one for n, one in enumerate(self.retrained, start=1)}
        refuse_other_widths(self.model, models, split.forget)

    def run(
        self, cells: Sequence[Cell], processes: int, *, trial: bool = False
    ) -> list[dict[str, Any]]:
        """Every cell in the given order; those that are not there are made."""
        missing = [cell for cell in cells if not (self.folder(cell, trial=trial) / CELL).exists()]
        failures: dict[int, str] = {}
        title = "strengths" if trial else "cells"
        with terminal.show_count(title, len(missing)) as advance:
            for place, error in self._attempts(missing, processes, trial=trial):
                cell = missing[place]
                advance(f"{cell.name} seed {cell.seed}", **{"error": error} if error else {})
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
        return self.out / (TRIALS if trial else CELLS) / "-".join(filter(None, words))

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
                scored = self.scored(new, seed=cell.seed)
                rows |= {k: row for k, row in scored.items() if k.startswith("retrained.")}
            if new is not None:
                facts["distance"] = distance_to_unseen(report.rows)
                facts["gap"] = rows[GAP].after if GAP in rows else None
            facts["rows"] = _plain(rows)
            result.save(folder)
        text = json.dumps(jsonable(asdict(cell) | facts), indent=1, allow_nan=False)
        (folder / CELL).write_text(f"{text}\n", "utf-8")

    def scored(self, new: nn.Module, *, seed: int = 0) -> dict[str, Row]:
        """The rows of ``efface.score``, by key, with those on the retrained models."""
        known = ("mislabelled", "classes", "preprocessing", "others", "accept", "holdout_seed")
        how: dict[str, Any] = {n: value for n, value in self.request.items() if n in known}
        how |= {"retrained": self.retrained, "seed": seed, "report": prepare.QUICK}
        report: Any = score(self.model, new, self.split, **how).report
        return {row.key: row for row in report.rows}

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


def _plain(rows: Mapping[str, Row]) -> dict[str, dict[str, Any]]:
    """Rows as a cell's file holds them."""
    plain = {k: vars(row) | {"verdict": row.verdict.name.lower()} for k, row in rows.items()}
    return jsonable(plain)


# In a worker: what all its cells have in common.
_STUDY: _Study | None = None


def _start(study: _Study) -> None:
    global _STUDY  # noqa: PLW0603  # joblib's workers have no other place
    _STUDY = study
    # the same threads as in a single run: sums of floats depend on their number
    torch.set_num_threads(study.threads)


def _attempt(place: int, cell: Cell, trial: bool) -> tuple[int, str]:
    return place, _STUDY.attempt(cell, trial=trial)  # type: ignore[union-attr]  # _start ran first


def _describe(value: Any) -> Any:
    """What a cell depends on, as JSON: tensors by their digest, code with all that it holds."""
    if isinstance(value, Records):
        tensors = state_digest(value.tensors())
        return [tensors, list(value.ids), _describe(value.task)]
    if isinstance(value, nn.Module):
        apart = ("_parameters", "_modules")
        parts = {
            name: [type(one), {key: held for key, held in vars(one).items() if key not in apart}]
            for name, one in value.named_modules()
        }
        kinds = {type(one) for one in value.modules()}
        return [state_digest(value.state_dict()), _code_digest(parts, *kinds)]
    if isinstance(value, Mapping):
        return {str(key): _describe(part) for key, part in value.items()}
    if isinstance(value, tuple | list):
        return [_describe(part) for part in value]
    if value is None or isinstance(value, bool | int | float | str):
        return jsonable(value)
    return _code_digest(value, *vars(value).values() if isinstance(value, Task) else ())


def _code_digest(value: Any, *further: Any) -> str:
    """Of a function or an object: its code, what it holds, and the files that they are from.

    ``further``: functions and classes that it holds, whose files count too.
    """
    # slow to import
    from datasets.fingerprint import Hasher

    # what a notebook or a script defines is hashed as code; of what it imports the files count
    named = [value, getattr(value, "func", None), *further, *vars(sys.modules["__main__"]).values()]
    homes = {
        one.__name__ if isinstance(one, ModuleType) else getattr(one, "__module__", None)
        for one in named
    }
    files = source_digest(f"{home}:" for home in homes if isinstance(home, str))
    try:
        return f"{Hasher.hash(value)} {files}"
    except Exception:  # noqa: BLE001  # whatever a stranger's object does when it is pickled
        # nothing to compare with: it is made again
        return uuid.uuid4().hex

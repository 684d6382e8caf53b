"""``efface inspect``: read a model and its data, look at the records, write the folder whole."""

import hashlib
import json
import shlex
import sys
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from efface import terminal
from efface.asked import Flags
from efface.io.atomic import atomic_folder, claim, refuse_nonempty, refuse_overlap
from efface.io.data import DataSource
from efface.io.models import LoadedModel
from efface.manifest import state_digest, versions
from efface.ranking.content import require_multiclass
from efface.ranking.page import write
from efface.ranking.ranking import Ranking
from efface.ranking.run import Run, Settings
from efface.ranking.storage import FolderStore, TableSource, remove


@dataclass(frozen=True)
class Wanted:
    """The arguments of the command, paths as they were given."""

    model: Path
    data: str
    naming: dict[str, Any]
    flags: Flags

    def rows(self, table: DataSource) -> tuple[int, ...] | None:
        """The records that are named, in the order of the data; None for all."""
        if all(value is None for value in self.naming.values()):
            return None
        return tuple(sorted(table.requested_rows(self.naming)[0]))


def run_inspect(wanted: Wanted, settings: Settings, *, out: Path) -> None:
    """Inspect, write the folder whole or not at all; a run that was stopped is gone on with."""
    refuse_overlap(out, {"MODEL": wanted.model, "--data": wanted.data})
    kept = out.with_name(f".{out.name}.inspecting")
    if (out / "manifest.json").is_file():  # killed between the last two lines of an earlier run
        remove(kept)
    refuse_nonempty(out)
    with claim(out):
        loaded = wanted.flags.model(wanted.model)
        table = wanted.flags.table(wanted.data, loaded)
        require_multiclass(table.kind)
        run = run_of(wanted, settings, loaded=loaded, table=table)
        store = FolderStore(kept, key_of(wanted, run, table))
        if len(store):
            terminal.event("inspect", going_on_after=f"{len(store)} whole shards of an earlier run")
        ranking = _described(replace(run, store=store).ranking(terminal.show_count), wanted, table)
        with atomic_folder(out) as scratch:
            write(scratch, ranking, run.source)
        remove(kept)
    _summary(ranking, out)


def run_of(wanted: Wanted, settings: Settings, *, loaded: LoadedModel, table: DataSource) -> Run:
    """The run that the options describe, with a store in memory."""
    return Run(
        loaded.model,
        TableSource(table, loaded.preprocessing),
        settings,
        rows=wanted.rows(table),
        classes=loaded.classes or table.classes,
        preprocessing=loaded.preprocessing,
    )


def key_of(wanted: Wanted, run: Run, table: DataSource) -> dict[str, Any]:
    """All that a shard's numbers depend on."""
    rows = None if run.rows is None else hashlib.sha256(json.dumps(run.rows).encode()).hexdigest()
    return {
        "format": 3,
        "classes": list(run.classes or ()),
        "model": state_digest(run.model.state_dict()),
        "data": table.digest,
        "read": {name: str(value) for name, value in asdict(wanted.flags).items()},
        "settings": asdict(run.settings),
        "rows": rows,
        "preprocessing": repr(run.preprocessing),
        "versions": versions(),
    }


def _described(ranking: Ranking, wanted: Wanted, table: DataSource) -> Ranking:
    """With what only the command knows."""
    named = {name: str(value) for name, value in wanted.naming.items() if value is not None}
    more = {
        "command": shlex.join(["efface", *sys.argv[1:]]),
        "named": " ".join(f"--{n.replace('_', '-')} {value}" for n, value in named.items()),
        "data": table.digest,
    }
    return replace(ranking, manifest=ranking.manifest | more)


def _summary(ranking: Ranking, out: Path) -> None:
    """How many are of high information, and the first ten."""
    high = int(ranking.high.sum())
    terminal.table(
        f"{len(ranking)} records · {high} of high information (α < {ranking.threshold:g}) · "
        f"{out}/inspect.html",
        ["most informative", "label", "prediction", "α", "margin"],
        ranking.top(10, ("content", "margin")),
    )

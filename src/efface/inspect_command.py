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
from efface.io.atomic import claimed, refuse_overlap, refuse_taken, whole_folder
from efface.io.model import LoadedModel
from efface.io.naming import rows_named
from efface.io.table import Table
from efface.manifest import state_digest, versions
from efface.ranking.found import Inspection
from efface.ranking.keeping import forgotten, opened
from efface.ranking.looking import Job, looked
from efface.ranking.reading import FromTable, refuse_other_kinds
from efface.ranking.settings import Settings
from efface.ranking.writing import write


@dataclass(frozen=True)
class Wanted:
    """The arguments of the command, paths as they were given."""

    model: Path
    data: str
    naming: dict[str, Any]
    flags: Flags

    def rows(self, table: Table) -> tuple[int, ...] | None:
        """The records that are named, in the order of the data; None for all."""
        if all(value is None for value in self.naming.values()):
            return None
        return tuple(sorted(rows_named(table, self.naming)[0]))


def run_inspect(wanted: Wanted, settings: Settings, *, out: Path) -> None:
    """Inspect, write the folder whole or not at all; a run that was stopped is gone on with."""
    refuse_overlap(out, {"MODEL": wanted.model, "--data": wanted.data})
    kept = out.with_name(f".{out.name}.inspecting")
    if (out / "record.json").is_file():  # killed between the last two lines of an earlier run
        forgotten(kept)
    refuse_taken(out)
    with claimed(out):
        loaded = wanted.flags.model(wanted.model)
        table = wanted.flags.table(wanted.data, loaded)
        refuse_other_kinds(table.kind)
        job = job_of(wanted, settings, loaded=loaded, table=table)
        keeper = opened(kept, key_of(wanted, job, table))
        if len(keeper):
            terminal.event(
                "inspect", going_on_after=f"{len(keeper)} whole shards of an earlier run"
            )
        found = _told(looked(job, keeper, terminal.show_count), wanted, table)
        with whole_folder(out) as scratch:
            write(scratch, found, job.reader)
        forgotten(kept)
    _summary(found, out)


def job_of(wanted: Wanted, settings: Settings, *, loaded: LoadedModel, table: Table) -> Job:
    """What the arguments ask for."""
    return Job(
        loaded.model,
        FromTable(table, loaded.preprocessing),
        settings,
        asked=wanted.rows(table),
        classes=loaded.classes or table.classes,
        preprocessing=loaded.preprocessing,
    )


def key_of(wanted: Wanted, job: Job, table: Table) -> dict[str, Any]:
    """All that a shard's numbers depend on."""
    asked = (
        None if job.asked is None else hashlib.sha256(json.dumps(job.asked).encode()).hexdigest()
    )
    return {
        "format": 2,
        "classes": list(job.classes or ()),
        "model": state_digest(job.model.state_dict()),
        "data": table.digest,
        "read": {name: str(value) for name, value in asdict(wanted.flags).items()},
        "settings": asdict(job.settings),
        "asked": asked,
        "preprocessing": repr(job.preprocessing),
        "versions": versions(),
    }


def _told(found: Inspection, wanted: Wanted, table: Table) -> Inspection:
    """With what only the command knows."""
    named = {name: str(value) for name, value in wanted.naming.items() if value is not None}
    more = {
        "command": shlex.join(["efface", *sys.argv[1:]]),
        "named": " ".join(f"--{n.replace('_', '-')} {value}" for n, value in named.items()),
        "data": table.digest,
    }
    return replace(found, record=found.record | more)


def _summary(found: Inspection, out: Path) -> None:
    """How many stand where, and the first ten."""
    high = int(found.high.sum())
    terminal.table(
        f"{len(found)} records · {high} of high information (α < {found.threshold:g}) · "
        f"{out}/inspect.html",
        ["most informative", "label", "answer", "α", "margin"],
        [
            [
                found.ids[row],
                *(found.name_of(int(found[name][row])) for name in ("label", "answer")),
                f"{found.content[row]:.3g}",
                f"{found['margin'][row]:.3g}",
            ]
            for row in found.by_rank[:10]
        ],
    )

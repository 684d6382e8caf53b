"""``efface inspect``: rank records, write the folder whole; a run that was stopped is resumed."""

import hashlib
import json
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from efface import terminal
from efface.cli.loading import command_line, read_data, read_model
from efface.cli.options import Arguments, InspectOptions, ReadOptions
from efface.errors import abbreviate
from efface.io.atomic import atomic_folder, claim, refuse_overlap
from efface.manifest import state_digest, versions
from efface.ranking.content import require_multiclass
from efface.ranking.page import write
from efface.ranking.run import Run, Settings
from efface.ranking.storage import FolderStore, TableSource, remove


def run_inspect(arguments: Arguments, options: InspectOptions, *, out: Path) -> None:
    """Rank the records, write the folder whole or not at all, print the first ten."""
    shards = out.with_name(f".{out.name}.inspecting")
    if (out / "manifest.json").is_file():  # killed between the last two lines of an earlier run
        remove(shards)
    refuse_overlap(out, arguments.inputs())
    with claim(out):
        run, digest = prepare_run(arguments, options)
        store = FolderStore(shards, run_key(run, digest, arguments.read))
        if len(store):
            terminal.event("inspect", resumed_after=f"{len(store)} whole shards of an earlier run")
        ranking = replace(run, store=store).ranking(terminal.show_count)
        if omitted := ranking.manifest["omitted"]:
            terminal.warn(omitted_as_unreadable_or_unlabelled=abbreviate(omitted))
        named = str(arguments.records)
        ranking.manifest.update(command=command_line(), named=named, data=digest)
        with atomic_folder(out) as scratch:
            write(scratch, ranking, run.source)
        # Only now: killed before this line, the next run finds whole shards or a whole result.
        remove(shards)
    high = f"{int(ranking.high.sum())} of high information (α < {ranking.threshold:g})"
    columns = ["most memorised", "label", "prediction", "α", "logit margin"]
    title = f"{len(ranking)} records · {high} · {out}/inspect.html"
    terminal.table(title, columns, ranking.top(10, ("content", "logit_margin")))


def prepare_run(arguments: Arguments, options: InspectOptions) -> tuple[Run, str]:
    """The run that the options describe, with a store in memory, and the digest of its data."""
    loaded = read_model(arguments.old, arguments.read)
    source = read_data(arguments.data, arguments.read, loaded)
    require_multiclass(source.kind)
    # What is None takes the default of the library.
    given: dict[str, Any] = {k: v for k, v in asdict(options).items() if v is not None}
    # Without a name for some of them all records are meant.
    named, rows = asdict(arguments.records), None
    if any(value is not None for value in named.values()):
        rows = tuple(sorted(source.requested_rows(named)[0]))
    preprocessing, classes = loaded.preprocessing, loaded.classes or source.classes
    table, settings = TableSource(source, preprocessing), Settings(**given, seed=arguments.seed)
    about = (rows, classes, preprocessing, arguments.read.checks.accept)
    return Run(loaded.model, table, settings, *about), source.digest


def run_key(run: Run, digest: str, read: ReadOptions) -> dict[str, Any]:
    """All that a shard's numbers depend on: shards of another key are not resumed."""
    # A new number for "format" when the arrays of a shard change their meaning.
    return {
        "format": 4,
        "classes": list(run.classes or ()),
        "model": state_digest(run.model.state_dict()),
        "data": digest,
        "read": str(read),
        "settings": asdict(run.settings),
        "rows": run.rows and hashlib.sha256(json.dumps(run.rows).encode()).hexdigest(),
        "preprocessing": repr(run.preprocessing),
        "versions": versions(),
    }

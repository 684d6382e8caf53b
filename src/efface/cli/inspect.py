"""``efface inspect``: rank records, write the folder whole; a run that was stopped is resumed."""

import hashlib
import json
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from efface import terminal
from efface.cli.loading import command_line, read_data, read_model
from efface.cli.options import InspectOptions, ReadOptions, RecordOptions
from efface.io.atomic import atomic_folder, claim, refuse_overlap
from efface.manifest import state_digest, versions
from efface.ranking.content import require_multiclass
from efface.ranking.page import write
from efface.ranking.run import Run, Settings
from efface.ranking.storage import FolderStore, TableSource, remove


def run_inspect(
    model: Path,
    data: str,
    records: RecordOptions,
    options: InspectOptions,
    read: ReadOptions,
    *,
    seed: int,
    out: Path,
) -> None:
    """Rank the records, write the folder whole or not at all, print the first ten."""
    shards = out.with_name(f".{out.name}.inspecting")
    if (out / "manifest.json").is_file():  # killed between the last two lines of an earlier run
        remove(shards)
    refuse_overlap(out, {"MODEL": model, "--data": data})
    with claim(out):
        run, digest = prepare_run(model, data, records, options, read, seed=seed)
        store = FolderStore(shards, run_key(run, digest, read))
        if len(store):
            terminal.event("inspect", resumed_after=f"{len(store)} whole shards of an earlier run")
        ranking = replace(run, store=store).ranking(terminal.show_count)
        ranking.manifest.update(command=command_line(), named=str(records), data=digest)
        with atomic_folder(out) as scratch:
            write(scratch, ranking, run.source)
        remove(shards)
    high = f"{int(ranking.high.sum())} of high information (α < {ranking.threshold:g})"
    columns = ["most memorised", "label", "prediction", "α", "logit margin"]
    title = f"{len(ranking)} records · {high} · {out}/inspect.html"
    terminal.table(title, columns, ranking.top(10, ("content", "margin")))


def prepare_run(
    model: Path,
    data: str,
    records: RecordOptions,
    options: InspectOptions,
    read: ReadOptions,
    *,
    seed: int,
) -> tuple[Run, str]:
    """The run that the options describe, with a store in memory, and the digest of its data."""
    loaded = read_model(model, read)
    source = read_data(data, read, loaded)
    require_multiclass(source.kind)
    given = {name: value for name, value in asdict(options).items() if value is not None}
    rows = tuple(sorted(source.requested_rows(asdict(records))[0])) if str(records) else None
    preprocessing, classes = loaded.preprocessing, loaded.classes or source.classes
    table, settings = TableSource(source, preprocessing), Settings(**given, seed=seed)
    return Run(loaded.model, table, settings, rows, classes, preprocessing), source.digest


def run_key(run: Run, digest: str, read: ReadOptions) -> dict[str, Any]:
    """All that a shard's numbers depend on: shards of another key are not resumed."""
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

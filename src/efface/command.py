"""What the commands do: load, call the library, write the result whole or not at all."""

import secrets
import shlex
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from accelerate import PartialState

from efface import show
from efface.devices import device_named
from efface.doctor import examine, refuse_if_needed
from efface.errors import NotMet
from efface.evidence import write as write_evidence
from efface.io.atomic import claimed, refuse_overlap, refuse_taken, whole_folder, write_whole
from efface.io.checkpoint import some_of
from efface.io.dataset import open_table
from efface.io.model import LoadedModel, load_model
from efface.io.naming import rows_named
from efface.io.table import Table
from efface.memory import Need
from efface.record import exclusion_table, keyed_hashes
from efface.request import Result, forget
from efface.trainable import refuse_unknown
from efface.types import Records, Split


@dataclass(frozen=True)
class Flags:
    """How to read the model and the data, as given on the command line."""

    architecture: str | None = None
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None
    size: int | None = None
    features: Path | None = None
    id_column: str | None = None
    image_column: str | None = None
    label_column: tuple[str, ...] = ()
    device: str = "auto"

    def model(self, path: Path) -> LoadedModel:
        """The model of a folder or a weights file, on the device."""
        device = device_named(self.device)
        loaded = load_model(
            path,
            architecture=self.architecture,
            mean=self.mean,
            std=self.std,
            size=self.size,
            features=self.features,
        )
        if loaded.kept:
            show.event("kept", beside_the_model=list(loaded.kept), hint="they may hold the data")
        if loaded.left_out:
            names = some_of(loaded.left_out)
            show.event("left out", of_the_checkpoint=names, hint="they may hold the data")
        return replace(loaded, model=loaded.model.to(device))

    def table(self, spec: str, loaded: LoadedModel) -> Table:
        """A table of records; the model's classes settle which label column is meant."""
        return open_table(
            spec,
            id_column=self.id_column,
            image_column=self.image_column,
            label_column=self.label_column,
            classes=loaded.classes,
            num_classes=loaded.num_classes,
        )


def run_forget(
    model: Path,
    flags: Flags,
    *,
    data: str,
    out: Path,
    naming: Mapping[str, Any],
    holdout: str | None,
    retain: str | None,
    options: Mapping[str, Any],
    keep_adapter: bool = False,
) -> None:
    """Load, forget under guard, write the new folder whole; show what came of it.

    Raises NotMet after writing the account of a request that could not be met, without a model.
    """
    refuse_unknown(options["trainable"], keep_adapter=keep_adapter)
    refuse_overlap(out, {"MODEL": model, "--data": data, "--holdout": holdout, "--retain": retain})
    refuse_taken(out)
    device = device_named(flags.device)
    main = PartialState(cpu=device.type == "cpu").is_main_process
    loaded = flags.model(model)
    with _claimed_by_one(out, main=main):
        others = {"holdout": holdout, "retain": retain}
        requested = {"naming": naming, "others": others, "options": options}
        _run(loaded, flags, data, out, **requested, keep_adapter=keep_adapter, main=main)


@contextmanager
def _claimed_by_one(out: Path, *, main: bool) -> Iterator[None]:
    """The folder claimed by the process that writes; the others of one launch do without."""
    if not main:
        yield
        return
    with claimed(out):
        yield


def _run(
    loaded: LoadedModel,
    flags: Flags,
    data: str,
    out: Path,
    *,
    naming: Mapping[str, Any],
    others: Mapping[str, str | None],
    options: Mapping[str, Any],
    keep_adapter: bool,
    main: bool,
) -> None:
    """The request itself, with the folder claimed."""
    table = flags.table(data, loaded)
    rows, leaving = rows_named(table, naming)
    _warn(table, rows, a_class=bool(leaving))
    split, left_out, taken = _split(flags, loaded, table, rows, others=others)
    failure: NotMet | None = None
    try:
        result = _forgotten(loaded, replace(split, leaving=leaving), table, options)
    except NotMet as error:
        result, failure = error.result, error
    result.record["request"]["named"] = _named(naming)
    _tell_taken_out(result.record["request"], taken)
    result.record.update(
        command=shlex.join(["efface", *sys.argv[1:]]),
        left_out={**left_out, "of the checkpoint": list(loaded.left_out)},
        data={"digest": table.digest, "architecture": loaded.architecture},
    )
    if main:
        kept = result if keep_adapter else replace(result, adapter=None)
        _write(out, kept, loaded, split.forget.ids)
        show.choice(result.record)
        _summary(result, out)
    if failure:
        raise failure


def _warn(table: Table, rows: list[int], *, a_class: bool) -> None:
    """Say what the request may not have meant."""
    if table.numbered:
        show.event(
            "warning",
            ids="row numbers, counted from 0",
            hint="they name other records when the rows move; --id-column names a column",
        )
    if a_class:
        return
    if len(rows) == len(table) > 1:
        show.event(
            "warning",
            named="every record of the data",
            hint="if the model was trained on nothing else, delete it instead",
        )
    if whole := table.nearly_whole_classes(rows):
        show.event("warning", nearly_all_of=", ".join(whole), hint="--forget-class removes a class")


def _named(naming: Mapping[str, Any]) -> str:
    """How the records were named, as on the command line."""
    given = {name: value for name, value in naming.items() if value is not None}
    return " ".join(f"--{name.replace('_', '-')} {value}" for name, value in given.items())


def _tell_taken_out(request: dict[str, Any], taken: Mapping[str, int]) -> None:
    """Print and record how many forget records other parts held, by row and by content."""
    for name in ("holdout", "retain"):
        if name in request:
            key = f"forget_records_in_{name}"
            request[key] += taken.get(name, 0)
            show.event(name, forget_records_taken_out=request[key])


def _split(
    flags: Flags,
    loaded: LoadedModel,
    table: Table,
    rows: list[int],
    *,
    others: Mapping[str, str | None],
) -> tuple[Split, dict[str, list[str]], dict[str, int]]:
    """The records of every part; rows to forget are taken out of the parts that hold them."""
    forget_records = table.records(rows, loaded.preprocessing)
    parts: dict[str, Records | None] = dict.fromkeys(others)
    left_out: dict[str, list[str]] = {}
    taken: dict[str, int] = {}
    for name, spec in others.items():
        if spec is None:
            continue
        other = flags.table(spec, loaded)
        kept = range(len(other))
        if other.digest == table.digest:
            kept = sorted(set(kept) - set(rows))
            taken[name] = len(other) - len(kept)
        parts[name], lost = other.readable(kept, loaded.preprocessing)
        left_out[f"unreadable in {name}"] = list(lost)
    return Split(forget_records, parts["holdout"], parts["retain"]), left_out, taken


def _forgotten(
    loaded: LoadedModel, split: Split, table: Table, options: Mapping[str, Any]
) -> Result:
    return forget(
        loaded.model,
        split,
        classes=loaded.classes or table.classes,
        preprocessing=loaded.preprocessing,
        stored=loaded.stored,
        started=_say_need,
        progress=show.show_progress,
        **options,
    )


def _say_need(need: Need) -> None:
    """The memory that the request will take, in MiB, before it takes it."""
    mib = {
        name.removesuffix("_bytes"): round(size / 2**20) for name, size in need.as_json().items()
    }
    show.event("memory", unit="MiB", **mib)


def _write(out: Path, result: Result, loaded: LoadedModel, ids: tuple[str, ...]) -> None:
    """The new folder, whole or absent; without a model when the request was not met."""
    key = secrets.token_bytes(32)
    result.record["keyed_hashes"] = keyed_hashes(ids, key)
    with whole_folder(out) as scratch:
        if result.record["outcome"] == "done":
            loaded.write(result.model.cpu(), scratch)
        if result.adapter is not None:
            _write_adapter(result.adapter, scratch / "adapter")
        write_whole(scratch / "exclude.csv", exclusion_table(ids, key))
        write_whole(scratch / "exclude.key", (key.hex() + "\n").encode())
        write_evidence(scratch, result.evidence, result.record)


def _write_adapter(adapter: Any, folder: Path) -> None:
    """PEFT's own folder, whole or absent; the hub is asked nothing."""
    with whole_folder(folder) as scratch:
        adapter.cpu().save_pretrained(str(scratch), save_embedding_layers=False)
    show.event("adapter", kept_apart=True, hint="taken off the given model, that is back")


def _summary(result: Result, out: Path) -> None:
    """What was measured, each row with its target, and where the account is."""
    rows = [
        [row.name, *(show.number(v, row.unit) for v in (row.before, row.after, row.target))]
        for row in result.evidence.rows
        if row.before is not None or row.after is not None
    ]
    title = f"{result.record['outcome']} · tier {result.evidence.tier} · {out}/report.html"
    show.table(title, ["test", "before", "after", "target"], rows)


def run_doctor(model: Path, flags: Flags, data: str) -> None:
    """Print the findings; raises Hazard when one of them refuses."""
    loaded = flags.model(model)
    table = flags.table(data, loaded)
    records = table.records(None, loaded.preprocessing)
    findings = examine(
        loaded.model, loaded.preprocessing, records, classes=loaded.classes or table.classes
    )
    rows = [[finding.name, finding.severity, finding.text] for finding in findings]
    show.table(f"{len(records)} records", ["finding", "severity", "text"], rows)
    refuse_if_needed(findings)

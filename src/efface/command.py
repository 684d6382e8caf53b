"""What the commands do: load, call the library, write the result whole or not at all."""

import secrets
import shlex
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from accelerate import PartialState

from efface import terminal
from efface.asked import Asked, Flags, Gathered, gathered
from efface.errors import NotMet
from efface.hazards import doctor, refuse_hazards
from efface.io.atomic import atomic_folder, atomic_write, claim, refuse_nonempty, refuse_overlap
from efface.io.data import read_record_weights
from efface.io.models import LoadedModel
from efface.manifest import exclusion_table, keyed_hashes
from efface.runtime import MemoryEstimate, resolve_device
from efface.trainable import check_trainable
from efface.unlearn import Result, forget


def run_forget(
    asked: Asked, *, out: Path, options: Mapping[str, Any], keep_adapter: bool = False
) -> None:
    """Load, forget under guard, write the new folder whole; show what came of it.

    Raises NotMet after writing the account of a request that could not be met, without a model.
    """
    check_trainable(options["trainable"], keep_adapter=keep_adapter)
    refuse_overlap(out, {"MODEL" if name == "OLD" else name: p for name, p in asked.read().items()})
    refuse_nonempty(out)
    device = resolve_device(asked.flags.device)
    main = PartialState(cpu=device.type == "cpu").is_main_process
    loaded = asked.flags.model(asked.old)
    with _claimed_by_one(out, main=main):
        _run(asked, loaded, out, options=options, keep_adapter=keep_adapter, main=main)


@contextmanager
def _claimed_by_one(out: Path, *, main: bool) -> Iterator[None]:
    """The folder claimed by the process that writes; the others of one launch do without."""
    if not main:
        yield
        return
    with claim(out):
        yield


def _run(
    asked: Asked,
    loaded: LoadedModel,
    out: Path,
    *,
    options: Mapping[str, Any],
    keep_adapter: bool,
    main: bool,
) -> None:
    """The request itself, with the folder claimed."""
    found = gathered(asked, loaded)
    failure: NotMet | None = None
    try:
        result = _forgotten(loaded, found, options)
    except NotMet as error:
        result, failure = error.result, error
    manifest = result.manifest
    manifest.request["named"] = asked.named()
    found.told(manifest.request)
    manifest.command = shlex.join(["efface", *sys.argv[1:]])
    manifest.arguments = asked.as_json()
    manifest.omitted = {**found.left_out, "of the checkpoint": list(loaded.omitted)}
    manifest.data = {"digest": found.table.digest, "architecture": loaded.architecture}
    manifest.digests = found.digests
    if main:
        kept = result if keep_adapter else replace(result, adapter=None)
        _write(out, kept, loaded, found.split.forget.ids)
        for finding in manifest.findings:
            if finding["name"] == "auto":
                terminal.event("method", chosen=manifest.method, why=finding["text"])
        summary(result, out)
    if failure:
        raise failure


def _forgotten(loaded: LoadedModel, found: Gathered, options: Mapping[str, Any]) -> Result:
    given = dict(options)
    if given["weights"] is not None:
        given["weights"] = read_record_weights(given["weights"])
    return forget(
        loaded.model,
        found.split,
        classes=loaded.classes or found.table.classes,
        preprocessing=loaded.preprocessing,
        stored=loaded.stored,
        started=_say_need,
        progress=terminal.show_progress,
        **given,
    )


def _say_need(need: MemoryEstimate) -> None:
    """The memory that the request will take, in MiB, before it takes it."""
    mib = {
        name.removesuffix("_bytes"): round(size / 2**20) for name, size in need.as_json().items()
    }
    terminal.event("memory", unit="MiB", **mib)


def _write(out: Path, result: Result, loaded: LoadedModel, ids: tuple[str, ...]) -> None:
    """The new folder, whole or absent; without a model when the request was not met."""
    key = secrets.token_bytes(32)
    result.manifest.keyed_hashes = keyed_hashes(ids, key)
    with atomic_folder(out) as scratch:
        if result.manifest.outcome == "done":
            loaded.write(result.model.cpu(), scratch)
        if result.adapter is not None:
            _write_adapter(result.adapter, scratch / "adapter")
        atomic_write(scratch / "exclude.csv", exclusion_table(ids, key))
        atomic_write(scratch / "exclude.key", (key.hex() + "\n").encode())
        result.save(scratch)


def _write_adapter(adapter: Any, folder: Path) -> None:
    """PEFT's own folder, whole or absent; the hub is asked nothing."""
    with atomic_folder(folder) as scratch:
        adapter.cpu().save_pretrained(str(scratch), save_embedding_layers=False)
    terminal.event("adapter", kept_apart=True, hint="taken off the given model, that is back")


def summary(result: Result, out: Path) -> None:
    """What was measured, each row with its target, and where the account is."""
    rows = [
        [
            row.name,
            *(terminal.format_number(v, row.unit) for v in (row.before, row.after, row.target)),
        ]
        for row in result.report.rows
        if row.before is not None or row.after is not None
    ]
    title = f"{result.manifest.outcome} · tier {result.report.tier} · {out}/report.html"
    terminal.table(title, ["test", "before", "after", "target"], rows)


def run_doctor(model: Path, flags: Flags, data: str) -> None:
    """Print the findings; raises Hazard when one of them refuses."""
    loaded = flags.model(model)
    table = flags.table(data, loaded)
    records = table.records(None, loaded.preprocessing)
    findings = doctor(
        loaded.model, loaded.preprocessing, records, classes=loaded.classes or table.classes
    )
    rows = [[finding.name, finding.severity, finding.text] for finding in findings]
    terminal.table(f"{len(records)} records", ["finding", "severity", "text"], rows)
    refuse_hazards(findings)

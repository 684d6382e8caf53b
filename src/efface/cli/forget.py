"""``efface forget``: load, unlearn under the guard, write the new folder whole or not at all."""

import json
import re
import secrets
import sys
from collections.abc import Mapping
from contextlib import nullcontext
from dataclasses import asdict
from pathlib import Path
from typing import Any

from accelerate import PartialState

from efface import terminal
from efface.cli.doctor import print_when_refused
from efface.cli.loading import Inputs
from efface.cli.methods import import_method
from efface.cli.options import Arguments, MethodOptions
from efface.cli.summary import print_plan, print_summary
from efface.errors import InputError, NotMet
from efface.hazards import Finding
from efface.io.atomic import atomic_folder, claim, refuse_overlap, write_private
from efface.io.data import read_record_weights
from efface.io.files import read_text
from efface.manifest import EVIDENCE, MODEL, Manifest, keyed_hashes
from efface.runtime import resolve_device
from efface.trainable import check_trainable
from efface.unlearn import Result, forget


def run_forget(
    arguments: Arguments, options: MethodOptions, *, out: Path, keep_adapter: bool, key: Path | None
) -> None:
    """Write the new folder, print what came of it, and exit with the code of the outcome.

    Raises NotMet after writing the report of a request that was not met, without a model.
    """
    given = _request(options, keep_adapter=keep_adapter)
    refuse_overlap(out, arguments.inputs())
    secret = read_key(key, out)
    # Of the processes of one launch the main one alone claims, writes and prints.
    cpu = resolve_device(arguments.read.model.device).type == "cpu"
    main = PartialState(cpu=cpu).is_main_process
    with claim(out) if main else nullcontext():
        inputs, failure = Inputs.read(arguments), None
        model = inputs.models[0]
        given |= {"stored": model.stored, "started": _print_start, **inputs.context()}
        try:
            with print_when_refused():
                result = forget(model.model, inputs.split, **given)
        except NotMet as error:
            result, failure = error.result, error
        inputs.complete(result)
        then = ""
        if main:
            write_key(key, secret)
            write_run(out, result, inputs, secret, keep_adapter=keep_adapter)
            _print_choices(result)
            then = print_summary(result, out, arguments)
    # The folder with the reasons stands by now; the exit code says that it holds no model.
    if failure:
        remedy = f"The old model stands. Next: {then}" if then else failure.remedy
        raise NotMet(failure.wanted, failure.came, remedy) from failure
    # Of the main process alone: torchrun would end it while it writes for the code of another.
    if main and result.outcome.exit_code:
        sys.exit(result.outcome.exit_code)


def run_dry(
    arguments: Arguments, options: MethodOptions, *, out: Path | None, keep_adapter: bool
) -> None:
    """Print what a run would start from and cost; nothing is changed and nothing is written."""
    given, inputs = _request(options, keep_adapter=keep_adapter), Inputs.read(arguments)
    price: dict[str, Any] = {}

    def started(_: Manifest, costs: Mapping[str, Any], __: tuple[Finding, ...]) -> None:
        price.update(costs)

    model = inputs.models[0]
    given |= {"stored": model.stored, "started": started, "dry_run": True, **inputs.context()}
    with print_when_refused():
        result = forget(model.model, inputs.split, **given)
    inputs.complete(result)
    print_plan(result, price, out)


def _request(options: MethodOptions, *, keep_adapter: bool) -> dict[str, Any]:
    """The arguments of ``efface.forget``; all that can be refused without the model is."""
    # a slip should cost no loading
    given: dict[str, Any] = asdict(options)
    given["method"] = import_method(options.method)
    given["settings"] = read_settings(given.pop("setting"))
    given["weights"] = read_record_weights(options.weights) if options.weights else None
    check_trainable(options.trainable, keep_adapter=keep_adapter)
    return given


def read_settings(pairs: tuple[str, ...]) -> dict[str, Any]:
    """NAME=VALUE pairs, the values read as JSON. Raises InputError."""
    settings = {}
    for pair in pairs:
        name, equals, value = pair.partition("=")
        # JSON tells 1 from 1.0 and true from "true"; a bare word is refused, not taken for a text.
        try:
            settings[name] = json.loads(value)
        except json.JSONDecodeError as error:
            wanted = "a number, true, false or a quoted text" if equals else "--setting NAME=VALUE"
            raise InputError(wanted, repr(pair), "For example --setting steps=100.") from error
    return settings


def read_key(path: Path | None, out: Path) -> bytes:
    """The key in the file, else a new one of 32 bytes. Raises InputError."""
    if path is None or not path.exists():
        made = secrets.token_bytes(32)
    else:
        wanted, remedy = f"64 hexadecimal digits in {path}", "Name a new file, to make a key."
        text = read_text(path, wanted, remedy, 100)
        if not re.fullmatch(r"[0-9a-f]{64}\s*", text):
            raise InputError(wanted, f"{len(text)} characters", remedy)
        made = bytes.fromhex(text)
    if path and path.resolve().is_relative_to(out.resolve()):
        came = f"{path}, in the folder of the hashes"
        raise InputError("a key apart from what it opens", came, "Give another --key.")
    return made


def write_key(path: Path | None, key: bytes) -> None:
    """Where a new one is to be kept; before the folder, which could not be matched without it."""
    if path and not path.exists():
        write_private(path, f"{key.hex()}\n".encode())


def _print_start(
    manifest: Manifest,
    price: Mapping[str, Any],
    findings: tuple[Finding, ...],  # noqa: ARG001  # warnings are logged as they come
) -> None:
    """How right the model is, and what the run will cost."""
    accuracy: dict[str, Any] = {part: str(one) for part, one in manifest.accuracy.items()}
    terminal.event("accuracy", **accuracy)
    terminal.event("plan", method=manifest.method, **_costs(manifest, price))


def _costs(manifest: Manifest, price: Mapping[str, Any]) -> dict[str, Any]:
    """The memory that a run will take, and the seconds and passes of method and evidence."""
    facts: dict[str, Any] = {"memory_mib": round((manifest.memory or {})["total_bytes"] / 2**20)}
    facts |= {f"{k}_about_seconds": round(each, 1) for k, each in price["seconds"].items()}
    if passes := price.get("passes"):
        facts["evidence_passes"] = passes
        if price["quick"] < passes:
            facts["hint"] = f"--report quick takes {price['quick']} passes"
    return facts


def _print_choices(result: Result) -> None:
    """Which method was chosen and why, and what was assumed of the request."""
    notes = {one.name: one for one in result.findings if one.severity == "note"}
    if why := notes.get("auto"):
        terminal.event("chosen", method=result.manifest.method, why=why.text)
    if assumed := notes.get("whole-group"):
        terminal.event("assumed", text=assumed.text, hint=assumed.remedy)


def write_run(out: Path, result: Result, inputs: Inputs, key: bytes, *, keep_adapter: bool) -> None:
    """The new folder, whole or absent; without a model where there are no other weights.

    A script that does not look at exit codes must not deploy the old model as the new one.

    The model lies apart from all that names records, and is as readable as the one it replaces.
    """
    ids = inputs.split.forget.ids
    result.manifest.keyed_hashes = keyed_hashes(ids, key)
    with atomic_folder(out) as scratch:
        result.save(scratch / EVIDENCE, key)
        if result.outcome.has_new_model:
            (folder := scratch / MODEL).mkdir()
            inputs.models[0].write(result.model.cpu(), folder)
        if keep_adapter and result.adapter is not None and result.outcome.has_new_model:
            adapter: Any = result.adapter
            with atomic_folder(scratch / "adapter") as folder:
                # with the embeddings PEFT would ask the hub whether they were resized
                adapter.cpu().save_pretrained(str(folder), save_embedding_layers=False)
            terminal.event("adapter", written_apart=True, hint="removing it restores the old model")

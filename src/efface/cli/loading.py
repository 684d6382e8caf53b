"""From arguments to models and records, and from a result to its manifest."""

import shlex
import sys
import time
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from efface import terminal
from efface.cli.options import Arguments, ReadOptions
from efface.errors import InputError, abbreviate
from efface.hazards import SAMPLE
from efface.io.data import DataSource, load_data
from efface.io.models import CONFIG, RECIPE, LoadedModel, load_model
from efface.io.shadows import Shadows, read_shadows
from efface.runtime import choose_threads, resolve_device
from efface.task import device_of, frozen_teacher, outputs
from efface.types import Records, Split, sample_rows
from efface.unlearn import Result

# of a holdout or retain, of records that cannot be used
MOST_OMITTED = 0.1


def read_model(path: Path, read: ReadOptions) -> LoadedModel:
    """The model of a folder or a weights file, on the device."""
    # The names of the options are those of the arguments, so a new option needs no line here.
    given: dict[str, Any] = asdict(read.model)
    device = resolve_device(given.pop("device"))
    given["classes"] = _read_classes(given["classes"])
    loaded = load_model(path, **given)
    if loaded.extras:
        hint = "not unlearned: they are written back as they came, and may hold the data"
        terminal.event("kept", next_to_the_model=abbreviate(loaded.extras), hint=hint)
    if loaded.omitted:
        hint = "they may hold the data"
        terminal.event("omitted", of_the_checkpoint=abbreviate(loaded.omitted), hint=hint)
    return replace(loaded, model=loaded.model.to(device))


def _read_classes(given: str | None) -> list[str] | None:
    """Names separated by commas, or the lines of a file. Raises InputError for fewer than two."""
    if given is None:
        return None
    try:
        lines = Path(given).read_text("utf-8").splitlines()
    # a list of names can be too long for a path
    except (OSError, ValueError):
        lines = given.split(",")
    names = [line.strip() for line in lines if line.strip()]
    if len(names) < 2:  # noqa: PLR2004
        remedy = "Write a,b,c, or name a file with one name a line."
        raise InputError("two class names or more in --classes", repr(given), remedy)
    return names


def read_data(
    spec: str, read: ReadOptions, loaded: LoadedModel, first: DataSource | None = None
) -> DataSource:
    """The data as the model reads them: its classes tell which label column is meant.

    ``first``: data read before; where the model names no classes, theirs count.
    """
    # sorted by itself, a holdout that lacks a class would number the others differently
    names = loaded.classes or (first.classes if first else None)
    data = load_data(spec, **asdict(read.columns), classes=names, num_classes=loaded.num_classes)
    for note in data.notes:
        terminal.event("labels", data=spec, note=note)
    return data


def omit_unreadable(
    name: str, data: DataSource, loaded: LoadedModel, read: Callable[[int], Any] = lambda _: None
) -> tuple[Records, list[str]]:
    """The records of a part that can be used, and the ids of the others, counted on the terminal.

    Raises InputError when the others are more than a tenth: they are hardly a slip.
    """
    records, unreadable = data.readable(None, loaded.preprocessing, read)
    if unreadable:
        reasons = Counter(unreadable.values()).most_common(3)
        reasons = ", ".join(f"{reason} ({count})" for reason, count in reasons)
        came = f"{len(unreadable)} of {len(data)} that cannot be used: {reasons}"
        if len(unreadable) > MOST_OMITTED * len(data):
            wanted = f"a {name} of which nine in ten records can be used"
            raise InputError(wanted, came, f"Fix them, or give a {name} without them.")
        terminal.warn(omitted_from=name, records=came)
    return records, list(unreadable)


@dataclass(frozen=True, eq=False)
class Inputs:
    """What the arguments name, loaded.

    ``models``: OLD, and where they are given NEW and the retrained ones; ``others``: a sample of
    the data that are not named; ``omitted``: ids of unreadable records by part; ``digests``: of the
    data of each part; ``seconds``: that loading took.
    """

    arguments: Arguments
    models: list[LoadedModel]
    data: DataSource
    split: Split
    others: Records
    shadows: Shadows | None
    omitted: dict[str, list[str]]
    digests: dict[str, str]
    seconds: float

    @classmethod
    def read(cls, arguments: Arguments) -> "Inputs":
        """Load it all; refuses what does not fit together. Raises InputError."""
        with terminal.show_progress("load", None) as advance:
            return cls._read(arguments, advance)

    @classmethod
    def _read(cls, arguments: Arguments, advance: Callable[..., None]) -> "Inputs":
        began = time.perf_counter()
        read, parts, omitted = arguments.read, {}, {}
        old = read_model(arguments.old, read)
        # NEW comes first: `models` has the order of the digests in the manifest.
        paths = {"NEW": arguments.new} if arguments.new else {}
        paths |= {str(path): path for path in arguments.retrained}
        others = {name: read_model(path, read) for name, path in paths.items()}
        # Before the data, which may take minutes to read.
        for name, other in others.items():
            refuse_other_inputs(old, other, name)
        if arguments.reference:
            reference = read_model(arguments.reference, _as_stated(arguments.reference, read))
            refuse_other_inputs(old, reference, "the reference model")
            parts["reference"] = reference.model
        shadows = read_shadows(arguments.shadow) if arguments.shadow else None
        data = read_data(arguments.data, read, old)
        rows, classes = data.requested_rows(asdict(arguments.records))
        _warn(data, rows, whole_class=bool(classes))
        unnamed = sample_rows(len(data), SAMPLE, without=rows)
        given = {name: getattr(arguments.split, name) for name in ("holdout", "retain")}
        sources = {name: read_data(spec, read, old, data) for name, spec in given.items() if spec}
        total, done = sum(map(len, (rows, unnamed, *sources.values()))), 0

        def count(records: int) -> None:
            nonlocal done
            done += records
            advance(done, steps=total)

        forget = data.records(rows, old.preprocessing, count)
        sample, _ = data.readable(unnamed, old.preprocessing, count)
        digests = {"data": data.digest} | ({"shadow": shadows.digest} if shadows else {})
        # A forget record that cannot be read is an error above, here it is omitted and counted.
        # Forget records in these parts are taken out by the library, which compares contents.
        for name, part in sources.items():
            parts[name], unreadable = omit_unreadable(name, part, old, count)
            omitted[f"unreadable in {name}"], digests[name] = unreadable, part.digest
        models, split = [old, *others.values()], Split(forget, forget_classes=classes, **parts)
        set_threads(old.model, forget)
        seconds = time.perf_counter() - began
        return cls(arguments, models, data, split, sample, shadows, omitted, digests, seconds)

    def context(self) -> dict[str, Any]:
        """The keywords that ``efface.forget`` and ``efface.score`` share."""
        old, split = self.models[0], self.arguments.split
        # The model's classes come first: the data may hold only some of them.
        model = {"classes": old.classes or self.data.classes, "preprocessing": old.preprocessing}
        seeds = {"seed": self.arguments.seed, "holdout_seed": split.holdout_seed}
        checks = {"others": self.others, "accept": self.arguments.read.checks.accept}
        how: dict[str, Any] = {"mislabelled": split.mislabelled, "report": split.report}
        how["progress"] = terminal.show_progress
        return {**how, **model, **seeds, **checks}

    def complete(self, result: Result) -> None:
        """Add to the manifest what only the command knows; print the records that moved."""
        manifest, old = result.manifest, self.models[0]
        for name in ("holdout", "retain"):
            if count := manifest.request.get(f"forget_records_in_{name}"):
                terminal.event(name, forget_records_taken_out=count)
        manifest.note = self.arguments.split.note
        manifest.seconds = {"load": self.seconds, **manifest.seconds}
        manifest.request["named"] = str(self.arguments.records)
        manifest.command, manifest.arguments = command_line(), asdict(self.arguments)
        manifest.omitted = {**self.omitted, "of the checkpoint": list(old.omitted)}
        about = {"digest": self.data.digest, "architecture": old.architecture}
        manifest.data = {**about, "labels": list(self.data.notes)}
        manifest.digests = self.digests


def set_threads(model: nn.Module, records: Records) -> None:
    """Threads of this process for passes of these records; the manifest says how many."""
    teacher = frozen_teacher(model)
    # doctor says why a model does not take its inputs
    with suppress(Exception):
        one, at_once = records.take([0]).to(device_of(model)), min(len(records), 128)
        threads = choose_threads(teacher, lambda: outputs(teacher, one), records_at_once=at_once)
        torch.set_num_threads(threads)


def refuse_other_inputs(old: LoadedModel, other: LoadedModel, name: str) -> None:
    """Raise InputError: all models get the same inputs, and classes in another order differ."""
    if other.preprocessing != old.preprocessing:
        wanted, came = "models with the same preprocessing", "whose preprocessing is not that"
    elif old.classes and other.classes and old.classes != other.classes:
        wanted, came = "models with the same classes in order", "whose classes are not those"
    else:
        return
    remedy = "Give models of one task; in Python any two modules will do."
    raise InputError(wanted, f"{name}, {came} of OLD", remedy)


def _as_stated(path: Path, read: ReadOptions) -> ReadOptions:
    """Without what is said of MODEL's own file, where the folder states its architecture."""
    stated = any((path / name).exists() for name in (RECIPE, CONFIG))
    own = replace(read.model, architecture=None, weights_in=None)
    return replace(read, model=own) if stated else read


def _warn(data: DataSource, rows: list[int], *, whole_class: bool) -> None:
    """Warn of what the request may not have meant."""
    if data.ids_are_row_numbers:
        hint = "they name other records when the rows move; --id-column names a column"
        terminal.warn(ids="row numbers, counted from 0", hint=hint)
    if not whole_class and len(rows) == len(data) > 1:
        hint = "if the model was trained on nothing else, delete it instead"
        terminal.warn(named="every record of the data", hint=hint)
    if not whole_class and (nearly := data.nearly_whole_classes(rows)):
        hint = "--forget-class removes a class"
        terminal.warn(nearly_all_of=", ".join(nearly), hint=hint)


def command_line() -> str:
    """The command as it was typed."""
    return shlex.join(["efface", *sys.argv[1:]])

"""``efface forget --method retrain``: the user's own training command, and its result evaluated.

The command is run because it was typed: no file names it, and no shell reads it unless it calls one
itself. It gets the ids to exclude and a path for the new model, nothing else.
"""

import hashlib
import logging
import secrets
import shlex
import shutil
import subprocess
import sys
import time
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from efface import prepare, terminal
from efface.cli.doctor import print_when_refused
from efface.cli.forget import read_key, write_key, write_run
from efface.cli.loading import Inputs, read_model, refuse_other_inputs
from efface.cli.options import Arguments
from efface.cli.summary import print_summary
from efface.errors import EffaceError, InputError, Outcome
from efface.io.atomic import claim, refuse_overlap, write_private
from efface.manifest import exclusion_table
from efface.report.text import TIERS, count
from efface.unlearn import score

EXAMPLE = "For example --train-command 'python train.py --exclude {exclude} --out {out}'."
# Of the command's output, for the error.
LAST_LINES = 8
# What a training gets to end by itself when this run is stopped.
SECONDS_TO_END = 10


def run_retrain(arguments: Arguments, command: str, *, out: Path, key: Path | None) -> None:
    """Train, evaluate what came as retrained, write the new folder as ``run_forget`` does."""
    words = _words(command)
    _refuse_run(arguments, out)
    secret, new = read_key(key, out), _place(out, arguments)
    with claim(out), _workplace(new):
        inputs = Inputs.read(arguments)
        given, ids = _digests(arguments.old), inputs.split.forget.ids
        _refuse_lines(words, ids)
        table = exclusion_table(ids, secrets.token_bytes(32))
        write_private(new.with_name("exclude.csv"), table)
        write_private(new.with_name("ids.txt"), "".join(f"{one}\n" for one in ids).encode())
        seconds = _train(_fill(words, new, arguments.seed), new)
        if not new.exists():
            remedy = "The command must write its model to the path that {out} stands for."
            raise InputError("a model from the training command", "nothing at {out}", remedy)
        if _digests(arguments.old) != given:
            remedy = "Restore it, and let the command write to {out} alone."
            raise EffaceError(f"{arguments.old} as it was", "files that the command wrote", remedy)
        old, loaded = inputs.models[0], read_model(new, arguments.read)
        refuse_other_inputs(old, loaded, "the retrained model")
        with print_when_refused():
            result = score(old.model, loaded.model, inputs.split, exact=True, **inputs.context())
        inputs.complete(result)
        manifest = result.manifest
        manifest.job, manifest.method = "forget", "retrain"
        manifest.seconds["method"] = seconds
        write_key(key, secret)
        # in its own container: its files belong to its weights
        made = replace(inputs, models=[loaded])
        write_run(out, result, made, secret, keep_adapter=False)
    print_summary(result, out, arguments)
    if result.outcome.exit_code:
        sys.exit(result.outcome.exit_code)


def run_dry(arguments: Arguments, command: str, *, out: Path | None) -> None:
    """Print the command as it would be run; models and data are read, nothing else is done."""
    words = _words(command)
    _refuse_run(arguments, out)
    inputs = Inputs.read(arguments)
    ids = inputs.split.forget.ids
    _refuse_lines(words, ids)
    filled = _fill(words, _place(out or Path("new"), arguments), arguments.seed)
    line = shlex.join(filled)
    terminal.document(outcome=Outcome.DRY_RUN, method="retrain", tier="TE", command=filled)
    terminal.lines([("Request", f"{count(len(ids))} to omit"), ("Method", "retrain, by running:")])
    terminal.command(line)
    said = [("Cost", "that of your training"), ("Evidence", f"tier TE: {TIERS['TE']}")]
    terminal.lines([*said, ("Written", "nothing")])


def _refuse_run(arguments: Arguments, out: Path | None) -> None:
    """Raise InputError before anything is read, in a dry run too."""
    prepare.check_report(arguments.split.report, prepare.FULL, prepare.QUICK)
    if out is not None:
        refuse_overlap(out, arguments.inputs())


def _words(command: str) -> list[str]:
    """The command as a list, as a shell would cut it. Raises InputError."""
    try:
        words = shlex.split(command)
    except ValueError as error:
        raise InputError("a command in --train-command", f"{error}", EXAMPLE) from error
    for names in (("{exclude}", "{ids}"), ("{out}",)):
        if not any(name in word for name in names for word in words):
            raise InputError(f"{' or '.join(names)} in --train-command", repr(command), EXAMPLE)
    return words


def _refuse_lines(words: list[str], ids: Sequence[str]) -> None:
    """Raise InputError for an id that would be two lines."""
    broken = [one for one in ids if one.splitlines() != [one]]
    if broken and any("{ids}" in word for word in words):
        raise InputError("ids of one line for {ids}", repr(broken[0]), "Let it read {exclude}.")


def _fill(words: list[str], new: Path, seed: int) -> list[str]:
    """The words with the paths and the seed in them."""
    places = {"{exclude}": new.with_name("exclude.csv"), "{ids}": new.with_name("ids.txt")}
    values: dict[str, Any] = {**places, "{out}": new, "{seed}": seed}
    # no ``format``: a command may hold braces of its own
    for name, value in values.items():
        words = [word.replace(name, str(value)) for word in words]
    return words


def _place(out: Path, arguments: Arguments) -> Path:
    """Where the command writes its model: in a folder of its own next to OUT."""
    # MODEL may be "." or "..": a folder has a name of its own there
    name = arguments.old.name if arguments.old.is_file() else "new"
    return out.absolute().with_name(f".{out.name}.retraining") / name


@contextmanager
def _workplace(new: Path) -> Iterator[None]:
    """The folder where the command writes: kept where the run fails after a training."""
    folder = new.parent
    if folder.exists():
        remedy = f"Evaluate its model with efface score, or remove {folder}."
        raise InputError("no earlier training", f"one at {folder}", remedy)
    folder.mkdir(mode=0o700)
    ended = False
    try:
        yield
        ended = True
    finally:
        # hours of training are not thrown away for a full disk
        if ended or not new.exists():
            shutil.rmtree(folder, ignore_errors=True)
        else:
            hint = "efface score evaluates a model; remove the folder when it is no longer needed: "
            hint += "its exclude.csv and ids.txt name the records"
            terminal.event("kept", level=logging.WARNING, retrained=f"{new}", hint=hint)


def _train(words: list[str], new: Path) -> float:
    """Run the command and show its output; returns the seconds. Raises InputError.

    ``new``: where the command writes.
    """
    began, last = time.perf_counter(), deque[str](maxlen=LAST_LINES)
    how = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.STDOUT}
    try:
        process = subprocess.Popen(words, text=True, errors="replace", **how)  # noqa: S603  # typed
    except OSError as error:
        came = f"{words[0]!r}: {error.strerror}"
        raise InputError("a training command that can be run", came, EXAMPLE) from error
    with process:
        try:
            for line in process.stdout or ():
                last.append(line.rstrip())
                terminal.event("training", text=line.rstrip())
            code = process.wait()
        except BaseException:
            process.terminate()
            try:
                process.wait(SECONDS_TO_END)
            except subprocess.TimeoutExpired:
                process.kill()
            raise
    if code:
        came = f"exit code {code}, after {' | '.join(filter(None, last)) or 'no output'}"
        remedy = f"What it wrote is kept: {new}." if new.exists() else "Nothing was written."
        raise InputError("a training command that ends well", came, remedy)
    return time.perf_counter() - began


def _digests(model: Path) -> dict[str, str]:
    """SHA-256 of each file of the given model."""
    found = {}
    for path in [model] if model.is_file() else sorted(p for p in model.rglob("*") if p.is_file()):
        with path.open("rb") as file:
            found[str(path)] = hashlib.file_digest(file, "sha256").hexdigest()
    return found

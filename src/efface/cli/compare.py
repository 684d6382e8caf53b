"""``efface compare``: several methods and seeds on one request, in a folder that is resumable."""

import logging
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

from efface import terminal
from efface.cli.doctor import print_when_refused
from efface.cli.forget import read_settings
from efface.cli.loading import Inputs
from efface.cli.methods import import_method
from efface.cli.options import Arguments, CompareOptions
from efface.comparison.page import sentences
from efface.comparison.run import CELLS, PAGE, TABLE, TRIALS, compare
from efface.errors import InputError
from efface.io.atomic import refuse_nonempty, refuse_overlap
from efface.report import jsonable
from efface.trainable import check_trainable

GUARDS = {"on": (True,), "off": (False,), "both": (True, False)}


def run_compare(arguments: Arguments, options: CompareOptions, *, out: Path) -> None:
    """Make the cells that are not there, write the page, print the table; exit 1 if any failed."""
    given: dict[str, Any] = asdict(options)
    given["guard"] = GUARDS[options.guard]
    given["methods"] = tuple(map(import_method, options.methods))
    if given["methods"] != options.methods and options.processes > 1:
        remedy = "Omit --processes, or install the method (docs/your_own_method.md)."
        raise InputError("one process for a method of a file", f"{options.processes}", remedy)
    given["settings"] = _settings(given.pop("setting"))
    check_trainable(options.trainable)
    refuse_overlap(out, arguments.inputs())
    # the folder of a comparison may be there, that of anything else may not
    if not any((out / name).is_dir() for name in (CELLS, TRIALS)):
        refuse_nonempty(out)
    inputs = Inputs.read(arguments)
    model, context = inputs.models[0], inputs.context()
    # the seeds of the methods are the comparison's own
    context.pop("seed")
    given |= {"stored": model.stored, "retrained": [one.model for one in inputs.models[1:]]}
    with print_when_refused():
        found = compare(model.model, inputs.split, out=out, **given, **context)
    said = sentences(found)
    terminal.lines([("Outcome", one) for one in said])
    terminal.table(f"{out / PAGE}, the nearest first", *found.table())
    failed = [cell for cell in found.cells if cell["error"]]
    for cell in failed:
        facts = {"run": cell["name"], "seed": cell["seed"], "error": cell["error"]}
        terminal.event("failed", level=logging.ERROR, **facts)
    files = {"page": f"{out / PAGE}", "table": f"{out / TABLE}"}
    terminal.event("compared", **files, failed=len(failed))
    terminal.document(**files, sentences=said, failed=len(failed), cells=jsonable(found.cells))
    if failed:
        sys.exit(1)


def _settings(pairs: tuple[str, ...]) -> dict[str, dict[str, Any]]:
    """METHOD.NAME=VALUE pairs by method. Raises InputError."""
    settings: dict[str, dict[str, Any]] = {}
    for pair in pairs:
        method, dot, rest = pair.partition(".")
        if not dot or "=" in method:
            remedy = "For example --setting jit.steps=100."
            raise InputError("--setting METHOD.NAME=VALUE", repr(pair), remedy)
        settings.setdefault(method, {}).update(read_settings((rest,)))
    return settings

"""``efface score``: evaluate a pair of models of any origin, or replay the evaluation of a run."""

import json
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from efface import terminal
from efface.cli.loading import Inputs, print_summary
from efface.cli.options import Arguments
from efface.errors import Differs, InputError, Outcome
from efface.io.atomic import atomic_folder, claim, refuse_overlap
from efface.manifest import Manifest, state_digest, versions
from efface.unlearn import Result, score

# So many numbers that differ are named one by one.
MAX_NAMED = 12


def run_score(arguments: Arguments, out: Path) -> None:
    """Write the folder whole or not at all, print what came of it."""
    refuse_overlap(out, arguments.inputs())
    with claim(out):
        result = evaluate(Inputs.read(arguments))
        with atomic_folder(out) as scratch:
            result.save(scratch)
    print_summary(result, out)


def evaluate(inputs: Inputs) -> Result:
    """The report that the arguments ask for, and its manifest."""
    (old, new, *more), shadows = (one.model for one in inputs.models), inputs.shadows
    result = score(old, new, inputs.split, retrained=more, shadows=shadows, **inputs.context())
    inputs.complete(result)
    return result


def run_replay(run: Path, *, others: list[str]) -> None:
    """Evaluate the run again and compare; writes nothing.

    Args:
        run: a folder of ``efface score`` or ``efface forget``.
        others: names of further arguments on the command line; there must be none.

    Raises:
        Differs: a model, the data, a number or the page is not what the run recorded.
        InputError: the run cannot be evaluated again.
    """
    if others:
        remedy = "The run's manifest has the arguments: omit these."
        raise InputError("--replay RUN alone", f"{' and '.join(others)} with it", remedy)
    try:
        recorded = json.loads((run / "evidence.json").read_text("utf-8"))
        page, manifest = (run / "report.html").read_text("utf-8"), Manifest.read(run)
    except (OSError, json.JSONDecodeError) as error:
        wanted = "a folder of efface score or efface forget, with manifest, evidence and report"
        remedy = "Give the folder that was named with --out."
        raise InputError(wanted, f"{run}: {type(error).__name__}", remedy) from error
    inputs = Inputs.read(_arguments(run, manifest))
    # Digests come first: with other inputs the numbers would differ for a reason nobody could see.
    old, new, *more = (state_digest(loaded.model.state_dict()) for loaded in inputs.models)
    was = {"weights": manifest.weights, "digests": manifest.digests}
    now = {"weights": {"old": old, "new": new, "retrained": more}, "digests": inputs.digests}
    _compare(was, now, manifest, "models and data")
    report: Any = evaluate(inputs).report
    again = json.loads(json.dumps(report.to_json()))
    _compare(recorded, again, manifest, "numbers")
    if report.to_html(manifest) != page:
        remedy = "It was changed by hand, or made by another version of efface or matplotlib."
        wanted, came = "the page of these numbers in", "another page next to the same"
        raise Differs(f"{wanted} report.html", f"{came} evidence.json", remedy)
    ran = sum(row["status"] != "not run" for row in again["rows"])
    # numbers are what is neither a quoted text nor a truth
    numbers = sum(text[0] not in '"tf' for _, text in leaves(again))
    terminal.event("replay", rows_that_ran=ran, numbers=numbers, differ=0)


def _arguments(run: Path, manifest: Manifest) -> Arguments:
    """The arguments of the run, with its own model as NEW where it made one."""
    if manifest.outcome is Outcome.NOT_MET:
        remedy = "Without a new model there is nothing to evaluate again."
        raise InputError("a run that made a model", f"{run}, which was {manifest.outcome}", remedy)
    try:
        arguments = Arguments.from_json(manifest.arguments or {})
    except (KeyError, TypeError) as error:
        wanted, came = "a manifest with the arguments of its run", f"{run}: no {error}"
        remedy = "Only runs of the command line can be replayed; in Python call efface.score."
        raise InputError(wanted, came, remedy) from error
    # `efface forget` writes its model as the old one came: a folder, or a file of the same name
    made = run if arguments.old.is_dir() else run / arguments.old.name
    return replace(arguments, new=arguments.new or made)


def _compare(recorded: Any, again: Any, manifest: Manifest, what: str) -> None:
    """Raise Differs, naming what differs and which versions changed."""
    if not (found := differences(recorded, again)):
        return
    more = len(found) - MAX_NAMED
    named = "; ".join(found[:MAX_NAMED]) + f"; and {more} more" * (more > 0)
    remedy = "The versions are the same: look at the files read, the threads and the device."
    if changed := differences(manifest.versions, versions()):
        remedy = f"Other versions: {'; '.join(changed)}."
    raise Differs(f"the {what} of the run", f"{len(found)} that differ: {named}", remedy)


def differences(recorded: Any, again: Any) -> list[str]:
    """Each value that differs, as ``name recorded, now again``."""
    # Counters, not dicts: a leaf that was added under the name of another must show.
    was, now = Counter(leaves(recorded)), Counter(leaves(again))
    gone, new = dict((was - now).keys()), dict((now - was).keys())
    names = gone | new
    return [f"{n} {gone.get(n, 'null'):.40}, now {new.get(n, 'null'):.40}" for n in names]


def leaves(value: Any, name: str = "") -> Iterator[tuple[str, str]]:
    """Name and JSON text of each value that is not null; rows are named by their key."""
    parts: Any = ()
    if isinstance(value, dict):
        parts = value.items()
    elif isinstance(value, list):
        has_key = [isinstance(part, dict) and "key" in part for part in value]
        parts = [(p["key"] if has_key[i] else i, p) for i, p in enumerate(value)]
    elif value is not None:  # As text True is not 1, and 1 is not 1.0.
        yield name, json.dumps(value, ensure_ascii=False)
    for key, part in parts:
        yield from leaves(part, f"{name}.{key}".lstrip("."))

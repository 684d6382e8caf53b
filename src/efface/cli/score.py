"""``efface score``: evaluate a pair of models of any origin, or replay the evaluation of a run."""

import json
from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from efface import terminal
from efface.cli.doctor import print_when_refused
from efface.cli.loading import Inputs
from efface.cli.options import Arguments
from efface.cli.summary import print_summary
from efface.errors import Differs, InputError
from efface.io.atomic import atomic_folder, claim, refuse_overlap
from efface.io.files import read_json, read_text
from efface.manifest import EVIDENCE, MODEL, Manifest, state_digest, versions
from efface.methods import METHODS
from efface.report import jsonable
from efface.unlearn import Result, score

# So many numbers that differ are named one by one.
MAX_NAMED = 12
# Arguments that are no paths and change the numbers.
SETTINGS = {"seed", "split.holdout_seed", "split.mislabelled", "records.where"}
SETTINGS |= {"records.forget_class"}


def run_score(arguments: Arguments, out: Path) -> None:
    """Write the folder whole or not at all, print what came of it."""
    refuse_overlap(out, arguments.inputs())
    with claim(out):
        inputs = Inputs.read(arguments)
        with print_when_refused():
            result = evaluate(inputs)
        with atomic_folder(out) as scratch:
            result.save(scratch / EVIDENCE)
    print_summary(result, out, arguments)


def evaluate(inputs: Inputs, *, exact: bool = False) -> Result:
    """The report that the arguments ask for, and its manifest; ``exact`` as in ``score``."""
    (old, new, *more), shadows = (one.model for one in inputs.models), inputs.shadows
    how: dict[str, Any] = {
        "retrained": more,
        "shadows": shadows,
        "exact": exact,
        **inputs.context(),
    }
    result = score(old, new, inputs.split, **how)
    inputs.complete(result)
    return result


def run_replay(arguments: Arguments, run: Path) -> None:
    """Evaluate again and compare with what ``run`` recorded; nothing is written.

    Models and data are the caller's: of the folder only its numbers and its own model are read.

    Raises:
        Differs: an argument, a model, the data, a number or the page is not what was recorded.
        InputError: the folder is no run with a new model.
    """
    evidence = run / EVIDENCE
    wanted = "a folder of efface score or efface forget, with manifest, evidence and report"
    remedy = "Give the folder that was named with --out."
    recorded = read_json(evidence / "evidence.json", wanted, remedy)
    page = read_text(evidence / "report.html", wanted, remedy)
    manifest = Manifest.read(evidence)
    new = arguments.new or _own_model(run, arguments)
    # What explains other numbers comes first.
    was, now = (
        {name: json.loads(text) for name, text in leaves(given) if name in SETTINGS}
        for given in (manifest.arguments, jsonable(asdict(arguments)))
    )
    _compare(was, now, manifest, "arguments")
    inputs = Inputs.read(replace(arguments, new=new))
    old, new, *more = (state_digest(loaded.model.state_dict()) for loaded in inputs.models)
    was = {"weights": manifest.weights, "digests": manifest.digests}
    now = {"weights": {"old": old, "new": new, "retrained": more}, "digests": inputs.digests}
    _compare(was, now, manifest, "models and data")
    method = METHODS.get(str(manifest.method))
    exact = manifest.job == "forget" and method is not None and method.exact
    report: Any = evaluate(inputs, exact=exact).report
    again = json.loads(json.dumps(report.to_json()))
    _compare(recorded, again, manifest, "numbers")
    try:
        same = report.to_html(manifest) == page
    except Exception:  # noqa: BLE001  # a manifest of other types than those of ours
        same = False
    if not same:
        remedy = "It was changed by hand, or made by another version of efface or matplotlib."
        wanted, came = "the page of these numbers in", "another page next to the same"
        raise Differs(f"{wanted} report.html", f"{came} evidence.json", remedy)
    ran = sum(row["status"] != "not run" for row in again["rows"])
    # numbers are what is neither a quoted text nor a truth
    numbers = sum(text[0] not in '"tf' for _, text in leaves(again))
    terminal.document(rows_that_ran=ran, numbers=numbers, differ=0)
    terminal.event("replay", rows_that_ran=ran, numbers=numbers, differ=0)


def _own_model(run: Path, arguments: Arguments) -> Path:
    """The model that the run made, in the container of the old one. Raises InputError."""
    made = run / MODEL if arguments.old.is_dir() else run / MODEL / arguments.old.name
    if not made.exists():
        remedy = "Name the second model of efface score; a run that changed nothing made none."
        raise InputError("NEW, or a run with its model", f"no {made}", remedy)
    return made


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

"""``efface score --replay``: a report measured again from its record, number by number."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from efface import terminal
from efface.asked import Asked
from efface.errors import Differs, InputError
from efface.manifest import SCHEMA, Manifest, versions
from efface.report import Evidence, render
from efface.scoring import measured, read

MOST_NAMED = 12
"""So many numbers that differ are named one by one."""
FILES = ("evidence.json", "manifest.json", "report.html")


def run_replay(run: Path, *, beside: Mapping[str, Any]) -> None:
    """Measure the run again and compare; writes nothing.

    Raises Differs when a model, the data or a number is another; InputError when the run cannot be
    measured again.
    """
    if said := [name for name, value in beside.items() if value is not None]:
        raise InputError(
            "--replay RUN alone",
            f"{' and '.join(said)} beside it",
            "The run's record has the arguments: leave these away.",
        )
    evidence, record, page = _files(run)
    asked = _asked(run, record)
    given = read(asked, asked.new or _made(run, asked))
    found = {"weights": given.weights(), "digests": given.digests()}
    _refuse({name: record.get(name) for name in found}, found, record, "models and data")
    result = measured(asked, given)
    remade = json.loads(json.dumps(result.report.as_json()))
    _refuse(evidence, remade, record, "numbers")
    _refuse_other_page(result.report, record, page)
    rows = sum(row["status"] != "not run" for row in remade["rows"])
    terminal.event("replay", rows_that_ran=rows, numbers=_count(remade), differ=0)


def _files(run: Path) -> tuple[dict[str, Any], dict[str, Any], str]:
    """(evidence, record, page) as they lie in the folder."""
    Manifest.read(run)
    try:
        evidence, record, page = ((run / name).read_text(encoding="utf-8") for name in FILES)
        return json.loads(evidence), json.loads(record), page
    except (OSError, ValueError) as error:
        raise InputError(
            f"a folder of efface score or efface forget, with {', '.join(FILES)}",
            f"{run}: {type(error).__name__}",
            "Give the folder that was named with --out.",
        ) from error


def _asked(run: Path, record: dict[str, Any]) -> Asked:
    """The arguments of the run."""
    if record.get("outcome") != "done":
        raise InputError(
            "a run that was done",
            f"{run}, which was {record.get('outcome', 'of an unknown outcome')}",
            "Without a new model there is nothing to measure again.",
        )
    try:
        written = record["arguments"] if record["schema"] == SCHEMA else record["schema"]
        return Asked.again(written)
    except (KeyError, TypeError, AttributeError) as error:
        raise InputError(
            f"a record of schema {SCHEMA} with the arguments of its run",
            f"{run}: {type(error).__name__} at {error}",
            "Only runs of the command line can be measured again; in Python call efface.score.",
        ) from error


def _made(run: Path, asked: Asked) -> Path:
    """Where ``efface forget`` put its model: the folder itself, or a file under the old name."""
    return run if asked.old.is_dir() else run / asked.old.name


def _refuse(recorded: Any, found: Any, record: Mapping[str, Any], what: str) -> None:
    """Raise Differs, naming what is another."""
    others = differences(recorded, found)
    if not others:
        return
    more = len(others) - MOST_NAMED
    named = "; ".join(others[:MOST_NAMED]) + f"; and {more} more" * (more > 0)
    changed = differences(record.get("versions"), versions())
    remedy = (
        f"Other versions: {'; '.join(changed)}."
        if changed
        else ("The versions are the same: look at the files read, the threads and the device.")
    )
    raise Differs(f"the {what} of the record", f"{len(others)} that differ: {named}", remedy)


def _refuse_other_page(evidence: Evidence, record: dict[str, Any], page: str) -> None:
    if render(evidence, record) != page:
        raise Differs(
            "the page of these numbers in report.html",
            "another page beside the same evidence.json",
            "It was changed by hand, or made by another version of efface or matplotlib.",
        )


def differences(recorded: Any, found: Any, name: str = "") -> list[str]:
    """Each value that is another, as ``name recorded, now found``; rows by their key."""
    if isinstance(recorded, dict) and isinstance(found, dict):
        names = [*recorded, *(key for key in found if key not in recorded)]
        pairs = [(key, recorded.get(key), found.get(key)) for key in names]
    elif isinstance(recorded, list) and isinstance(found, list) and len(recorded) == len(found):
        pairs = [
            (_key(row, place), row, other)
            for place, (row, other) in enumerate(zip(recorded, found, strict=True))
        ]
    else:
        same = recorded == found and isinstance(recorded, bool) is isinstance(found, bool)
        return [] if same else [f"{name} {_short(recorded)}, now {_short(found)}"]
    return [
        line
        for key, one, other in pairs
        for line in differences(one, other, f"{name}.{key}" if name else str(key))
    ]


def _key(row: Any, place: int) -> str:
    """A row's own name where it has one, else its place."""
    return str(row["key"]) if isinstance(row, dict) and "key" in row else str(place)


def _short(value: Any) -> str:
    if isinstance(value, list | dict):
        return f"{len(value)} entries"
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 40 else f"{text[:36]}…"  # noqa: PLR2004


def _count(value: Any) -> int:
    """How many numbers stand in it."""
    if isinstance(value, dict | list):
        parts = value.values() if isinstance(value, dict) else value
        return sum(_count(part) for part in parts)
    return isinstance(value, int | float) and not isinstance(value, bool)

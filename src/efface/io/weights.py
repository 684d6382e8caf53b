"""A weight for each record, from a CSV."""

import csv
from pathlib import Path

from efface.errors import InputError


def read_weights(path: Path) -> dict[str, float]:
    """The columns ``id`` and ``weight`` of a CSV, by id.

    Raises InputError for a file that is not there, lacks a column, names a record twice, or has a
    weight that is no number.
    """
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            rows = list(csv.DictReader(file))
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(
            f"a CSV of weights at {path}", type(error).__name__, "Columns id and weight, UTF-8."
        ) from error
    found: dict[str, float] = {}
    for row in rows:
        name, text = (row.get("id") or "").strip(), (row.get("weight") or "").strip()
        try:
            weight = float(text)
        except ValueError:
            weight = None
        if not name or weight is None or name in found:
            came = f"{name!r} twice" if name in found else f"id {name!r} and weight {text!r}"
            raise InputError(
                f"in {path} columns id and weight, each record once and with a number",
                came,
                "Write one line a record, under the header id,weight.",
            )
        found[name] = weight
    if not found:
        raise InputError(f"at least one weight in {path}", "none", "Write a line for each record.")
    return found

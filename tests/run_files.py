"""What a run of the command left in its folder."""

import csv
import json


def contents(folder):
    """The bytes of each file, by name."""
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


def read(folder, name="manifest"):
    """One of its JSON files."""
    return json.loads((folder / f"{name}.json").read_text())


def lines_of(path):
    """The lines of a CSV file, as dictionaries."""
    return list(csv.DictReader(path.read_text("utf-8").splitlines()))


def rows_of(folder):
    """The rows of the report by their keys; none of them crashed."""
    rows = read(folder, "evidence")["rows"]
    assert not [row for row in rows if row["status"] == "error"]
    return {row["key"]: row for row in rows}

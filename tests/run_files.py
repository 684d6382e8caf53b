"""What a run of the command left in its folder."""

import csv
import json

from efface.errors import Outcome

# the exit codes of a request that made a new model
MADE = {outcome.exit_code for outcome in Outcome if outcome.has_new_model}


def contents(folder):
    """The bytes of each file, by name."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


def read(folder, name="manifest"):
    """One of its JSON files, of the evidence where there is some."""
    inside = folder / "evidence"
    return json.loads(((inside if inside.is_dir() else folder) / f"{name}.json").read_text())


def lines_of(path):
    """The lines of a CSV file, as dictionaries."""
    return list(csv.DictReader(path.read_text("utf-8").splitlines()))


def events(text):
    """The JSON lines among those on standard error, without their times."""
    lines = [json.loads(line) for line in text.splitlines() if line.startswith("{")]
    return [{key: value for key, value in line.items() if key != "time"} for line in lines]


def rows_of(folder):
    """The rows of the report by their keys; none of them crashed."""
    rows = read(folder, "evidence")["rows"]
    assert not [row for row in rows if row["status"] == "error"]
    return {row["key"]: row for row in rows}

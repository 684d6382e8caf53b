"""``efface doctor``: hazards that would make a run meaningless, before anything is changed."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from efface import terminal
from efface.cli.loading import omit_unreadable, read_data, read_model
from efface.cli.options import ReadOptions
from efface.errors import Hazard
from efface.hazards import NOUNS, Diagnosis, doctor
from efface.report import jsonable


def run_doctor(model: Path, data: str, holdout: str | None, read: ReadOptions) -> None:
    """Print what was found; raises Hazard when one of the findings refuses."""
    loaded = read_model(model, read)
    source, preprocessing = read_data(data, read, loaded), loaded.preprocessing
    records, classes = source.records(None, preprocessing), loaded.classes or source.classes
    how: dict[str, Any] = {"classes": classes, "accept": read.checks.accept}
    if holdout:
        unseen = read_data(holdout, read, loaded, source)
        how["holdout"], _ = omit_unreadable("holdout", unseen, loaded)
    found = doctor(loaded.model, preprocessing, records, **how)
    print_diagnosis(found)
    # After the table: whoever is refused sees every finding, not the first alone.
    found.refuse()


def print_diagnosis(found: Diagnosis) -> None:
    """The accuracy on each part and every finding with its remedy."""
    rows = [[one.name, one.severity, f"{one.text} {one.remedy}".strip()] for one in found.findings]
    parts = [f"{one} {NOUNS[part]}" for part, one in found.accuracy.items()]
    terminal.document(**jsonable({"accuracy": found.accuracy, "findings": found.findings}))
    title = f"right on {', '.join(parts)}" if parts else "no predictions"
    terminal.table(title, ["finding", "severity", "text"], rows or [["nothing found"]])


@contextmanager
def print_when_refused() -> Iterator[None]:
    """Print all that doctor found when it refuses."""
    try:
        yield
    except Hazard as error:
        found: Any = error.diagnosis
        if found is not None:
            print_diagnosis(found)
        raise

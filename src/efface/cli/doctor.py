"""``efface doctor``: hazards that would make a run meaningless, before anything is changed."""

from pathlib import Path

from efface import terminal
from efface.cli.loading import read_data, read_model
from efface.cli.options import ReadOptions
from efface.hazards import doctor, refuse_hazards


def run_doctor(model: Path, data: str, read: ReadOptions) -> None:
    """Print the findings; raises Hazard when one of them refuses."""
    loaded = read_model(model, read)
    source = read_data(data, read, loaded)
    records = source.records(None, loaded.preprocessing)
    classes = loaded.classes or source.classes
    findings = doctor(loaded.model, loaded.preprocessing, records, classes=classes)
    rows = [[finding.name, finding.severity, finding.text] for finding in findings]
    terminal.table(f"{len(records)} records", ["finding", "severity", "text"], rows)
    refuse_hazards(findings)

"""``efface doctor``: hazards that would make a run meaningless, before anything is changed."""

from pathlib import Path

from efface import terminal
from efface.cli.loading import read_data, read_model
from efface.cli.options import ReadOptions
from efface.hazards import doctor, refuse_hazards


def run_doctor(model: Path, data: str, read: ReadOptions) -> None:
    """Print the findings; raises Hazard when one of them refuses."""
    loaded = read_model(model, read)
    source, preprocessing = read_data(data, read, loaded), loaded.preprocessing
    records, classes = source.records(None, preprocessing), loaded.classes or source.classes
    findings = doctor(loaded.model, preprocessing, records, classes=classes)
    rows = [[finding.name, finding.severity, finding.text] for finding in findings]
    terminal.table(f"{len(records)} records", ["finding", "severity", "text"], rows)
    # After the table: whoever is refused sees every finding, not the first alone.
    refuse_hazards(findings)

"""An auditor: what a model that somebody else unlearned still knows of the records.

python -m examples.own_checkpoint demo && python -m examples.audit demo     # after make demo
"""

import sys
from pathlib import Path

from efface import Split, load_data, load_model, read_ids, score


def main(folder: Path) -> None:
    """Print every test that flags something, and write the page."""
    old = load_model(folder / "model")
    new = load_model(folder / "new_model/model")
    data, unseen = load_data(folder / "data"), load_data(f"{folder / 'data'}:test")
    rows = set(data.rows_of(read_ids(folder / "ids.csv")))
    stays = [row for row in range(len(data)) if row not in rows]
    split = Split(
        data.records(sorted(rows), old.preprocessing),
        holdout=unseen.records(None, old.preprocessing),
        retain=data.records(stays, old.preprocessing),
    )
    result = score(old.model, new.model, split, mislabelled=True)
    for row in result.report.rows if result.report else ():
        if row.status == "flagged":
            print(f"{row.name}: {row.before} before, {row.after} after")
    print(f"The report is {result.save_report(folder / 'audit.html')}")


if __name__ == "__main__":
    main(Path(sys.argv[1]))

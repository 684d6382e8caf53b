"""A platform engineer: one request on one's own checkpoint, written as a new folder.

python -m examples.own_checkpoint demo     # after make demo
"""

import sys
from pathlib import Path

from efface import Split, forget, load_data, load_model, read_ids


def main(folder: Path) -> None:
    """Forget the records of ids.csv, and keep the new model only where the guard lets it pass."""
    loaded = load_model(folder / "model")
    data, unseen = load_data(folder / "data"), load_data(f"{folder / 'data'}:test")
    rows = data.rows_of(read_ids(folder / "ids.csv"))
    split = Split(
        data.records(rows, loaded.preprocessing),
        holdout=unseen.records(None, loaded.preprocessing),
    )
    # Raises NotMet, with the report in error.result, where no model within the budgets was found.
    result = forget(loaded.model, split, mislabelled=True, stored=loaded.stored)
    out = folder / "new_model"
    (out / "model").mkdir(parents=True, exist_ok=True)
    loaded.write(result.model, out / "model")
    # apart from the model: it names the records
    evidence = result.save(out / "evidence")
    print(f"{result}\nThe report: {evidence / 'report.html'}")


if __name__ == "__main__":
    main(Path(sys.argv[1]))

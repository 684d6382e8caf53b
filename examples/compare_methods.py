"""A researcher: methods and seeds as a grid over one checkpoint, resumable, several at a time.

python -m examples.compare_methods demo     # after make demo
"""

import sys
from pathlib import Path

from efface import read_ids
from efface.forget_jobs import forget_job
from efface.grid import read, run

METHODS, SEEDS = ("jit", "neighbourhood"), (0, 1)


def main(folder: Path) -> None:
    """Accuracy on the forget records after each method, a line a run."""
    data, ids = str(folder / "data"), read_ids(folder / "ids.csv")
    how = {"holdout": f"{data}:test", "mislabelled": True}
    jobs = {
        (method, seed): forget_job(folder / "model", data, ids, method=method, seed=seed, **how)
        for method in METHODS
        for seed in SEEDS
    }
    run(jobs.values(), folder / "store", processes=2)
    for (method, seed), job in jobs.items():
        statistics = read(folder / "store", job).statistics
        row = next(r for r in statistics["report"]["rows"] if r["key"] == "forget.accuracy")
        print(f"{method:14} seed {seed}  {row['before']:.2f} before  {row['after']:.2f} after")


if __name__ == "__main__":
    main(Path(sys.argv[1]))

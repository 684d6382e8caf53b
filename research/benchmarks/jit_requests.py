"""The models and requests that the tables of JiT stand on, as cells: what is trained, what goes.

    EFFACE_DATA=… python -m research.benchmarks.jit_requests STORE    # trains 36 models, half an hour on two cores

10,000 images of CIFAR-10 and of CIFAR-100 under its 20 coarse labels; three base models of each;
three requests of each task on every base model, and one more that settings are chosen on and nothing
is scored on. Each base model has its retrained model: same recipe, fresh weights.
"""

import os
import sys
from dataclasses import dataclass
from typing import Any

import numpy as np

from efface.grid import Job, read, run
from efface.io.data import load_data
from efface.metrics.retrain_gap import gap
from research.jobs import training, unlearning
from research.reduce import columns_of, rows_by, statistics_of

# retrained models must not share the base models' first weights
FIRST, SEEDS, RETRAINED_SEED = 10_000, (0, 1, 2), 100
CLASSES, TUNING_CLASS = {"airplane": 0, "dog": 5, "frog": 6}, {"cat": 3}
SUB_CLASSES, TUNING_SUB_CLASS = ("mushroom", "rocket", "sea"), ("lamp",)
RANDOM, RANDOM_SEEDS, TUNING_RANDOM_SEED = 500, (1, 2, 3), 9
TASKS = ("class", "sub-class", "random")


@dataclass(frozen=True, eq=False)
class Request:
    """Rows that go from a base model, and the model that was retrained without them."""

    task: str
    name: str
    seed: int
    base: Job
    retrained: Job
    forget: dict[str, Any]
    forget_classes: tuple[int, ...]

    def unlearned(self, method: str, **how: Any) -> Job:
        """The job in which a method unlearns this request; ``how``: as ``unlearning`` takes it."""
        own = {"forget": self.forget, "forget_classes": self.forget_classes, "seed": self.seed}
        settings: dict[str, Any] = {**own, **how}
        return unlearning(self.base, method, **settings)

    def reference(self, store: str) -> dict[str, float]:
        """The retrained model's columns."""
        found = read(store, self.retrained).statistics
        return columns_of(found, forget_classes=bool(self.forget_classes))

    def untouched(self, store: str) -> dict[str, float]:
        """The base model's columns for this request."""
        arrays = read(store, self.base).arrays
        rows = rows_by(self.forget, arrays["train.y"])
        found = statistics_of(arrays, forget=rows, forget_classes=self.forget_classes)
        return columns_of(found, forget_classes=bool(self.forget_classes))

    def scores(self, job: Job, store: str) -> dict[str, Any]:
        """Columns, gap to the retrained model, what was lost of D_r; None where not finite."""
        found = read(store, job).statistics
        columns = columns_of(found, forget_classes=bool(self.forget_classes))
        finite = found["finite"] and None not in columns.values()
        return {
            "columns": columns,
            "finite": finite,
            "gap": gap(columns, self.reference(store)) if finite else None,
            "lost": self.untouched(store)["retain"] - columns["retain"] if finite else None,
        }


def requests(
    task: str, *, tuning: bool = False, seeds: tuple[int, ...] | None = None
) -> list[Request]:
    """The nine that score; the one that settings are chosen on, by the first base model alone."""
    return [
        Request(task, name, seed, _model(task, seed, keep_weights=True),
                _model(task, RETRAINED_SEED + seed, excluded=rule, forget_classes=list(forget_classes)),
                rule, forget_classes)
        for seed in seeds or (SEEDS[:1] if tuning else SEEDS)
        for name, rule, forget_classes in _going(task, tuning=tuning)
    ]  # fmt: skip


def _model(task: str, seed: int, **settings: Any) -> Job:
    """CIFAR-10, or CIFAR-100 under its coarse labels where a sub-class goes."""
    recipe, data = "cifar10-vgg-quarter", "cifar10"
    if task == "sub-class":
        recipe, data = "cifar20-vgg-quarter", "cifar100"
        settings["label_column"] = "coarse_label"
    return training(recipe, data, first=FIRST, seed=seed, **settings)


def _going(task: str, *, tuning: bool) -> list[tuple[str, dict[str, Any], tuple[int, ...]]]:
    """Name, rule and forget_classes of each request."""
    if task == "class":
        chosen = TUNING_CLASS if tuning else CLASSES
        return [(name, {"class": label}, (label,)) for name, label in chosen.items()]
    if task == "random":
        seeds = (TUNING_RANDOM_SEED,) if tuning else RANDOM_SEEDS
        return [(f"{RANDOM}, seed {s}", {"random": RANDOM, "seed": s}, ()) for s in seeds]
    table = load_data(f"{os.environ['EFFACE_DATA']}/cifar100:train", label_column="fine_label")
    fine = np.asarray(table.labels[:FIRST])
    return [
        (name, {"rows": np.flatnonzero(fine == (table.classes or ()).index(name)).tolist()}, ())
        for name in (TUNING_SUB_CLASS if tuning else SUB_CLASSES)
    ]


def models() -> list[Job]:
    """Every base and every retrained model."""
    everything = [r for task in TASKS for t in (True, False) for r in requests(task, tuning=t)]
    return [cell for r in everything for cell in (r.base, r.retrained)]


if __name__ == "__main__":
    run(models(), sys.argv[1])

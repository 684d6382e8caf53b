"""The whole pipeline, 32 times over: what a per-record attacker sees of six methods.

    EFFACE_DATA=… python benchmarks/per_record.py STORE cells     # goes on where stopped
    EFFACE_DATA=… python benchmarks/per_record.py STORE records   # results/per_record.npz and .json
    python benchmarks/per_record.py - table                       # results/per_record.md, from these

Each pipeline trains a model on its own random half of 8,000 images of CIFAR-10, then lets those of
400 records go that it was trained on, by each method. So of each record about half of the pipelines
trained on it and let it go, and half never saw it while the same method ran on others.
"""

import os
import sys

import numpy as np

from efface.cells import run
from efface.cells.cell import Cell
from efface.cells.describe import training, unlearning
from efface.methods import METHODS

FIRST, TARGETS, PIPELINES = 8_000, 400, 32
METHODS_ATTACKED = ("retrain", "finetune", "jit", "mu_mis", "scrub")
SETTINGS = {"mu_mis": {"strength": 0.01}}
"""What was found on other records, where the published settings collapse (every_method.md)."""

PROCESSES = int(os.environ.get("PROCESSES", "0")) or None


def targets() -> list[int]:
    """The records that the attack is about, the same for all."""
    rows = np.random.default_rng(600).choice(FIRST, TARGETS, replace=False)
    return sorted(rows.tolist())


def trained_on(pipeline: int) -> list[int]:
    """A random half of all records."""
    rows = np.random.default_rng([601, pipeline]).choice(FIRST, FIRST // 2, replace=False)
    return sorted(rows.tolist())


def base(pipeline: int) -> Cell:
    """The model before anything goes."""
    return training(
        "cifar10-vgg-quarter",
        "cifar10",
        first=FIRST,
        trained_on={"rows": trained_on(pipeline)},
        seed=600 + pipeline,
        keep_weights=True,
        guess_seconds=45,
    )


def after(pipeline: int, method: str) -> Cell:
    """The model after the targets that it was trained on went; no guard stands over it."""
    seen = METHODS[method].sees
    return unlearning(
        base(pipeline),
        method,
        forget={"rows": sorted(set(targets()) & set(trained_on(pipeline)))},
        holdout="holdout" in seen,
        retain="retain" in seen,
        guard=False,
        seed=700 + pipeline,
        **SETTINGS.get(method, {}),
    )


def main(store: str, what: str) -> None:
    """Make the cells."""
    if what == "cells":
        made = os.environ.get("METHODS", ",".join(METHODS_ATTACKED)).split(",")
        for pipeline in range(PIPELINES):  # so that a part of the grid is whole pipelines
            run([after(pipeline, name) for name in made], store, processes=PROCESSES)


if __name__ == "__main__":
    main(*sys.argv[1:])

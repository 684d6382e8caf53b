"""Models that memorised wrong labels, as cells: what one-record requests stand on.

    EFFACE_DATA=… python -m research.benchmarks.mislabelled_requests STORE    # 11 models, 20 core-minutes

10,000 images of CIFAR-10 of which 100, drawn once, carry a wrong label drawn once. Three base
models learn all of it; eight models never see the 100: what those answer is the unseen range.
"""

import os
import sys

import numpy as np

from efface.grid import Job, run
from efface.io.data import load_data
from research.benchmarks.jit_requests import FIRST
from research.jobs import training

RECIPE, DATA, CLASSES, COUNT = "cifar10-vgg-quarter", "cifar10", 10, 100
BASE_SEEDS, UNSEEN_SEEDS = (0, 1, 2), tuple(range(200, 208))


def wrong_labels() -> dict[int, int]:
    """Wrong label by row, rows in the order of the requests."""
    labels = load_data(f"{os.environ['EFFACE_DATA']}/{DATA}:train").labels
    generator = np.random.default_rng(0)
    rows = generator.choice(FIRST, COUNT, replace=False).tolist()
    moved = generator.integers(1, CLASSES, COUNT).tolist()
    return {row: int(labels[row] + move) % CLASSES for row, move in zip(rows, moved, strict=True)}


def bases() -> list[Job]:
    """Models that learned the wrong labels."""
    return [
        training(RECIPE, DATA, first=FIRST, labels=wrong_labels(), seed=seed, keep_weights=True)
        for seed in BASE_SEEDS
    ]


def unseen() -> list[Job]:
    """Models that never saw these records; their margins are under the wrong labels."""
    wrong = wrong_labels()
    return [
        training(RECIPE, DATA, first=FIRST, labels=wrong, excluded={"rows": list(wrong)}, seed=seed)
        for seed in UNSEEN_SEEDS
    ]


if __name__ == "__main__":
    run([*bases(), *unseen()], sys.argv[1])

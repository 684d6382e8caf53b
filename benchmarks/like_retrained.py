"""Do entropy and accuracy profiles match retraining? The seed's claim, on every method's model.

    EFFACE_DATA=… python benchmarks/like_retrained.py STORE cells     # 16 retrained models
    EFFACE_DATA=… python benchmarks/like_retrained.py STORE records   # results/like_retrained.json
    python benchmarks/like_retrained.py - table                       # results/like_retrained.md

The request, the base model and the methods' models are those of every_method.py (500 random records
of 10,000, quarter VGG11); its retrained models differ in their seed alone.
"""

import os
import sys

from efface.cells import run
from efface.cells.cell import Cell
from efface.cells.describe import training
from every_method import scored
from jit_requests import FIRST

RETRAINED, FIRST_SEED = 16, 200
PROCESSES = int(os.environ.get("PROCESSES", "0")) or None


def retrained(number: int) -> Cell:
    """The request's model, retrained with a seed of its own."""
    return training(
        "cifar10-vgg-quarter",
        "cifar10",
        first=FIRST,
        excluded=scored("random").forget,
        seed=FIRST_SEED + number,
        keep_weights=True,
        guess_seconds=80,
    )


def main(store: str, what: str) -> None:
    """Make the cells."""
    if what == "cells":
        run([retrained(number) for number in range(RETRAINED)], store, processes=PROCESSES)


if __name__ == "__main__":
    main(*sys.argv[1:])

"""What a reference model is worth to ``neighbourhood``, by how many other images it was trained on.

    EFFACE_DATA=… python -m research.benchmarks.references STORE cells     # goes on where stopped
    EFFACE_DATA=… python -m research.benchmarks.references STORE records   # research/results/references.json and .md

500 random records of the first base model of goals.py. The reference models have fresh weights, the
same recipe and a random part of the other 9,500 images. No guard, which would take back what a
weak one does.
"""

import os
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from scipy.stats import spearmanr

from efface.grid import Job, is_done, read, run
from efface.methods.neighbourhood import Unseen, log_odds, place_targets
from efface.types import Split, split_holdout
from research import pages
from research.benchmarks.goals import OURS, Goal, goals, measured
from research.benchmarks.jit_requests import FIRST
from research.jobs import training
from research.pages import origin, percent, table
from research.reduce import right, rows_by
from research.tables import write_record
from research.trained import model_of, parts_of

PROCESSES = int(os.environ.get("PROCESSES", "0")) or None
IMAGES = (1000, 2500, 5000, 9500)


def request() -> Goal:
    """500 random records of the first base model."""
    return next(goals(0))


def reference(goal: Goal, images: int) -> Job:
    """A model of so many other images."""
    others = sorted({*range(FIRST)} - {*rows_by(goal.forget, np.empty(FIRST))})
    rule = {"random": images, "seed": goal.seed, "of": others}
    how: dict[str, Any] = {"trained_on": rule, "seed": 2000 + images, "keep_weights": True}
    return training("cifar10-vgg-quarter", "cifar10", first=FIRST, **how)


def cells(goal: Goal) -> list[tuple[int | None, bool, Job]]:
    """(images of the reference model, None for copies; with a holdout; the job)."""
    how: dict[str, Any] = {"guard": False}
    found: list[Any] = [(None, one, goal.made(OURS, holdout=one, **how)) for one in (True, False)]
    for one in (True, False):
        found += [
            (n, one, goal.made(OURS, holdout=one, reference=reference(goal, n), **how))
            for n in IMAGES
        ]
    return found


def ranks(goal: Goal, store: str, other: Job | None) -> float:
    """Spearman's correlation of what ranks the records with the retrained models' mean log-odds."""
    settings, folder = goal.base.settings, read(store, goal.base).folder
    records, test = parts_of(settings, Path(store) / "shared")
    model, rows = model_of(settings, folder), rows_by(goal.forget, records.y.numpy())
    split = split_holdout(Split(records.take(rows), test), seed=0)[0]
    if other:
        split = replace(split, reference=model_of(other.settings, read(store, other).folder))
    targets = place_targets(model, split, Unseen.of(model, split), seed=goal.seed)
    score = log_odds(targets.base, targets.labels).numpy()
    theirs = np.stack([read(store, one).arrays["train.log_odds"][rows] for one in goal.retrained])
    return float(spearmanr(score, theirs.mean(0, dtype=np.float64)).statistic)


def accuracy(store: str, job: Job) -> float:
    """On the evidence's half of the test records."""
    arrays = read(store, job).arrays
    return float(right(arrays, "test")[arrays["test.evidence"].astype(bool)].mean())


def main(store: str, what: str) -> None:
    """Make the models and cells, or write the record of those that are there."""
    goal = request()
    if what == "cells":
        run([goal.base, *goal.retrained], store, processes=PROCESSES)
        run([job for _, _, job in cells(goal)], store, processes=PROCESSES)
        return
    rank = {n: ranks(goal, store, n and reference(goal, n)) for n in (None, *IMAGES)}
    rows = [
        {
            "images": images,
            "holdout": holdout,
            "id": job.id,
            "accuracy": images and accuracy(store, reference(goal, images)),
            "rank": rank[images],
        }
        | measured(goal, store, job)
        for images, holdout, job in cells(goal)
        if is_done(store, job.id)
    ]
    found = {"cells": rows, "base": accuracy(store, goal.base)}
    write_record("references", "references STORE cells and records", found)


HEAD = (
    "what ranks the records | its unseen accuracy, % | rank correlation | holdout | gap, pp "
    "| KS of forget log-odds | of unseen log-odds | unseen accuracy, change | passes a record: forward, backward"
)


def page(record: dict[str, Any]) -> str:
    """A row for each reference model, next to copies."""
    first = record["cells"][0]
    floor, ks = first["floor"], first["ks_retrained"]
    return pages.page(
        "What a reference model is worth",
        f"{origin(record)}. 500 random records, one base model (unseen accuracy {percent(record['base'])} %), no guard. Rank correlation: "
        "Spearman's, of what ranks the records with the mean log-odds of three retrained models. Gap and KS as in goals.md. One retrained "
        f"model to the others: gap {percent(floor)}, KS {ks['label']:.2f}, unseen {ks['unseen']:.2f}. Nothing done: gap "
        f"{percent(first['untouched'])}.",
        table(HEAD, map(_row, record["cells"])),
    )


def _row(cell: dict[str, Any]) -> list[str]:
    name = f"a reference model of {cell['images']:,} images" if cell["images"] else "copies"
    passes = f"{cell['passes']['forward']:.0f}, {cell['passes']['backward']:.0f}"
    done = cell["gap"] is not None
    return [
        name,
        percent(cell["accuracy"]),
        f"{cell['rank']:.2f}",
        "yes" if cell["holdout"] else "no",
        percent(cell["gap"]),
        *(f"{cell['ks'][one]:.2f}" if done else "–" for one in ("label", "unseen")),
        f"{100 * (cell['unseen'][1] - cell['unseen'][0]):+.1f}",
        passes,
    ]


if __name__ == "__main__":
    main(*sys.argv[1:])

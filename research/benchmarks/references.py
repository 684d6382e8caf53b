"""What a reference model is worth to ``neighbourhood``, by how many other images it was trained on.

    python -m research.benchmarks.references STORE cells digits                     # goes on where stopped
    EFFACE_DATA=… python -m research.benchmarks.references STORE cells photographs
    EFFACE_DATA=… python -m research.benchmarks.references STORE records            # research/results/references.json and .md

100 random records of three models of 1,198 digits, and 500 of the first base model of goals.py. The
reference models have fresh weights, the recipe of the base and a random part of the other images.
No guard, which would take back what a weak one does.
"""

import os
import sys
from collections.abc import Iterator
from dataclasses import dataclass, replace
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
from research.pages import mean_range, origin, points, table
from research.reduce import right, rows_by
from research.tables import write_record
from research.trained import model_of, parts_of

PROCESSES = int(os.environ.get("PROCESSES", "0")) or None
DIGITS, SEEDS, GOING = 1198, (0, 1, 2), 100
IMAGES = {"digits": (60, 125, 250, 500, 1000), "photographs": (1000, 2500, 5000, 9500)}


@dataclass(frozen=True, eq=False)
class Request:
    """A request of ``goals.py``'s form; of which data, of how many training images."""

    data: str
    goal: Goal
    images: int
    recipe: tuple[str, str]

    def reference(self, images: int) -> Job:
        """A model of so many other images."""
        going = {*rows_by(self.goal.forget, np.empty(self.images))}
        rule = {"random": images, "seed": self.goal.seed, "of": [*{*range(self.images)} - going]}
        how: dict[str, Any] = {"trained_on": rule, "seed": 2000 + images, "keep_weights": True}
        return training(*self.recipe, first=self.images, **how)

    def cells(self) -> Iterator[tuple[int | None, bool, Job]]:
        """(images of the reference model, None for copies; with a holdout; the job)."""
        for holdout in (True, False):
            for images in (None, *IMAGES[self.data]):
                other = self.reference(images) if images else None
                how: dict[str, Any] = {"holdout": holdout, "reference": other}
                yield images, holdout, self.goal.made(OURS, guard=False, **how)


def requests(data: str) -> Iterator[Request]:
    """Those of digits, or that of photographs."""
    if data == "photographs":
        yield Request(data, next(goals(0)), FIRST, ("cifar10-vgg-quarter", "cifar10"))
        return
    recipe = ("digits-conv", "digits")
    for seed in SEEDS:
        rule = {"random": GOING, "seed": seed}
        base = training(*recipe, first=DIGITS, seed=seed, keep_weights=True)
        seeds = range(100 + 10 * seed, 103 + 10 * seed)
        kept = tuple(training(*recipe, first=DIGITS, excluded=rule, seed=one) for one in seeds)
        name = f"{GOING}, seed {seed}"
        yield Request(data, Goal("random", name, seed, base, kept, rule), DIGITS, recipe)


def rank(goal: Goal, store: str, other: Job | None) -> float:
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


def main(store: str, what: str, data: str = "") -> None:
    """Make the models and cells of some data, or write the record of those that are there."""
    if what == "cells":
        found = [*requests(data)]
        run(
            [j for r in found for j in (r.goal.base, *r.goal.retrained)], store, processes=PROCESSES
        )
        run([job for r in found for _, _, job in r.cells()], store, processes=PROCESSES)
        return
    rows = [
        {
            "data": data,
            "seed": request.goal.seed,
            "images": images,
            "holdout": holdout,
            "id": job.id,
            "accuracy": accuracy(store, other or request.goal.base),
            "rank": rank(request.goal, store, other),
        }
        | measured(request.goal, store, job)
        for data in IMAGES
        for request in requests(data)
        for images, holdout, job in request.cells()
        if is_done(store, job.id)
        for other in [job.needs.get("reference")]
    ]
    write_record("references", "references STORE cells and records", {"cells": rows})


HEAD = (
    "what ranks the records | its unseen accuracy, % | rank correlation | gap, pp "
    "| KS of forget log-odds | of unseen log-odds | unseen accuracy, change"
)


def page(record: dict[str, Any]) -> str:
    """A table for each kind of data, with a holdout and without."""
    parts: list[str] = []
    for data in dict.fromkeys(cell["data"] for cell in record["cells"]):
        here = [cell for cell in record["cells"] if cell["data"] == data]
        first = [cell for cell in here if cell["images"] is None and cell["holdout"]]
        floor, untouched = (points([cell[k] for cell in first]) for k in ("floor", "untouched"))
        ks = {
            k: mean_range([cell["ks_retrained"][k] for cell in first], ".2f")
            for k in ("label", "unseen")
        }
        parts.append(f"## {data.capitalize()}")
        parts.append(
            f"One retrained model to the others: gap {floor}, KS {ks['label']}, unseen "
            f"{ks['unseen']}. Nothing done: gap {untouched}. {len(first)} of a kind."
        )
        for holdout in (True, False):
            kinds = ((n, holdout) for n in (None, *IMAGES[data]))
            rows = ([c for c in here if (c["images"], c["holdout"]) == kind] for kind in kinds)
            cells = table(HEAD, (_row(row) for row in rows if row))
            parts += ["With a holdout:" if holdout else "Without one:", cells]
    return pages.page(
        "What a reference model is worth",
        f"{origin(record)}. Random records, no guard; mean (minimum to maximum). Rank correlation: Spearman's, of what ranks the records "
        "with the mean log-odds of three retrained models. Of copies the accuracy is that of the given model. Gap and KS as in goals.md.",
        *parts,
    )


def _row(cells: list[dict[str, Any]]) -> list[str]:
    images = cells[0]["images"]
    return [
        f"a reference model of {images:,} images" if images else "copies",
        points([c["accuracy"] for c in cells]),
        mean_range([c["rank"] for c in cells], ".2f"),
        points([c["gap"] for c in cells]),
        *(mean_range([c["ks"][name] for c in cells], ".2f") for name in ("label", "unseen")),
        points([c["unseen"][1] - c["unseen"][0] for c in cells]),
    ]


if __name__ == "__main__":
    main(*sys.argv[1:])

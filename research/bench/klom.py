"""KLoM: how far the answers of unlearned models lie from those of a hundred retrained ones, per record.

    EFFACE_DATA=… python -m research.bench.klom STORE references   # 200 models, five core-hours; goes on where stopped
    EFFACE_DATA=… python -m research.bench.klom STORE margins      # research/results/klom/*.npz and .json

The measure of Georgiev et al. (arXiv 2410.23232): of each record the KL divergence between two
histograms of its margin f_y - logsumexp of the other logits, which is the log-odds of its label.
The retrained models are made once and committed as margins, so that a method can be scored without
training any. 10,000 images of CIFAR-10, quarter-width VGG11.
"""

import os
import sys
from dataclasses import dataclass
from typing import Any

import numpy as np

from efface.grid import Job, read, run
from research.jobs import training
from research.reduce import Arrays, rows_by
from research.tables import RESULTS, write_record

PROCESSES = int(os.environ.get("PROCESSES", "0")) or None
RECIPE, DATA, FIRST = "cifar10-vgg-quarter", "cifar10", 10_000
# seeds that no other benchmark uses
BASES, RETRAINED = tuple(range(61, 71)), 100
# records of which margins are committed, next to every one to forget
RETAINED, UNSEEN, SAMPLE_SEED = 1000, 2000, 61


@dataclass(frozen=True)
class Request:
    """What goes from each of the ten base models; ``first`` is the first retrained model's seed."""

    name: str
    forget: dict[str, Any]
    forget_classes: tuple[int, ...]
    first: int

    def retrained(self) -> list[Job]:
        """A hundred models of fresh weights, each of its own seed, without what goes."""
        how: dict[str, Any] = {"excluded": self.forget, "forget_classes": self.forget_classes}
        seeds = range(self.first, self.first + RETRAINED)
        return [training(RECIPE, DATA, first=FIRST, seed=seed, **how) for seed in seeds]


REQUESTS = {
    "random": Request("500 random records", {"random": 500, "seed": 61}, (), 61_000),
    "class": Request("class 8", {"class": 8}, (8,), 62_000),
}


def base(seed: int) -> Job:
    """A model that saw every record; the same ten for every request."""
    return training(RECIPE, DATA, first=FIRST, seed=seed, keep_weights=True)


def rows_of(request: Request, arrays: Arrays) -> dict[str, np.ndarray]:
    """Which rows are compared: all that go, samples of what stays and of the evidence's unseen half."""
    draw, y = np.random.default_rng(SAMPLE_SEED), arrays["train.y"]
    forget = np.asarray(rows_by(request.forget, y))
    stays = np.setdiff1d(np.arange(len(y)), forget)
    unseen = np.flatnonzero(arrays["test.evidence"])
    return {
        "forget": forget,
        "retain": np.sort(draw.choice(stays, RETAINED, replace=False)),
        "unseen": np.sort(draw.choice(unseen, UNSEEN, replace=False)),
    }


def margins(rows: dict[str, np.ndarray], arrays: Arrays) -> dict[str, np.ndarray]:
    """Log-odds of the label of these rows in half precision, by part."""
    parts = {"forget": "train", "retain": "train", "unseen": "test"}
    return {name: arrays[f"{parts[name]}.log_odds"][found] for name, found in rows.items()}


def write_margins(store: str) -> None:
    """The hundred models of each request whose every model is there, and how they were made."""
    for name, request in REQUESTS.items():
        jobs = request.retrained()
        rows = rows_of(request, read(store, jobs[0]).arrays)
        each = [margins(rows, read(store, job).arrays) for job in jobs]
        found = {part: np.stack([one[part] for one in each]) for part in rows}
        found |= {f"{part}.rows": these.astype(np.int32) for part, these in rows.items()}
        (RESULTS / "klom").mkdir(exist_ok=True)
        np.savez_compressed(RESULTS / "klom" / f"{name}.npz", **found)
        facts = {"request": request.name, "recipe": RECIPE, "records": FIRST}
        facts["models"] = [
            {"id": job.id, "seed": job.settings["seed"]}
            | {"unseen": read(store, job).statistics["accuracy"]["test_staying"]}
            for job in jobs
        ]
        write_record(f"klom/{name}", "bench.klom STORE references and margins", facts, indent=None)


def main(store: str, what: str) -> None:
    """Train the retrained models, or write their margins."""
    if what == "references":
        for request in REQUESTS.values():
            run(request.retrained(), store, processes=PROCESSES)
    else:
        write_margins(store)


if __name__ == "__main__":
    main(*sys.argv[1:])

"""KLoM: how far the answers of unlearned models lie from those of a hundred retrained ones, per record.

    EFFACE_DATA=… python -m research.bench.klom STORE references   # 200 models, five core-hours; goes on where stopped
    EFFACE_DATA=… python -m research.bench.klom STORE margins      # research/results/klom/*.npz and .json
    EFFACE_DATA=… python -m research.bench.klom STORE cells        # methods on ten base models, an hour on two cores
    EFFACE_DATA=… python -m research.bench.klom STORE scores       # research/results/klom/scores.json and its page

The measure of Georgiev et al. (arXiv 2410.23232): of each record the KL divergence between two
histograms of its margin f_y - logsumexp of the other logits, which is the log-odds of its label.
The retrained models are made once and committed as margins, so that a method can be scored without
training any. 10,000 images of CIFAR-10, quarter-width VGG11. ``score`` is of any method's ten models.
"""

import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from efface.grid import Job, is_done, read, run
from efface.methods import METHODS
from efface.metrics.divergence import klom
from research import pages
from research.bench.protocol import ELSEWHERE, SCALED, SLOW
from research.jobs import seen_by, training, unlearning
from research.pages import interval, origin, table
from research.reduce import Arrays, rows_by
from research.tables import RESULTS, read_record, write_record

PROCESSES = int(os.environ.get("PROCESSES", "0")) or None
RECIPE, DATA, FIRST = "cifar10-vgg-quarter", "cifar10", 10_000
# seeds that no other benchmark uses
BASES, RETRAINED = tuple(range(61, 71)), 100
# records of which margins are committed, next to every one to forget
RETAINED, UNSEEN, SAMPLE_SEED = 1000, 2000, 61
PARTS = ("forget", "retain", "unseen")
Margins = Mapping[str, np.ndarray]


@dataclass(frozen=True)
class Request:
    """What goes from each of the ten base models; ``first`` is the first retrained model's seed."""

    name: str
    forget: dict[str, Any]
    forget_classes: tuple[int, ...]
    first: int

    def unlearned(self, method: str) -> list[Job]:
        """A method on each of the ten base models, at its published settings and without a guard."""
        how: dict[str, Any] = dict(SCALED.get(method, {}))
        if method == "source_free_newton":
            how["retained_records"] = FIRST - (1000 if self.forget_classes else 500)
        return [
            unlearning(
                base(seed), method, forget=self.forget, forget_classes=self.forget_classes,
                guard=False, seed=1_000_000 + seed, **seen_by(method), **how,
            )
            for seed in BASES
        ]  # fmt: skip

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
        found: dict[str, Any] = {part: np.stack([one[part] for one in each]) for part in rows}
        found |= {f"{part}.rows": these.astype(np.int32) for part, these in rows.items()}
        (RESULTS / "klom").mkdir(exist_ok=True)
        np.savez_compressed(RESULTS / "klom" / f"{name}.npz", **found)
        facts: dict[str, Any] = {"request": request.name, "recipe": RECIPE, "records": FIRST}
        facts["models"] = [
            {"id": job.id, "seed": job.settings["seed"]}
            | {"unseen": read(store, job).statistics["accuracy"]["test_staying"]}
            for job in jobs
        ]
        write_record(f"klom/{name}", "bench.klom STORE references and margins", facts, indent=None)


def methods(request: Request) -> list[str]:
    """Those that end within half a minute."""
    return [
        name
        for name, entry in METHODS.items()
        if name not in {*SLOW, *ELSEWHERE, "scrub_rewind"}
        and (request.forget_classes or "forget_classes" not in entry.needs)
    ]


def score(unlearned: Margins, retrained: Margins) -> dict[str, dict[str, float]]:
    """KLoM of each part, nats, and its standard error by leaving out one base model at a time."""
    found = {}
    for part in PARTS:
        ours, theirs = (one[part].astype(np.float64) for one in (unlearned, retrained))
        each = [klom(np.delete(ours, i, axis=0), theirs) for i in range(len(ours))]
        error = float(np.sqrt((len(each) - 1) * np.var(each)))
        found[part] = {"klom": klom(ours, theirs), "error": error}
    return found


def seeds_alone(retrained: Margins, count: int, draws: int = 40) -> dict[str, list[float]]:
    """KLoM of so many retrained models against the others, drawn so often: what the seed does."""
    draw, found = np.random.default_rng(0), {part: [] for part in PARTS}
    for _ in range(draws):
        chosen = draw.permutation(RETRAINED) < count
        for part in PARTS:
            every = retrained[part].astype(np.float64)
            found[part].append(klom(every[chosen], every[~chosen]))
    return found


def write_scores(store: str) -> None:
    """Every method whose ten models are there, on both requests."""
    found = {}
    for name, request in REQUESTS.items():
        retrained = read_record(f"klom/{name}.npz")
        rows = {part: retrained[f"{part}.rows"] for part in PARTS}
        cells = {"baseline": [base(seed) for seed in BASES]}
        cells |= {one: request.unlearned(one) for one in methods(request) if one != "baseline"}
        scored = {}
        for method, jobs in cells.items():
            if not all(is_done(store, job.id) for job in jobs):
                continue
            results = [read(store, job) for job in jobs]
            each = [margins(rows, one.arrays) for one in results]
            stacked = {part: np.stack([one[part] for one in each]) for part in PARTS}
            finite = all(np.isfinite(one).all() for one in stacked.values())
            spent = [one.statistics.get("seconds", {}).get("method", 0.0) for one in results]
            scored[method] = {
                "parts": score(stacked, retrained) if finite else None,
                "seconds": float(np.median(spent)),
                "ids": [job.id for job in jobs],
            }
        seeds = seeds_alone(retrained, len(BASES))
        found[name] = {"request": request.name, "methods": scored, "seeds": seeds}
    write_record("klom/scores", "bench.klom STORE cells and scores", found, indent=None)


def page(record: dict[str, Any]) -> str:
    """A table for each request, the nearest on the forget records first."""
    parts = []
    for request in REQUESTS:
        found = record[request]
        seeds = found["seeds"]
        between = "; ".join(
            f"{part} {interval(float(np.mean(s)), *np.quantile(s, [0.025, 0.975]).tolist(), form='.1f')}"
            for part, s in seeds.items()
        )
        fit = {m: c for m, c in found["methods"].items() if c["parts"]}
        order = sorted(fit.items(), key=lambda item: item[1]["parts"]["forget"]["klom"])
        rows = [
            [
                f"`{m}`" if m != "baseline" else "nothing done",
                *(_value(c["parts"][p], seeds[p]) for p in PARTS),
                f"{c['seconds']:.1f}",
            ]
            for m, c in order
        ]
        broken = [f"`{m}`" for m, c in found["methods"].items() if not c["parts"]]
        parts += [
            f"## {found['request'].capitalize()}",
            f"Ten retrained models against the other ninety (95 % of 40 draws): {between}.",
            table("method | forget | retain | unseen | seconds", rows),
        ]
        parts += [f"Not finite: {', '.join(broken)}."] * bool(broken)
    return pages.page(
        "KLoM: answers over seeds, next to a hundred retrained models",
        f"{origin(record)}. 10,000 images of CIFAR-10, quarter-width VGG11; ten base models, each method at its published settings without a guard, "
        "a hundred models retrained without the records. Of each record the KL divergence of the histograms of its log-odds (20 bins over the "
        "joint range) over the ten and the hundred models, in nats; the 95th percentile over records. It does not reach 0 with ten models: ten retrained ones "
        "come to what stands above each table, and where a value lies within that range (●) it is inconclusive. ±: standard error, leaving out one base "
        "model at a time. Methods that take more than half a minute are not in it.",
        *parts,
    )


def _value(found: dict[str, float], seeds: list[float]) -> str:
    inside = bool(found["klom"] <= np.quantile(seeds, 0.975))
    return f"{found['klom']:.1f} ± {found['error']:.1f}{' ●' * inside}"


def main(store: str, what: str) -> None:
    """Train the retrained models, write their margins, make the methods' cells, or score them."""
    if what == "references":
        for request in REQUESTS.values():
            run(request.retrained(), store, processes=PROCESSES)
    elif what == "margins":
        write_margins(store)
    elif what == "cells":
        for request in REQUESTS.values():
            run(
                [j for name in methods(request) for j in request.unlearned(name)],
                store,
                processes=PROCESSES,
            )
    else:
        write_scores(store)


if __name__ == "__main__":
    main(*sys.argv[1:])

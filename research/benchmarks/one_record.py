"""One record at a time: where the default leaves it among models that never saw it.

    EFFACE_DATA=… python -m research.benchmarks.one_record STORE     # research/results/one_record.json and .md

A request is one of the 400 targets of per_record.py and one of its first 15 shadow models, trained
again with their weights kept, that was trained on it. What an unseen record gets is the committed
log-odds of the target in those of the 32 shadow models whose random half lacks it.
"""

import sys
from collections.abc import Iterator, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from scipy.stats import kstest
from torch import nn

from efface.grid import read, run
from efface.metrics.evaluation import evaluate
from efface.types import Records, Split
from research import pages
from research.benchmarks.per_record import FIRST, base, targets
from research.pages import origin, percent, table
from research.reduce import evidence_half, right
from research.tables import read_record, write_record
from research.timed import timed_forget
from research.trained import model_of, parts_of

# the draws of requests and of left-out models
SEED, REQUESTS, BASES, DRAWS = 800, 20, 15, 1000
# of the requests, those that are made without a holdout too
WITHOUT = 10
RANGE = (0.05, 0.95)
KNOWN = {"holdout": "holdout", "accuracy": "no holdout, accuracy known"}

Cell = dict[str, Any]


def drawn(member: np.ndarray) -> list[tuple[int, int]]:
    """(target, shadow run) of each request: other targets, each with a base that was trained on it.

    ``member`` (shadow runs, targets): trained on.
    """
    draw = np.random.default_rng(SEED)
    known = np.flatnonzero(member[:BASES].any(0))
    places = draw.choice(known, REQUESTS, replace=False).tolist()
    return [(one, int(draw.choice(np.flatnonzero(member[:BASES, one])))) for one in places]


def place(value: float, unseen: Sequence[float]) -> float:
    """Where a value lies among unseen ones, 0 to 1: the middle of its share of m + 1 places."""
    others = np.asarray(unseen)
    below = (others < value).sum() + (others == value).sum() / 2
    return float((below + 0.5) / (len(others) + 1))


def inside(value: float, unseen: Sequence[float]) -> bool:
    """Whether it lies between their quantiles of 5 and 95 %."""
    low, high = np.quantile(unseen, RANGE)
    return bool(low <= value <= high)


def left_out(unseen: Sequence[Sequence[float]]) -> dict[str, float]:
    """What models that never saw a record come to, one of them left out and placed among the others.

    ``inside``: mean over all of them; ``ks`` and ``ks_high``: of one drawn for each record, mean and
    95th percentile over draws.
    """
    pairs = [[(v, [*row[:i], *row[i + 1 :]]) for i, v in enumerate(row)] for row in unseen]
    places, draw = [[place(*pair) for pair in row] for row in pairs], np.random.default_rng(SEED)
    found = [
        kstest([draw.choice(row) for row in places], "uniform").statistic for _ in range(DRAWS)
    ]
    share = np.mean([np.mean([inside(*pair) for pair in row]) for row in pairs])
    high = float(np.quantile(found, 0.95))
    return {"inside": float(share), "ks": float(np.mean(found)), "ks_high": high}


def cells(store: str) -> Iterator[Cell]:
    """Every request with a holdout, then the first ones without."""
    records, test = parts_of(base(0).settings, Path(store, "shared"))
    shadows = read_record("per_record.npz")
    odds, member = shadows["baseline"].astype(float), shadows["unlearned"]
    evidence = test.take(np.flatnonzero(evidence_half(test)).tolist())

    @cache
    def given(run_: int) -> tuple[nn.Module, Any]:
        model = model_of(base(run_).settings, read(store, base(run_)).folder)
        return model, evaluate(model, evidence)

    requests = drawn(member)
    parts = [("holdout", one) for one in requests]
    for known, (target, run_) in parts + [("accuracy", one) for one in requests[:WITHOUT]]:
        (model, before), arrays = given(run_), read(store, base(run_)).arrays
        # a model card's accuracy is not of the records that judge it
        card = float(right(arrays, "test")[~arrays["test.evidence"].astype(bool)].mean())
        record, row = records.take([targets()[target]]), targets()[target]
        split = Split(record, holdout=test if known == "holdout" else None)
        extra = {} if known == "holdout" else {"expected_accuracy": round(card, 3)}
        new, facts = timed_forget(model, split, **extra)
        after = evaluate(new, evidence)
        cell: Cell = {"row": row, "shadow_run": run_, "known": known, **facts}
        cell |= {"given": log_odds(model, record), "found": log_odds(new, record)}
        cell["utility"] = float(after.accuracy.mean() - before.accuracy.mean())
        cell["changed"] = float((after.predicted != before.predicted).mean())
        yield cell | {"unseen": odds[~member[:, target], target].tolist()}


def log_odds(model: nn.Module, record: Records) -> float:
    """Of the label of one record."""
    return float(evaluate(model, record).logit_margin[0])


def main(store: str) -> None:
    """Train what is missing, make every request, write the record."""
    run([base(one) for one in range(BASES)], store, processes=1)
    found: list[Cell] = []
    for cell in cells(store):
        found.append(cell)
        # what is measured is kept if this is stopped
        if len(found) >= REQUESTS:
            record = {"seed": SEED, "cells": found}
            write_record("one_record", "one_record STORE", record, indent=None)
        where = place(cell["found"], cell["unseen"])
        sys.stderr.write(f"{cell['known']} {cell['found']:.1f} at {where:.2f} {cell['seconds']}\n")


HEAD = (
    "model | requests, without a new model | inside 5 to 95 % | KS of places to uniform | mean place | unseen accuracy, points: mean ± its "
    "standard error, standard deviation | changed answers | passes: forward, backward, guard | CPU s: method, all"
)


def page(record: dict[str, Any]) -> str:
    """The table from the record."""
    made = record["cells"]
    groups = {title: [c for c in made if c["known"] == key] for key, title in KNOWN.items()}
    one = next(iter(groups.values()))
    unseen = [cell["unseen"] for cell in one]
    other, counts = left_out(unseen), [len(row) for row in unseen]
    rows = [_row(name, cells) for name, cells in groups.items() if cells]
    start = [(cell["given"], cell["unseen"]) for cell in one]
    rows.append(["given model", f"{len(one)}", *_places(start), "–", "–", "–", "–"])
    reference = [percent(other["inside"], 0) + " %", f"{other['ks']:.2f}", "0.50"]
    rows.append(["one that never saw it", f"{len(one)}", *reference, "–", "–", "–", "–"])
    return pages.page(
        "One record at a time",
        f"{origin(record)}. `efface.forget` with its defaults on {len(one)} single records of CIFAR-10 (seed {record['seed']}), each on a quarter VGG11 "
        f"that was trained on it and on {FIRST // 2 - 1:,} others. Its unseen log-odds are those in the {min(counts)} to {max(counts)} shadow models of "
        f"[per_record](per_record.md) whose random half lacks it (mean {np.mean(counts):.0f}). Place: the rank of its log-odds among "
        "those, 0 to 1. No new model is made where the record would come to be better known than it is. The last row leaves one of these models out and places it among the others: a range of so few covers less "
        f"than 90 %; its KS is of one drawn model a record, mean of {DRAWS:,} draws (95 % of them are below {other['ks_high']:.2f}). Unseen accuracy "
        "and changed answers: on the evaluation half of the test images, which neither method nor guard sees. Without a holdout the "
        "accuracy on the other half is given. Goal with a holdout: 70 to 95 % inside, KS at most twice that of the last row, mean utility 0 ± .05 points.",
        table(HEAD, rows),
    )


def _places(pairs: list[tuple[float, list[float]]]) -> list[str]:
    where = [place(*pair) for pair in pairs]
    share = float(np.mean([inside(*pair) for pair in pairs]))
    distance = kstest(where, "uniform").statistic
    return [f"{percent(share, 0)} %", f"{distance:.2f}", f"{np.mean(where):.2f}"]


def _row(name: str, cells: list[Cell]) -> list[str]:
    utility = 100 * np.array([c["utility"] for c in cells])
    spread = utility.std(ddof=1)
    refused = sum(c["refused"] for c in cells)
    names = ("forward", "backward", "guard")
    passes = (f"{np.mean([c['passes'][key] for c in cells]):,.0f}" for key in names)
    seconds = (
        f"{np.mean([c['seconds'][key] for c in cells]):.1f}" for key in ("method", "request")
    )
    return [
        name,
        f"{len(cells)}, {refused}",
        *_places([(c["found"], c["unseen"]) for c in cells]),
        f"{utility.mean():+.3f} ± {spread / len(cells) ** 0.5:.3f}, {spread:.2f}",
        f"{percent(float(np.mean([c['changed'] for c in cells])))} %",
        ", ".join(passes),
        ", ".join(seconds),
    ]


if __name__ == "__main__":
    main(*sys.argv[1:])

"""One mislabelled record, and 100 requests in a row.

    EFFACE_DATA=… python -m research.benchmarks.jit_one_record STORE curves   # 20 minutes of one core
    EFFACE_DATA=… python -m research.benchmarks.jit_one_record STORE row      # as long; both at once on two
    EFFACE_DATA=… python -m research.benchmarks.jit_one_record STORE together # a minute
    EFFACE_DATA=… python -m research.benchmarks.jit_one_record STORE table    # research/results/jit_one_record.md, .svg

STORE holds the models that mislabelled_requests.py trained. A record's margin is the logit of its wrong
label minus the maximum other one; its unseen range is where the margin of one more model that
never saw it lies in 95 of 100 cases, by Student's t from eight such models. Utility is the
accuracy on the half of the test images that neither method nor guard has seen.
"""

import json
import logging
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from scipy import stats
from torch import nn

from efface.errors import NotMet
from efface.grid import read
from efface.guard import Guard
from efface.methods.jit import jit
from efface.methods.jit_forms import jit_paper, jit_reference
from efface.task import predict, trainable_copy
from efface.types import Action, Records, Split, split_holdout
from research.benchmarks.mislabelled_requests import bases, unseen, wrong_labels
from research.tables import write_record
from research.trained import model_of, parts_of

MEASURED_AT = (1, 2, 4, 8, 16, 32, 64)
# Base models and records. The form of few records was chosen on base 0 and its first 12 records.
SCORED_ON, RECORDS, FEWER = (1, 2), range(12, 24), range(12, 20)

RATES = (1e-5, 1e-4, 3e-4, 1e-3, 3e-3, 1e-2, 3e-2)
# With the σ that was best for random records on a request that no table scores.
RIVALS = {"jit_reference": (jit_reference, 0.05), "jit_paper": (jit_paper, 0.05)}

Row = dict[str, Any]


class Bench:
    """A base model, its records, and the two halves of the test images."""

    def __init__(self, store: Path, number: int) -> None:
        base = bases()[number]
        self.model = model_of(base.settings, store / base.id)
        self.train, test = parts_of(base.settings, store / "shared")
        self.rows = list(wrong_labels())
        theirs, ours = split_holdout(Split(None, test), seed=0)
        self.holdout, self.evidence = theirs.holdout, ours.holdout
        self.before = self.accuracy(self.model)

    def split(self, number: int) -> Split:
        """One request."""
        return Split(self.train.take([self.rows[number]]), holdout=self.holdout)

    def accuracy(self, model: nn.Module) -> float:
        """On the evidence's half."""
        predicted = predict(model, self.evidence).argmax(1)
        return float((predicted == self.evidence.y).double().mean())

    def found(self, model: nn.Module, split: Split) -> Row:
        """Margin of the wrong label, and the change of utility."""
        return {
            "margin": margins(model, split.forget)[0],
            "utility": self.accuracy(model) - self.before,
        }


def margins(model: nn.Module, records: Records) -> list[float]:
    """The logit of the label minus the maximum other one."""
    logits = predict(model, records).double()
    own = logits.gather(1, records.y[:, None])[:, 0].clone()
    others = logits.scatter(1, records.y[:, None], -torch.inf).max(1).values
    return (own - others).tolist()


def ranges(store: Path) -> list[tuple[float, float, float]]:
    """Low end, mean and high end of each record's unseen range."""
    rows = list(wrong_labels())
    seen = [read(store, cell).arrays["train.margin"][rows] for cell in unseen()]
    every = np.stack(seen).astype(float)
    n, mean = len(every), every.mean(0)
    # for one more model, not for the mean: hence 1 + 1/n
    half = stats.t.ppf(0.975, n - 1) * every.std(0, ddof=1) * (1 + 1 / n) ** 0.5
    return [(float(m - h), float(m), float(m + h)) for m, h in zip(mean, half, strict=True)]


def curves(store: Path) -> Iterator[Row]:
    """Margin against utility along jit's steps, where it ends, and over the others' steps."""
    for number in SCORED_ON:
        bench = Bench(store, number)
        for record in RECORDS:
            split = bench.split(record)
            where = {"base": number, "record": record}
            yield {**where, "method": "nothing", **bench.found(bench.model, split)}
            for step, student in _along(bench.model, split):
                found = bench.found(student, split)
                yield {**where, "method": "jit", "at": step, **found}
            student = jit(bench.model, split, mislabelled=True)
            yield {**where, "method": "jit", "at": "its end", **bench.found(student, split)}
        if number != SCORED_ON[0]:
            continue
        for record in FEWER:
            split, where = bench.split(record), {"base": number, "record": record}
            for name, (method, sigma) in RIVALS.items():
                for rate in RATES:
                    student = method(bench.model, split, sigma=sigma, learning_rate=rate)
                    found = bench.found(student, split)
                    yield {**where, "method": name, "at": rate, **found}


def _along(model: nn.Module, split: Split) -> list[tuple[int, nn.Module]]:
    """The students after some of the steps, with no end before the last."""
    kept: list[tuple[int, nn.Module]] = []
    steps = 0

    # a tolerance of 2 is never reached: the steps themselves end it
    def callback(student: nn.Module, loss: float) -> Action:  # noqa: ARG001
        nonlocal steps
        steps += 1
        if steps in MEASURED_AT:
            copied = {name: t.clone() for name, t in student.state_dict().items()}
            kept.append((steps, _with(model, copied)))
        return Action.CONTINUE

    jit(model, split, mislabelled=True, steps=max(MEASURED_AT), tolerance=2.0, callback=callback)
    return kept


def _with(model: nn.Module, state: dict[str, torch.Tensor]) -> nn.Module:
    copied = trainable_copy(model)
    copied.load_state_dict(state)
    return copied


def in_a_row(store: Path) -> Iterator[Row]:
    """100 requests, one after the other, each under the guard, on the model after the last one."""
    bench = Bench(store, SCORED_ON[0])
    model, every = bench.model, bench.train.take(bench.rows)
    for record in range(len(bench.rows)):
        split = bench.split(record)
        before = bench.found(model, split)
        began = time.perf_counter()
        model, facts = _guarded(model, split)
        after = bench.found(model, split)
        yield {"record": record, "before": before["margin"], **after, **facts,
               "lost": before["utility"] - after["utility"],
               "seconds": round(time.perf_counter() - began, 1)}  # fmt: skip
    yield {"record": "all", "margins": margins(model, every),
           "given": margins(bench.model, every), "utility": bench.accuracy(model) - bench.before,
           "accuracy": bench.accuracy(model)}  # fmt: skip


def together(store: Path) -> Iterator[Row]:
    """The same 100 as ten requests of ten, and as one."""
    bench = Bench(store, SCORED_ON[0])
    every = bench.train.take(bench.rows)
    for size in (10, 100):
        model, facts = bench.model, []
        for first in range(0, len(bench.rows), size):
            some = every.take(range(first, first + size))
            model, fact = _guarded(model, replace(bench.split(0), forget=some))
            facts.append(fact)
        yield {"size": size, "requests": facts, "margins": margins(model, every),
               "utility": bench.accuracy(model) - bench.before}  # fmt: skip


def _guarded(model: nn.Module, split: Split) -> tuple[nn.Module, Row]:
    """The new model, or the given one where the request was not met."""
    guard, outcome = Guard(model, split, seed=0), "done"
    try:
        model = guard.settle(jit(model, split, mislabelled=True, callback=guard.callback)).eval()
    except NotMet:
        outcome = "not met"
    return model, {"outcome": outcome, "halvings": guard.halvings}


PARTS: dict[str, Callable[[Path], Iterator[Row]]] = {
    "curves": curves,
    "row": in_a_row,
    "together": together,
}


def main(store: str, what: str) -> None:
    """One part into research/results/jit_one_record_PART.json, or the page from both."""
    torch.set_num_threads(1)
    logging.disable()
    began, found = time.process_time(), []
    for row in PARTS[what](Path(store)):
        found.append(row)
        sys.stdout.write(json.dumps(row) + "\n")
        sys.stdout.flush()
    record = {
        "cpu_seconds": round(time.process_time() - began),
        "ranges": ranges(Path(store)),
        "unseen_accuracy": [
            read(store, cell).statistics["accuracy"]["test_staying"] for cell in unseen()
        ],
        "rows": found,
    }
    write_record(f"jit_one_record_{what}", f"jit_one_record STORE {what}", record, indent=None)


if __name__ == "__main__":
    main(*sys.argv[1:])

"""One request after another: on from the last result, or from the given model with all so far.

    EFFACE_DATA=… python -m research.benchmarks.in_a_row STORE     # research/results/in_a_row.json, .md and .svg

100 records of the first base of goals.py (10,000 images of CIFAR-10; its store, where it is trained)
go in requests of one and of ten. The union of all requests is unlearned from the given model at some of them.
"""

import sys
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.figure import Figure
from scipy.stats import ks_2samp
from torch import nn

from efface.grid import read, run
from efface.metrics.evaluation import evaluate
from efface.types import Records, Split
from research import pages
from research.benchmarks.goals import goals
from research.benchmarks.jit_requests import FIRST
from research.pages import origin, percent, table
from research.reduce import evidence_half
from research.tables import write_record
from research.timed import timed_forget
from research.trained import model_of, parts_of

SEED, RECORDS, RETAINED, DRAWS = 900, 100, 2000, 200
TENS = (*range(10, RECORDS + 1, 10),)
# Records that went when a request is made, and those of them when its model is measured.
WAYS: dict[str, tuple[tuple[int, ...], tuple[int, ...]]] = {
    "last result, ten each": (TENS, TENS),
    "union": ((1, 2, 5, *TENS), (1, 2, 5, *TENS)),
    "last result, one each": ((*range(1, RECORDS + 1),), (1, 2, *range(5, RECORDS + 1, 5))),
}
SHOWN = (1, 2, 5, 10, 20, 50, 100)


def given(store: str) -> tuple[nn.Module, Records, Records]:
    """The base model, its training records, the test records."""
    base = next(goals(0)).base
    run([base], store, processes=1)
    parts = parts_of(base.settings, Path(store, "shared"))
    return model_of(base.settings, read(store, base).folder), *parts


def sequence(base: nn.Module, parts: dict[str, Records], way: str) -> list[dict[str, Any]]:
    """Every request of one way: what it took and, at some, what is left."""
    found, model, before = [], base, 0
    for count in WAYS[way][0]:
        going = range(0 if way == "union" else before, count)
        split = Split(parts["forget"].take(going), holdout=parts["test"])
        model, facts = timed_forget(base if way == "union" else model, split)
        row = {"records": count, **facts}
        if count in WAYS[way][1]:
            row |= measured(model, parts, count)
        found.append(row)
        before = count
        sys.stderr.write(f"{way} {row}\n")
    return found


def measured(model: nn.Module, parts: dict[str, Records], count: int) -> dict[str, float]:
    """Accuracies, and the log-odds of the first ``count`` records that had to go."""
    unseen, retain = (evaluate(model, parts[name]) for name in ("evidence", "retain"))
    gone = evaluate(model, parts["forget"].take(range(count)))
    return {
        "unseen": float(unseen.accuracy.mean()),
        "unseen_log_odds": float(unseen.logit_margin.mean()),
        "retain": float(retain.accuracy.mean()),
        "forget": float(gone.accuracy.mean()),
        "log_odds": float(gone.logit_margin.mean()),
        # to what the given model says of unseen records: no model of the row is that of the union
        "ks": float(ks_2samp(gone.logit_margin, parts["unseen"]).statistic),
    }


def main(store: str) -> None:
    """Both sizes both ways, and what the given model comes to."""
    base, records, test = given(store)
    rows = np.random.default_rng(SEED).permutation(FIRST)
    parts: dict[str, Any] = {"test": test, "forget": records.take(rows[:RECORDS].tolist())}
    parts["retain"] = records.take(rows[RECORDS : RECORDS + RETAINED].tolist())
    parts["evidence"] = test.take(np.flatnonzero(evidence_half(test)).tolist())
    parts["unseen"] = evaluate(base, parts["evidence"]).logit_margin
    draw, chance = np.random.default_rng(SEED), {}
    for count in WAYS["last result, one each"][1]:
        # of as many unseen records as went, next to all of them
        some = (draw.choice(parts["unseen"], count, replace=False) for _ in range(DRAWS))
        chance[count] = float(np.mean([ks_2samp(one, parts["unseen"]).statistic for one in some]))
    start, found = measured(base, parts, RECORDS), {}
    for way in WAYS:
        found[way] = sequence(base, parts, way)
        record = {"seed": SEED, "given": start, "chance": chance, "sequences": found}
        # what is measured is kept if this is stopped
        write_record("in_a_row", "in_a_row STORE", record, indent=None)


HEAD = (
    "requests | records that went | unseen accuracy, % (change) | retain, % | accuracy on those that went, % | their mean log-odds "
    "(of unseen) | KS to unseen (of as many unseen) | CPU s of this request | without a new model so far"
)


def page(record: dict[str, Any]) -> str:
    """The table from the record."""
    start, ways = record["given"], record["sequences"]
    shown = ((way, row) for way, made in ways.items() for row in made if row["records"] in SHOWN)
    return pages.page(
        "One request after another",
        f"{origin(record)}. {RECORDS} random records (seed {record['seed']}) of the {FIRST:,} that a quarter VGG11 was trained on go one or ten "
        "at a time, each request `efface.forget` with its defaults and a holdout. *Last result*: each request changes the model of the one before. *Union*: all "
        "records so far are unlearned from the given model. Unseen: 5,000 test images that neither method nor guard sees, where the given model has "
        f"{percent(start['unseen'])} % and mean log-odds {start['unseen_log_odds']:.1f}; retain: {RETAINED:,} records that stay. "
        f"The given model has {percent(start['forget'])} % on the {RECORDS} records, mean log-odds {start['log_odds']:.1f}, KS {start['ks']:.2f}. KS: their log-odds to "
        "those that the given model gives the unseen images. No model is retrained here.",
        table(HEAD, (_row(record, way, row) for way, row in shown)),
        "![Unseen accuracy, the records that went and seconds along the requests](in_a_row.svg)",
    )  # fmt: skip


def _row(record: dict[str, Any], way: str, row: dict[str, Any]) -> list[str]:
    change = 100 * (row["unseen"] - record["given"]["unseen"])
    before = (one for one in record["sequences"][way] if one["records"] <= row["records"])
    refused = row["refused"] if way == "union" else sum(one["refused"] for one in before)
    return [
        way,
        str(row["records"]),
        f"{percent(row['unseen'])} ({change:+.2f})",
        percent(row["retain"]),
        percent(row["forget"], 0),
        f"{row['log_odds']:.1f} ({row['unseen_log_odds']:.1f})",
        f"{row['ks']:.2f} ({record['chance'][str(row['records'])]:.2f})",
        f"{row['seconds']['request']:.1f}",
        f"{int(refused)}",
    ]


def figure(record: dict[str, Any]) -> Figure:
    """Unseen accuracy, the records that went (twice) and seconds, over how many went."""
    chart, places = plt.subplots(2, 2, figsize=(9, 6), layout="constrained", sharex=True)
    (unseen, odds), (ks, seconds) = places
    start, grey = record["given"], {"color": "0.5", "linewidth": 0.8}
    for way, made in record["sequences"].items():
        rows = [row for row in made if "ks" in row]
        x, style = [row["records"] for row in rows], {"marker": "o", "markersize": 3, "label": way}
        unseen.plot(x, [100 * (row["unseen"] - start["unseen"]) for row in rows], **style)
        odds.plot(x, [row["log_odds"] for row in rows], **style)
        ks.plot(x, [row["ks"] for row in rows], **style)
        each = [row["seconds"]["request"] for row in made]
        seconds.plot([row["records"] for row in made], each, **style)
    unseen.axhline(-0.5, **grey, linestyle=":", label="goal: at most 0.5 lost")
    odds.axhline(start["unseen_log_odds"], **grey, label="unseen records, given model")
    chance = {int(count): value for count, value in record["chance"].items()}
    ks.plot([*chance], [*chance.values()], **grey, label="as many unseen records")
    unseen.set(ylabel="unseen accuracy, change in points")
    odds.set(ylabel="mean log-odds of all that went")
    ks.set(ylabel="KS of those to unseen", xlabel="records that went")
    seconds.set(ylabel="CPU s of a request", xlabel="records that went", ylim=(0, None))
    # what is drawn once, by its axes; the ways above all
    for axes in (unseen, odds, ks):
        axes.legend(handles=axes.lines[len(record["sequences"]) :], fontsize=7)
    chart.legend(handles=seconds.lines, loc="outside upper center", ncols=3, fontsize=8)
    return chart


if __name__ == "__main__":
    main(*sys.argv[1:])

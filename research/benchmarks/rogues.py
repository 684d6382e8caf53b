"""Which tier catches which rogue, and how often a truly retrained model is flagged.

    python -m research.benchmarks.rogues thresholds   # on draws of their own, before the others are made
    python -m research.benchmarks.rogues rogues       # the matrix: nine rogues on each of three draws
    python -m research.benchmarks.rogues retrained    # 200 retrained models: false positives at each tier

Nothing here was tuned on what it counts: the level (Holm, 5 % a page) and each row's p are those of
efface.report. Draws 0 and 950 were seen while it was built (that a head which changed alone is
flagged was written after draw 0 had shown it missed); none of these is counted. A rogue is caught at a tier when the page
that this tier allows flags something, and named by the flagged rows.
"""

import json
import sys
import time
from collections import Counter
from typing import Any

import numpy as np
import torch
from torch import nn

from efface.io.shadows import Shadows
from efface.metrics.evaluation import evaluate
from efface.metrics.retrain_gap import columns
from efface.report import collect, significant_rows
from research import pages
from research.benchmarks.rogues_models import ROGUES, Draw, drawn, fit_from_scratch
from research.pages import percent, table
from research.tables import RESULTS, about, read_record

# what a tier adds: T1 a holdout, T2 retain records, T3 retrained models, T4 shadow models
TIERS = ("T0", "T1", "T2", "T3", "T4")
RETRAINED, SHADOWS = 8, 16
DRAWS = {"thresholds": range(900, 902), "rogues": range(10, 13), "retrained": range(100, 120)}
PER_DRAW = 10


def shadows_of(draw: Draw) -> Shadows:
    """Models trained on halves of the trained records, each record in half of them."""
    split = draw.split
    assert split.holdout is not None
    assert split.retain is not None
    known = [split.forget, split.retain]
    x, y = (torch.cat([getattr(part, name) for part in known]) for name in ("x", "y"))
    every = type(split.forget)(x, y, tuple(i for part in known for i in part.ids))
    # one permutation a record, so that each is in exactly half of the shadow runs
    order = np.random.default_rng(draw.seed).random((SHADOWS, len(every))).argsort(axis=0)
    halves, margins = order < SHADOWS // 2, []
    for number, chosen in enumerate(halves):
        rows = every.take(np.flatnonzero(chosen).tolist())
        model = fit_from_scratch(rows, 9000 + 100 * draw.seed + number)
        parts = [evaluate(model, part).logit_margin for part in (every, split.holdout)]
        margins.append(np.concatenate(parts).astype(np.float64))
    names = tuple(f"shadow-{number}" for number in range(SHADOWS))
    # holdout records are in no shadow run
    unseen = np.zeros((SHADOWS, len(split.holdout)), bool)
    ids = (*every.ids, *split.holdout.ids)
    return Shadows(names, ids, np.hstack([halves, unseen]), np.stack(margins), "made here")


class At:
    """One draw with what the higher tiers need, made once."""

    def __init__(self, seed: int) -> None:
        self.draw = drawn(seed)
        self.retrained = tuple(self.draw.retrained(number) for number in range(RETRAINED))
        self.shadows = shadows_of(self.draw)

    def flags(self, model: nn.Module) -> dict[str, list[str]]:
        """The rows that are significantly different at each tier: a row needs what its tier has."""
        evidence = collect(
            self.draw.model,
            model,
            self.draw.for_evidence,
            retrained=self.retrained,
            shadows=self.shadows,
            seed=7,
        )
        return {
            tier: [row.key for row in significant_rows(evidence.rows, tier=tier)] for tier in TIERS
        }

    def naive(self, model: nn.Module) -> dict[str, float]:
        """What a naive reader sees: the paper's three columns."""
        split = self.draw.split
        parts = (
            evaluate(model, part) for part in (split.forget, split.holdout, split.retain) if part
        )
        return columns(*parts)


def made(what: str) -> dict[str, Any]:
    """Flagged rows of every model of one kind of run."""
    found: list[dict[str, Any]] = []
    for seed in DRAWS[what]:
        at = At(seed)
        if what == "rogues":
            models = {name: make(at.draw) for name, make in ROGUES.items()}
            models["retrained"] = at.draw.retrained(600)
        else:
            models = {f"retrained {k}": at.draw.retrained(700 + k) for k in range(PER_DRAW)}
        for name, model in models.items():
            began = time.perf_counter()
            row = {
                "draw": seed,
                "model": name,
                "alarms": at.flags(model),
                "naive": at.naive(model),
            }
            found.append({**row, "seconds": time.perf_counter() - began})
            print(json.dumps(found[-1]), flush=True)
    return {**about(f"rogues {what}"), "models": found}


def page(record: dict[str, Any]) -> str:
    """The matrix, and the false positives."""
    rogues, tiers = record["rogues"]["models"], " | ".join(TIERS)
    names = list(dict.fromkeys(one["model"] for one in rogues))
    rows = [_line(name, [one for one in rogues if one["model"] == name]) for name in names]
    counts = [
        _flagged(label, record[what]["models"])
        for what, label in (("thresholds", "seen beforehand"), ("retrained", "counted"))
        if what in record
    ]
    models = record.get("retrained", {"models": []})["models"]
    keys = Counter(key for one in models for key in one["alarms"]["T4"])
    raised = ", ".join(f"`{key}` {n}" for key, n in keys.most_common())
    return pages.page(
        "Rogues: which tier catches what",
        f"`{record['rogues']['command']}` and `retrained`, {record['rogues']['date']}. Digits with a tenth of the labels drawn at random, "
        "400 memorised, 100 of them to forget; a model is caught at a tier when the page that this tier allows flags "
        "something (Holm's rule over its judged rows, 5 % a page), and named by the rows that are flagged. "
        f"Each rogue on {len(DRAWS['rogues'])} draws; T3 has {RETRAINED} retrained models, T4 {SHADOWS} shadow models. "
        "Naive: forget accuracy and the paper's attack, mean of the draws; lower is not better, the retrained model's value is the target.",
        table(f"model | naive D_r / D_f / MIA | {tiers}", rows),
        "## False positives",
        table(f"retrained models | {tiers}", counts),
        _photographs() + f"Rows that were flagged on digits: {raised or 'none'}.",
    )


def _photographs() -> str:
    """The count on CIFAR-10, where it was made."""
    if not (RESULTS / "alarms_cifar.json").is_file():
        return ""
    record = read_record("alarms_cifar")
    counted = [one for one in record["models"] if one["model"] != "the old model"]
    old = next(one for one in record["models"] if one["model"] == "the old model")
    raised = sum(bool(one["alarms"]["T3"]) for one in counted)
    return (
        f"On CIFAR-10 (`{record['command']}`, 500 random records of 10,000, quarter VGG11, each against the "
        f"others at T3): {raised} of {len(counted)} retrained models were flagged at any tier up to T3; the old model is by "
        f"{', '.join(f'`{key}`' for key in old['alarms']['T3'])}.\n\n"
    )


def _line(name: str, found: list[dict[str, Any]]) -> list[str]:
    naive = " / ".join(
        percent(float(np.mean([one["naive"][column] for one in found])), 0)
        for column in ("retain", "forget", "attack")
    )
    return [name.replace("_", " "), naive, *(_at(tier, found) for tier in TIERS)]


def _at(tier: str, found: list[dict[str, Any]]) -> str:
    caught = [one["alarms"][tier] for one in found if one["alarms"][tier]]
    if not caught:
        return "–"
    first = Counter(key for keys in caught for key in keys).most_common(2)
    share = "" if len(caught) == len(found) else f" ({len(caught)} of {len(found)})"
    return f"**{', '.join(f'`{key}`' for key, _ in first)}**{share}"


def _flagged(label: str, found: list[dict[str, Any]]) -> list[str]:
    counts = [sum(bool(one["alarms"][tier]) for one in found) for tier in TIERS]
    shares = (f"{n} ({percent(n / len(found))} %)" for n in counts)
    return [f"{len(found)}, {label}", *shares]


def main(what: str) -> None:
    """Make one part of the record."""
    torch.set_num_threads(1)
    found = made(what)  # long: what others wrote meanwhile is read again
    path = RESULTS / "rogues.json"
    record = json.loads(path.read_text()) if path.is_file() else {}
    path.write_text(json.dumps({**record, what: found, "commit": found["commit"]}, indent=1) + "\n")


if __name__ == "__main__":
    main(sys.argv[1])

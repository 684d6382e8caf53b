"""Which tier catches which rogue, and how often a truly retrained model is flagged.

    python -m research.benchmarks.rogues thresholds   # on draws of their own, before the others are made
    python -m research.benchmarks.rogues rogues       # the matrix: nine rogues on each of three draws
    python -m research.benchmarks.rogues retrained    # 200 retrained models: false alarms at each tier

Nothing here was tuned on what it counts: the level (Holm, 5 % a page) and each row's p are those of
efface.report. Draws 0 and 950 were looked at while it was built (that a head which moved alone is an
alarm was written after draw 0 had shown it missed); none of these is counted. A rogue is caught at a tier when the page
that this tier allows raises an alarm, and named by the rows that raise it.
"""

import json
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from efface.io.shadows import Shadows
from efface.manifest import versions
from efface.metrics.evaluation import evaluate
from efface.metrics.retrain_gap import columns
from efface.report import collect, significant_rows
from research.benchmarks.rogues_models import ROGUES, Draw, drawn, taught

TIERS = ("T0", "T1", "T2", "T3", "T4")
RETRAINED, SHADOWS = 8, 16
DRAWS = {"thresholds": range(900, 902), "rogues": range(10, 13), "retrained": range(100, 120)}
PER_DRAW = 10
RECORD = Path("research/results/rogues.json")


def shadows_of(draw: Draw) -> Shadows:
    """Models trained on halves of the trained records, each record in half of them."""
    split = draw.split
    assert split.holdout is not None
    assert split.retain is not None
    known = [split.forget, split.retain]
    x, y = (torch.cat([getattr(part, name) for part in known]) for name in ("x", "y"))
    every = type(split.forget)(x, y, tuple(i for part in known for i in part.ids))
    drawn_ = np.random.default_rng(draw.seed).random((SHADOWS, len(every)))
    halves = drawn_.argsort(axis=0) < SHADOWS // 2
    members, said = [], []
    for number in range(SHADOWS):
        chosen = halves[number]
        model = taught(every.take(np.flatnonzero(chosen).tolist()), 9000 + 100 * draw.seed + number)
        asked = [evaluate(model, part).margin for part in (every, split.holdout)]
        members.append(np.concatenate([chosen, np.zeros(len(split.holdout), bool)]))
        said.append(np.concatenate(asked).astype(np.float64))
    return Shadows(
        tuple(f"shadow-{number}" for number in range(SHADOWS)),
        (*every.ids, *split.holdout.ids),
        np.stack(members),
        np.stack(said),
        "made here",
    )


class At:
    """One draw with what the higher tiers need, made once."""

    def __init__(self, seed: int) -> None:
        self.draw = drawn(seed)
        self.retrained = tuple(self.draw.retrained(number) for number in range(RETRAINED))
        self.shadows = shadows_of(self.draw)

    def alarms(self, model: nn.Module) -> dict[str, list[str]]:
        """The rows that stand out at each tier: a row needs what its tier has, and no more."""
        evidence = collect(
            self.draw.model,
            model,
            self.draw.for_evidence,
            retrained=self.retrained,
            shadows=self.shadows,
            seed=7,
        )
        return {tier: [row.key for row in significant_rows(evidence, tier=tier)] for tier in TIERS}

    def naive(self, model: nn.Module) -> dict[str, float]:
        """What a naive reader looks at: the paper's three columns."""
        split = self.draw.split
        parts = (
            evaluate(model, part) for part in (split.forget, split.holdout, split.retain) if part
        )
        return columns(*parts)


def made(what: str) -> dict[str, Any]:
    """Alarms of every model of one kind of run."""
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
            said = {
                "draw": seed,
                "model": name,
                "alarms": at.alarms(model),
                "naive": at.naive(model),
            }
            found.append({**said, "seconds": time.perf_counter() - began})
            print(json.dumps(found[-1]), flush=True)
    return {
        "command": f"python -m research.benchmarks.rogues {what}",
        "date": time.strftime("%Y-%m-%d"),
        "versions": versions(),
        "models": found,
    }


def page(record: dict[str, Any]) -> str:
    """The matrix, and the false alarms."""
    rogues = record["rogues"]["models"]
    names = list(dict.fromkeys(one["model"] for one in rogues))
    lines = [
        "# Rogues: which tier catches what",
        "",
        (
            f"`{record['rogues']['command']}` and `retrained`, {record['rogues']['date']}. Digits with a tenth of the labels drawn anew, "
            "400 learned by heart, 100 of them to forget; a model is caught at a tier when the page that this tier allows raises "
            "an alarm (Holm's rule over its judged rows, 5 % a page), and named by the rows that raise it. "
            f"Each rogue on {len(DRAWS['rogues'])} draws; T3 has {RETRAINED} retrained models, T4 {SHADOWS} shadow models. "
            "Naive: forget accuracy and the paper's attack, mean of the draws; lower is not better, the retrained model's value is the target."
        ),
        "",
        "| model | naive D_r / D_f / MIA | " + " | ".join(TIERS) + " |",
        "|---|---|" + "---|" * len(TIERS),
        *(_line(name, [one for one in rogues if one["model"] == name]) for name in names),
        "",
        "## False alarms",
        "",
        "| retrained models | " + " | ".join(TIERS) + " |",
        "|---|" + "---|" * len(TIERS),
        *(
            _alarmed(what, record[what]["models"])
            for what in ("thresholds", "retrained")
            if what in record
        ),
        "",
        *_photographs(),
        "Rows that raised them on digits: " + (_raised(record) or "none") + ".",
        "",
    ]
    return "\n".join(lines)


def _photographs() -> list[str]:
    """The count on CIFAR-10, where it was made."""
    path = Path("research/results/alarms_cifar.json")
    if not path.is_file():
        return []
    record = json.loads(path.read_text())
    counted = [one for one in record["models"] if one["model"] != "the old model"]
    old = next(one for one in record["models"] if one["model"] == "the old model")
    raised = sum(bool(one["alarms"]["T3"]) for one in counted)
    return [
        (
            f"On CIFAR-10 (`{record['command']}`, 500 random records of 10,000, quarter VGG11, each beside the "
            f"others at T3): {raised} of {len(counted)} retrained models raised an alarm at any tier up to T3; the old model does by "
            f"{', '.join(f'`{key}`' for key in old['alarms']['T3'])}."
        ),
        "",
    ]


def _line(name: str, found: list[dict[str, Any]]) -> str:
    naive = " / ".join(
        f"{100 * np.mean([one['naive'][column] for one in found]):.0f}"
        for column in ("retain", "forget", "attack")
    )
    return (
        f"| {name.replace('_', ' ')} | {naive} | "
        + " | ".join(_at(tier, found) for tier in TIERS)
        + " |"
    )


def _at(tier: str, found: list[dict[str, Any]]) -> str:
    caught = [one["alarms"][tier] for one in found if one["alarms"][tier]]
    if not caught:
        return "–"
    first = Counter(key for keys in caught for key in keys).most_common(2)
    share = "" if len(caught) == len(found) else f" ({len(caught)} of {len(found)})"
    return f"**{', '.join(f'`{key}`' for key, _ in first)}**{share}"


def _alarmed(what: str, found: list[dict[str, Any]]) -> str:
    counts = [sum(bool(one["alarms"][tier]) for one in found) for tier in TIERS]
    said = {"thresholds": "looked at beforehand", "retrained": "counted"}[what]
    return (
        f"| {len(found)}, {said} | "
        + " | ".join(f"{n} ({100 * n / len(found):.1f} %)" for n in counts)
        + " |"
    )


def _raised(record: dict[str, Any]) -> str:
    found = record.get("retrained", {"models": []})["models"]
    keys = Counter(key for one in found for key in one["alarms"]["T4"])
    return ", ".join(f"`{key}` {n}" for key, n in keys.most_common())


def main(what: str) -> None:
    """Make one part of the record, or the page of all."""
    torch.set_num_threads(1)
    found = made(what)  # long: what others wrote meanwhile is read again
    record = json.loads(RECORD.read_text()) if RECORD.is_file() else {}
    RECORD.write_text(json.dumps({**record, what: found}, indent=1) + "\n")


if __name__ == "__main__":
    main(sys.argv[1])

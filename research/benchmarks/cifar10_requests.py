"""Three requests on a real model, two methods, each next to its own true retrain.

    EFFACE_DATA=… python -m research.benchmarks.cifar10_requests train     # base and three retrained models
    EFFACE_DATA=… python -m research.benchmarks.cifar10_requests forget    # six requests, resumable
    EFFACE_DATA=… python -m research.benchmarks.cifar10_requests score     # research/results/cifar10/table.{json,md}

What is scored: the second half of the test images (the method and the guard have seen the first),
the forget records, and 10,000 of the training images that stay.
"""

import json
import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from efface.errors import Outcome
from efface.io.data import load_data, read_ids
from efface.io.models import load_model
from efface.manifest import EVIDENCE, MODEL, state_digest
from efface.manifest import FILE as MANIFEST
from efface.metrics.accuracy import accuracy
from efface.metrics.evaluation import evaluate
from efface.metrics.membership import loss_attack
from efface.metrics.retrain_gap import columns, gap
from efface.types import Records, Split, split_holdout
from research.pages import percent, table
from research.tables import write_record

RESULTS = Path("research/results/cifar10")
METHODS = ("jit", "neighbourhood")


@dataclass(frozen=True)
class Request:
    """A request, and how its retrained model was made."""

    name: str
    naming: tuple[str, str]
    excluding: tuple[str, str]
    seed: int


IDS = "research/results/cifar10/{}.csv"
REQUESTS = (
    Request("dog", ("--forget-class", "dog"), ("--exclude-class", "dog"), 10),
    *(
        Request(name, ("--ids", IDS.format(name)), ("--exclude", IDS.format(name)), seed)
        for name, seed in (("random100", 11), ("one", 12))
    ),
)


def data() -> str:
    """The folder of CIFAR-10."""
    return f"{os.environ['EFFACE_DATA']}/cifar10"


# Exit codes of a request that ran, whatever came of it: a row of the table, not an error.
ENDED = {outcome.exit_code for outcome in Outcome}


def call(module: str, *arguments: str) -> None:
    """``python -m module``, as a user runs it."""
    done = subprocess.run([sys.executable, "-m", module, *arguments], check=False)
    if done.returncode not in ENDED:
        sys.exit(done.returncode)


def train() -> None:
    """The base model and one retrained model a request: fresh weights, same recipe, other seed."""
    jobs = [("base", (), 0)] + [(f"without-{r.name}", r.excluding, r.seed) for r in REQUESTS]
    for name, excluding, seed in jobs:
        if not Path("models", name).exists():
            settings = ("--data", data(), "--out", f"models/{name}", "--seed", str(seed))
            call("research.train", "cifar10-resnet", *settings, *excluding)


def forget() -> None:
    """Each request with each method, at its default settings."""
    for request in REQUESTS:
        for method in METHODS:
            out = Path("runs", f"{request.name}-{method}")
            if not out.exists():
                given = ("--data", data(), "--holdout", f"{data()}:test", "--retain", data())
                settings = (*given, "--method", method, "--out", str(out))
                call("efface", "forget", "models/base", *request.naming, *settings)


def score() -> None:
    """Score every model in the same way; write the records and the table."""
    base = load_model("models/base")
    training, test = load_data(data()), load_data(f"{data()}:test")
    holdout = split_holdout(Split(None, test.records(None, base.preprocessing)), seed=0)[1].holdout
    lines: list[dict[str, Any]] = []
    for request in REQUESTS:
        rows = _rows(training, request)
        forget_classes = (training.class_id("dog"),) if request.name == "dog" else ()
        stay = np.setdiff1d(np.arange(len(training)), rows)
        # 10,000 of the retain records: all of them would only take longer
        sample = sorted(np.random.default_rng(0).choice(stay, 10_000, replace=False).tolist())
        forget, retain = (training.records(r, base.preprocessing) for r in (rows, sample))
        lines += _scored(request, [forget, holdout, retain], forget_classes)
    write_record("cifar10/table", "cifar10_requests score", {"rows": lines})


def _rows(training: Any, request: Request) -> list[int]:
    if request.name == "dog":
        return training.rows_of_class("dog")
    return training.rows_of(read_ids(request.naming[1]))


def _scored(
    request: Request, parts: list[Records], forget_classes: tuple[int, ...]
) -> list[dict[str, Any]]:
    folders = {"nothing done": Path("models/base")}
    folders |= {method: Path("runs", f"{request.name}-{method}") for method in METHODS}
    folders["retrained"] = Path("models", f"without-{request.name}")
    found = {}
    for name, folder in folders.items():
        kept = RESULTS / "records" / f"{request.name}-{name.replace(' ', '-')}.json"
        kept.parent.mkdir(parents=True, exist_ok=True)
        source = folder / EVIDENCE / MANIFEST if name in METHODS else folder / "recipe.json"
        shutil.copyfile(source, kept)
        facts = json.loads(source.read_text())
        line: dict[str, Any] = {"request": request.name, "model": name}
        if name in METHODS:
            line |= {"outcome": facts["outcome"], "seconds": facts["seconds"]}
            line |= {"reason": facts["guard"]["failed"], "settings": facts["settings"]}
        if name not in METHODS or Outcome(facts["outcome"]).has_new_model:
            model = load_model(folder / MODEL if name in METHODS else folder).model
            line |= scores(model, parts, forget_classes=forget_classes)
        found[name] = line
    target = found["retrained"]["columns"]
    for line in found.values():
        line["gap"] = gap(line["columns"], target) if "columns" in line else None
    return list(found.values())


def scores(
    model: nn.Module, parts: list[Records], *, forget_classes: tuple[int, ...]
) -> dict[str, Any]:
    """Columns, accuracies, losses and the loss attack; ``parts``: forget, holdout, retain."""
    forgotten, holdout, retain = (evaluate(model, part) for part in parts)
    attack = loss_attack(forgotten.loss, holdout.loss, classes=(forgotten.y, holdout.y))
    unseen = holdout.take(~np.isin(holdout.y, list(forget_classes)))
    return {
        "weights": state_digest(model.state_dict()),
        "columns": columns(forgotten, holdout, retain, forget_classes=forget_classes),
        "forget_accuracy": accuracy(forgotten.predicted, forgotten.y),
        "retain_accuracy": accuracy(retain.predicted, retain.y),
        "forget_loss": float(forgotten.loss.mean()),
        "holdout_loss": float(unseen.loss.mean()),
        "loss_attack": {"auc": attack.auc, "interval": list(attack.auc_interval)},
        "n": {"forget": len(forgotten), "holdout": len(holdout), "retain": len(retain)},
    }


def page(record: dict[str, Any]) -> str:
    """The table from the record."""
    head = "request | model | D_r | D_f | MIA | gap | retain | loss on forget | seconds"
    # no title: the page of before has none
    return table(head, map(_cells, record["rows"])) + "\n"


def _cells(row: dict[str, Any]) -> list[str]:
    first = [row["request"], row["model"]]
    seconds = f"{row['seconds']:.0f}" if "seconds" in row else ""
    if "columns" not in row:
        return [*first, f"not met: {row['reason']}", *[""] * 5, seconds]
    shares = [row["columns"][name] for name in ("retain", "forget", "attack")]
    shares += [row["gap"], row["retain_accuracy"]]
    return [*first, *map(percent, shares), f"{row['forget_loss']:.3f}", seconds]


if __name__ == "__main__":
    torch.set_num_threads(1)
    {"train": train, "forget": forget, "score": score}[sys.argv[1]]()

"""The models of information.py: on random halves, on all records, and without each group."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from torch import nn

from efface.grid import Job, read
from efface.types import Records
from research.benchmarks import per_record
from research.jobs import training
from research.trained import model_of, parts_of


@dataclass(frozen=True)
class Setting:
    """How many models of what: trained on halves, on all, and without each group."""

    data: str
    recipe: str
    records: int
    halves: int
    whole: int
    again: int
    group: int
    nested: tuple[int, ...]
    seconds: float


SETTINGS = {
    "cifar10": Setting("cifar10", "cifar10-vgg-quarter", 8_000, 48, 8, 2, 500, (100,), 70),
    "digits": Setting("digits", "digits-conv", 1_198, 64, 16, 4, 75, (37, 150, 300, 600), 2),
}


def half(name: str, number: int) -> Job:
    """A model on a random half of the records; on the images those of per_record.py."""
    if name == "cifar10":
        return per_record.base(number)
    # a stream of its own for each model: how many are made changes none of them
    rows = np.random.default_rng([801, number]).choice(SETTINGS[name].records, SETTINGS[name].records // 2, replace=False)  # fmt: skip
    return _training(name, 800 + number, trained_on={"rows": sorted(rows.tolist())})


def whole(name: str, number: int) -> Job:
    """A model on all records; number 0 is the one that is measured."""
    return _training(name, 900 + number)


def without(name: str, rows: list[int], number: int) -> Job:
    """A model retrained without a group."""
    return _training(name, 2_000 + number, excluded={"rows": sorted(rows)})


def _training(name: str, seed: int, **rule: Any) -> Job:
    setting = SETTINGS[name]
    return training(setting.recipe, setting.data, first=setting.records, seed=seed, keep_weights=True, **rule)  # fmt: skip


def measured_model(store: str, name: str) -> tuple[nn.Module, Records, Records]:
    """The model on all records, its training records and the unseen ones."""
    cell = whole(name, 0)
    record = read(store, cell)
    train, test = parts_of(cell.settings, Path(store) / "shared")
    return model_of(cell.settings, record.folder), train, test


def halves(store: str, name: str, count: int) -> tuple[list[Any], np.ndarray, np.ndarray]:
    """The first models on halves: records, who was trained on what, log-odds of the label."""
    records = [read(store, half(name, number)) for number in range(count)]
    member = np.stack([r.arrays["train.member"].astype(bool) for r in records])
    odds = np.stack([r.arrays["train.log_odds"].astype(np.float64) for r in records])
    return records, member, odds

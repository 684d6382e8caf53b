"""The job behind transfer.py: a base model of one kind, its retrained ones, and what was made of it."""

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from scipy.stats import ks_2samp
from sklearn.datasets import load_breast_cancer
from torch import nn
from torch.nn import functional

from efface.errors import NotMet
from efface.grid import JobOutput
from efface.metrics.retrain_gap import gap
from efface.types import Records, Split
from efface.unlearn import forget
from research.benchmarks import kinds, trainable
from research.benchmarks.efficientnet_lite import MEAN, STD, pretrained
from research.data import data_set, load_part
from research.recipes import CIFAR_MEAN, CIFAR_STD, RECIPES, Recipe, fresh, train
from research.reduce import arrays_of, columns_of, right, rows_by, statistics_of

Fit = Callable[[Records, int], nn.Module]
OURS, KNOWN, NOTHING = "with a holdout", "no holdout, accuracy known", "nothing done"
DIGITS, VIT = "digits, conv net with BatchNorm", "digits, ViT"
TABLE, PHOTOS, PEOPLE = "table, MLP", "CIFAR-10, augmented ResNet", "faces, VGG"
LITE = "faces, fine-tuned EfficientNet-Lite0"

# as 32 pixels; the VGG's recipe with twice its epochs
FACES = Recipe("efface.nets:vgg_quarter", 36, 0.025, CIFAR_MEAN, CIFAR_STD, 32, half=True)
FINE_TUNED = Recipe(
    "research.benchmarks.efficientnet_lite:lite0", 4, 0.02, (MEAN,) * 3, (STD,) * 3, 96, 32
)
# people from the first: 4,809 and 1,022 pictures
MANY, FEW = 40, 8


def family(name: str, shared: Path) -> tuple[Records, Records, Fit]:
    """Training records, test records, and what trains a model: from fresh weights, LITE from ImageNet's."""
    if name == TABLE:
        records = kinds.table_of(load_breast_cancer)
        half = len(records) // 2
        loss = functional.cross_entropy
        parts = records.take(range(half)), records.take(range(half, len(records)))
        return *parts, lambda some, seed: kinds.trained(some, 2, loss, seed=seed)
    if name == VIT:
        records, _, test = trainable.digits()
        return records, test, lambda some, seed: trainable.trained(some, seed=seed)
    data, recipe, classes = {
        DIGITS: ("digits", RECIPES["digits-conv"], 10),
        PHOTOS: ("cifar10", RECIPES["cifar10-resnet"], 10),
        PEOPLE: ("pubfig83", FACES, MANY),
        LITE: ("pubfig83", FINE_TUNED, FEW),
    }[name]
    held = data_set(data)
    records, test = (
        load_part(held, part, recipe.preprocessing, shared=shared) for part in ("train", "test")
    )
    # all of them, where no class is left out
    records, test = (part.take((part.y < classes).nonzero().flatten()) for part in (records, test))

    def fit(some: Records, seed: int) -> nn.Module:
        model = fresh(recipe, classes, seed=seed)
        if name == LITE:
            model = pretrained(model)
        return train(model, some, recipe, seed=seed)

    return records, test, fit


def cell(settings: dict[str, Any], needs: Mapping[str, Path], shared: Path) -> JobOutput:  # noqa: ARG001
    """One base model, its retrained ones, and each row of what was made of the base."""
    records, test, fit = family(settings["family"], shared)
    request, seed, facts = dict(settings["request"]), settings["seed"], settings["facts"]
    if "wrong" in request:
        records, rows = mislabelled(records, request["wrong"], seed)
    else:
        rows = rows_by({**request, "seed": seed}, records.y.numpy())
    classes = (request["class"],) if "class" in request else ()
    member = np.ones(len(records), bool)
    base = fit(records, seed)
    arrays = arrays_of(base, records, test, member=member)
    stays = member.copy()
    stays[rows] = False
    rest = records.take(np.flatnonzero(stays).tolist())
    seeds = range(1000 + 10 * seed, 1000 + 10 * seed + settings["retrained"])
    retrained = [arrays_of(fit(rest, s), records, test, member=stays) for s in seeds]
    going = records.take(rows)
    # the model card's, of the half of the test records that is not measured
    card = round(_unseen(arrays, classes, evidence=False), 3)
    splits = {OURS: Split(going, holdout=test, forget_classes=classes)}
    splits[KNOWN] = Split(going, forget_classes=classes)
    found = {NOTHING: measured(arrays, arrays, retrained, rows, classes)}
    for name, split in splits.items():
        told = None if name == OURS else card
        try:
            result = forget(base, split, seed=seed, report="off", expected_accuracy=told, **facts)
        # a refusal is a result too: the old model, with the reason
        except NotMet as error:
            result = error.result
        mine = arrays_of(result.model, records, test, member=member)
        found[name] = measured(arrays, mine, retrained, rows, classes)
        found[name]["outcome"] = str(result.manifest.outcome)
        found[name]["summary"] = result.manifest.summary
        found[name]["seconds"] = result.manifest.seconds["method"]
    return JobOutput(
        {"n": len(rows), "card": card, **_floor(retrained, rows, classes), "rows": found}
    )


def mislabelled(records: Records, count: int, seed: int) -> tuple[Records, list[int]]:
    """The records with that many wrong labels, and their rows, drawn from the seed."""
    draw, k = np.random.default_rng(seed), int(records.y.max()) + 1
    rows = np.sort(draw.choice(len(records), count, replace=False))
    y = records.y.clone()
    for row, by in zip(rows.tolist(), draw.integers(1, k, count).tolist(), strict=True):
        y[row] = (int(y[row]) + by) % k
    return replace(records, y=y), rows.tolist()


def _unseen(arrays: Any, classes: tuple[int, ...], *, evidence: bool = True) -> float:
    """Accuracy on the test records of one half whose class stays."""
    here = arrays["test.evidence"].astype(bool) == evidence
    return float(right(arrays, "test")[here & ~np.isin(arrays["test.y"], classes)].mean())


def _columns(arrays: Any, rows: list[int], classes: tuple[int, ...]) -> dict[str, float]:
    found = statistics_of(arrays, forget=rows, forget_classes=classes)
    return columns_of(found, forget_classes=bool(classes))


def _mean(columns: list[dict[str, float]]) -> dict[str, float]:
    return {name: float(np.mean([one[name] for one in columns])) for name in columns[0]}


def _apart(one: Any, other: Any, rows: list[int]) -> float:
    """KS distance of the forget records' log-odds in two models."""
    return float(ks_2samp(one["train.log_odds"][rows], other["train.log_odds"][rows]).statistic)


def _unseen_apart(one: Any, other: Any, classes: tuple[int, ...]) -> float:
    here = one["test.evidence"].astype(bool) & ~np.isin(one["test.y"], classes)
    return float(ks_2samp(one["test.log_odds"][here], other["test.log_odds"][here]).statistic)


def measured(
    base: Any, mine: Any, retrained: list[Any], rows: list[int], classes: tuple[int, ...]
) -> dict[str, Any]:
    """A row: gap, accuracies, and how far laws of log-odds lie apart."""
    stays = base["train.member"].astype(bool)
    stays[rows] = False
    columns = _columns(mine, rows, classes)
    theirs = _mean([_columns(one, rows, classes) for one in retrained])
    return {
        "columns": columns,
        "gap": gap(columns, theirs),
        "retain": float(right(mine, "train")[stays].mean()),
        "unseen": [_unseen(one, classes) for one in (base, mine)],
        "ks": float(np.mean([_apart(mine, one, rows) for one in retrained])),
        "ks_unseen": _unseen_apart(base, mine, classes),
    }


def _floor(retrained: list[Any], rows: list[int], classes: tuple[int, ...]) -> dict[str, Any]:
    """What the seed alone does: one retrained model to the mean of the others, each in turn."""
    columns = [_columns(one, rows, classes) for one in retrained]
    rest = [_mean([o for o in columns if o is not one]) for one in columns]
    pairs = [(a, b) for i, a in enumerate(retrained) for b in retrained[:i]]
    return {
        "floor": float(np.mean([gap(*both) for both in zip(columns, rest, strict=True)])),
        "retrained": columns,
        "ks_floor": float(np.mean([_apart(a, b, rows) for a, b in pairs])),
        "ks_unseen_floor": float(np.mean([_unseen_apart(a, b, classes) for a, b in pairs])),
    }

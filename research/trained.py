"""The job that trains a model from fresh weights, and what it shares with the one that unlearns.

It rests on no guard and no method: work on those must not void models that took hours. Settings are
made, and explained, in ``research.jobs``.
"""

import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file
from torch import nn

from efface.errors import InputError
from efface.grid import JobOutput
from efface.types import Records
from research.data import load_part
from research.recipes import Recipe, fresh, train
from research.reduce import arrays_of, rows_by, statistics_of


def trained(settings: dict[str, Any], needs: Mapping[str, Path], shared: Path) -> JobOutput:  # noqa: ARG001
    """Train from fresh weights; a retrained model is one with ``excluded`` rows."""
    recipe, (records, test) = recipe_of(settings), parts_of(settings, shared)
    y = records.y.numpy()
    member = members(settings, y)
    model = fresh(recipe, settings["num_classes"], seed=settings["seed"])
    began = time.perf_counter()
    rows = np.flatnonzero(member).tolist()
    train(model, records.take(rows), recipe, seed=settings["seed"])
    seconds = time.perf_counter() - began
    arrays = arrays_of(model, records, test, member=member)
    excluded, classes = rows_by(settings["excluded"], y), settings["forget_classes"]
    found = statistics_of(arrays, forget=excluded, forget_classes=classes)
    # weights are large: only what another job starts from keeps them
    weights = model.state_dict() if settings["keep_weights"] else None
    return JobOutput({**found, "training_seconds": seconds}, arrays, weights)


def recipe_of(settings: Mapping[str, Any]) -> Recipe:
    """The recipe that the settings spell out."""
    given: dict[str, Any] = dict(settings["recipe"])
    given |= {"mean": tuple(given["mean"]), "std": tuple(given["std"])}
    return Recipe(**given)


def parts_of(settings: Mapping[str, Any], shared: Path) -> tuple[Records, Records]:
    """Training records, under the labels that the settings give some of them, and test records."""
    preprocessing = recipe_of(settings).preprocessing
    records, test = (
        load_part(settings["data"], part, preprocessing, shared=shared)
        for part in ("train", "test")
    )
    for row, label in settings["labels"].items():
        records.y[int(row)] = label
    return records, test


def members(settings: Mapping[str, Any], y: np.ndarray) -> np.ndarray:
    """Which training records the model is trained on, as n truths."""
    chosen = settings["trained_on"]
    member = np.ones(len(y), bool) if chosen is None else np.zeros(len(y), bool)
    member[rows_by(chosen, y)] = True
    # last, so that an excluded row is out of a shadow run as well
    member[rows_by(settings["excluded"], y)] = False
    return member


def model_of(settings: Mapping[str, Any], folder: Path) -> nn.Module:
    """The model of a result that kept its weights. Raises InputError when it kept none."""
    weights = folder / "weights.safetensors"
    if not weights.is_file():
        raise InputError(
            "the weights of the job that this one starts from",
            f"none in result {folder.name}",
            "Describe that job with keep_weights=True.",
        )
    # any seed: every weight is overwritten
    model = fresh(recipe_of(settings), settings["num_classes"], seed=0)
    model.load_state_dict(load_file(weights))
    return model.to(memory_format=torch.channels_last).eval()

"""What trained and unlearned cells have in common: recipe, records, members, weights.

Their settings are made by ``efface.cells.describe``, where they are explained.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file
from torch import nn

from efface.cells.data import part_of
from efface.cells.reduce import rows_by
from efface.errors import InputError
from efface.types import Records
from research.recipes import Recipe, fresh


def recipe_of(settings: Mapping[str, Any]) -> Recipe:
    """The recipe that the settings spell out."""
    given: dict[str, Any] = dict(settings["recipe"])
    for name in ("mean", "std"):
        given[name] = tuple(given[name])
    return Recipe(**given)


def parts_of(settings: Mapping[str, Any], shared: Path) -> tuple[Records, Records]:
    """Training records, under the labels that the settings give some of them, and test records."""
    preprocessing = recipe_of(settings).preprocessing
    records, test = (
        part_of(settings["data"], part, preprocessing, shared=shared) for part in ("train", "test")
    )
    for row, label in settings["labels"].items():
        records.y[int(row)] = label
    return records, test


def members(settings: Mapping[str, Any], y: np.ndarray) -> np.ndarray:
    """Which training records the model is trained on, as n truths."""
    chosen = settings["trained_on"]
    member = np.ones(len(y), bool) if chosen is None else np.zeros(len(y), bool)
    member[rows_by(chosen, y)] = True
    member[rows_by(settings["excluded"], y)] = False
    return member


def model_of(settings: Mapping[str, Any], folder: Path) -> nn.Module:
    """The model of a record that kept its weights. Raises InputError when it kept none."""
    weights = folder / "weights.safetensors"
    if not weights.is_file():
        raise InputError(
            "the weights of the cell that this one starts from",
            f"none in record {folder.name}",
            "Describe that cell with keep_weights=True.",
        )
    model = fresh(recipe_of(settings), settings["num_classes"], seed=0)
    model.load_state_dict(load_file(weights))
    return model.to(memory_format=torch.channels_last).eval()

"""The functions of cells that hold a model: ``trained`` by a recipe, ``unlearned`` from a base.

Their settings are made by ``efface.cells.describe``, where they are explained.
"""

import importlib
import json
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file
from torch import nn

from efface.cells.cell import Reduced
from efface.cells.data import part_of
from efface.cells.reduce import arrays_of, rows_by, statistics_of
from efface.errors import InputError, NotMet
from efface.guard import Guard
from efface.prepare import halves
from efface.recipes import Recipe, fresh, train
from efface.record import facts_into
from efface.types import Method, Records, Split, carry_on


def trained(settings: dict[str, Any], inputs: Mapping[str, Path], shared: Path) -> Reduced:  # noqa: ARG001
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
    found = statistics_of(
        arrays, forget=rows_by(settings["excluded"], y), leaving=settings["leaving"]
    )
    weights = model.state_dict() if settings["keep_weights"] else None
    return Reduced({**found, "training_seconds": seconds}, arrays, weights)


def unlearned(settings: dict[str, Any], inputs: Mapping[str, Path], shared: Path) -> Reduced:
    """Change the base model by a method, under the guard or without it, and measure.

    What the guard does not let pass leaves the base model, measured as such: ``outcome`` says so.
    """
    base = json.loads((inputs["base"] / "record.json").read_text())["description"]["settings"]
    records, test = parts_of(base, shared)
    y, model = records.y.numpy(), model_of(base, inputs["base"])
    member, rows = members(base, y), rows_by(settings["forget"], y)
    split = _split(settings, records, test, member=member, rows=rows)
    student, facts = _changed(settings, model, split)
    arrays = arrays_of(student, records, test, member=member)
    found = statistics_of(arrays, forget=rows, leaving=settings["leaving"])
    weights = student.state_dict() if settings["keep_weights"] else None
    return Reduced({**found, **facts}, arrays, weights)


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


def _split(
    settings: Mapping[str, Any],
    records: Records,
    test: Records,
    *,
    member: np.ndarray,
    rows: list[int],
) -> Split:
    """What the method may see: the forget records, and the parts that the settings give it."""
    stays = member.copy()
    stays[rows] = False
    whole = Split(
        records.take(rows),
        holdout=test if settings["holdout"] else None,
        retain=records.take(np.flatnonzero(stays).tolist()) if settings["retain"] else None,
        leaving=tuple(settings["leaving"]),
    )
    return halves(whole, seed=0)[0]


def _changed(
    settings: Mapping[str, Any], model: nn.Module, split: Split
) -> tuple[nn.Module, dict[str, Any]]:
    """The student (or the model, when not met), and what there is to say of the way to it."""
    method, calibration = method_at(settings["method"]), {}
    began, guard, outcome = time.perf_counter(), None, "done"
    if settings["guard"]:
        guard = Guard(
            model, split, utility_budget=settings["utility_budget"], seed=settings["seed"]
        )
    prepared = time.perf_counter()
    chosen = {**settings["method_settings"], "seed": settings["seed"]}
    with facts_into(calibration):
        try:
            student = method(model, split, watch=guard.watch if guard else carry_on, **chosen)
            changed = time.perf_counter()
            student = guard.settle(student) if guard else student
        except NotMet:
            student, outcome, changed = model, "not met", time.perf_counter()
    seconds = {
        "guard_prepared": prepared - began,
        "method": changed - prepared,
        "settled": time.perf_counter() - changed,
    }
    facts = {"outcome": outcome, "seconds": seconds, "calibration": calibration}
    return student.eval(), {**facts, "guard": guard.as_json() if guard else None}


def method_at(address: str) -> Method:
    """The method at ``package.module:function``."""
    module, name = address.split(":")
    return getattr(importlib.import_module(module), name)

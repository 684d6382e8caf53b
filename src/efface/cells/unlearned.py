"""The cell that changes a base model by a method, under the guard or without it."""

import importlib
import json
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from torch import nn

from efface.cells.cell import Reduced
from efface.cells.models import members, model_of, parts_of
from efface.cells.reduce import arrays_of, rows_by, statistics_of
from efface.errors import NotMet
from efface.guard import Guard
from efface.halves import halves
from efface.record import facts_into
from efface.trainable import closed, moving, opened
from efface.types import Method, Records, Split, carry_on


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
    trainable, seed = settings["trainable"], settings["seed"]
    start = opened(model, split.forget.take([0]), trainable, seed=seed)
    if settings["guard"]:
        budget, adapted = settings["utility_budget"], trainable == "adapter"
        guard = Guard(start, split, utility_budget=budget, adapted=adapted, seed=seed)
    prepared = time.perf_counter()
    chosen = {**settings["method_settings"], "seed": seed}
    with facts_into(calibration):
        try:
            student = method(start, split, watch=guard.watch if guard else carry_on, **chosen)
            changed = time.perf_counter()
            student = closed(guard.settle(student) if guard else student, model)
        except NotMet:
            student, outcome, changed = model, "not met", time.perf_counter()
    seconds = {
        "guard_prepared": prepared - began,
        "method": changed - prepared,
        "settled": time.perf_counter() - changed,
    }
    facts = {"outcome": outcome, "seconds": seconds, "calibration": calibration}
    facts["trainable"] = moving(start, trainable)
    return student.eval(), {**facts, "guard": guard.as_json() if guard else None}


def method_at(address: str) -> Method:
    """The method at ``package.module:function``."""
    module, name = address.split(":")
    return getattr(importlib.import_module(module), name)

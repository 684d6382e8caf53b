"""The job that changes a base model by a method, under the guard or without it."""

import importlib
import json
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from torch import nn

from efface.errors import NotMet
from efface.grid import Outcome
from efface.guard import Guard
from efface.runtime import PassCounter
from efface.trainable import count_trainable, merge_adapter, select_trainable
from efface.types import Callback, Method, Records, Split, no_callback, split_holdout
from efface.unlearn import capture_facts
from research.recipes import fresh, train
from research.reduce import arrays_of, rows_by, statistics_of
from research.trained import members, model_of, parts_of, recipe_of


def unlearned(settings: dict[str, Any], needs: Mapping[str, Path], shared: Path) -> Outcome:
    """Change the base model by a method, under the guard or without it, and measure.

    What the guard does not let pass leaves the base model, measured as such: ``outcome`` says so.
    ``passes`` are the records that went through a model on the way, those of a guard included.
    """
    base = json.loads((needs["base"] / "result.json").read_text())["description"]["settings"]
    records, test = parts_of(base, shared)
    y, model = records.y.numpy(), model_of(base, needs["base"])
    member, rows = members(base, y), rows_by(settings["forget"], y)
    counted = PassCounter(model)
    split = _split(settings, base, records, test, member=member, rows=rows, counted=counted)
    student, facts = _changed(settings, model, split, counted)
    arrays = arrays_of(student, records, test, member=member)
    found = statistics_of(arrays, forget=rows, forget_classes=settings["forget_classes"])
    weights = student.state_dict() if settings["keep_weights"] else None
    return Outcome({**found, **facts}, arrays, weights)


def _split(
    settings: Mapping[str, Any],
    base: Mapping[str, Any],
    records: Records,
    test: Records,
    *,
    member: np.ndarray,
    rows: list[int],
    counted: PassCounter,
) -> Split:
    """What the method may see: the forget records, and the parts that the settings give it.

    An untrained net and the recipe are always at hand: they are known, and tell of no record.
    """
    stays, recipe = member.copy(), recipe_of(base)
    stays[rows] = False

    def untrained(seed: int) -> nn.Module:
        return counted.attach(fresh(recipe, base["num_classes"], seed=seed))

    def by_recipe(model: nn.Module, records: Records, seed: int) -> nn.Module:
        return train(model, records, recipe, seed=seed)

    whole = Split(
        records.take(rows),
        holdout=test if settings["holdout"] else None,
        retain=records.take(np.flatnonzero(stays).tolist()) if settings["retain"] else None,
        forget_classes=tuple(settings["forget_classes"]),
        fresh=untrained,
        train=by_recipe,
    )
    return split_holdout(whole, seed=0)[0]


def _changed(
    settings: Mapping[str, Any], model: nn.Module, split: Split, counted: PassCounter
) -> tuple[nn.Module, dict[str, Any]]:
    """The student (or the model, when not met), and what there is to say of the way to it."""
    trainable, calibration = settings["trainable"], {}
    start = select_trainable(
        counted.model, split.forget.take([0]), trainable, seed=settings["seed"]
    )
    began = time.perf_counter()
    guard = _guard_of(settings, start, split) if settings["guard"] else None
    prepared, before = time.perf_counter(), counted.passes
    with capture_facts(calibration):
        try:
            raw = _run(settings, start, split, guard.callback if guard else no_callback)
            changed, after, outcome = time.perf_counter(), counted.passes, "done"
            student = merge_adapter(guard.settle(raw) if guard else raw, model)
        except NotMet:
            changed, after = time.perf_counter(), counted.passes
            student, outcome = model, "not met"
    facts = {
        "outcome": outcome,
        "seconds": {
            "guard_prepared": prepared - began,
            "method": changed - prepared,
            "settled": time.perf_counter() - changed,
        },
        "passes": {
            "forward": after.forward - before.forward,
            "backward": after.backward - before.backward,
        },
        "calibration": calibration,
        "trainable": count_trainable(start, trainable),
        "guard": guard.as_json() if guard else None,
    }
    return counted.detach(student).eval(), facts


def _guard_of(settings: Mapping[str, Any], start: nn.Module, split: Split) -> Guard:
    """The guard that a request would have."""
    adapted, budget = settings["trainable"] == "adapter", settings["utility_budget"]
    how = {"adapted": adapted, "fresh_start": settings["fresh_start"], "seed": settings["seed"]}
    return Guard(start, split, utility_budget=budget, **how)


def _run(
    settings: Mapping[str, Any], start: nn.Module, split: Split, callback: Callback
) -> nn.Module:
    """What the method makes of the model. Raises NotMet where the guard lets nothing pass."""
    method, chosen = method_at(settings["method"]), settings["method_settings"]
    return method(start, split, callback=callback, **chosen, seed=settings["seed"])


def method_at(address: str) -> Method:
    """The method at ``package.module:function``."""
    module, name = address.split(":")
    return getattr(importlib.import_module(module), name)

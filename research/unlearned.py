"""The job that changes a base model by a method, on the path that a user's request takes."""

import importlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from torch import nn

from efface.errors import NotMet
from efface.grid import JobOutput
from efface.guard import Guard
from efface.methods import METHODS, register_method
from efface.probes.linear_probe import fitted_half
from efface.probes.relearning import relearning
from efface.runtime import nonfinite_tensors, state_of
from efface.types import Records, Split
from efface.unlearn import forget
from research.own_process import reset_peak, resident
from research.recipes import fresh, train
from research.reduce import arrays_of, rows_by, statistics_of
from research.trained import members, model_of, parts_of, recipe_of

# What a result takes of the run's manifest.
KEPT = ("outcome", "seconds", "passes", "calibration", "trainable", "guard")


def unlearned(settings: dict[str, Any], needs: Mapping[str, Path], shared: Path) -> JobOutput:
    """Change the base model by a method, under the guard or without it, and measure.

    What the guard refuses is measured as the base model: ``outcome`` says so.
    ``passes`` are the records that went through a model on the way, those of a guard included.
    """
    base, other = _settings(needs["base"]), needs.get("reference")
    records, test = parts_of(base, shared)
    y, model = records.y.numpy(), model_of(base, needs["base"])
    member, rows = members(base, y), rows_by(settings["forget"], y)
    stays, recipe = member.copy(), recipe_of(base)
    stays[rows] = False

    def by_recipe(model: nn.Module, records: Records, seed: int) -> nn.Module:
        return train(model, records, recipe, seed=seed)

    split = Split(
        records.take(rows),
        holdout=test if settings["holdout"] else None,
        retain=records.take(np.flatnonzero(stays).tolist()) if settings["retain"] else None,
        forget_classes=tuple(settings["forget_classes"]),
        # An untrained model and the recipe are known, and tell of no record.
        fresh=lambda seed: fresh(recipe, base["num_classes"], seed=seed),
        train=by_recipe,
        reference=model_of(_settings(other), other) if other else None,
    )
    names = ("trainable", "utility_budget", "seed", "guard")
    request = {name: settings[name] for name in names}
    method, chosen = method_at(settings["method"]), settings["method_settings"]
    before = reset_peak()
    try:
        result = forget(model, split, method=method, settings=chosen, report="off", **request)
    # a refusal is a result of the table too: the old model, with the reason
    except NotMet as error:
        result = error.result
    peak = resident("VmHWM") - before
    arrays = arrays_of(result.model, records, test, member=member)
    found = statistics_of(arrays, forget=rows, forget_classes=settings["forget_classes"])
    facts = {name: getattr(result.manifest, name) for name in KEPT}
    if settings["probed"]:
        facts |= {"peak": peak, **probes(model, result.model, split)}
    weights = result.model.state_dict() if settings["keep_weights"] else None
    return JobOutput({**found, **facts}, arrays, weights)


def probes(given: nn.Module, model: nn.Module, split: Split) -> dict[str, Any]:
    """The guard's drift, and accuracy on forget records as a copy is trained on half of them.

    ``drift``: nats, None where the model has no finite weights; ``relearned``: after each of ``at``
    steps of Adam, on the half that is not trained on.
    """
    if nonfinite_tensors(state_of(model)):
        return {"drift": None, "relearned": None, "at": None}
    alone = Split(split.forget, forget_classes=split.forget_classes)
    drift = Guard(given, alone).drift(model)
    half = fitted_half(split.forget.y.numpy(), seed=0)
    on, other = (split.forget.take(np.flatnonzero(part).tolist()) for part in (half, ~half))
    how: dict[str, Any] = {"epochs": 5, "batch_size": 64, "every": 2, "learning_rates": (1e-4,)}
    (curve,) = relearning(model, other, on, original=1.0, **how)
    found = {"relearned": list(curve.accuracy), "at": list(curve.at)}
    return {"drift": drift if np.isfinite(drift) else None, **found}


def _settings(folder: Path) -> dict[str, Any]:
    """Those that a job's result was described by."""
    return json.loads((folder / "result.json").read_text())["description"]["settings"]


def method_at(address: str) -> str:
    """The name in ``METHODS`` of the method at ``package.module:function``, registered if new."""
    module, name = address.split(":")
    function = getattr(importlib.import_module(module), name)
    if not hasattr(function, "method") and name not in METHODS:
        reads = {"forget", "forget labels", "holdout", "retain", "forget_classes"}
        register_method(name=name, reads=reads)(function)
    return name

"""The job that attacks one model in every way of depth.py: what is left of records that are gone."""

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from torch import nn

from efface.grid import JobOutput
from efface.methods._perturb import perspective, shift_and_flip, uniforms
from efface.metrics.evaluation import Evaluation, evaluate
from efface.metrics.membership import signal_attack
from efface.probes.linear_probe import fitted_half, linear_attack, linear_probe
from efface.probes.precision import copies
from efface.probes.relearning import relearning
from efface.types import Records
from research.reduce import evidence_half, rows_by
from research.trained import model_of, parts_of

# Relearning: Adam at a small rate on one half of the forget records.
RATE, EPOCHS, BATCH, EVERY = 1e-4, 10, 64, 4

# Unseen records at most, but for the probe of embeddings and the accuracy.
UNSEEN = 500

# Draws of a view; the method's own draws are other steps of another seed.
DRAWS, SEED = 4, 77
VIEWS = ("as it is", "mirrored", "shifted by up to 4 pixels", "perspective 0.3", "perspective 0.6")


def attacked(settings: dict[str, Any], needs: Mapping[str, Path], shared: Path) -> JobOutput:
    """Every attack on one model; of a class that goes unseen records are those of the class."""
    base = json.loads((needs["base"] / "result.json").read_text())["description"]["settings"]
    model = model_of(base, needs["model"])
    records, test = parts_of(base, shared)
    forget = records.take(rows_by(settings["forget"], records.y.numpy()))
    left = np.isin(test.y.numpy(), settings["forget_classes"])
    evidence = evidence_half(test)
    staying = test.take(np.flatnonzero(evidence & ~left).tolist())
    unseen = test.take(np.flatnonzero(evidence & left).tolist()) if left.any() else staying
    unseen = unseen.take(range(min(len(unseen), UNSEEN)))
    plain = [evaluate(model, some) for some in (forget, unseen)]
    classes = (plain[0].y, plain[1].y)
    logs = [one.log_probabilities for one in plain]
    outputs = linear_attack(*logs, classes=classes[0], unseen_classes=classes[1], seed=SEED)
    # the class probe needs other classes too
    probe = linear_probe(model, forget, test.take(np.flatnonzero(evidence).tolist()), seed=SEED)
    views = [{name: seen(model, some, name) for name in VIEWS} for some in (forget, unseen)]
    dents = [_dent(one) for one in views]
    small = [copies(model, some) for some in (forget, unseen)]
    found = {
        "unseen_accuracy": float(evaluate(model, staying).accuracy.mean()),
        "relearning": relearned(model, forget),
        "probe": [probe.membership.auc, *probe.membership.auc_interval],
        "outputs": [outputs.auc, *outputs.auc_interval],
        "dent": _auc(*dents, classes=classes),
        "views": {name: _both(*(one[name] for one in views)) for name in VIEWS},
        "copies": {
            ours.name: _both([ours.evaluation], [theirs.evaluation])
            for ours, theirs in zip(*small, strict=True)
        },
    }
    return JobOutput(found)


def relearned(model: nn.Module, forget: Records) -> dict[str, list[float]]:
    """Accuracy over steps on the half that is trained on, and on the other one."""
    fit = fitted_half(forget.y.numpy(), seed=SEED)
    these, other = (forget.take(np.flatnonzero(half).tolist()) for half in (fit, ~fit))
    how: dict[str, Any] = {"epochs": EPOCHS, "batch_size": BATCH, "every": EVERY, "seed": SEED}
    curves = [
        relearning(model, some, these, original=1.0, learning_rates=(RATE,), **how)[0]
        for some in (these, other)
    ]
    named = zip(("these", "other"), (list(curve.accuracy) for curve in curves), strict=True)
    return {"at": list(curves[0].at), **dict(named)}


def seen(model: nn.Module, records: Records, view: str) -> list[Evaluation]:
    """The answers to a view of each record, one evaluation a draw."""
    drawn = 1 if view in VIEWS[:2] else DRAWS
    return [evaluate(model, viewed(records, view, draw)) for draw in range(drawn)]


def viewed(records: Records, view: str, draw: int) -> Records:
    """The records under one of ``VIEWS``."""
    x = records.x
    if view == "mirrored":
        x = x.flip(-1)
    elif view.startswith("shifted"):
        draws = uniforms(records.ids, 3, seed=SEED, step=draw)
        draws[:, 2] = 0
        x = shift_and_flip(x, draws, 4)
    elif view.startswith("perspective"):
        draws = uniforms(records.ids, 8, seed=SEED, step=draw)
        x = perspective(x, draws, float(view.split()[1]))
    return replace(records, x=x)


def _both(forget: list[Evaluation], unseen: list[Evaluation]) -> dict[str, list[float]]:
    """Mean accuracy and mean log-odds, of the forget and of the unseen records."""
    sides = (forget, unseen)
    return {
        "accuracy": [float(np.mean([e.accuracy for e in side])) for side in sides],
        "log_odds": [float(np.mean([e.logit_margin for e in side])) for side in sides],
    }


def _dent(views: dict[str, list[Evaluation]]) -> np.ndarray:
    """How far a record's own log-odds lie above those of its mirrored and shifted views."""
    around = [e.logit_margin for name in VIEWS[1:3] for e in views[name]]
    return views[VIEWS[0]][0].logit_margin - np.mean(around, axis=0)


def _auc(forget: np.ndarray, unseen: np.ndarray, *, classes: Any) -> list[float]:
    found = signal_attack(forget, unseen, classes=classes)
    return [found.auc, *found.auc_interval]

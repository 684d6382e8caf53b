"""How the defaults of both methods were chosen: on a model and forget sets that nothing scores.

    EFFACE_DATA=… python -m research.benchmarks.defaults     # writes research/results/defaults.json; about two hours

The model is the CIFAR-10 recipe at seed 1 and 16 epochs; the forget sets are the class ship and 100
random records. 3,000 training images that stay and 4,000 test images say what was lost.
"""

import json
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from efface.io.data import load_data
from efface.methods import METHODS
from efface.metrics.measure import evaluate
from efface.types import Action, Records, Split
from research.recipes import RECIPES, fresh, train

SHIP = 8
TRIALS: tuple[tuple[str, str, dict[str, float]], ...] = (
    ("ship", "neighbourhood", {}),
    ("ship", "jit", {"learning_rate": 3e-3}),
    ("ship", "jit", {"learning_rate": 3e-2}),
    ("ship", "jit", {"learning_rate": 1e-1}),
    ("random100", "neighbourhood", {}),
    ("random100", "neighbourhood", {"expected_accuracy": 0.905}),
    ("random100", "neighbourhood", {"expected_accuracy": 0.905, "learning_rate": 1e-2}),
    ("random100", "jit", {"learning_rate": 3e-3}),
    ("random100", "jit", {"learning_rate": 3e-2}),
    ("random100", "jit", {"learning_rate": 1e-1}),
)


def accuracies(model: nn.Module, parts: dict[str, Records]) -> dict[str, float]:
    """Accuracy on each part, 0 to 1."""
    return {name: float(evaluate(model, part).correct.mean()) for name, part in parts.items()}


def main() -> None:
    """Train, then one line a trial, with the accuracies after every 20 steps."""
    torch.set_num_threads(1)
    recipe = replace(RECIPES["cifar10-resnet"], epochs=16)
    folder = f"{os.environ['EFFACE_DATA']}/cifar10"
    records = load_data(folder).records(None, recipe.preprocessing)
    test = load_data(f"{folder}:test").records(range(4000), recipe.preprocessing)
    model = train(fresh(recipe, 10, seed=1), records, recipe, seed=1)
    rng = np.random.default_rng(777)
    rows = {"random100": rng.choice(50_000, 100, replace=False).tolist()}
    rows["ship"] = torch.nonzero(records.y == SHIP).flatten().tolist()
    others = np.setdiff1d(np.arange(50_000), rows["random100"])
    retain = records.take(rng.choice(others, 3000, replace=False).tolist())
    lines: list[dict[str, Any]] = []
    for task, method, settings in TRIALS:
        forget_classes = (SHIP,) if task == "ship" else ()
        parts = {"forget": records.take(rows[task])}
        for name, part in (("retain", retain), ("test", test)):
            stays = part.take(torch.nonzero(part.y != SHIP).flatten())
            parts[name] = stays if forget_classes else part
        curve: list[dict[str, float]] = []
        callback = _watching(curve, parts)
        split = Split(parts["forget"], forget_classes=forget_classes)
        student = METHODS[method].function(model, split, seed=0, callback=callback, **settings)
        lines.append({"task": task, "method": method, "settings": settings, "curve": curve})
        lines[-1] |= {"before": accuracies(model, parts), "after": accuracies(student, parts)}
        Path("research/results/defaults.json").write_text(json.dumps(lines, indent=1) + "\n")


def _watching(curve: list[dict[str, float]], parts: dict[str, Records]) -> Any:
    steps = 0

    def callback(student: nn.Module, loss: float) -> Action:
        nonlocal steps
        steps += 1
        if steps % 20 == 0:
            curve.append({"step": steps, "loss": loss, **accuracies(student, parts)})
        return Action.CONTINUE

    return callback


if __name__ == "__main__":
    main()

"""How the defaults of both methods were chosen: on a model and forget sets that nothing scores.

    EFFACE_DATA=… python benchmarks/defaults.py     # writes results/defaults.json; about two hours

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

from efface.io.dataset import open_table
from efface.methods import METHODS
from efface.recipes import RECIPES, fresh, train
from efface.scores.measure import measure
from efface.types import Records, Split, Verdict

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
    return {name: float(measure(model, part).correct.mean()) for name, part in parts.items()}


def main() -> None:
    """Train, then one line a trial, with the accuracies after every 20 steps."""
    torch.set_num_threads(1)
    recipe = replace(RECIPES["cifar10-resnet"], epochs=16)
    folder = f"{os.environ['EFFACE_DATA']}/cifar10"
    records = open_table(folder).records(None, recipe.preprocessing)
    test = open_table(f"{folder}:test").records(range(4000), recipe.preprocessing)
    model = train(fresh(recipe, 10, seed=1), records, recipe, seed=1)
    rng = np.random.default_rng(777)
    rows = {"random100": rng.choice(50_000, 100, replace=False).tolist()}
    rows["ship"] = torch.nonzero(records.y == SHIP).flatten().tolist()
    others = np.setdiff1d(np.arange(50_000), rows["random100"])
    retain = records.take(rng.choice(others, 3000, replace=False).tolist())
    lines: list[dict[str, Any]] = []
    for task, method, settings in TRIALS:
        leaving = (SHIP,) if task == "ship" else ()
        parts = {"forget": records.take(rows[task])}
        for name, part in (("retain", retain), ("test", test)):
            stays = part.take(torch.nonzero(part.y != SHIP).flatten())
            parts[name] = stays if leaving else part
        curve: list[dict[str, float]] = []
        watch = _watching(curve, parts)
        split = Split(parts["forget"], leaving=leaving)
        student = METHODS[method].function(model, split, seed=0, watch=watch, **settings)
        lines.append({"task": task, "method": method, "settings": settings, "curve": curve})
        lines[-1] |= {"before": accuracies(model, parts), "after": accuracies(student, parts)}
        Path("results/defaults.json").write_text(json.dumps(lines, indent=1) + "\n")


def _watching(curve: list[dict[str, float]], parts: dict[str, Records]) -> Any:
    steps = 0

    def watch(student: nn.Module, loss: float) -> Verdict:
        nonlocal steps
        steps += 1
        if steps % 20 == 0:
            curve.append({"step": steps, "loss": loss, **accuracies(student, parts)})
        return Verdict.GO_ON

    return watch


if __name__ == "__main__":
    main()

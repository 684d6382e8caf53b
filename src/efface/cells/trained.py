"""The cell that trains a model from fresh weights; it rests on no guard and no method."""

import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from efface.cells.cell import Reduced
from efface.cells.models import members, parts_of, recipe_of
from efface.cells.reduce import arrays_of, rows_by, statistics_of
from research.recipes import fresh, train


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
        arrays, forget=rows_by(settings["excluded"], y), forget_classes=settings["forget_classes"]
    )
    weights = model.state_dict() if settings["keep_weights"] else None
    return Reduced({**found, "training_seconds": seconds}, arrays, weights)

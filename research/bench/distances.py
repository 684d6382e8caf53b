"""The job that measures how far unseen records lie from what goes, in the base model's embeddings."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from efface.grid import JobOutput
from efface.methods._head import embed
from research.reduce import rows_by
from research.trained import model_of, parts_of


def distances(settings: dict[str, Any], needs: Mapping[str, Path], shared: Path) -> JobOutput:
    """``distance`` (n): cosine distance of each test record to the nearest one that goes, 0 to 2."""
    described = json.loads((needs["base"] / "result.json").read_text())["description"]["settings"]
    model, (train, test) = model_of(described, needs["base"]), parts_of(described, shared)
    going = train.take(rows_by(settings["forget"], train.y.numpy()))
    ours, theirs = (_unit(embed(model, records).x.double().numpy()) for records in (test, going))
    # in parts: the whole product of ten thousand and a thousand is 80 MB
    parts = [1 - (part @ theirs.T).max(axis=1) for part in np.array_split(ours, 20)]
    return JobOutput({}, {"distance": np.concatenate(parts).astype(np.float32)})


def _unit(rows: np.ndarray) -> np.ndarray:
    return rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-12)

"""An experiment, to be written."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from efface.geometry.experiment import Counting
from efface.types import in_silence


def experiment(
    out: Path,  # noqa: ARG001
    *,
    seeds: Sequence[int],
    progress: Counting = in_silence,  # noqa: ARG001
) -> dict[str, Any]:
    """Nothing yet."""
    return {"seeds": len(seeds)}

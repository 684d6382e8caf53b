"""A request to the default method as a user makes it, and what it took."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from torch import nn

from efface.errors import NotMet
from efface.types import Split
from efface.unlearn import forget


def timed_forget(
    model: nn.Module, split: Split, **options: Any
) -> tuple[nn.Module, dict[str, Any]]:
    """The new model, the given one where the guard refused, and facts.

    Facts: ``outcome``, and whether it is ``refused``; ``placed``: mean log-odds of the targets; CPU
    seconds of the ``method``, with what the guard does at its steps, and of the whole ``request``;
    ``passes``: records that went ``forward`` and ``backward``, and through the ``guard``.
    """
    seconds: dict[str, float] = {}

    @contextmanager
    def clock(title: str, steps: int | None) -> Iterator[Callable[..., None]]:  # noqa: ARG001
        # the display of a stage is open while it runs, and no longer
        start = time.process_time()
        try:
            yield lambda *_, **__: None
        finally:
            if title == "method":
                seconds[title] = time.process_time() - start

    began = time.process_time()
    try:
        result = forget(
            model, split, method="neighbourhood", report="off", progress=clock, **options
        )
    except NotMet as error:
        result = error.result
    seconds["request"] = time.process_time() - began
    manifest = result.manifest
    passes = {**(manifest.passes or {}), "guard": (manifest.guard or {}).get("passes", 0)}
    facts = {"outcome": str(result.outcome), "refused": not result.outcome.has_new_model}
    facts |= {"placed": manifest.calibration.get("placed"), "seconds": seconds, "passes": passes}
    return result.model, facts

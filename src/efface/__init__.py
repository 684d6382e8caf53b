"""Make a trained model forget records, with an honest account of how far that succeeded."""

import importlib
import typing

if typing.TYPE_CHECKING:
    from efface.io.dataset import load_data, read_ids
    from efface.io.features import FeatureSpec
    from efface.io.model import load_model
    from efface.io.preprocessing import Preprocessing
    from efface.pair import score
    from efface.ranking import Inspection, inspect
    from efface.report import Evidence
    from efface.request import Result, forget
    from efface.terminal import show_progress
    from efface.types import Records, Split

__version__ = "0.1.0"

__all__ = [
    "Evidence",
    "FeatureSpec",
    "Inspection",
    "Preprocessing",
    "Records",
    "Result",
    "Split",
    "__version__",
    "forget",
    "inspect",
    "load_model",
    "load_data",
    "read_ids",
    "score",
    "show_progress",
]

_HOMES = {
    "Evidence": "efface.report",
    "FeatureSpec": "efface.io.features",
    "Inspection": "efface.ranking",
    "Preprocessing": "efface.io.preprocessing",
    "Records": "efface.types",
    "Result": "efface.request",
    "Split": "efface.types",
    "forget": "efface.request",
    "inspect": "efface.ranking",
    "load_model": "efface.io.model",
    "load_data": "efface.io.dataset",
    "read_ids": "efface.io.dataset",
    "score": "efface.pair",
    "show_progress": "efface.terminal",
}


def __getattr__(name: str) -> typing.Any:
    """Import a public name when it is first asked for: ``efface --help`` needs no torch."""
    if name in _HOMES:
        return getattr(importlib.import_module(_HOMES[name]), name)
    raise AttributeError(f"module 'efface' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)

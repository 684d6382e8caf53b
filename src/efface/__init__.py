"""Machine unlearning for PyTorch: a model that forgets records, and a report of how far it did.

Every public name stands here and is loaded when it is first used: ``efface --help`` loads no torch.
"""

import importlib
import typing

if typing.TYPE_CHECKING:
    from efface.errors import (
        Differs,
        EffaceError,
        Hazard,
        InputError,
        MissingExtra,
        NotMet,
        OutputError,
        UnknownRecords,
        UnsafeFile,
    )
    from efface.hazards import doctor
    from efface.io.data import load_data, read_ids
    from efface.io.features import FeatureSpec
    from efface.io.images import Preprocessing
    from efface.io.models import load_model
    from efface.manifest import Manifest
    from efface.methods import METHODS, register_method
    from efface.ranking.ranking import Ranking
    from efface.ranking.run import inspect
    from efface.report import Evidence
    from efface.terminal import show_progress
    from efface.types import Records, Split, Task
    from efface.unlearn import Result, forget, score

__version__ = "0.1.0"

_NAMES = {
    "efface.errors": (
        "Differs EffaceError Hazard InputError MissingExtra NotMet OutputError UnknownRecords "
        "UnsafeFile"
    ),
    "efface.hazards": "doctor",
    "efface.io.data": "load_data read_ids",
    "efface.io.features": "FeatureSpec",
    "efface.io.models": "load_model",
    "efface.io.images": "Preprocessing",
    "efface.manifest": "Manifest",
    "efface.methods": "METHODS register_method",
    "efface.ranking.ranking": "Ranking",
    "efface.ranking.run": "inspect",
    "efface.report": "Evidence",
    "efface.terminal": "show_progress",
    "efface.types": "Records Split Task",
    "efface.unlearn": "Result forget score",
}
_HOMES = {name: home for home, names in _NAMES.items() for name in names.split()}

__all__ = [  # noqa: PLE0604  # a table of names, of which a test proves that all can be imported
    "__version__",
    *_HOMES,
]


def __getattr__(name: str) -> typing.Any:
    """A public name, imported on first use (PEP 562)."""
    if name in _HOMES:
        return getattr(importlib.import_module(_HOMES[name]), name)
    raise AttributeError(f"module 'efface' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)

"""Machine unlearning for PyTorch: a model that forgets records, and a report of how far it did.

Every public name stands here; what needs torch is loaded when it is first used.
"""

import importlib
import typing

if typing.TYPE_CHECKING:  # what editors and type checkers see of the names below
    from efface.comparison.result import Comparison
    from efface.comparison.run import compare
    from efface.errors import (
        Differs,
        EffaceError,
        Hazard,
        InputError,
        MissingExtra,
        NotMet,
        Outcome,
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
    from efface.publishing import add_to_model_card, log_to_mlflow
    from efface.ranking.ranking import Ranking
    from efface.ranking.run import inspect
    from efface.report import Report
    from efface.terminal import show_progress
    from efface.testing import check_method
    from efface.types import Records, Split, Task
    from efface.unlearn import Result, forget, score

__version__ = "0.1.0"

_LAZY = {
    "comparison.result": "Comparison",
    "comparison.run": "compare",
    "errors": "Differs EffaceError Hazard InputError MissingExtra NotMet Outcome OutputError "
    "UnknownRecords UnsafeFile",
    "hazards": "doctor",
    "io.data": "load_data read_ids",
    "io.features": "FeatureSpec",
    "io.models": "load_model",
    "io.images": "Preprocessing",
    "manifest": "Manifest",
    "methods": "METHODS register_method",
    "publishing": "add_to_model_card log_to_mlflow",
    "ranking.ranking": "Ranking",
    "ranking.run": "inspect",
    "report": "Report",
    "terminal": "show_progress",
    "testing": "check_method",
    "types": "Records Split Task",
    "unlearn": "Result forget score",
}
_HOMES = {name: home for home, names in _LAZY.items() for name in names.split()}

__all__ = ["__version__", *_HOMES]


def __getattr__(name: str) -> typing.Any:
    """A public name, imported on first use (PEP 562): ``efface --help`` loads no torch."""
    if name in _HOMES:
        return getattr(importlib.import_module(f"efface.{_HOMES[name]}"), name)
    raise AttributeError(f"module 'efface' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)

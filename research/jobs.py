"""Jobs with models, described in a call each: ``training`` (base, retrained), ``unlearning``."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from efface.grid import Job
from efface.methods import METHODS
from research.data import data_set, num_classes_of
from research.recipes import Recipe, named

# Which rows: ``{"rows": [...]}``, ``{"class": 5}`` or ``{"random": 500, "seed": 1}``.
Rule = Mapping[str, Any]


def training(
    recipe: str | Recipe,
    data: str,
    *,
    first: int | None = None,
    label_column: str | None = None,
    trained_on: Rule | None = None,
    excluded: Rule | None = None,
    forget_classes: Sequence[int] = (),
    labels: Mapping[int, int] | None = None,
    seed: int = 0,
    keep_weights: bool = False,
) -> Job:
    """A model trained from fresh weights: the base, or without ``excluded`` the retrained one.

    Args:
        recipe: by name, or of one's own.
        data: ``digits``, or a folder of the folder that ``EFFACE_DATA`` names.
        first: only so many training records, from the first row.
        label_column: which labels, when the data have several.
        trained_on: only these rows (a shadow model); all when not given.
        excluded: not these rows: the request that is retrained for.
        forget_classes: the classes that this request removes altogether.
        labels: other labels for some rows, by row.
        seed: of weights and order.
        keep_weights: another job starts from this one.
    """
    spelled = asdict(named(recipe) if isinstance(recipe, str) else recipe)
    settings = {
        "recipe": spelled,
        "data": data_set(data, label_column=label_column, first=first),
        "num_classes": num_classes_of(data, label_column=label_column),
        "trained_on": trained_on,
        "excluded": excluded,
        "forget_classes": list(forget_classes),
        "labels": {str(row): label for row, label in (labels or {}).items()},
        "seed": seed,
        "keep_weights": keep_weights,
    }
    kind = f"trained {spelled['architecture']} {data}"
    return Job("research.trained:trained", settings, kind=kind)


def seen_by(method: str) -> dict[str, Any]:
    """Whether a comparison gives a method the holdout and the records that stay: what it reads.

    ``neighbourhood`` is compared without records that stay: it is a method for those who lack them.
    A function that is no registered method may read all.
    """
    reads = METHODS[method].reads if method in METHODS else {"holdout", "retain"}
    retain = "retain" in reads and method != "neighbourhood"
    return {"holdout": "holdout" in reads, "retain": retain}


def unlearning(
    base: Job,
    method: str,
    *,
    forget: Rule,
    forget_classes: Sequence[int] = (),
    holdout: bool = False,
    retain: bool = False,
    reference: Job | None = None,
    guard: bool = True,
    trainable: str = "all",
    utility_budget: float = 0.02,
    seed: int = 0,
    keep_weights: bool = False,
    probed: bool = False,
    **method_settings: Any,
) -> Job:
    """A model that a method made of a base job's (which keeps its weights).

    Args:
        base: a ``training`` job with ``keep_weights``.
        method: a name in ``METHODS``, or ``package.module:function`` of the same form.
        forget: the rows that must go.
        forget_classes: classes that go altogether.
        holdout: method and guard see the first half of the test records.
        retain: the method may see the trained records that stay.
        reference: a ``training`` job with ``keep_weights``: the method may see its model.
        guard: under the guard, or without it.
        trainable: which weights may move, as in ``efface.forget``.
        utility_budget: the guard's.
        seed: of method and guard.
        keep_weights: another job starts from this one.
        probed: with the peak of memory, the guard's drift, and how soon the records are relearned.
        **method_settings: what is not the method's default.
    """
    known = METHODS.get(method)
    settings = {
        "method": f"{known.function.__module__}:{method}" if known else method,
        "method_settings": method_settings,
        "forget": forget,
        "forget_classes": list(forget_classes),
        "holdout": holdout,
        "retain": retain,
        "guard": guard,
        "trainable": trainable,
        "utility_budget": utility_budget,
        "seed": seed,
        "keep_weights": keep_weights,
        "probed": probed,
    }
    kind = f"{method} from {base.kind.removeprefix('trained ')}"
    needs = {"base": base} | ({"reference": reference} if reference else {})
    return Job("research.unlearned:unlearned", settings, needs=needs, kind=kind)

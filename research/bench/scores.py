"""What a cell is scored by, from the arrays of its models alone.

The reference of every column is the model retrained without the records: each is a distance to it,
or stands next to its value. ``Reference`` holds what a request's retrained models come to, and
``score`` the columns of one model; ``floors`` are a retrained model's own, next to the others.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from scipy.stats import ks_2samp

from efface.grid import JobResult, read
from efface.metrics.equivalence import placements, share_below
from efface.metrics.retrain_gap import gap
from research.bench.tasks import Request
from research.reduce import Arrays, columns_of, right, rows_by, statistics_of

# unseen records near what goes: this share of them
NEAR = 0.1
# unseen records of the attack's classes for a TPR at 1 %
ENOUGH = 200
# classes of fewer unseen records have no accuracy worth a maximum
CLASS_RECORDS = 20


@dataclass(frozen=True, eq=False)
class Reference:
    """A request's base and retrained models, as arrays; ``near``: unseen records near what goes."""

    request: Request
    base: Arrays
    retrained: tuple[Arrays, ...]
    near: np.ndarray

    @classmethod
    def of(cls, request: Request, store: str, *, searched: bool = False) -> "Reference":
        """From a store that holds the models and ``near``; ``searched``: see ``other_half``."""
        models = [read(store, job).arrays for job in (request.base, *request.retrained)]
        models = [other_half(one) for one in models] if searched else models
        base, *retrained = models
        distance = read(store, near(request)).arrays["distance"].astype(np.float64)
        here = _unseen(base, request.forget_classes)
        limit = np.quantile(distance[here], NEAR)
        return cls(request, base, tuple(retrained), here & (distance <= limit))

    @cached_property
    def rows(self) -> np.ndarray:
        """Of train, those that go."""
        return np.asarray(rows_by(self.request.forget, self.base["train.y"]))

    def columns(self, arrays: Arrays) -> dict[str, float]:
        """D_r, D_f and the entropy attack of one model, as in the paper."""
        classes = self.request.forget_classes
        found = statistics_of(arrays, forget=self.rows.tolist(), forget_classes=classes)
        return columns_of(found, forget_classes=bool(classes))

    @cached_property
    def target(self) -> dict[str, float]:
        """The mean of the retrained models' columns."""
        return _mean([self.columns(one) for one in self.retrained])


def other_half(arrays: Arrays) -> Arrays:
    """The arrays with the halves of the test records swapped: no search sees what scores."""
    return {**arrays, "test.evidence": ~arrays["test.evidence"].astype(bool)}


def near(request: Request) -> Any:
    """The job that says how far each unseen record lies from what goes."""
    from efface.grid import Job

    settings = {"forget": request.forget}
    address = "research.bench.distances:distances"
    return Job(address, settings, needs={"base": request.base}, kind="distances")


def score(reference: Reference, model: Arrays, others: Sequence[Arrays] = ()) -> dict[str, Any]:
    """Every column of one model; ``others``: the retrained models that it is next to, or all.

    ``gap``: mean absolute difference of the paper's three columns, 0 to 1. ``ks``: distance of the
    forget records' log-odds to a retrained model's, mean. ``unseen``: accuracy on unseen records
    whose class stays. ``worst_class``: the largest loss of a class next to the retrained models,
    and ``near``, that of the tenth of unseen records most like what goes; ``rest`` of the others
    (points of accuracy, signed). ``auc``, ``tpr``: an attacker per record who has the retrained
    models, forget records against unseen ones; .5 and .01 for a retrained one. None where not finite.
    """
    others = others or reference.retrained
    if not all(np.isfinite(model[f"{part}.log_odds"]).all() for part in ("train", "test")):
        return {"finite": False, "gap": None}
    classes, rows = reference.request.forget_classes, reference.rows
    columns, here = reference.columns(model), _unseen(model, classes)
    if None in columns.values():
        return {"finite": False, "gap": None}
    theirs = _mean([reference.columns(one) for one in others])
    lost = {
        name: float(np.mean([_accuracy(model, part) - _accuracy(one, part) for one in others]))
        for name, part in (("near", reference.near), ("rest", here & ~reference.near))
    }
    stays = reference.base["train.member"].astype(bool)
    stays[rows] = False
    return {
        "finite": True,
        "columns": columns,
        "gap": gap(columns, theirs),
        "ks": float(np.mean([_apart(model, one, rows) for one in others])),
        "retained": float(right(model, "train")[stays].mean()),
        "unseen": _accuracy(model, here),
        "worst_class": _worst(model, others, here),
        **lost,
        **_attack(reference, model, others),
    }


def floors(reference: Reference) -> list[dict[str, Any]]:
    """The columns of each retrained model next to the others; none with one alone."""
    models = reference.retrained
    pairs = [(one, [o for o in models if o is not one]) for one in models] if models[1:] else []
    return [score(reference, one, others) for one, others in pairs]


def costs(found: JobResult, count: int) -> dict[str, Any]:
    """Passes a record to forget, seconds, peak of memory, and what the probes saw."""
    facts = found.statistics
    return {
        "passes": {name: value / count for name, value in facts["passes"].items()},
        "seconds": facts["seconds"]["method"],
        "peak": facts["peak"],
        "drift": facts["drift"],
        "relearned": facts["relearned"] and facts["relearned"][-1],
        "outcome": str(facts["outcome"]),
    }


def _attack(reference: Reference, model: Arrays, others: Sequence[Arrays]) -> dict[str, Any]:
    """An attacker per record: log-odds of the label less their mean in the retrained models.

    Difficulty calibration, Watson et al., https://arxiv.org/abs/2111.08440. Compared class by
    class. Why not RMIA: docs/decisions/0015.
    """
    rows, (y, test_y) = (
        reference.rows,
        (model[f"{p}.y"].astype(np.int64) for p in ("train", "test")),
    )
    against = model["test.evidence"].astype(bool) & np.isin(test_y, y[rows])
    ours, theirs = (
        _calibrated(model, others, part)[where]
        for part, where in (("train", rows), ("test", against))
    )
    places = placements(ours, theirs, classes=y[rows], unseen_classes=test_y[against])
    tpr = float((share_below(ours, theirs) > 0.99).mean()) if against.sum() >= ENOUGH else None  # noqa: PLR2004
    return {"auc": float(np.nanmean(places)), "tpr": tpr}


def _calibrated(model: Arrays, others: Sequence[Arrays], part: str) -> np.ndarray:
    name = f"{part}.log_odds"
    expected = np.mean([one[name].astype(np.float64) for one in others], axis=0)
    return model[name].astype(np.float64) - expected


def _worst(model: Arrays, others: Sequence[Arrays], here: np.ndarray) -> float | None:
    """The lowest difference of accuracy to the retrained models over the classes that stay."""
    y = model["test.y"]
    parts = [here & (y == label) for label in np.unique(y[here])]
    found = [
        np.mean([_accuracy(model, part) - _accuracy(one, part) for one in others])
        for part in parts
        if part.sum() >= CLASS_RECORDS
    ]
    return float(min(found)) if found else None


def _unseen(arrays: Arrays, forget_classes: Sequence[int]) -> np.ndarray:
    return arrays["test.evidence"].astype(bool) & ~np.isin(arrays["test.y"], list(forget_classes))


def _accuracy(arrays: Arrays, rows: np.ndarray) -> float:
    return float(right(arrays, "test")[rows].mean())


def _apart(one: Arrays, other: Arrays, rows: np.ndarray) -> float:
    name = "train.log_odds"
    return float(ks_2samp(one[name][rows], other[name][rows]).statistic)


def _mean(columns: Sequence[Mapping[str, float]]) -> dict[str, float]:
    return {name: float(np.mean([one[name] for one in columns])) for name in columns[0]}

"""From a model to arrays of half precision, and from these arrays alone to every statistic.

Arrays of each part (``train``, ``test``) by name, n records in the order of the data:
``PART.margin`` the logit of the label minus the largest other one, ``PART.log_odds`` of the label
(ln p - ln(1-p)), ``PART.entropy`` in nats, ``PART.y`` the labels; ``train.member``: trained on;
``test.evidence``: the half that neither a method nor a guard has seen.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Int64
from torch import nn

from efface.metrics.evaluation import Evaluation, evaluate
from efface.metrics.membership import entropy_attack
from efface.types import Records, Split, split_holdout

Arrays = Mapping[str, np.ndarray]


def arrays_of(
    model: nn.Module, train: Records, test: Records, *, member: Bool[np.ndarray, " n"]
) -> dict[str, np.ndarray]:
    """Measure a model on all records of both parts."""
    evidence = evidence_half(test)
    found = {"train.member": member, "test.evidence": evidence}
    for part, records in (("train", train), ("test", test)):
        measured = evaluate(model, records)
        found[f"{part}.y"] = measured.y.astype(np.int16)
        with np.errstate(invalid="ignore", over="ignore"):  # a model of nan is measured too
            # half precision: arrays of hundreds of models stay small, no table shows the difference
            for name, values in _each(measured).items():
                found[f"{part}.{name}"] = values.astype(np.float16)
    return found


def evidence_half(test: Records) -> Bool[np.ndarray, " n"]:
    """Which test records are left to the evidence; the others are the method's and the guard's."""
    ours = set(split_holdout(Split(None, test), seed=0)[1].holdout.ids)
    return np.array([identity in ours for identity in test.ids])


def _each(measured: Evaluation) -> dict[str, Float[np.ndarray, " n"]]:
    rows = np.arange(len(measured))
    others = measured.logits.astype(np.float64)
    own = others[rows, measured.y].copy()
    # the label is no rival of itself
    others[rows, measured.y] = -np.inf
    margin = own - others.max(axis=1)
    return {"margin": margin, "log_odds": measured.logit_margin, "entropy": measured.entropy}


def statistics_of(
    arrays: Arrays, *, forget: Sequence[int] | None = None, forget_classes: Sequence[int] = ()
) -> dict[str, Any]:
    """Accuracies, losses and the entropy attack, for any rows to forget: see the names.

    ``forget``: rows of train, trained on or not; ``retain`` are the trained ones that are not among
    them. ``test_staying`` and ``test_forget`` are of the evidence's half, the latter in
    ``forget_classes``.
    ``attack``: the entropy attack on the forget records, None without any or when an entropy is not
    finite. A part without records has None.
    """
    # a mask and not a list: the request may name rows that the model was not trained on
    going = np.zeros(len(arrays["train.y"]), bool)
    going[list(forget or ())] = True
    evidence = arrays["test.evidence"].astype(bool)
    left = np.isin(arrays["test.y"], list(forget_classes))
    parts = {
        "retain": ("train", arrays["train.member"].astype(bool) & ~going),
        "forget": ("train", going),
        "test_staying": ("test", evidence & ~left),
        "test_forget": ("test", evidence & left),
    }
    accuracy = {name: _mean(right(arrays, part)[rows]) for name, (part, rows) in parts.items()}
    losses = {name: _mean(loss(arrays, part)[rows]) for name, (part, rows) in parts.items()}
    finite = all(np.isfinite(arrays[f"{part}.margin"]).all() for part in ("train", "test"))
    return {
        "n": {name: int(rows.sum()) for name, (_, rows) in parts.items()},
        "accuracy": accuracy,
        "loss": losses,
        "attack": _attack(arrays, parts["retain"][1], evidence, going),
        "finite": finite,
    }


def columns_of(statistics: Mapping[str, Any], *, forget_classes: bool) -> dict[str, float]:
    """The paper's D_r, D_f and attack, as ``efface.metrics.retrain_gap.columns`` names them."""
    accuracy = statistics["accuracy"]
    # committed records of schema 1 say test_leaving
    whole = accuracy.get("test_forget", accuracy.get("test_leaving"))
    forget = whole if forget_classes else accuracy["forget"]
    return {
        "retain": accuracy["test_staying"], "forget": forget, "attack": statistics["attack"],
    }  # fmt: skip


def right(arrays: Arrays, part: str) -> Float[np.ndarray, " n"]:
    """1 where the label has the largest logit, else 0."""
    return (arrays[f"{part}.margin"] > 0).astype(np.float64)


def loss(arrays: Arrays, part: str) -> Float[np.ndarray, " n"]:
    """Cross-entropy of the label in nats: ln(1 + exp(-log_odds))."""
    with np.errstate(invalid="ignore"):  # a model of nan has losses of nan
        return np.logaddexp(0, -arrays[f"{part}.log_odds"].astype(np.float64))


def _attack(
    arrays: Arrays,
    retain: Bool[np.ndarray, " n"],
    evidence: Bool[np.ndarray, " m"],
    going: Bool[np.ndarray, " n"],
) -> float | None:
    train, test = (arrays[f"{part}.entropy"].astype(np.float64) for part in ("train", "test"))
    if not (going.any() and retain.any()) or not np.isfinite([*train, *test]).all():
        return None
    return entropy_attack(train[retain], test[evidence], train[going])


def _mean(values: Float[np.ndarray, " n"]) -> float | None:
    """The mean; None without values or when it is not finite: JSON has no nan."""
    mean = float(values.mean()) if len(values) else np.nan
    return mean if np.isfinite(mean) else None


def rows_by(rule: Mapping[str, Any] | None, y: Int64[np.ndarray, " n"] | np.ndarray) -> list[int]:
    """The rows that a rule of the settings names, rising; none without a rule.

    ``{"rows": [...]}``, ``{"class": 5}``, ``{"random": 500, "seed": 1}``, and with ``"of": [...]``
    the random ones of these rows.
    """
    if rule is None:
        return []
    if "rows" in rule:
        return sorted(rule["rows"])
    if "class" in rule:
        return np.flatnonzero(y == rule["class"]).tolist()
    of = np.arange(len(y)) if rule.get("of") is None else np.asarray(rule["of"])
    return sorted(
        np.random.default_rng(rule["seed"]).choice(of, rule["random"], replace=False).tolist()
    )

"""What the page's tables and figures show: records, classes, tensors, distributions."""

from typing import Any

import numpy as np

from efface.report import answers, moved, unseen
from efface.report.facts import Facts, Pair

FEW = 30
"""So few records stand in a figure one by one, not as bars."""


def _records(facts: Facts, *, new: bool) -> list[dict[str, Any]]:
    """One entry for each forget record, in the request's order."""
    before, after = facts.forget.before, facts.forget.after
    sides = {"before": before} | ({"after": after} if new else {})
    entries: list[dict[str, Any]] = [
        {"id": i, "label": answers.told(facts, y)}
        for i, y in zip(before.ids, before.y, strict=True)
    ]
    for side, measured in sides.items():
        places = _places(facts, side)
        for row, entry in enumerate(entries):
            entry.update(answers.of_record(facts, measured, row, side=side))
            entry[f"margin_{side}"] = float(measured.margin[row])
            entry[f"placement_{side}"] = None if places is None else float(places[row])
    return entries


def _places(facts: Facts, side: str) -> np.ndarray | None:
    if not facts.has_unseen:
        return None
    try:
        return unseen.likeness_of(facts, side)[0]
    except Exception:  # noqa: BLE001  # the row of the same test says why
        return None


def _per_class(facts: Facts, *, new: bool) -> list[dict[str, Any]]:
    """Accuracy of each class on each set of records that is at hand."""
    if not facts.of_classes:
        return []
    sets = {"forget": facts.forget}
    for name in ("holdout", "retain"):
        if getattr(facts.split, name) is not None:
            sets[name] = getattr(facts, name)
    labels = sorted({int(c) for pair in sets.values() for c in np.unique(pair.before.y)})
    return [
        {"class": c, "name": facts.name(c), "forget_classes": c in facts.forget_classes}
        | {key: value for name, pair in sets.items() for key, value in _of(c, name, pair, new)}
        for c in labels
    ]


def _of(label: int, name: str, pair: Pair, new: bool) -> list[tuple[str, Any]]:
    own = pair.before.y == label
    if not own.any():
        return [(f"{name}_n", 0)]
    known = [
        (f"{name}_n", int(own.sum())),
        (f"{name}_before", float(pair.before.correct[own].mean())),
    ]
    return known + [(f"{name}_after", float(pair.after.correct[own].mean()))] * new


def _tensors(facts: Facts, *, new: bool) -> list[dict[str, Any]]:
    there = new and moved.same_net(facts.old, facts.new)
    return moved.tensors(facts.old, facts.new) if there else []


def _arrays(facts: Facts, *, new: bool) -> dict[str, Any]:
    """Histograms of margin and entropy: forget before and after, unseen ones of their classes."""
    drawn = {"forget_before": facts.forget.before}
    if new:
        drawn["forget_after"] = facts.forget.after
    if facts.has_unseen and len(facts.rivals):
        drawn["unseen"] = facts.rivals.after
    kinds = ("margin", "entropy") if facts.of_classes else ("margin",)
    return {what: _histogram(facts, drawn, what) for what in kinds} | {"kind": facts.kind}


def _histogram(facts: Facts, drawn: dict[str, Any], what: str, bins: int = 30) -> dict[str, Any]:
    """Counts between shared edges; the values themselves where a kind has few records."""
    values = {name: getattr(facts.seen_by_attack(m), what) for name, m in drawn.items()}
    whole = np.concatenate([*values.values()])
    low, high = float(whole.min()), float(whole.max())
    edges = np.linspace(low, high if high > low else low + 1, bins + 1)
    return {
        "edges": edges.tolist(),
        "counts": {name: np.histogram(v, edges)[0].tolist() for name, v in values.items()},
        "values": {name: v.tolist() for name, v in values.items() if len(v) <= FEW},
        "n": {name: len(v) for name, v in values.items()},
        "mean": {name: float(v.mean()) for name, v in values.items()},
    }


PARTS = (
    ("records", _records),
    ("per_class", _per_class),
    ("tensors", _tensors),
    ("arrays", _arrays),
)
"""What each part is called in the evidence, and what makes it."""

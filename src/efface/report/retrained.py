"""Beside models retrained without the records (tier T3): how near, and how near can be expected?

A retrained model is not one model: with another seed it is another. So each distance of the new
model to the retrained ones stands beside the distances of these to one another.
"""

from collections.abc import Callable, Mapping, Sequence
from itertools import combinations
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from efface.metrics.equivalence import outlier_p
from efface.metrics.gap import columns, floor, gap
from efface.metrics.indistinguishability import ks
from efface.metrics.measure import Evaluation
from efface.report.facts import Facts, NotRun, Pair
from efface.report.rows import LOOK, PLAIN, Row, count

ENOUGH = 8
"""With so many retrained models another one is farther from them, on the mean, than any two of them
are from each other in at most 3 of 100 draws (normal values, 1 to 30 dimensions); with 3 of them it
is in 23."""

COLUMN_NAMES = {
    "retain": "D_r: accuracy on unseen records",
    "forget": "D_f: accuracy on what is forgotten",
    "attack": "MIA: forget records that the entropy attack takes for members",
}
PART_NAMES = {
    "forget": "the forget records",
    "holdout": "the holdout",
    "retain": "the records that stay",
}
UNKNOWN_FLOOR = "One retrained model: how far two would be from each other is not known."


def column_rows(facts: Facts) -> list[Row]:
    """The paper's three columns of old, new and retrained, and the mean distance over them."""
    if not {"holdout", "retain"} <= facts.at_hand:
        raise NotRun("needs a holdout and records that stay")
    left = np.isin(facts.holdout.before.y, list(facts.forget_classes))
    if left.all() or (facts.forget_classes and not left.any()):
        raise NotRun("needs unseen records of classes that stay and of those that leave")
    old, new = (
        columns(*(getattr(p, side) for p in _pairs(facts)), forget_classes=facts.forget_classes)
        for side in ("before", "after")
    )
    parts = facts.retrained_on
    them = [
        columns(*given, forget_classes=facts.forget_classes)
        for given in zip(parts["forget"], parts["holdout"], parts["retain"], strict=True)
    ]
    mean = {name: float(np.mean([one[name] for one in them])) for name in new}
    rows = [_column_row(name, old, new, [one[name] for one in them]) for name in new]
    return [*rows, _gap_row(old, new, mean, them)]


def _pairs(facts: Facts) -> tuple[Pair, Pair, Pair]:
    return facts.forget, facts.holdout, facts.retain


def _column_row(
    name: str, old: dict[str, float], new: dict[str, float], them: Sequence[float]
) -> Row:
    each = ", ".join(f"{100 * value:.1f}" for value in them)
    return Row(
        key=f"retrained.{name}",
        name=COLUMN_NAMES[name],
        section="retrained",
        tier="T3",
        before=old[name],
        after=new[name],
        target=float(np.mean(them)),
        verdict="described",
        note=f"Target: the mean of {count(len(them), 'retrained model')} ({each} %).",
    )


def _gap_row(
    old: dict[str, float],
    new: dict[str, float],
    mean: dict[str, float],
    them: Sequence[dict[str, float]],
) -> Row:
    verdict, status, told = _judged(gap, new, them)
    return Row(
        p=_rare(gap, new, them),
        key="retrained.gap",
        name="Gap: mean distance of the three columns to retrained; target: the floor",
        section="retrained",
        tier="T3",
        before=gap(old, mean),
        after=gap(new, mean),
        target=floor(them) if len(them) > 1 else None,
        unit="distance",
        verdict=verdict,
        status=status,
        note=told,
    )


def shared_rows(facts: Facts) -> list[Row]:
    """Layers that the new model has in common with the old one, and no retrained model has."""
    old = dict(facts.old.named_parameters())
    kept = _as_in(old, facts.new)
    theirs = [_as_in(old, model) for model in facts.retrained]
    alone = [name for name in old if name in kept and not any(name in one for one in theirs)]
    return [
        Row(
            key="retrained.shared",
            name="Tensors that are the old model's to the bit, and no retrained model's",
            section="retrained",
            tier="T3",
            after=len(alone) / len(old) if old else 0.0,
            target=0.0,
            verdict="what these hold was not touched" if alone else "none",
            status=LOOK if alone else PLAIN,
            note=f"{len(alone)} of {count(len(old), 'tensor')}. {', '.join(alone[:5])}".strip(),
            p=0.0 if alone else None,
        )
    ]


def _as_in(old: Mapping[str, Tensor], model: nn.Module) -> set[str]:
    found = dict(model.named_parameters())
    return {name for name, weight in old.items() if name in found and _same(weight, found[name])}


def _same(one: Tensor, other: Tensor) -> bool:
    return one.shape == other.shape and bool(torch.equal(one.cpu(), other.cpu()))


def distance_rows(facts: Facts) -> list[Row]:
    """How far the distributions of entropy and margin are, and how often the answers agree."""
    kinds = ("entropy", "margin") if facts.of_classes else ("margin",)
    rows = [_spread_row(facts, part, what) for part in facts.retrained_on for what in kinds]
    if facts.of_classes:
        rows += [_agreement_row(facts, part) for part in facts.retrained_on]
    return rows


def _spread_row(facts: Facts, part: str, what: str) -> Row:
    """Kolmogorov-Smirnov distances of one quantity on one part, between models."""

    def apart(one: Evaluation, other: Evaluation) -> float:
        return ks(getattr(one, what), getattr(other, what))[0]

    return _beside(
        facts,
        part,
        apart,
        key=f"retrained.{what}.{part}",
        name=f"Distance of the {what} on {PART_NAMES[part]} to retrained (Kolmogorov-Smirnov)",
        unit="distance",
    )


def _agreement_row(facts: Facts, part: str) -> Row:
    return _beside(
        facts,
        part,
        lambda one, other: float((one.predicted != other.predicted).mean()),
        key=f"retrained.disagreement.{part}",
        name=f"Other answers than a retrained model on {PART_NAMES[part]}",
        unit="share",
    )


def _beside(
    facts: Facts,
    part: str,
    distance: Callable[[Evaluation, Evaluation], float],
    *,
    key: str,
    name: str,
    unit: str,
) -> Row:
    """The mean distance to the retrained models beside that between two of them."""
    them, pair = facts.retrained_on[part], getattr(facts, part)
    between = [distance(one, other) for one, other in combinations(them, 2)]
    verdict, status, told = _judged(distance, pair.after, them)
    return Row(
        p=_rare(distance, pair.after, them),
        key=key,
        name=name,
        section="retrained",
        tier="T3",
        before=float(np.mean([distance(pair.before, one) for one in them])),
        after=float(np.mean([distance(pair.after, one) for one in them])),
        target=float(np.mean(between)) if between else None,
        unit=unit,
        verdict=verdict,
        status=status,
        note=told,
    )


def _rare(distance: Callable[[Any, Any], float], new: Any, them: Sequence[Any]) -> float | None:
    """How rare so far out a model is among the retrained ones; None where these are too few."""
    if len(them) < ENOUGH:
        return None
    models = [new, *them]
    apart = np.array([[distance(one, other) for other in models] for one in models])
    return outlier_p(apart) if apart[1:, 1:].any() else None


def _judged(
    distance: Callable[[Any, Any], float], new: Any, them: Sequence[Any]
) -> tuple[str, str, str]:
    """(verdict, status, note): is the new model farther out than the retrained ones are apart?"""
    between = [distance(one, other) for one, other in combinations(them, 2)]
    if not between:
        return "floor not known", PLAIN, UNKNOWN_FLOOR
    mean = float(np.mean([distance(new, one) for one in them]))
    told = (
        f"To each retrained model {mean:.3g} on the mean; between two of {len(them)} "
        f"{min(between):.3g} to {max(between):.3g}."
    )
    if mean <= max(between):
        return "no farther than two retrained are", PLAIN, told
    if len(them) < ENOUGH:
        return "too few retrained models to tell", PLAIN, f"{told} To tell, {ENOUGH} are needed."
    return "farther than any two retrained are", LOOK, told

"""Effort where the information is: which of the forget records the method sees, and how often.

The request is unchanged: evidence is measured on all of its records, whatever the method saw.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from torch import nn

from efface.errors import InputError
from efface.hazards import Finding
from efface.ranking.content import is_low
from efface.ranking.copies import COPIES, nearby
from efface.ranking.sigma import KEPT, TAU, sigma_keeping
from efface.types import Records

ALL, HIGH = "all", "high-information"


@dataclass(frozen=True, eq=False)
class Targeted:
    """What the method is given of the forget records, and what was left alone."""

    forget: Records
    facts: dict[str, Any] = field(default_factory=dict)
    findings: tuple[Finding, ...] = ()


def refuse_target(target: str, weights: Mapping[str, float] | None, forget: Records) -> None:
    """Raises InputError for an unknown target, or weights that are not one a record."""
    if target not in {ALL, HIGH}:
        raise InputError(f"target {ALL} or {HIGH}", repr(target), "Leave it out for all records.")
    if weights is None:
        return
    lacking = [name for name in forget.ids if name not in weights]
    unknown = sorted(set(weights) - set(forget.ids))
    if lacking or unknown:
        what = f"none for {lacking[0]!r}" if lacking else f"one for {unknown[0]!r}"
        raise InputError(
            f"a weight for each of the {len(forget)} forget records", what, "Name each record once."
        )
    values = np.array([weights[name] for name in forget.ids], np.float64)
    if not (np.isfinite(values).all() and (values >= 0).all() and values.any()):
        raise InputError(
            "weights of 0 or more, not all 0",
            f"{values.min():g} to {values.max():g}",
            "A weight of 0 leaves a record alone.",
        )


def targeted(
    model: nn.Module,
    forget: Records,
    *,
    target: str = ALL,
    weights: Mapping[str, float] | None = None,
    expected_accuracy: float | None = None,
    seed: int,
) -> Targeted:
    """The forget records as the method shall see them.

    ``high-information``: only those with a zero-shot information content α below τ, at the noise at
    which a share ``expected_accuracy`` of the copies keeps the answer (0.75 when not given).
    ``weights``, by id: as often as its weight says, 1 being all the same; the number of records
    stays. Raises InputError as ``refuse_target``, and where no record is of high information.
    """
    refuse_target(target, weights, forget)
    chosen = Targeted(forget)
    if target == HIGH:
        chosen = _high(model, forget, expected_accuracy or KEPT, seed)
    return chosen if weights is None else _weighted(chosen, weights, len(forget), seed)


def _high(model: nn.Module, forget: Records, kept: float, seed: int) -> Targeted:
    """The records with α < τ."""
    noise = sigma_keeping(model, forget, kept, seed=seed)
    alpha = nearby(model, forget, sigmas=(noise.sigma,), seed=seed).kept[0]
    low = is_low(alpha, TAU)
    if low.all():
        raise InputError(
            f"a forget record of high information (content below {TAU:g})",
            f"{len(forget)} of at least that",
            "Leave target out: all records are unlearned then.",
        )
    facts = {
        "target": HIGH,
        "sigma": noise.sigma,
        "kept": noise.kept,
        "kept_wanted": kept,
        "copies": COPIES,
        "threshold": TAU,
        "left_alone": int(low.sum()),
        "of": len(forget),
    }
    text = (
        f"{low.sum()} of {len(forget)} records were left alone, as of low information (content of "
        f"{TAU:g} or more): the method did not see them. Evidence is measured on all of them. "
        "On a model that learned its data by heart such records are known too: docs/information.md."
    )
    if not noise.reached(kept):
        text += f" No noise was found at which {kept:.0%} of the copies keep the answer."
    rows = np.flatnonzero(~low).tolist()
    return Targeted(forget.take(rows), facts, (Finding("left alone", "warn", text),))


def _weighted(chosen: Targeted, weights: Mapping[str, float], asked: int, seed: int) -> Targeted:
    """The records as often as their weights say; a page must tell how many are never seen."""
    forget = _repeated(chosen.forget, weights, seed=seed)
    seen = len(set(forget.ids) & set(chosen.forget.ids))
    facts = {**chosen.facts, "weighted": True, "seen": seen, "of": asked}
    findings = chosen.findings
    if seen < len(chosen.forget):
        text = (
            f"By the weights given the method saw {seen} of {asked} records. "
            "Evidence is measured on all of them."
        )
        findings += (Finding("weights", "warn", text),)
    return Targeted(forget, facts, findings)


def _repeated(forget: Records, weights: Mapping[str, float], *, seed: int) -> Records:
    """As many records as before, each within one of its share: systematic resampling.

    A record of less than one share may not come at all, by chance. Equal weights give each record
    once, in order. A record that comes again has an id of its own, so that it draws other noise.
    """
    share = np.array([weights[name] for name in forget.ids], np.float64)
    if not share.any():
        raise InputError(
            "a weight above 0 for a record that is unlearned",
            "0 for each",
            "Leave target or the weights out.",
        )
    edges = np.concatenate([[0.0], np.cumsum(share)]) / share.sum() * len(share)
    edges = edges.round(9)  # equal weights must give whole numbers
    start = np.random.default_rng(seed).uniform(1e-6, 1 - 1e-6)
    times = np.diff(np.floor(edges - start).astype(np.int64))
    rows = np.repeat(np.arange(len(share)), times)
    again = np.concatenate([np.arange(count) for count in times])
    chosen = forget.take(rows.tolist())
    ids = tuple(
        f"{name} again {count}" if count else name
        for name, count in zip(chosen.ids, again.tolist(), strict=True)
    )
    return replace(chosen, ids=ids)

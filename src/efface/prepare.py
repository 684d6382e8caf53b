"""Everything before the method: the split validated once, the method chosen, what it may see.

``validate_split`` turns the parts of a split into records and takes the forget records out of the
others; ``refuse_misfit`` compares model and records; ``choose_method`` is ``auto``;
``select_records`` is the selection and the weights of a request: which forget records the method
sees, and how often. The report is always on all of them.
"""

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import nn

from efface.errors import InputError, abbreviate
from efface.hazards import Finding
from efface.io.data import as_records, content_digests
from efface.io.features import FeatureSpec
from efface.io.images import Preprocessing
from efface.methods import METHODS
from efface.metrics.measure import as_it_is
from efface.ranking.content import (
    COPIES,
    STABILITY,
    TAU,
    calibrate_sigma,
    is_low,
    noise_stability,
)
from efface.runtime import MemoryEstimate, estimate_memory
from efface.task import device_of, multilabel, outputs, refuse_other_kinds, task_of, trainable_copy
from efface.types import Records, Split

MIN_HALF = 6
"""Records in a part of the holdout: with five, losing all has p = 0.06 in a two-sided sign test."""

AUTO = "auto"
ALL, HIGH = "all", "high-information"


def validate_split(
    split: Split, preprocessing: Preprocessing | FeatureSpec | None
) -> tuple[Split, dict[str, Any]]:
    """Records of every part, the forget records taken out of the others, and the counts.

    Raises InputError for parts that are no records, are too few, or hold an id twice.
    """
    if not isinstance(split, Split):
        raise InputError("a Split", type(split).__name__, "Give Split(forget=records).")
    given = {name: getattr(split, name) for name in ("forget", "holdout", "retain")}
    parts = {k: as_records(part, preprocessing) for k, part in given.items() if part is not None}
    if not parts.get("forget"):
        remedy = "Name them by ids, by an expression or a class."
        raise InputError("at least one record to forget", "none", remedy)
    for name, part in parts.items():
        # two records of one id would draw the same numbers and be one in every list
        if twice := [identity for identity, count in Counter(part.ids).items() if count > 1]:
            came, remedy = f"repeated: {abbreviate(twice)}", "Make them distinct, or give no ids."
            raise InputError(f"unique ids in {name}", came, remedy)
    task = _common_task(parts)
    parts = {name: replace(part, task=task) for name, part in parts.items()}
    forget = parts["forget"]
    counts: dict[str, Any] = {"forget": len(forget), "forget_classes": list(split.forget_classes)}
    for name in ("holdout", "retain"):
        if name in parts:
            whole = len(parts[name])
            parts[name] = _without(parts[name], forget, by_id=name == "retain")
            counts[name] = len(parts[name])
            counts[f"forget_records_in_{name}"] = whole - len(parts[name])
    if "retain" in parts and not len(parts["retain"]):
        raise InputError(
            "records that stay",
            f"all {len(forget)} records of retain in the forget set",
            "A model that must forget everything is an untrained model: delete it, or train from "
            "scratch.",
        )
    if "holdout" in parts and len(parts["holdout"]) < 2 * MIN_HALF:
        taken = counts["forget_records_in_holdout"]
        raise InputError(
            f"a holdout of {2 * MIN_HALF} records or more, half for method and guard, half for the "
            "report",
            f"{len(parts['holdout'])}"
            + f", after {taken} forget records were taken out" * (taken > 0),
            "With fewer, losing every one of them could be chance: give more, or give no holdout.",
        )
    return replace(split, **parts), counts


def _common_task(parts: dict[str, Records]) -> Any:
    """One task for all parts: the scale of regression values is estimated from all of them."""
    forget = parts["forget"]
    if forget.task is None and forget.y.dtype.is_floating_point:
        y = torch.cat([part.y.reshape(len(part), -1) for part in parts.values() if len(part)])
        return task_of(Records(forget.x[:1].expand(len(y), *forget.x.shape[1:]), y))
    return task_of(forget)


def _without(part: Records, forget: Records, *, by_id: bool) -> Records:
    """The part without the forget records: by content, and by id in ``retain``.

    A holdout comes from another split, where equal file names are other records; and ids that are
    mere row numbers name other records in every data set.
    """
    named = by_id and not any(
        all(identity.isdigit() for identity in records.ids) for records in (part, forget)
    )
    contents, ids = set(content_digests(forget)), set(forget.ids) if named else set()
    rows = [
        row
        for row, (identity, content) in enumerate(zip(part.ids, content_digests(part), strict=True))
        if identity not in ids and content not in contents
    ]
    return part if len(rows) == len(part) else part.take(rows)


def output_width(model: nn.Module, records: Records) -> int:
    """How many numbers the model answers a record with."""
    with as_it_is(model), torch.no_grad():
        return outputs(model, records.take([0]).to(device_of(model))).shape[1]


def refuse_misfit(model: nn.Module, split: Split, *, mislabelled: bool) -> None:
    """Refuse forget classes that the model lacks, and wrong labels where there are no classes."""
    if split.forget_classes or mislabelled:
        refuse_other_kinds(task_of(split.forget).name)
    if not split.forget_classes:
        return
    k = output_width(model, split.forget)
    if outside := [label for label in split.forget_classes if not 0 <= label < k]:
        remedy = "Use the model's own class numbers."
        raise InputError(f"forget classes in 0..{k - 1}", f"{outside[0]}", remedy)
    if len(set(split.forget_classes)) >= k:
        raise InputError(
            "at least one class that stays",
            f"all {k} classes to forget",
            "A model without its classes is an untrained model: delete it, or train a new one.",
        )


def request_memory(
    method: str, model: nn.Module, split: Split, settings: dict[str, Any]
) -> MemoryEstimate:
    """What the request will hold at its peak, seen from the model and one record's forward pass."""
    memory, reads = METHODS[method].memory, METHODS[method].reads
    probe, batch = trainable_copy(model), split.forget.take([0]).to(device_of(model))
    parts = [part for part in (split.forget, split.holdout, split.retain) if part is not None]
    trained_on = len(split.forget) + ("retain" in reads) * len(split.retain or ())
    at_once = min(trained_on, settings.get("batch_size", memory.batch_size), 128)
    return estimate_memory(
        probe,
        lambda: outputs(probe, batch),
        copies=memory.copies,
        records_at_once=max(at_once, memory.neighbours) * memory.graphs,
        records=[tensor for part in parts for tensor in (part.x, part.y)],
    )


class Rule(NamedTuple):
    """``method`` where ``applies(split, mislabelled, lacking)``, ``because`` of a result."""

    method: str
    because: str
    applies: Callable[[Split, bool, list[str]], bool]


RULES = (
    Rule(
        "retrain",
        "everything that training again without the records needs is given, and only that is exact "
        "(README.md)",
        lambda split, mislabelled, lacking: not lacking,  # noqa: ARG005
    ),
    Rule(
        "jit",
        "the labels are flagged as wrong, and of 24 such records, each alone, jit left none "
        "predicted as its label, without a measurable loss (research/results/jit_one_record.md)",
        lambda split, mislabelled, lacking: mislabelled,  # noqa: ARG005
    ),
    Rule(
        "jit",
        "a class is to be forgotten, and on nine such requests jit came from 39.1 points of the "
        "retrained model to 5.1 (research/results/jit_quality.md)",
        lambda split, mislabelled, lacking: bool(split.forget_classes),  # noqa: ARG005
    ),
    Rule(
        "jit",
        "the task is multilabel, and in the one such request that was measured neighbourhood "
        "over-forgot (research/results/kinds.md)",
        lambda split, mislabelled, lacking: task_of(split.forget).name == multilabel.name,  # noqa: ARG005
    ),
    Rule(
        "neighbourhood",
        "single records are to be forgotten, and of all methods neighbourhood came nearest to the "
        "retrained model on 500 of them, from 25.6 points to 3.2, in one measurement "
        "(research/results/every_method.md)",
        lambda split, mislabelled, lacking: True,  # noqa: ARG005
    ),
)
"""Which method ``auto`` chooses: the first rule that applies, each with the committed result behind it.

What committed results do not settle has no rule: methods that see records that stay were compared
on one request each, so without the recipe they change nothing here.
"""


def choose_method(split: Split, *, mislabelled: bool, trainable: str) -> tuple[str, Finding]:
    """The method for what is given, and a finding that says why and what more would have changed.

    ``split`` holds Records. Raises InputError where the task cannot be seen from the forget records.
    """
    given = {part: getattr(split, part) for part in ("retain", "fresh", "train")}
    lacking = [k for k, one in given.items() if one is None or not (callable(one) or len(one))]
    lacking += [] if trainable == "all" else ["trainable all"]
    rule = next(rule for rule in RULES if rule.applies(split, mislabelled, lacking))
    text = f"{AUTO} chose {rule.method}: {rule.because}"
    if lacking:
        listed = " and ".join(filter(None, [", ".join(lacking[:-1]), lacking[-1]]))
        text += (
            f"; with {listed} it would have chosen {RULES[0].method}, which is exact (on the command "
            "line: python -m research.train RECIPE --exclude ids.csv)"
        )
    return rule.method, Finding(AUTO, "note", f"{text}.")


class Selected(NamedTuple):
    """The forget records that the method sees, facts for the manifest, and findings."""

    forget: Records
    facts: dict[str, Any]
    findings: tuple[Finding, ...]


def refuse_selection(selection: str, weights: Mapping[str, float] | None, forget: Records) -> None:
    """Raises InputError for an unknown selection, or weights that are not one a record."""
    if selection not in {ALL, HIGH}:
        raise InputError(f"selection {ALL} or {HIGH}", repr(selection), "Omit it for all records.")
    if weights is None:
        return
    lacking = [name for name in forget.ids if name not in weights]
    if lacking or (unknown := sorted(set(weights) - set(forget.ids))):
        came = f"none for {lacking[0]!r}" if lacking else f"one for {unknown[0]!r}"
        wanted = f"a weight for each of the {len(forget)} forget records"
        raise InputError(wanted, came, "Name each record once.")
    values = np.array([weights[name] for name in forget.ids], np.float64)
    if not (np.isfinite(values).all() and (values >= 0).all() and values.any()):
        came = f"{values.min():g} to {values.max():g}"
        remedy = "A record of weight 0 is not shown to the method."
        raise InputError("weights of 0 or more, not all 0", came, remedy)


def select_records(
    model: nn.Module,
    forget: Records,
    *,
    selection: str = ALL,
    weights: Mapping[str, float] | None = None,
    expected_accuracy: float | None = None,
    seed: int,
) -> Selected:
    """The forget records as the method shall see them.

    ``high-information``: only those with a zero-shot information content α below τ, at the noise at
    which a share ``expected_accuracy`` of the noisy copies keeps its prediction (0.75 when not
    given). ``weights``, by id: as often as its weight says, 1 being all the same; the number of
    records stays. Raises InputError as ``refuse_selection``, and where no record qualifies.
    """
    refuse_selection(selection, weights, forget)
    total, facts, findings = len(forget), {}, []
    if selection == HIGH:
        forget, facts, text = _high_information(model, forget, expected_accuracy or STABILITY, seed)
        findings.append(Finding("selection", "warn", text))
    if weights is not None:
        repeated = _repeat(forget, weights, seed=seed)
        seen = len(set(repeated.ids) & set(forget.ids))
        facts = {**facts, "weighted": True, "seen": seen, "of": total}
        if seen < len(forget):
            text = f"By its weights the method saw {seen} of {total} records. The report is on all of them."
            findings.append(Finding("weights", "warn", text))
        forget = repeated
    return Selected(forget, facts, tuple(findings))


def _high_information(
    model: nn.Module, forget: Records, kept: float, seed: int
) -> tuple[Records, dict[str, Any], str]:
    """(the records with α < τ, facts, a sentence)."""
    noise = calibrate_sigma(model, forget, kept, seed=seed)
    low = is_low(noise_stability(model, forget, (noise.sigma,), seed=seed).share[0], TAU)
    if low.all():
        raise InputError(
            f"a forget record of high information (content below {TAU:g})",
            f"{len(forget)} of at least that",
            "Omit the selection: all records are unlearned then.",
        )
    facts = {
        "selection": HIGH,
        "sigma": noise.sigma,
        "kept": noise.stability,
        "kept_wanted": kept,
        "copies": COPIES,
        "threshold": TAU,
        "not_selected": int(low.sum()),
        "of": len(forget),
    }
    text = (
        f"{low.sum()} of {len(forget)} records were not selected, as of low information (content of "
        f"{TAU:g} or more): the method did not see them. The report is on all of them. "
        "A model that memorised its data knows such records too: docs/information.md."
    )
    if not noise.reached(kept):
        text += f" At no noise scale do {kept:.0%} of the copies keep the prediction."
    return forget.take(np.flatnonzero(~low).tolist()), facts, text


def _repeat(forget: Records, weights: Mapping[str, float], *, seed: int) -> Records:
    """As many records as before, each within one of its share: systematic resampling.

    A record of less than one share may not come at all, by chance. Equal weights give each record
    once, in order.
    """
    share = np.array([weights[name] for name in forget.ids], np.float64)
    if not share.any():
        wanted, remedy = (
            "a weight above 0 for a record that is unlearned",
            "Omit selection or weights.",
        )
        raise InputError(wanted, "0 for each", remedy)
    edges = np.concatenate([[0.0], np.cumsum(share)]) / share.sum() * len(share)
    edges = edges.round(9)  # equal weights must give integers
    start = np.random.default_rng(seed).uniform(1e-6, 1 - 1e-6)
    times = np.diff(np.floor(edges - start).astype(np.int64))
    rows = np.repeat(np.arange(len(share)), times)
    again = np.concatenate([np.arange(count) for count in times]).tolist()
    # a record that comes again has an id of its own, so that it draws other noise
    ids = (
        f"{forget.ids[row]} again {n}" if n else forget.ids[row]
        for row, n in zip(rows, again, strict=True)
    )
    return replace(forget.take(rows.tolist()), ids=tuple(ids))

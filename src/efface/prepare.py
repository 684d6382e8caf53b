"""Before the method: records of every part, what does not fit refused, the holdout halved."""

from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
from torch import nn

from efface.errors import InputError
from efface.io.checkpoint import some_of
from efface.io.dataset import content_digests, records_of
from efface.io.features import FeatureSpec
from efface.io.preprocessing import Preprocessing
from efface.methods import METHODS
from efface.runtime import MemoryEstimate, estimate_memory
from efface.task import device_of, outputs, refuse_other_kinds, task_of, trainable_copy
from efface.types import Records, Split

LEAST = 6
"""Records in a half: with five, losing all of them has p = 0.06 in a two-sided sign test."""


def prepared(
    split: Split, preprocessing: Preprocessing | FeatureSpec | None
) -> tuple[Split, dict[str, Any]]:
    """Records of every part, the forget records taken out of the others, and the counts."""
    parts = {
        name: None if (part := getattr(split, name)) is None else records_of(part, preprocessing)
        for name in ("forget", "holdout", "retain")
    }
    gone = parts["forget"]
    if gone is None or not len(gone):
        raise InputError(
            "at least one record to forget",
            "none",
            "Name them by ids, by an expression or a class.",
        )
    for name, part in parts.items():
        if part is not None:
            _refuse_repeats(part, name)
    parts = _with_one_adapter(parts)
    gone = parts["forget"]
    counts: dict[str, Any] = {"forget": len(gone), "forget_classes": list(split.forget_classes)}
    for name in ("holdout", "retain"):
        part = parts[name]
        if part is not None:
            parts[name], counts[f"forget_records_in_{name}"] = _without(
                part, gone, by_name=name == "retain"
            )
            counts[name] = len(part) - counts[f"forget_records_in_{name}"]
    if parts["retain"] is not None and not len(parts["retain"]):
        raise InputError(
            "records that stay",
            f"all {len(gone)} records of retain in the forget set",
            "A model that must forget everything is an untrained model: delete it, or train anew.",
        )
    if parts["holdout"] is not None:
        _refuse_too_few(parts["holdout"], counts["forget_records_in_holdout"])
    return replace(split, forget=gone, holdout=parts["holdout"], retain=parts["retain"]), counts


def refuse_kinds(model: nn.Module, split: Split, *, mislabelled: bool) -> None:
    """Refuse what only one class of several has, and classes that the model does not have."""
    if split.forget_classes or mislabelled:
        refuse_other_kinds(task_of(split.forget).name)
    if not split.forget_classes:
        return
    with torch.no_grad():
        probe = split.forget.take([0]).to(device_of(model))
        k = outputs(trainable_copy(model), probe).shape[1]
    if outside := [label for label in split.forget_classes if not 0 <= label < k]:
        raise InputError(
            f"leaving classes in 0..{k - 1}", f"{outside[0]}", "Use the model's own class numbers."
        )
    if len(set(split.forget_classes)) >= k:
        raise InputError(
            "at least one class that stays",
            f"all {k} classes leaving",
            "A model without its classes is an untrained model: delete it, or train a new one.",
        )


def _refuse_too_few(holdout: Records, taken: int) -> None:
    """A holdout of which one half could not show the loss of everything is no holdout."""
    if len(holdout) < 2 * LEAST:
        came = f"{len(holdout)}" + f", after {taken} forget records were taken out" * bool(taken)
        raise InputError(
            f"a holdout of {2 * LEAST} records or more, half for the guard, half for the evidence",
            came,
            "With fewer, losing every one of them could be chance: give more, or give no holdout.",
        )


def _refuse_repeats(records: Records, name: str) -> None:
    """Two records of one id draw the same numbers and stand for one another in every list."""
    counts = Counter(records.ids)
    if twice := [identity for identity, count in counts.items() if count > 1]:
        raise InputError(
            f"ids of {name} that each stand once",
            f"more than once: {some_of(twice)}",
            "Make them distinct, or give no ids.",
        )


def _with_one_adapter(parts: dict[str, Any]) -> dict[str, Any]:
    """All parts read the outputs alike; the spread of values is seen from all records at hand."""
    gone = parts["forget"]
    task = gone.task
    if task is None and gone.y.dtype.is_floating_point:
        together = torch.cat([part.y.reshape(len(part), -1) for part in parts.values() if part])
        task = task_of(
            replace(gone, x=gone.x[:1].expand(len(together), *gone.x.shape[1:]), y=together, ids=())
        )
    task = task or task_of(gone)
    return {name: part and replace(part, task=task) for name, part in parts.items()}


def _without(part: Records, gone: Records, *, by_name: bool) -> tuple[Records, int]:
    """The part without the records to forget: by content, and by ids that are names in ``retain``.

    The ids of a holdout are those of another split: equal file names there are other records.
    """
    contents = set(content_digests(gone))
    names = set(gone.ids) if by_name and _named(gone) and _named(part) else set()
    rows = [
        row
        for row, (identity, content) in enumerate(zip(part.ids, content_digests(part), strict=True))
        if identity not in names and content not in contents
    ]
    return (part, 0) if len(rows) == len(part) else (part.take(rows), len(part) - len(rows))


def _named(records: Records) -> bool:
    """Whether the ids say more than a row's number, which another table uses too."""
    return not all(identity.isdigit() for identity in records.ids)


def memory_needed(
    method: str,
    model: nn.Module,
    split: Split,
    *,
    settings: dict[str, Any],
    told: Callable[[MemoryEstimate], None] | None = None,
) -> MemoryEstimate:
    """What the request will hold at its peak, seen from the model and one record's forward pass."""
    entry, forget = METHODS[method], split.forget
    memory = entry.memory
    batch = forget.take([0]).to(device_of(model))
    probe = trainable_copy(model)
    parts = [part for part in (split.forget, split.holdout, split.retain) if part is not None]
    trained_on = len(forget) + ("retain" in entry.reads) * len(split.retain or ())
    at_once = min(trained_on, settings.get("batch_size", memory.batch_size), 128)
    need = estimate_memory(
        probe,
        lambda: outputs(probe, batch),
        copies=memory.copies,
        records_at_once=max(at_once, memory.neighbours) * memory.graphs,
        records=[tensor for part in parts for tensor in (part.x, part.y)],
    )
    if told:
        told(need)
    return need

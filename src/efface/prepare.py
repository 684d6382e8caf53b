"""Everything before the method: validating the split, choosing the method, selecting records.

``name_records`` makes a split of a data set and of what names its rows; ``validate_split`` turns
the parts of a split into records and takes the forget records out of the others; ``refuse_misfit``
compares model and records; ``choose_method`` is ``auto``; ``select_records`` is the selection and
the weights of a request: which forget records the method sees, and how often. The report is always
on all of them.
"""

import time
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.utils.data import DataLoader, Dataset

from efface.errors import InputError, abbreviate
from efface.hazards import FINDINGS, SAMPLE, Finding
from efface.io.data import (
    Rows,
    as_records,
    class_names,
    content_digests,
    exclude_rows,
    id_as_text,
    open_rows,
)
from efface.io.features import Spec
from efface.manifest import Manifest
from efface.methods import Method, _base
from efface.runtime import MemoryEstimate, estimate_memory, state_of, to_eval
from efface.task import (
    device_of,
    output_width,
    outputs,
    predict,
    probe_batch,
    require_multiclass,
    shared_view,
    task_of,
)
from efface.types import PARTS, Records, Split, sample_rows

# records in each half of the holdout: with five, losing all has p = 0.06 in a two-sided sign test
MIN_HALF = 6

Weights = Mapping[str, float]
AUTO = "auto"
ALL, HIGH = "all", "high-information"
# p-value below which a reference model is taken for one that saw the records
SEEN = 0.01
# how much of the report is made
FULL, QUICK, OFF = "full", "quick", "off"
ON_ALL = "The report is on all of them."
NOTHING_LEFT = "Nothing would be retained: delete the model, or train one from scratch."

# why auto chooses a method: each case with the committed result behind it
REASONS = {
    "the recipe": "everything that retraining without the records needs is given, and only "
    "that is exact (README.md)",
    "wrong labels": "the labels are flagged as wrong, and on nine such requests with a holdout "
    "neighbourhood reduced the gap to retraining from 38.7 points to 3.7 "
    "(research/results/goals.md)",
    "a class": "a class is to be forgotten, and on nine such requests with a holdout "
    "neighbourhood reduced the gap to retraining from 40.4 points to 3.3 "
    "(research/results/goals.md)",
    "another task": "the task is not multiclass, and on two of the three such requests that were "
    "measured neighbourhood came closer to the retrained model's loss than jit "
    "(research/results/kinds.md)",
    "records": "single records are to be forgotten, and on nine requests of 500 with a holdout "
    "neighbourhood reduced the gap to retraining from 27.2 points to 2.8 "
    "(research/results/goals.md)",
}


def name_records(
    data: Any,
    named: Mapping[str, Any],
    parts: Mapping[str, Any],
    preprocessing: Spec | None,
    classes: Sequence[str] | None,
) -> tuple[Split, Records | None, dict[str, str]]:
    """(the split of a request, a sample of the rows that it does not name, how it was named).

    ``named``: by ``ids``, ``where``, ``indices`` or ``forget_class``, of which one is not None;
    ``parts``: holdout and retain. A ``Split`` names its records itself: it is returned as it is.
    Raises InputError, and UnknownRecords for ids that the data do not hold.
    """
    given = {name: value for name, value in named.items() if value is not None}
    listed = ", ".join(f"{name}=" for name in named)
    if isinstance(data, Split):
        if extra := [*given, *(name for name, part in parts.items() if part is not None)]:
            remedy = "Say it in the Split, or give the data set."
            raise InputError("a Split alone", f"{', '.join(extra)} as well", remedy)
        return data, None, {}
    if len(given) != 1:
        remedy = "Give one; Split(forget=records) names all of its records."
        raise InputError(f"one of {listed} with the data", " and ".join(given) or "none", remedy)
    [(way, value)] = given.items()
    rows = open_rows(data, preprocessing, classes)
    chosen, gone = _chosen(rows, way, value)
    # ids stay out of the manifest
    how = f"{len(chosen)} by {way}" if way in {"ids", "indices"} else f"{way} {value}"
    if not chosen:
        remedy = "Name some that the data hold."
        raise InputError("at least one record to forget", f"{how}, of {rows.size} records", remedy)
    parts = {
        name: exclude_rows(part, data, chosen, preprocessing, classes)
        for name, part in parts.items()
    }
    # as on the command line: on what is not named doctor sees how right the model is
    unnamed = sample_rows(rows.size, SAMPLE, without=chosen)
    others = (rows.usable(unnamed) if unnamed else None) or None
    return Split(rows.read(chosen), forget_classes=gone, **parts), others, {"named": how}


def _chosen(rows: Rows, way: str, value: Any) -> tuple[list[int], tuple[int, ...]]:
    """(the rows, the class that goes as a whole)."""
    if way == "indices":
        return _row_numbers(value, rows.size), ()
    if way == "ids":
        # a slip in the ids costs no pass over the data
        ids = _id_texts(value)
        return rows.source().rows_of(ids), ()
    source = rows.source()
    if way == "where":
        return source.rows_where(value), ()
    is_number = isinstance(value, int | np.integer) and not isinstance(value, bool)
    name = int(value) if is_number else str(value)
    return source.rows_of_class(name), (source.class_id(name),)


def _row_numbers(given: Any, size: int) -> list[int]:
    """Each once. Raises InputError for anything but row numbers, masks of True and False too."""
    listed = given.tolist() if hasattr(given, "tolist") else given
    listed = list(listed) if isinstance(listed, Iterable) and not isinstance(listed, str) else None
    if listed is None or any(type(row) is not int or not 0 <= row < size for row in listed):
        remedy = "Write indices=[3, 17]; of a mask give mask.nonzero()."
        came = f"{given!r:.60}" if listed is None else f"{abbreviate(map(repr, listed))}"
        raise InputError(f"row numbers 0..{size - 1} as indices", came, remedy)
    return list(dict.fromkeys(listed))


def _id_texts(given: Any) -> list[str]:
    """The ids as texts. Raises InputError for a single one, which could be a path."""
    if isinstance(given, str | bytes | bytearray | Path) or not isinstance(given, Iterable):
        remedy = f"Write ids=[{given!r:.60}], or of a file ids=read_ids({given!r:.60})."
        raise InputError("ids as a list", f"{given!r:.60}", remedy)
    return [id_as_text(one) for one in (given.tolist() if hasattr(given, "tolist") else given)]


def validate_split(
    split: Split, preprocessing: Spec | None, classes: Sequence[str] | None = None
) -> tuple[Split, dict[str, Any]]:
    """Records of every part, the forget records taken out of the others, and the counts.

    ``classes``: the model's, by which names in a ``datasets.Dataset`` are numbered.
    Raises InputError for parts that are no records, are too few, hold an id twice or nan as a
    value, or number their classes differently, and for forget classes that are no numbers.
    """
    if not isinstance(split, Split):
        raise InputError("a Split", type(split).__name__, "Give Split(forget=records).")
    split = replace(split, forget_classes=_class_numbers(split.forget_classes))
    given = {name: getattr(split, name) for name in PARTS}
    given = {name: part for name, part in given.items() if part is not None}
    _refuse_other_classes(given)
    if isinstance(whole := given.get("forget"), Dataset | DataLoader):
        for name in given.keys() - {"forget"}:
            given[name] = exclude_rows(given[name], whole, None, preprocessing, classes)
    parts = {name: as_records(part, preprocessing, classes) for name, part in given.items()}
    if not parts.get("forget"):
        remedy = "Name them by ids, by an expression or a class."
        raise InputError("at least one record to forget", "none", remedy)
    _refuse_repeated_ids(parts)
    _refuse_other_labels(parts)
    # before anything is taken out: the scale of values must not depend on the overlap
    task = _common_task(parts)
    parts = {name: replace(part, task=task) for name, part in parts.items()}
    forget = parts["forget"]
    counts: dict[str, Any] = {"forget": len(forget), "forget_classes": list(split.forget_classes)}
    # all but forget
    for name, whole in [*parts.items()][1:]:
        parts[name] = _without(whole, forget, by_id=name == "retain")
        counts[name] = len(parts[name])
        counts[f"forget_records_in_{name}"] = len(whole) - len(parts[name])
    if "retain" in parts and not len(parts["retain"]):
        came = f"all {len(forget)} records of retain in the forget set"
        raise InputError("retain records that are not to be forgotten", came, NOTHING_LEFT)
    if "holdout" in parts and (left := len(parts["holdout"])) < 2 * MIN_HALF:
        taken = counts["forget_records_in_holdout"]
        halves = "half for method and guard, half for the report"
        came = f"{left}, after {taken} forget records were taken out" if taken else f"{left}"
        remedy = "With fewer, losing all could be chance: give more, or give no holdout."
        raise InputError(f"a holdout of {2 * MIN_HALF} records or more, {halves}", came, remedy)
    holdout, retain = parts.get("holdout"), parts.get("retain")
    return replace(split, forget=forget, holdout=holdout, retain=retain), counts


def _class_numbers(given: Any) -> tuple[int, ...]:
    """The classes as integers. Raises InputError for anything else, True and False included."""
    listed = given if isinstance(given, tuple | list | range | set) else [str(given)]
    if any(not isinstance(one, int | np.integer) or isinstance(one, bool) for one in listed):
        remedy = "Write forget_classes=(3,)."
        raise InputError("forget_classes as class numbers in a tuple", repr(given), remedy)
    return tuple(map(int, listed))


def _refuse_other_classes(parts: Mapping[str, Any]) -> None:
    """A folder of images that lacks a class numbers the others differently."""
    orders = {name: names for name, part in parts.items() if (names := class_names(part))}
    for name, names in orders.items():
        first = next(iter(orders))
        if names != orders[first]:
            came = f"{abbreviate(orders[first])} in {first}, and {abbreviate(names)} in {name}"
            remedy = "Load them with the model's classes (load_data(…, classes=…))."
            raise InputError("parts with the same classes in order", came, remedy)


def _refuse_other_labels(parts: Mapping[str, Records]) -> None:
    """Classes as 1.0 in one part would be compared with classes as 1 in another."""
    first = parts["forget"].y
    for name, part in parts.items():
        floats = part.y.is_floating_point(), first.is_floating_point()
        if part.y.shape[1:] != first.shape[1:] or len(set(floats)) > 1:
            came = [f"{y.dtype} of shape {tuple(y.shape)}" for y in (first, part.y)]
            came = f"{came[0]} in forget, {came[1]} in {name}"
            raise InputError("labels of one kind in all parts", came, "Write classes as integers.")
        if not part.y.isfinite().all():
            finite = zip(part.ids, part.y.isfinite(), strict=True)
            came = f"nan or inf in {abbreviate(key for key, one in finite if not one.all())}"
            raise InputError(f"finite values in {name}", came, "Fix these records, or omit them.")


def _refuse_repeated_ids(parts: dict[str, Records]) -> None:
    """Two records of one id would draw the same numbers and be one in every list."""
    for name, part in parts.items():
        if twice := [key for key, count in Counter(part.ids).items() if count > 1]:
            came, remedy = f"repeated: {abbreviate(twice)}", "Make them distinct, or give no ids."
            raise InputError(f"unique ids in {name}", came, remedy)


def _common_task(parts: dict[str, Records]) -> Any:
    """One task for all parts: the scale of regression values is estimated from all of them."""
    forget = parts["forget"]
    if forget.task is None and forget.y.dtype.is_floating_point:
        y = torch.cat([part.y.reshape(len(part), -1) for part in parts.values() if len(part)])
        return task_of(Records(forget.x[:1].expand(len(y), *forget.x.shape[1:]), y))
    return task_of(forget)


def _without(part: Records, forget: Records, *, by_id: bool) -> Records:
    """The part without the forget records: by content, and by id in ``retain``.

    A holdout comes from another split, where equal file names are other records; and row numbers
    that nobody gave as ids name other records in every data set.
    """
    named = by_id and not (part.numbered or forget.numbered)
    # by content too: the same image under another name would be kept in the model
    contents, ids = set(content_digests(forget)), set(forget.ids) if named else set()
    pairs = zip(part.ids, content_digests(part), strict=True)
    rows = [row for row, (key, one) in enumerate(pairs) if key not in ids and one not in contents]
    return part if len(rows) == len(part) else part.take(rows)


def refuse_misfit(model: nn.Module, split: Split, *, mislabelled: bool) -> None:
    """Refuse forget classes that the model lacks, and wrong labels where there are no classes."""
    if split.forget_classes or mislabelled:
        require_multiclass(task_of(split.forget).name)
    # only classes need the width: it costs a forward pass
    if not split.forget_classes:
        return
    # of the model, not of the labels seen: classes that no forget record has stay too
    k = output_width(model, split.forget)
    if outside := [label for label in split.forget_classes if not 0 <= label < k]:
        remedy = "Use the model's own class numbers."
        raise InputError(f"forget classes in 0..{k - 1}", f"{outside[0]}", remedy)
    if len(set(split.forget_classes)) >= k:
        came = f"all {k} classes to forget"
        raise InputError("at least one retained class", came, NOTHING_LEFT)


def assumed_of_their_kind(
    split: Split, method: Method, *, settings: Mapping[str, Any], whole_group: bool
) -> tuple[Finding, ...]:
    """What was assumed of other records of their kind, where that decides what a method does.

    Raises InputError for a whole group where the task is not multiclass.
    """
    kind, known = task_of(split.forget).name, "whole_group" in method.settings
    if whole_group:
        require_multiclass(kind)
    if whole_group and not known:
        text = f"{method.name} treats a whole group of records like any others."
        return (Finding("whole-group", "warn", text, "Choose neighbourhood."),)
    n, labels = len(split.forget), len(split.forget.y.unique())
    if whole_group and labels > 1:
        text = f"The records have {labels} labels, none of which may be predicted for them: other "
        text += "records may lose these labels too."
        return (Finding("whole-group", "warn", text, FINDINGS["whole-group"].remedy),)
    said = whole_group or split.forget_classes or settings.get("mislabelled")
    if not known or said or kind != "multiclass":
        return ()
    text = "It was assumed that records of their kind stay, so that their label may be predicted."
    if n > 1:
        one = f"All {n} have the same label."
        text += f" {one if labels == 1 else f'They have {labels} labels: no single group.'}"
    return (Finding("whole-group", "note", text, FINDINGS["whole-group"].remedy),)


def check_reference(
    model: nn.Module, split: Split, method: Method, *, mislabelled: bool
) -> tuple[Finding, ...]:
    """Whether the reference model, if there is one, looks as if it had seen the forget records.

    Raises InputError where its outputs are not as many as the model's, or not finite.
    """
    if split.reference is None:
        return ()
    if "reference" not in method.reads:
        text = f"{method.name} reads no reference model: it counted for nothing."
        return (Finding("reference-unread", "warn", text),)
    # loads scipy: most requests do without
    from efface.metrics.evaluation import evaluate

    parts = [part for part in (split.forget, split.holdout) if part is not None]
    asked = [evaluate(split.reference, part) for part in parts]
    k, width = output_width(model, split.forget), asked[0].logits.shape[1]
    if width != k:
        remedy = "Give a model of the same task, with the same classes in the same order."
        raise InputError(f"a reference model of {k} outputs, as the model has", f"{width}", remedy)
    if not all(np.isfinite(one.logits).all() for one in asked):
        remedy = "Give another checkpoint, or omit the reference."
        raise InputError("a reference model with finite outputs", "nan or inf", remedy)
    found = _above_unseen(*asked, mislabelled=mislabelled) if len(asked) > 1 else None
    if found is None:
        text = "Whether the reference model saw the records was not checked: of their classes "
        return (Finding("reference-seen", "note", f"{text}there are no unseen records."),)
    text = "The reference model looks as if it had seen the records: its log-odds of their labels "
    text += f"are {found[0]:.1f} above those of unseen records of the same classes."
    return (Finding("reference-seen", "warn", text),) if found[1] < SEEN else ()


def _above_unseen(forget: Any, unseen: Any, *, mislabelled: bool) -> tuple[float, float] | None:
    """(how far log-odds of forget records lie above unseen ones, p-value of Mann-Whitney's test).

    Each less the mean of its class's unseen records; None where no class has any. Of two
    ``Evaluation``.
    """
    from scipy.stats import mannwhitneyu

    groups = [one.groups for one in (forget, unseen)]
    if mislabelled:
        # a model that never saw a wrong label gives it no more than its best wrong answer
        others = unseen.logits.copy()
        np.put_along_axis(others, unseen.y[:, None], -np.inf, 1)
        unseen = unseen.labelled(others.argmax(1))
        groups = [np.zeros_like(one) for one in groups]
    classes = np.intersect1d(*groups)
    if not len(classes):
        return None
    values = [one.logit_margin.copy() for one in (forget, unseen)]
    for one in classes:
        level = unseen.logit_margin[groups[1] == one].mean()
        for value, group in zip(values, groups, strict=True):
            value[group == one] -= level
    pair = [v[np.isin(group, classes)] for v, group in zip(values, groups, strict=True)]
    return float(pair[0].mean()), float(mannwhitneyu(*pair, alternative="greater").pvalue)


def check_report(report: str, *known: str) -> None:
    """Raise InputError for a report that there is not; ``known``: all three where not given."""
    known = known or (FULL, QUICK, OFF)
    if report not in known:
        wanted = f"report out of {', '.join(known)}"
        raise InputError(wanted, repr(report), "Choose one of these.")


def seconds_per_pass(model: nn.Module, records: Records) -> float:
    """Seconds of one record's forward pass, from those of at most 16 together."""
    some, began = records.take(range(min(len(records), 16))), time.perf_counter()
    predict(model, some)
    return (time.perf_counter() - began) / len(some)


def request_memory(
    method: Method, model: nn.Module, split: Split, settings: dict[str, Any]
) -> MemoryEstimate:
    """What the request will hold at its peak, seen from the model and one record's forward pass."""
    memory = method.memory
    # a view: the probe costs no memory of its own
    probe, batch = to_eval(shared_view(model)), probe_batch(split.forget).to(device_of(model))
    # the holdout twice: its halves, for the method and for the report, are copies
    given = (split.forget, split.holdout, split.holdout, split.retain)
    parts = [part for part in given if part is not None]
    # a step holds at most a micro-batch of 128 records
    trained_on = len(split.forget) + ("retain" in method.reads) * len(split.retain or ())
    at_once = min(trained_on, settings.get("batch_size") or memory.batch_size, 128)
    at_once = max(at_once, memory.neighbours) * memory.graphs
    # one more: the copy that stands between the method and the given model
    how = {"copies": memory.copies + 1, "records_at_once": at_once}
    tensors = [tensor for part in parts for tensor in (part.x, part.y)]
    found = estimate_memory(probe, lambda: outputs(probe, batch), records=tensors, **how)
    if split.reference is None:
        return found
    further = sum(tensor.nbytes for tensor in state_of(split.reference).values())
    return replace(found, models_bytes=found.models_bytes + further)


def choose_method(split: Split, *, mislabelled: bool, trainable: str) -> tuple[str, Finding]:
    """The method for what is given, and a finding that says why and what more would have changed.

    The first case that holds decides. What committed results do not settle is no case: methods that
    see records that stay were compared on one request each, so without the recipe they change
    nothing here. ``split`` holds Records.
    """
    given = {part: getattr(split, part) for part in ("retain", "fresh", "train")}
    lacking = [k for k, one in given.items() if one is None or not (callable(one) or len(one))]
    lacking += [] if trainable == "all" else ["trainable all"]
    holds = {"the recipe": not lacking, "wrong labels": mislabelled, "records": True}
    holds |= {"a class": bool(split.forget_classes)}
    holds["another task"] = task_of(split.forget).name != "multiclass"
    case = next(case for case in REASONS if holds[case])
    method = "retrain" if case == "the recipe" else "neighbourhood"
    text = f"{AUTO} chose {method}: {REASONS[case]}"
    if lacking:
        listed = " and ".join(filter(None, [", ".join(lacking[:-1]), lacking[-1]]))
        text += f"; with {listed} it would have chosen retrain, which is exact ({_base.EXACT})"
    return method, Finding(AUTO, "note", f"{text}.")


def select_records(
    model: nn.Module, split: Split, manifest: Manifest, selection: str, weights: Weights | None
) -> tuple[Split, tuple[Finding, ...]]:
    """(the split with the forget records as the method shall see them, findings).

    ``high-information``: only those with a zero-shot information content α below τ, at the noise at
    which a share of the noisy copies keeps its prediction: the setting ``expected_accuracy``, 0.75
    when not given. ``weights``, by id: as often as its weight says, 1 being all the same; the
    number of records stays. What was done goes into the manifest's request as ``selection``. Raises
    InputError for an unknown selection, weights that are not one a record, and where no record
    qualifies.
    """
    forget, facts, findings = split.forget, {}, ()
    if selection not in {ALL, HIGH}:
        raise InputError(f"selection {ALL} or {HIGH}", repr(selection), "Omit it for all records.")
    if weights is not None:
        _refuse_weights(weights, forget)
    # first which, then how often: a weight is a share of those that are selected
    if selection == HIGH:
        expected = manifest.settings.get("expected_accuracy")
        forget, facts, text = _high_information(model, forget, expected, manifest.seed)
        findings += (Finding("selection", "warn", text),)
    if weights is not None:
        candidates, forget = forget, _resample(forget, weights, seed=manifest.seed)
        seen = len(set(forget.ids) & set(candidates.ids))
        facts |= {"weighted": True, "seen": seen, "of": len(split.forget)}
        if seen < len(candidates):
            text = f"By the weights the method saw {seen} of {facts['of']} records. {ON_ALL}"
            findings += (Finding("weights", "warn", text),)
    if facts:
        manifest.request["selection"] = facts
    return replace(split, forget=forget), findings


def _refuse_weights(weights: Weights, forget: Records) -> None:
    lacking = [f"none for {name!r}" for name in forget.ids if name not in weights]
    unknown = [f"one for {name!r}" for name in sorted(set(weights) - set(forget.ids))]
    if lacking or unknown:
        wanted = f"a weight for each of the {len(forget)} forget records"
        raise InputError(wanted, (lacking + unknown)[0], "Name each record once.")
    values = np.array([weights[name] for name in forget.ids], np.float64)
    if not (np.isfinite(values).all() and (values >= 0).all() and values.any()):
        came, remedy = f"{values.min():g} to {values.max():g}", "Weight 0 hides a record."
        raise InputError("weights of 0 or more, not all 0", came, remedy)


def _high_information(
    model: nn.Module, forget: Records, share: float | None, seed: int
) -> tuple[Records, dict[str, Any], str]:
    """(the records with α < τ, facts, a sentence)."""
    # scipy: most requests do without
    from efface.ranking import content

    kept, tau = share or content.STABILITY, content.TAU
    noise = content.calibrate_sigma(model, forget, kept, seed=seed)
    alpha = content.noise_stability(model, forget, (noise.sigma,), seed=seed).share[0]
    low = content.is_low(alpha, tau)
    if low.all():
        wanted = f"a forget record of high information (content below {tau:g})"
        remedy = "Omit the selection: all records are unlearned then."
        raise InputError(wanted, f"{len(forget)} at or above {tau:g}", remedy)
    facts = {"selection": HIGH, "sigma": noise.sigma, "kept": noise.stability, "kept_wanted": kept}
    facts |= {"copies": content.COPIES, "threshold": tau}
    facts |= {"not_selected": int(low.sum()), "of": len(forget)}
    text = (
        f"{low.sum()} of {len(forget)} records were not selected, as of low information (content "
        f"of {tau:g} or more): the method did not see them. {ON_ALL} A model that memorised its "
        "data knows such records too: docs/information.md."
    )
    if not noise.reached(kept):
        text += f" At no noise scale do {kept:.0%} of the copies keep the prediction."
    return forget.take(np.flatnonzero(~low).tolist()), facts, text


def _resample(forget: Records, weights: Weights, *, seed: int) -> Records:
    """As many records as before, each within one of its share: systematic resampling.

    A record of less than one share may not come at all, by chance. Equal weights give each record
    once, in order.
    """
    share = np.array([weights[name] for name in forget.ids], np.float64)
    if not share.any():
        remedy = "Omit selection or weights."
        raise InputError("a weight above 0 for a record that is unlearned", "0 for each", remedy)
    edges = np.concatenate([[0.0], np.cumsum(share)]) / share.sum() * len(share)
    # equal weights must give integers
    edges = edges.round(9)
    # one draw for all: each record comes within one of its share, whatever the seed
    start = np.random.default_rng(seed).uniform(1e-6, 1 - 1e-6)
    times = np.diff(np.floor(edges - start).astype(np.int64)).tolist()
    again = [(row, turn) for row, count in enumerate(times) for turn in range(count)]
    # a record that comes again has an id of its own, so that it draws other noise
    ids = tuple(forget.ids[row] + (f" again {turn}" if turn else "") for row, turn in again)
    return replace(forget.take([row for row, _ in again]), ids=ids)

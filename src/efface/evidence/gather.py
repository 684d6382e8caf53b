"""Every test that the data at hand allow, as rows: a test that crashed is a row too."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from torch import nn

from efface.evidence import answers, controls, forgotten, moved, sanity, staying, unseen
from efface.evidence.facts import Facts, NotRun, Pair
from efface.evidence.rows import NOT_RUN, PLAIN, RED, Evidence, Row, not_run
from efface.types import Split


@dataclass(frozen=True)
class Test:
    """One test: what it is called, the tier it needs, and the function that makes its rows.

    ``for_classes``: only where classes leave; ``classes``: True where a record has one class of
    several, False where it has not, None for both.
    """

    key: str
    name: str
    section: str
    tier: str
    run: Callable[[Facts], list[Row]]
    for_classes: bool = False
    classes: bool | None = None


TESTS = (
    Test(
        "forget.accuracy",
        "Accuracy on forget",
        "forget",
        "T0",
        forgotten.accuracy_row,
        classes=True,
    ),
    Test(
        "forget.spread",
        "Entropy and margin on forget",
        "forget",
        "T0",
        forgotten.spread_rows,
        classes=True,
    ),
    Test("forget.right", "Answers on forget", "forget", "T0", answers.forget_rows, classes=False),
    Test("residual", "Knowledge left around the records", "forget", "T0", forgotten.residual_rows),
    Test("moved", "What moved", "moved", "T0", moved.moved_rows),
    Test("sanity.repeated", "The same inputs asked twice", "moved", "T0", sanity.repeated_rows),
    Test("sanity.constant", "Outputs depend on inputs", "moved", "T0", sanity.constant_rows),
    Test("drift", "Answers on synthetic inputs", "moved", "T0", moved.drift_rows),
    Test("attack.loss", "Membership attack on the loss", "unseen", "T1", unseen.attack_rows),
    Test("like_unseen", "Like unseen, record by record", "unseen", "T1", unseen.likeness_rows),
    Test(
        "leaving.accuracy",
        "Unseen records of the leaving classes",
        "unseen",
        "T1",
        staying.leaving_rows,
        for_classes=True,
    ),
    Test("holdout", "Accuracy on the holdout", "stay", "T1", staying.holdout_rows, classes=True),
    Test("holdout", "Answers on the holdout", "stay", "T1", answers.holdout_rows, classes=False),
    Test("control.positive", "Positive control", "controls", "T1", controls.positive_control),
    Test("control.negative", "Negative control", "controls", "T1", controls.negative_control),
    Test("power", "Power", "controls", "T1", controls.power_rows),
    Test(
        "attack.entropy",
        "Membership attack on the entropy (the paper's MIA; weak)",
        "unseen",
        "T2",
        staying.entropy_rows,
        classes=True,
    ),
    Test("retain", "Records that stay", "stay", "T2", staying.retain_rows, classes=True),
    Test("retain", "Records that stay", "stay", "T2", answers.retain_rows, classes=False),
)

BEYOND = (
    Row("relearning", "Relearning: does a little training bring them back?", "not run", "T1"),
    Row("quantisation", "The same tests on a quantised or pruned copy", "not run", "T0"),
    Row("retrained", "Distance to a model retrained without the records", "not run", "T3"),
    Row("shadow", "Attacks per record, with shadow models", "not run", "T4"),
)
_WHY_BEYOND = {
    "relearning": "this version of efface has no relearning probe",
    "quantisation": "only the model as it is was tested",
    "retrained": "no retrained model was given",
    "shadow": "no shadow models were given",
}
FEW = 30
"""So few records stand in a figure one by one, not as bars."""

_NEEDS = {"T1": "a holdout that was never trained on", "T2": "a holdout and records that stay"}


def collect(
    model: nn.Module,
    student: nn.Module | None,
    split: Split,
    *,
    leaving: Sequence[int] = (),
    mislabelled: bool = False,
    classes: Sequence[str] | None = None,
    seed: int = 0,
    outcome: str = "done",
    method_saw: Sequence[str] = (),
) -> Evidence:
    """Test what ``student`` (the new model) still shows of ``split.forget``.

    ``model`` is the old one; both come out as they went in. ``split.holdout`` is the half that
    neither the method nor the guard has seen. ``leaving`` names classes that go altogether (those
    of the split when not given), ``classes`` names the classes in words, ``method_saw`` the views
    that the method itself trained on ("light", "focus", "turn"): these are left out.
    ``student`` is None when no new model came to be (``outcome="not met"``): rows then hold the
    old model's numbers alone. A test that raises becomes a red row, a test that lacks its data a
    row that says so; no test is missing.
    """
    split = replace(split, holdout=split.holdout or None, retain=split.retain or None)
    facts = Facts(
        old=model,
        new=model if student is None else student,
        split=split,
        leaving=tuple(leaving or split.leaving),
        mislabelled=mislabelled,
        classes=tuple(classes or ()),
        seed=seed,
        method_saw=tuple(method_saw),
    )
    tier = tier_of(split)
    rows = [row for test in TESTS for row in _run(test, facts, tier)]
    if student is None:
        rows = [_before_only(row) for row in rows]
    rows += [not_run(row, _WHY_BEYOND[row.key]) for row in BEYOND]
    parts = {name: _part(make, name, facts, new=student is not None) for name, make in PARTS}
    return Evidence(
        tier=tier,
        rows=tuple(rows + [row for _, crashed in parts.values() for row in crashed]),
        records=parts["records"][0] or [],
        per_class=parts["per_class"][0] or [],
        tensors=parts["tensors"][0] or [],
        arrays=parts["arrays"][0] or {},
        counts={n: len(r) for n in ("forget", "holdout", "retain") if (r := getattr(split, n))},
        leaving=tuple(facts.name(label) for label in facts.leaving),
        mislabelled=mislabelled,
        seed=seed,
        outcome=outcome,
    )


def tier_of(split: Split) -> str:
    """The highest tier that the records at hand allow."""
    if not split.holdout:
        return "T0"
    return "T2" if split.retain else "T1"


def _run(test: Test, facts: Facts, tier: str) -> list[Row]:
    """The test's rows; one row that says why, when there are none to be had."""
    other_kind = test.classes is not None and test.classes is not facts.of_classes
    if other_kind or (test.for_classes and not facts.leaving):
        return []
    blank = Row(test.key, test.name, test.section, test.tier)
    if test.tier > tier:
        return [not_run(blank, f"needs {_NEEDS[test.tier]}")]
    try:
        return test.run(facts)
    except NotRun as why:
        return [not_run(blank, str(why))]
    except Exception as error:  # noqa: BLE001  # whatever went wrong must stand in the report
        note = f"{type(error).__name__}: {error}"
        return [replace(blank, status=RED, verdict="crashed", note=note)]


def _before_only(row: Row) -> Row:
    if row.status in (NOT_RUN, RED):
        return row
    if row.before is None:
        return not_run(row, "there is no new model")
    if row.key == "control.positive":
        return row
    note = "" if row.section == "stay" else row.note
    silent = {"after": None, "interval": None, "note": note}
    return replace(row, **silent, verdict="no new model", status=PLAIN)


def _part(make: Callable, name: str, facts: Facts, *, new: bool) -> tuple[Any, list[Row]]:
    """What a table or a figure shows; None and a red row when it cannot be had."""
    try:
        return make(facts, new=new), []
    except NotRun:  # the test of that name is a row that says why
        return None, []
    except Exception as error:  # noqa: BLE001  # whatever went wrong must stand in the report
        row = Row(f"part.{name}", f"What the page shows as {name}", "forget", "T0")
        note = f"{type(error).__name__}: {error}"
        return None, [replace(row, status=RED, verdict="crashed", note=note)]


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
        {"class": c, "name": facts.name(c), "leaving": c in facts.leaving}
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
    return moved.tensors(facts.old, facts.new) if new else []


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

"""Every test that the data at hand allow, as rows: a test that crashed is a row too."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from torch import nn

from efface.io.shadows import Shadows
from efface.report import (
    answers,
    controls,
    depth,
    exclusion,
    forgotten,
    moved,
    retrained,
    sanity,
    shadow,
    staying,
    unseen,
)
from efface.report.alarms import alarms
from efface.report.attacks import named_attacks
from efface.report.facts import Facts, NotRun
from efface.report.parts import PARTS
from efface.report.rows import NOT_RUN, PLAIN, RED, Evidence, Row, not_run
from efface.types import Split


@dataclass(frozen=True)
class Test:
    """One test: what it is called, the tier it needs, and the function that makes its rows.

    ``for_classes``: only where classes leave; ``classes``: True where a record has one class of
    several, False where it has not, None for both; ``probe``: it asks further inputs or copies of
    the models, beyond one pass over each record.
    """

    key: str
    name: str
    section: str
    tier: str
    run: Callable[[Facts], list[Row]]
    for_classes: bool = False
    probe: bool = False
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
    Test(
        "residual",
        "Knowledge left around the records",
        "forget",
        "T0",
        forgotten.residual_rows,
        probe=True,
    ),
    Test(
        "precision", "Rounded and pruned copies", "forget", "T0", depth.precision_rows, probe=True
    ),
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
    Test(
        "features", "A linear probe on the features", "unseen", "T1", depth.linear_rows, probe=True
    ),
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
    Test(
        "retrained.columns",
        "The paper's three columns beside retrained models",
        "retrained",
        "T3",
        retrained.column_rows,
        classes=True,
    ),
    Test("retrained.shared", "Layers as they were", "retrained", "T3", retrained.shared_rows),
    Test(
        "retrained",
        "Distance to models retrained without the records",
        "retrained",
        "T3",
        retrained.distance_rows,
    ),
    Test("shadow", "Attacks per record, with shadow models", "shadow", "T4", shadow.shadow_rows),
    Test("exclusion", "Exclusion of the records", "exclusion", "TE", exclusion.exclusion_rows),
)

BEYOND = (
    Row("relearning", "Relearning: does a little training bring them back?", "not run", "T1"),
)
_WHY_BEYOND = {
    "relearning": "it trains a copy, so it is asked for by itself: efface.probes.relearning",
}

_NEEDS = {
    "T0": (frozenset(), ""),
    "T1": (frozenset({"holdout"}), "needs a holdout that was never trained on"),
    "T2": (frozenset({"holdout", "retain"}), "needs a holdout and records that stay"),
    "T3": (frozenset({"retrained"}), "no retrained model was given"),
    "T4": (frozenset({"shadows"}), "no shadow models were given"),
    "TE": (frozenset(), ""),
}
"""What must be at hand for a test of a tier, and what its row says where that is lacking."""


def collect(
    model: nn.Module,
    student: nn.Module | None,
    split: Split,
    *,
    forget_classes: Sequence[int] = (),
    mislabelled: bool = False,
    classes: Sequence[str] | None = None,
    seed: int = 0,
    outcome: str = "done",
    method_saw: Sequence[str] = (),
    retrained: Sequence[nn.Module] = (),
    shadows: Shadows | None = None,
    exact: bool = False,
    left_out: int = 0,
    probes: bool = True,
) -> Evidence:
    """Test what ``student`` (the new model) still shows of ``split.forget``.

    ``model`` is the old one; both come out as they went in. ``split.holdout`` is the half that
    neither the method nor the guard has seen. ``forget_classes`` names classes that go altogether (those
    of the split when not given), ``classes`` names the classes in words, ``method_saw`` the views
    that the method itself trained on ("light", "focus", "turn"): these are left out.
    ``student`` is None when no new model came to be (``outcome="not met"``): rows then hold the
    old model's numbers alone. ``retrained``: models trained without the forget records, by the same
    recipe and each with its own seed; ``shadows``: what shadow models leave (``read_shadows``);
    ``exact``: ``student`` was itself trained anew without the forget records; ``left_out``: so many
    of these were found among those that stay, and taken out before. ``probes``: also what goes
    beyond one pass over each record (``cost.forward_passes``). A test that raises
    becomes a red row, a test that lacks its data a row that says so; no test is missing.
    """
    split = replace(split, holdout=split.holdout or None, retain=split.retain or None)
    facts = Facts(
        old=model,
        new=model if student is None else student,
        split=split,
        forget_classes=tuple(forget_classes or split.forget_classes),
        mislabelled=mislabelled,
        classes=tuple(classes or ()),
        seed=seed,
        method_saw=tuple(method_saw),
        retrained=tuple(retrained),
        shadows=shadows,
        exact=exact,
        left_out=left_out,
    )
    rows = [row for test in TESTS for row in _run(test, facts, probes=probes)]
    if student is None:
        rows = [_before_only(row) for row in rows]
    rows += [not_run(row, _WHY_BEYOND[row.key]) for row in BEYOND]
    parts = {name: _part(make, name, facts, new=student is not None) for name, make in PARTS}
    evidence = Evidence(
        tier=tier_of(split, retrained=retrained, shadows=shadows, exact=exact),
        rows=tuple(rows + [row for _, crashed in parts.values() for row in crashed]),
        attacks=named_attacks(rows, kind=facts.kind, new=student is not None),
        records=parts["records"][0] or [],
        per_class=parts["per_class"][0] or [],
        tensors=parts["tensors"][0] or [],
        arrays=parts["arrays"][0] or {},
        counts=_counts(facts),
        forget_classes=tuple(facts.name(label) for label in facts.forget_classes),
        mislabelled=mislabelled,
        seed=seed,
        outcome=outcome,
    )
    return replace(evidence, alarms=tuple(row.key for row in alarms(evidence)))


def tier_of(
    split: Split,
    *,
    retrained: Sequence[nn.Module] = (),
    shadows: Shadows | None = None,
    exact: bool = False,
) -> str:
    """The highest tier that what is at hand allows; from T3 on holdout and retain are needed too.

    Tests of T3 and T4 run without these as far as they can; the tier is then the lower one.
    """
    if exact:
        return "TE"
    if not split.holdout:
        return "T0"
    if not split.retain:
        return "T1"
    if shadows is not None:
        return "T4"
    return "T3" if retrained else "T2"


def _counts(facts: Facts) -> dict[str, int]:
    """How many records and models of each kind were looked at."""
    parts = {name: getattr(facts.split, name) for name in ("forget", "holdout", "retain")}
    models = {"retrained": facts.retrained, "shadows": facts.shadows}
    return {name: len(given) for name, given in (parts | models).items() if given}


def _run(test: Test, facts: Facts, *, probes: bool) -> list[Row]:
    """The test's rows; one row that says why, when there are none to be had."""
    other_kind = test.classes is not None and test.classes is not facts.of_classes
    if other_kind or (test.for_classes and not facts.forget_classes):
        return []
    blank = Row(test.key, test.name, test.section, test.tier)
    needed, why_not = _NEEDS[test.tier]
    if not needed <= facts.at_hand:
        return [not_run(blank, why_not)]
    if test.probe and not probes:
        return [not_run(blank, "probes were left out")]
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
    silent = {"after": None, "interval": None, "note": note, "p": None}
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

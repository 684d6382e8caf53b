"""Runs every test that the data allow; a test that crashes or cannot run still gives a row."""

from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import nn

from efface.io.shadows import Shadows
from efface.metrics.evaluation import Evaluation
from efface.report import text
from efface.report.context import MAX_RECORDS, REPEATED, SYNTHETIC, Context, NotRun, Pair, TooFew
from efface.report.outcome import outcome_of
from efface.report.report import AttackCoverage, Coverage, Report, Row
from efface.report.tests import NEEDS, TESTS, Declaration
from efface.report.verdicts import Status, Verdict
from efface.report.views import KINDS, VIEWS
from efface.task import task_of
from efface.types import PARTS, Records, Split

Table = Callable[[Context, list[str]], Any]
# So few are drawn one by one in a figure: a histogram of them shows its bins.
FEW_RECORDS = 30
# Bars of a histogram.
BINS = 30


def collect(  # noqa: PLR0913  # what can be given is declared here once
    old: nn.Module,
    new: nn.Module | None,
    split: Split,
    *,
    forget_classes: Sequence[int] = (),
    mislabelled: bool = False,
    classes: Sequence[str] | None = None,
    seed: int = 0,
    reason: str = "",
    views_used: Sequence[str] = (),
    retrained: Sequence[nn.Module] = (),
    shadows: Shadows | None = None,
    exact: bool = False,
    stated: bool = False,
    others: Records | None = None,
    probes: bool = True,
) -> Report:
    """Test what ``new`` still reveals of ``split.forget``, which ``old`` was trained on.

    Both models come out as they went in. A test that raises becomes an error row, a test that lacks
    its data a row that says so; none is missing.

    Args:
        old: the model before.
        new: the model after; None when the request was not met: rows then hold the old model's
            numbers only.
        split: forget records, and what else is there; empty parts count as absent. Its holdout is
            the half that neither the method nor the guard has seen.
        forget_classes: classes that are forgotten as a whole; those of the split by default.
        mislabelled: the labels of the forget records are wrong.
        classes: the names of the classes.
        seed: of everything drawn at random.
        reason: why there is no new model, or why it is the old one.
        views_used: kinds of views that the method was trained on, which are left out.
        retrained: models trained without the forget records, each with its own seed.
        shadows: what ``read_shadows`` returns.
        exact: ``new`` was itself retrained from scratch without the forget records.
        stated: that it was is what its maker says; ``retain`` need not be what it was trained on.
        others: a sample of the training records that stay, for their accuracy before and after.
        probes: run also what goes beyond one pass over each record, see ``forward_passes``.
    """
    # The declarations register themselves; imported here, since they pull in scipy and sklearn.
    from efface.report import tests_forget, tests_retrained, tests_unseen, tests_utility  # noqa: F401

    # Tests ask what is there by None alone; an empty part is no part.
    split = replace(split, holdout=split.holdout or None, retain=split.retain or None)
    forget_classes, names = tuple(forget_classes or split.forget_classes), tuple(classes or ())
    models = tuple(retrained), shadows, exact, stated, others or None
    about = forget_classes, mislabelled, names, seed, tuple(views_used), *models
    ctx = Context(old, old if new is None else new, split, *about)
    # By section, so that the order of the rows does not depend on which module came in first.
    tests = sorted(TESTS, key=lambda test: list(text.SECTIONS).index(test.section))
    rows = [row for test in tests for row in _run(test, ctx, probes=probes)]
    # No number of a new model may appear where there is none.
    sides, makers = ["before", "after"], TABLES | {"tensors": lambda ctx, _: ctx.tensor_changes}
    if new is None:
        rows, sides, makers = [_before_only(row) for row in rows], ["before"], TABLES
    attacks, details = attack_coverage(rows, ctx.kind, has_new_model=new is not None), {}
    # A table that cannot be made is an error row of its own; the rows of the tests stand.
    for name, make in makers.items():
        try:
            details[name] = make(ctx, sides)
        except NotRun:  # the test that needs the same says why
            continue
        except Exception as error:  # noqa: BLE001  # whatever went wrong must stand in the report
            labels = f"details.{name}", f"Details on the page: {name}", "forget", "T0"
            rows.append(_crashed(error, *labels))
    gone = tuple(ctx.class_name(label) for label in ctx.forget_classes)
    request = {"forget_classes": gone, "mislabelled": mislabelled, "seed": seed}
    found: dict[str, Any] = {"attacks": attacks, "counts": ctx.given}
    found |= outcome_of(ctx, rows, made=new is not None, reason=reason)
    return Report(ctx.tier, tuple(rows), **found, **request, **details)


def forward_passes(
    split: Split,
    *,
    mislabelled: bool = False,
    views_used: Sequence[str] = (),
    others: Records | None = None,
    probes: bool = True,
) -> int:
    """Forward passes of ``collect`` on this split; no backward pass is made.

    The sum of ``passes_by_use``. Exact where every test of tiers T0 to T2 runs.
    """
    how: dict[str, Any] = {"mislabelled": mislabelled, "views_used": views_used, "probes": probes}
    how["others"] = others
    return sum(passes_by_use(split, **how).values())


def passes_by_use(
    split: Split,
    *,
    mislabelled: bool = False,
    views_used: Sequence[str] = (),
    others: Records | None = None,
    probes: bool = True,
) -> dict[str, int]:
    """Forward passes of ``collect`` by what they are for; ``probes`` False omits the last three.

    ``outputs``: each record once through each model · ``noise``: noise inputs, some of them twice ·
    ``copies``: quantised and pruned ones · ``embeddings``: those of the linear probe · ``views``:
    of images, the forget records through both models and unseen ones through the new one.
    """
    from efface.report.tests_forget import BITS, SHARES

    forget, holdout = split.forget, split.holdout
    parts = [others, *(getattr(split, name) for name in PARTS)]
    each = sum(len(part) for part in parts if part)
    passes = {"outputs": 2 * each, "noise": 2 * (SYNTHETIC + REPEATED)}
    if not probes or task_of(forget).name != "multiclass":
        return passes
    sampled, alike = min(len(forget), MAX_RECORDS), 0
    passes["copies"] = 2 * sampled * (len(BITS) + len(SHARES))
    if holdout and not mislabelled:
        passes["embeddings"] = 2 * (sampled + min(len(holdout), MAX_RECORDS))
        alike = int(np.isin(holdout.y.cpu().numpy(), forget.y.cpu().numpy()).sum())
    if forget.x.ndim == 4:  # noqa: PLR2004  # images
        kinds = len([kind for kind in KINDS if kind not in views_used])
        passes["views"] = VIEWS * kinds * (2 * sampled + min(alike, MAX_RECORDS))
    return passes


def _run(test: Declaration, ctx: Context, *, probes: bool) -> list[Row]:
    """The test's rows, or one row that says why there are none."""
    other_request = test.needs_forget_classes and not ctx.forget_classes
    if other_request or test.multiclass not in (None, ctx.multiclass):
        return []
    labels = test.key, test.name, test.section, test.tier
    needed, lacking = NEEDS.get(test.tier, (set(), ""))
    # In this order: missing data is said before a choice of the caller or a trait of the task.
    refusals = (
        (not needed <= ctx.given.keys(), lacking),
        (test.probe and not probes, "probes were turned off"),
        (test.needs_class and not ctx.multiclass, "needs a multiclass task"),
        (test.needs_correct_labels and ctx.mislabelled, "needs correct labels"),
    )
    note = next((why for holds, why in refusals if holds), "")
    try:
        rows = [Row(verdict=Verdict.NOT_RUN, note=note)] if note else list(test.run(ctx))
    except TooFew as why:
        rows = [Row(verdict=Verdict.TOO_FEW_RECORDS, note=str(why))]
    except NotRun as why:
        rows = [Row(verdict=Verdict.NOT_RUN, note=str(why))]
    except Exception as error:  # noqa: BLE001  # whatever went wrong must stand in the report
        return [_crashed(error, *labels)]
    return [_labelled(row, *labels) for row in rows]


def _labelled(row: Row, key: str, name: str, section: str, tier: str) -> Row:
    """The row with what it leaves empty."""
    key, name, tier = row.key or key, row.name or name, row.tier or tier
    note = " ".join(filter(None, [row.note, text.too_few(row)]))
    return replace(row, key=key, name=name, section=section, tier=tier, note=note)


def _crashed(error: Exception, *labels: str) -> Row:
    return _labelled(Row(verdict=Verdict.CRASHED, note=f"{type(error).__name__}: {error}"), *labels)


def _before_only(row: Row) -> Row:
    """What is left of a row without a new model; the positive control is about the old one."""
    if row.status in (Status.NOT_RUN, Status.ERROR) or row.key == "control.positive":
        return row
    silent = replace(row, after=None, interval=None, p=None, smallest_p=None, needed=None)
    if row.before is None:
        return replace(silent, verdict=Verdict.NOT_RUN, note="there is no new model")
    # Notes on utility speak of a change, and there was none.
    note = "" if row.section == "utility" else row.note
    return replace(silent, verdict=Verdict.NO_NEW_MODEL, note=note)


def attack_coverage(
    rows: Sequence[Row], kind: str, *, has_new_model: bool
) -> tuple[AttackCoverage, ...]:
    """Every attack that the EDPB's Opinion 28/2024 (17 December 2024) names, in its order.

    ``kind``: the name of the task.
    """
    coverage = [_membership(rows, has_new_model)]
    # One number for each class cannot repeat a record; a value for each pixel could.
    ruled_out = text.SENTENCES["not_applicable"] if kind in ("multiclass", "multilabel") else {}
    for name, why in (text.SENTENCES["not_tested"] | ruled_out).items():
        state = Coverage.NOT_APPLICABLE if name in ruled_out else Coverage.NOT_TESTED
        coverage.append(AttackCoverage(name, state, why=why))
    return tuple(coverage)


def _membership(rows: Sequence[Row], has_new_model: bool) -> AttackCoverage:
    """Every attack among the rows; controls and power are those of the loss attack."""
    name = "membership inference"
    attacks, controls, power = (
        [row for row in rows if row.key.startswith(prefix)]
        for prefix in ("attack.", "control.", "power")
    )
    if not has_new_model:
        return AttackCoverage(name, Coverage.NOT_TESTED, why="there is no new model")
    ran = [row for row in attacks if row.status is not Status.NOT_RUN]
    if not ran:
        return AttackCoverage(name, Coverage.NOT_TESTED, why=attacks[0].note)
    found = {row.status for row in (*ran, *controls)}
    # As bad as the worst row behind it: a failed control must not look like a clean result.
    worst = min(found, key=list(Status).index)
    keys = (tuple(row.key for row in part) for part in (ran, controls, power))
    return AttackCoverage(name, Coverage.TESTED, worst, "", *keys)


def _records(ctx: Context, sides: list[str]) -> list[dict[str, Any]]:
    """One entry for each forget record, in the request's order."""
    from efface.report.tests_unseen import unseen_quantiles

    # Ids stand in clear: the report is about these records, and its reader holds them.
    first = ctx.forget.before
    entries: list[dict[str, Any]] = [
        {"id": i, "label": ctx.label_text(y)} for i, y in zip(first.ids, first.y, strict=True)
    ]
    for side in sides:
        evaluation, quantiles = getattr(ctx.forget, side), None
        with suppress(Exception):  # the row of the same test says why there are none
            quantiles = unseen_quantiles(*ctx.sides(side))[0]
        for row, entry in enumerate(entries):
            about = _prediction(ctx, evaluation, row)
            about["logit_margin"] = float(evaluation.logit_margin[row])
            about["unseen_quantile"] = None if quantiles is None else float(quantiles[row])
            entry.update({f"{name}_{side}": value for name, value in about.items()})
    if "after" in sides:
        for entry in entries:  # what is above 0 is better known than before
            change = entry["logit_margin_after"] - entry["logit_margin_before"]
            entry["logit_margin_change"] = change
    return entries


def _prediction(ctx: Context, evaluation: Evaluation, row: int) -> dict[str, Any]:
    if ctx.multiclass:
        predicted = ctx.class_name(int(evaluation.predicted[row]))
        about = {"predicted": predicted, "correct": bool(evaluation.correct[row])}
        return about | {"entropy": float(evaluation.entropy[row])}
    outputs = torch.from_numpy(evaluation.logits[row : row + 1])
    predicted = task_of(ctx.split.forget).predict(outputs)[0].numpy()
    return {"predicted": ctx.label_text(predicted), "accuracy": float(evaluation.accuracy[row])}


def _per_class(ctx: Context, sides: list[str]) -> list[dict[str, Any]]:
    """Accuracy of each class on each part that is there."""
    if not ctx.multiclass:
        return []
    parts: dict[str, Pair] = {name: getattr(ctx, name) for name in PARTS if name in ctx.given}
    entries = []
    for label in sorted({int(c) for pair in parts.values() for c in np.unique(pair.before.y)}):
        entry: dict[str, Any] = {"class": label, "name": ctx.class_name(label)}
        entry["forget_class"] = label in ctx.forget_classes
        for name, pair in parts.items():
            own = pair.before.y == label
            entry[f"{name}_n"] = int(own.sum())
            for side in sides if own.any() else ():
                entry[f"{name}_{side}"] = float(getattr(pair, side).correct[own].mean())
        entries.append(entry)
    return entries


def _arrays(ctx: Context, sides: list[str]) -> dict[str, Any]:
    """Histograms of logit margin and entropy of the forget records, and of unseen records.

    The former before, after, and under all retrained models together.
    """
    evaluations: dict[str, tuple[Evaluation, ...]]
    evaluations = {f"forget_{side}": (getattr(ctx.forget, side),) for side in sides}
    if ctx.retrained:
        evaluations["forget_retrained"] = ctx.retrained_evaluations["forget"]
    if ctx.has_holdout and len(ctx.unseen):
        evaluations["unseen"] = (ctx.unseen.after,)
    names = ["logit_margin", "entropy"] if ctx.multiclass else ["logit_margin"]
    views = {key: [ctx.attack_view(one) for one in of] for key, of in evaluations.items()}
    values = {
        name: {key: np.concatenate([getattr(v, name) for v in of]) for key, of in views.items()}
        for name in names
    }
    return {name: _histogram(each) for name, each in values.items()} | {"kind": ctx.kind}


def _histogram(values: dict[str, np.ndarray]) -> dict[str, Any]:
    """Counts between shared edges; the values themselves where there are few."""
    every = np.concatenate([*values.values()])
    low, high = float(every.min()), float(every.max())
    # Shared edges make the lanes comparable; equal values would give bins of width 0.
    edges = np.linspace(low, high if high > low else low + 1, BINS + 1)

    def each(of: Callable[[np.ndarray], Any]) -> dict[str, Any]:
        return {name: of(some) for name, some in values.items()}

    return {
        "edges": edges.tolist(),
        "counts": each(lambda some: np.histogram(some, edges)[0].tolist()),
        "values": {n: some.tolist() for n, some in values.items() if len(some) <= FEW_RECORDS},
        "n": each(len),
        "mean": each(lambda some: float(some.mean())),
    }


# What the page shows next to the rows; each is made of the outputs alone.
TABLES: dict[str, Table] = {"records": _records, "per_class": _per_class, "arrays": _arrays}

"""Tier T0: outputs on the forget records and around them, and the change of the weights."""

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
from torch import Tensor, nn

from efface.errors import InputError
from efface.metrics.evaluation import evaluate
from efface.metrics.intervals import share_p
from efface.probes.precision import copies
from efface.report.context import MAX_RECORDS, REPEATED, SYNTHETIC, Context, NotRun, Pair
from efface.report.report import Row
from efface.report.tests import (
    compare,
    compare_row,
    expected_share,
    judge,
    mean_row,
    share_row,
    test,
)
from efface.report.verdicts import Verdict
from efface.report.views import KINDS, VIEWS, view_of
from efface.task import task_of

# A model that never learned a class predicts it at most so often, by accident.
ACCIDENTAL = 0.02
PROBE = {"probe": True, "needs_class": True}
BITS, SHARES = (8, 4), (0.5,)
ACCURACY = {
    "multilabel": "share of correct labels",
    "regression": "closeness of the values (1 exact, 0 off by their standard deviation)",
}
# Outputs closer than this share of their standard deviation over inputs are the same.
SAME_OUTPUT = 1e-4


def never_learned_row(before: Any, after: np.ndarray, **fields: Any) -> Row:
    """How often a class is predicted that the model should never have learned."""
    hits, n = int(after.sum()), len(after)
    # Against accidental predictions, not against 0: a single one would otherwise be impossible.
    p, flagged = accidental_p(hits, n), Verdict.ABOVE_REFERENCE
    otherwise = Verdict.NOT_SIGNIFICANT if hits else Verdict.NEVER_PREDICTED
    verdicts = {"flagged": flagged, "otherwise": otherwise}
    found = judge(p, lambda many: accidental_p(many, many), n, **verdicts)
    return share_row(before, after, 0.0, **fields, **found)


def accidental_p(hits: int, n: int) -> float:
    """One-sided p of so many predictions of a class that the model should never have learned."""
    from scipy import stats

    return float(stats.binom.sf(hits - 1, n, ACCIDENTAL))


@test("forget.accuracy", "Accuracy on the forget records", "forget", "T0", multiclass=True)
def forget_accuracy(ctx: Context) -> Iterator[Row]:
    """Share of forget records that are predicted as the label they came with."""
    before, after = ctx.forget.before.correct, ctx.forget.after.correct
    name = "Forget records predicted as the wrong label they came with" * ctx.mislabelled
    if whole_classes(ctx):
        # The only reference that needs no unseen records: never learned, never predicted.
        note = "Reference: a model that never learned the class does not predict it."
        yield never_learned_row(before, after, note=note, name=name)
    elif not ctx.has_holdout:
        note = "Without unseen records it is not known what a model without them would score."
        yield share_row(before, after, note=note, name=name)
    elif ctx.mislabelled:
        note = "Reference: how often unseen records of other classes get that label."
        found = wrong_label(ctx, after) | {"note": note, "name": name, "tier": "T1"}
        yield share_row(before, after, found.pop("reference"), **found)
    else:
        unseen, y = ctx.holdout.after, ctx.forget.after.y
        note = "Reference: the new model's accuracy on unseen records of the same classes."
        sides = unseen.correct * 1.0, y, unseen.y
        yield compare_row(before, after, *sides, note=note, tier="T1")


def whole_classes(ctx: Context) -> bool:
    """Whether every forget record is of a class that is forgotten as a whole."""
    return bool(ctx.forget_classes) and set(ctx.forget.after.y.tolist()) <= {*ctx.forget_classes}


def wrong_label(ctx: Context, correct: np.ndarray) -> dict[str, Any]:
    """``reference`` and what p decides: how often other unseen records get the wrong labels."""
    unseen = ctx.holdout.after
    rates = [(unseen.predicted[unseen.y != c] == c).mean() for c in ctx.forget.after.y]
    reference, n = float(np.mean(rates)), len(correct)

    def p(hits: int, n: int) -> float:
        return share_p(hits, n, reference, reference_n=len(unseen))

    above = correct.mean() > reference
    flagged = Verdict.ABOVE_REFERENCE if above else Verdict.BELOW_REFERENCE
    decided = judge(p(int(correct.sum()), n), lambda many: p(many, many), n, flagged=flagged)
    return {"reference": reference, **decided}


@test("forget.confidence", "Confidence on the forget records", "forget", "T0", multiclass=True)
def forget_confidence(ctx: Context) -> Iterator[Row]:
    """Mean entropy and mean logit margin; described here, judged by the tests of tier T1."""
    before, after = map(ctx.attack_view, (ctx.forget.before, ctx.forget.after))
    for of, unit in (("entropy", "nats"), ("logit_margin", "logits")):
        reference = None
        if ctx.has_holdout:
            unseen = ctx.attack_view(ctx.holdout.after)
            reference = expected_share(after.y, getattr(unseen, of), unseen.y)
        weights = "weighted by class as the forget records are"
        note = f"Reference: unseen records {ctx.matching}, {weights}." * (reference is not None)
        name = f"Mean {of.replace('_', ' ')} of the forget records"
        fields = {"key": f"forget.{of}", "name": name, "note": note, "unit": unit}
        yield mean_row(getattr(before, of), getattr(after, of), reference, **fields)


@test("forget.accuracy", "Accuracy on the forget records", "forget", "T0", multiclass=False)
def forget_task_accuracy(ctx: Context) -> Iterator[Row]:
    """The task's own accuracy and loss on the forget records."""
    before, after = ctx.forget.before, ctx.forget.after
    accuracy: dict[str, Any] = {"reference": None}
    loss = None
    if ctx.has_holdout:
        unseen = ctx.holdout.after
        sides, loss = (unseen.accuracy, after.groups, unseen.groups), float(unseen.loss.mean())
        accuracy = compare(after.accuracy, *sides) | {"tier": "T1"}
    note = "Reference: the new model on unseen records." * ctx.has_holdout
    fields: dict[str, Any] = {"name": task_name(ctx, "Forget"), "note": note}
    yield mean_row(before.accuracy, after.accuracy, **accuracy, **fields)
    fields = {"key": "forget.loss", "name": "Mean loss of the forget records", "unit": "nats"}
    yield mean_row(before.loss, after.loss, loss, **fields)


def task_name(ctx: Context, part: str) -> str:
    """What the accuracy of a task is called."""
    accuracy = ACCURACY.get(ctx.kind, f"accuracy as the task {ctx.kind!r} defines it")
    return f"{part} records: {accuracy}"


@test("residual", "Residual knowledge: augmented forget records", "forget", "T0", **PROBE)
def residual_knowledge(ctx: Context) -> Iterator[Row]:
    """Are the records recognised under other lighting, blurred, or rotated (arXiv:2601.22359)?"""
    if ctx.forget.records.x.ndim != 4:  # noqa: PLR2004
        raise NotRun("the augmentations are those of images (n, channels, height, width)")
    kinds = [kind for kind in KINDS if kind not in ctx.views_used]
    if not kinds:
        raise NotRun("the method was trained on every augmentation of this test")
    forget, unseen = ctx.sample(ctx.forget, MAX_RECORDS), None
    correct = {kind: _correct_in_views(ctx, forget, kind, ctx.old, ctx.new) for kind in kinds}
    # Wrong labels have no unseen counterpart: no unseen record came with them.
    of_unseen: dict[str, np.ndarray] = {}
    if ctx.has_holdout and len(ctx.unseen) and not ctx.mislabelled:
        unseen = ctx.sample(ctx.unseen, MAX_RECORDS)
        of_unseen = {kind: _correct_in_views(ctx, unseen, kind, ctx.new)[0] for kind in kinds}
    for kind in kinds:
        name = f"Accuracy on the forget records in other views: {kind}"
        note = f"{VIEWS} views of each of {len(forget)} records. "
        before, after = (side.mean(1) for side in correct[kind])
        row = residual_row(forget, unseen, before, after, of_unseen.get(kind), note)
        yield replace(row, key=f"residual.{kind}", name=name)
    # Forgotten as it is and recognised when shifted a little: suppression, not unlearning.
    before, after = (
        ~clean.correct & np.concatenate([both[side] for both in correct.values()], 1).any(1)
        for side, clean in enumerate((forget.before, forget.after))
    )
    expected = None
    if unseen is not None:
        found = np.concatenate([*of_unseen.values()], 1).any(1)
        expected = (~unseen.after.correct & found)[:, None]
    row = residual_row(forget, unseen, before, after, expected, "")
    name = "Forget records correct only in some other view"
    yield replace(row, key="residual.any_view", name=name)


def residual_row(
    forget: Pair, unseen: Pair | None, before: np.ndarray, after: np.ndarray, seen: Any, note: str
) -> Row:
    """The share of ``after``; ``seen`` (m, views): the same of each unseen record."""
    if unseen is None:
        return share_row(before, after, note=note.strip())
    note += f"Reference: at most {MAX_RECORDS} unseen records of the same classes."
    # A mean over views counts as one answer a record.
    sides = seen.mean(1), forget.after.y, unseen.after.y
    return compare_row(before, after, *sides, note=note, tier="T1")


def _correct_in_views(ctx: Context, pair: Pair, kind: str, *models: nn.Module) -> list[np.ndarray]:
    """For each model: is record i correct in view v? Each (n, v)."""
    views = [view_of(pair.records, kind, view=v, seed=ctx.seed) for v in range(VIEWS)]
    return [np.stack([evaluate(m, one).correct for one in views], 1) for m in models]


@test("precision", "Quantised and pruned copies", "forget", "T0", **PROBE)
def precision_copies(ctx: Context) -> Iterator[Row]:
    """Forget records that a quantised or pruned copy of the new model recognises again."""
    pair = ctx.sample(ctx.forget, MAX_RECORDS)
    try:
        # of the models as they are the answers are there already
        old, new = (
            copies(model, pair.records, bits=BITS, shares=SHARES) for model in (ctx.old, ctx.new)
        )
    except InputError as why:
        raise NotRun(str(why)) from why
    full = pair.after.correct
    for was, now in zip(old, new, strict=True):
        before, after = was.evaluation.correct, now.evaluation.correct
        gained, lost = int((~full & after).sum()), int((full & ~after).sum())
        found = recovery(ctx, full, after)
        note = f"Reference: the new model in full precision, on the same {len(pair)} records; "
        note += f"{gained} are correct in the copy only, {lost} in the model only."
        key = f"precision.{now.name.replace(' %', '').replace(' ', '_')}"
        fields = {"key": key, "name": f"Accuracy on the forget records of a copy: {now.name}"}
        yield share_row(before, after, float(full.mean()), note=note, **fields, **found)


def recovery(ctx: Context, full: np.ndarray, copied: np.ndarray) -> dict[str, Any]:
    """Is the copy correct on more forget records than the model itself, beyond chance?"""
    from scipy import stats

    gained, lost = int((~full & copied).sum()), int((full & ~copied).sum())
    n, wrong, never_learned = len(full), int((~full).sum()), whole_classes(ctx)
    # Rounding repairs an answer no more often than it breaks one: McNemar's exact test.
    p = float(stats.binom.sf(gained - 1, gained + lost, 0.5))
    # That holds for labels predicted above chance, so neither for a forgotten class nor for wrong
    # labels: their copies are also compared with a model that never saw them.
    if never_learned:
        p = max(p, accidental_p(int(copied.sum()), n))
    elif ctx.mislabelled and not ctx.has_holdout:
        return {"verdict": Verdict.NO_REFERENCE}
    elif ctx.mislabelled:
        p = max(p, wrong_label(ctx, copied)["p"])

    # Only what the model has wrong can be recovered.
    def smallest(many: int) -> float:
        least = 0.5 ** (many * wrong // n)
        return max(least, accidental_p(many, many)) if never_learned else least

    verdicts = {"flagged": Verdict.RECOVERED, "otherwise": Verdict.NOT_RECOVERED}
    return judge(p, smallest, n, **verdicts)


@test("weights.change", "Change of all weights, relative to their L2 norm", "weights", "T0")
def weights_change(ctx: Context) -> Iterator[Row]:
    """How far the weights moved, and which moved most."""
    if not (weights := [t for t in ctx.tensor_changes if t["kind"] == "weight"]):
        return
    change, norm = (sum(t[part] ** 2 for t in weights) ** 0.5 for part in ("change", "norm"))
    most, same = max(weights, key=lambda t: t["relative"]), sum(t["identical"] for t in weights)
    note = f"{same} of {len(weights)} tensors did not change. Largest: {most['name']}, "
    note += f"{most['relative']:.3g}. The size of the change says nothing about what is forgotten."
    layers = list(dict.fromkeys(t["name"].rpartition(".")[0] for t in weights))
    changed = {t["name"].rpartition(".")[0] for t in weights if not t["identical"]}
    # The size of the change is not judged: a small one may forget, a large one may not.
    verdict, p = Verdict.DESCRIPTIVE, None
    if not changed:
        verdict, p = Verdict.WEIGHTS_UNCHANGED, 0.0
    elif len(layers) > 1 and changed == {layers[-1]}:
        # Below the last layer every embedding is then the old model's to the bit.
        verdict = Verdict.ONLY_LAST_LAYER
    value = change / norm if norm else 0.0
    yield Row(after=value, verdict=verdict, note=note, p=p, unit="ratio")


@test("buffers.change", "Buffers that are not bit-identical", "weights", "T0")
def buffers_change(ctx: Context) -> Iterator[Row]:
    """BatchNorm statistics and the like must not change."""
    buffers = [t for t in ctx.tensor_changes if t["kind"] == "buffer"]
    changed = [t["name"] for t in buffers if not t["identical"]]
    verdict = Verdict.BUFFERS_CHANGED if changed else Verdict.BIT_IDENTICAL
    note = f"Of {len(buffers)}. {', '.join(changed[:5])}".strip()
    yield Row(None, float(len(changed)), 0.0, None, verdict, note, unit="count")


@test("outputs.determinism", "Largest difference between two runs, in std", "weights", "T0")
def outputs_determinism(ctx: Context) -> Iterator[Row]:
    """How far two runs on the same inputs are apart: about 0 unless something is drawn."""
    before, after = (_ratio(d.abs().max(), a.std(0).mean()) for a, d in ctx.synthetic_outputs)
    # Sums in another order stay far below the limit, so a nondeterministic kernel is no finding.
    random = after > SAME_OUTPUT
    verdict = Verdict.NON_DETERMINISTIC if random else Verdict.DETERMINISTIC
    note = f"{REPEATED} noise inputs. Random outputs hide what the weights hold." * random
    # An old model that is random itself makes no finding of the new one's randomness.
    p = 0.0 if random and before <= SAME_OUTPUT else None
    yield Row(before, after, before, None, verdict, note, p, "ratio")


def _ratio(difference: Tensor, std: Tensor) -> float:
    return float(difference) / float(std) if std else float(difference > 0)


@test("outputs.constant", "Standard deviation of the outputs over noise inputs", "weights", "T0")
def outputs_constant(ctx: Context) -> Iterator[Row]:
    """Whether the outputs depend on the input."""
    before, after = (float(first.std(0).mean()) for first, _ in ctx.synthetic_outputs)
    # Relative to the old model: logits have no scale of their own.
    constant = after <= SAME_OUTPUT * before
    verdict = Verdict.CONSTANT_OUTPUTS if constant else Verdict.DESCRIPTIVE
    note = f"{SYNTHETIC} inputs; near 0 when the outputs are the same for all."
    yield Row(before, after, None, None, verdict, note, 0.0 if constant else None, "logits")


@test("synthetic.divergence", "KL(old, new) of the outputs on noise inputs", "weights", "T0")
def synthetic_change(ctx: Context) -> Iterator[Row]:
    """How far the outputs moved, and how many predictions did not change."""
    ((old, _), (new, _)), task = ctx.synthetic_outputs, task_of(ctx.split.forget)
    note = f"{SYNTHETIC} inputs; at tier T0 the only sign of side effects."
    yield Row(after=float(task.divergence(old, new).mean()), note=note, unit="nats")
    same = round(float(task.accuracy(new, task.predict(old)).sum()))
    fields = {"key": "synthetic.agreement", "name": "Noise inputs with an unchanged prediction"}
    fields |= {"verdict": Verdict.DESCRIPTIVE, "note": note}
    yield share_row(None, same / SYNTHETIC, None, SYNTHETIC, **fields)

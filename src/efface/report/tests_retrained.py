"""Tiers T3 and TE: distance to models retrained without the records, and their exclusion.

Retraining with another seed gives another model. So each distance of the new model to the retrained
ones is reported next to the distances between these, the floor.
"""

from collections.abc import Callable, Iterator, Sequence
from itertools import combinations
from typing import Any

import numpy as np
from torch import nn

from efface.metrics.equivalence import ks, outlier_p
from efface.metrics.evaluation import Evaluation
from efface.metrics.retrain_gap import columns, gap
from efface.report.context import Context, NotRun
from efface.report.report import Row
from efface.report.tests import test
from efface.report.text import UNKNOWN, count
from efface.report.verdicts import Verdict
from efface.types import PARTS

# With so many retrained models another one has a larger mean distance to them than any two of them
# have in at most 3 of 100 draws (normal values, 1 to 30 dimensions); with 3 of them in 23.
MIN_RETRAINED = 8
COLUMNS = "Accuracy and entropy attack next to retraining"
COLUMN_NAMES = {
    "retain": "D_r: accuracy on unseen records",
    "forget": "D_f: accuracy on what is forgotten",
    "attack": "MIA: forget records that the entropy attack classifies as members",
}
Distance = Callable[[Any, Any], float]


@test("retrained.columns", COLUMNS, "retrained", "T3", multiclass=True)
def retrained_columns(ctx: Context) -> Iterator[Row]:
    """Accuracies and entropy attack of old, new and retrained models, and the average gap."""
    if not {"holdout", "retain"} <= ctx.given.keys():
        raise NotRun("needs a holdout and retain records")
    forgotten = np.isin(ctx.holdout.before.y, list(ctx.forget_classes))
    # Each column needs its records: D_f of a class request is measured on unseen ones of the class.
    if forgotten.all() or (ctx.forget_classes and not forgotten.any()):
        raise NotRun("needs unseen records both of the forget classes and of others")
    pairs = [getattr(ctx, part) for part in PARTS]
    retrained = zip(*(ctx.retrained_evaluations[part] for part in PARTS), strict=True)
    models = [pair.before for pair in pairs], [pair.after for pair in pairs], *retrained
    old, new, *them = (columns(*parts, forget_classes=ctx.forget_classes) for parts in models)
    mean = {name: float(np.mean([one[name] for one in them])) for name in new}
    for name, reference in mean.items():
        each = ", ".join(f"{100 * one[name]:.1f}" for one in them)
        note = f"Reference: the mean of {count(len(them), 'retrained model')} ({each} %)."
        fields = {"key": f"retrained.{name}", "name": COLUMN_NAMES[name], "note": note}
        yield Row(old[name], new[name], reference, **fields)
    name = "Average gap of the three columns to retraining; reference: the floor"
    fields = {"key": "retrained.gap", "name": name, "unit": "distance"}
    yield _distance_row(gap, gap(old, mean), gap(new, mean), new, them, **fields)


@test("retrained.untouched_tensors", "Tensors that only retraining changed", "retrained", "T3")
def untouched_tensors(ctx: Context) -> Iterator[Row]:
    """What these tensors hold was not touched: retraining would have changed them."""
    old = dict(ctx.old.named_parameters())
    untouched = _identical(old, ctx.new).difference(*(_identical(old, m) for m in ctx.retrained))
    names = [name for name in old if name in untouched]
    verdict = Verdict.UNTOUCHED_TENSORS if names else Verdict.NO_UNTOUCHED_TENSORS
    note = f"{len(names)} of {count(len(old), 'tensor')}. {', '.join(names[:5])}".strip()
    value = len(names) / len(old) if old else 0.0
    yield Row(None, value, 0.0, None, verdict, note, 0.0 if names else None)


def _identical(old: dict[str, nn.Parameter], model: nn.Module) -> set[str]:
    new = dict(model.named_parameters())
    return {name for name in old if name in new and old[name].cpu().equal(new[name].cpu())}


@test("retrained.distance", "Distance to models retrained without the records", "retrained", "T3")
def retrained_distances(ctx: Context) -> Iterator[Row]:
    """Kolmogorov-Smirnov distances of entropy and logit margin, and disagreement, for each part."""
    shown = "Kolmogorov-Smirnov distance of the {} on {} records to retrained"
    kinds: dict[str, tuple[str, str, Distance]] = {
        "logit_margin": (shown, "distance", lambda a, b: ks(a.logit_margin, b.logit_margin)[0])
    }
    if ctx.multiclass:
        kinds["entropy"] = shown, "distance", lambda a, b: ks(a.entropy, b.entropy)[0]
        other = "{1} records with another prediction than retrained"
        kinds["disagreement"] = other, "share", _disagreement
    for key, (name, unit, distance) in kinds.items():
        for part, them in ctx.retrained_evaluations.items():
            pair = getattr(ctx, part)
            sides = [[distance(side, m) for m in them] for side in (pair.before, pair.after)]
            before, after = (float(np.mean(apart)) for apart in sides)
            fields = {"key": f"retrained.{key}.{part}", "unit": unit}
            fields |= {"name": name.format(key.replace("_", " "), part)}
            yield _distance_row(distance, before, after, pair.after, them, **fields)


def _disagreement(one: Evaluation, other: Evaluation) -> float:
    return float(np.mean(one.predicted != other.predicted))


def _distance_row(
    distance: Distance, before: float, after: float, new: Any, them: Sequence[Any], **fields: Any
) -> Row:
    """Is the new model farther from the retrained ones than these are from each other?"""
    # The reference is not 0: two retrained models differ too.
    between = [distance(one, other) for one, other in combinations(them, 2)]
    if not between:
        note = "One retrained model: the retrain-to-retrain variability is not known."
        return Row(before, after, verdict=Verdict.FLOOR_UNKNOWN, note=note, **fields)
    mean = float(np.mean([distance(new, one) for one in them]))
    note = f"Mean distance to the retrained models {mean:.3g}; between two of {len(them)} "
    note += f"{min(between):.3g} to {max(between):.3g}."
    p, verdict = None, Verdict.BEYOND_FLOOR if mean > max(between) else Verdict.WITHIN_FLOOR
    if len(them) >= MIN_RETRAINED:
        # All pairs: p is the rank of the new model among exchangeable ones.
        apart = np.array([[distance(one, two) for two in (new, *them)] for one in (new, *them)])
        p = outlier_p(apart) if apart[1:, 1:].any() else None
    elif verdict is Verdict.BEYOND_FLOOR:
        verdict, note = Verdict.TOO_FEW_RETRAINED, f"{note} A verdict needs {MIN_RETRAINED}."
    return Row(before, after, float(np.mean(between)), None, verdict, note, p, **fields)


@test("exclusion", "Forget records that the new model was trained on", "exclusion", "TE")
def exclusion(ctx: Context) -> Iterator[Row]:
    """How many forget records are, by content, among the records trained on."""
    from efface.io.data import content_digests

    # Only a model retrained from scratch claims it; others say nothing of what they trained on.
    if not ctx.exact:
        return
    # A number would be one of the given records, not of those that the command read.
    if ctx.stated:
        yield Row(verdict=Verdict.STATED, note=UNKNOWN["exclusion"], unit="count")
        return
    forget, retain, shared = ctx.split.forget, ctx.split.retain, 0
    if retain is not None:
        shared = len({*content_digests(forget)} & {*content_digests(retain)})
    trained_on = "records that are not given" if retain is None else count(len(retain))
    note = f"Trained from scratch on {trained_on}, according to whoever ran it. Matched by "
    note += "content: a near-duplicate is not found."
    verdict = Verdict.NOT_EXCLUDED if shared else Verdict.EXCLUDED
    yield Row(None, float(shared), 0.0, None, verdict, note, unit="count")

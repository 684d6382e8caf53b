"""Hazards that show before anything changes: the model's state, the data, and whether they fit.

Wrong preprocessing is the commonest silent error: nothing fails, and every prediction is wrong.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.dropout import _DropoutNd

from efface.errors import Hazard, abbreviate
from efface.io.features import FeatureSpec
from efface.io.images import OUT_OF_SCALE, Preprocessing
from efface.task import frozen_teacher, predict, task_of
from efface.types import Records

# How records became inputs: None for tensors, which came as such.
Inputs = Preprocessing | FeatureSpec | None

# Records from which an accuracy at chance is a reason to refuse.
ENOUGH = 50

P_VALUE = 1e-3

UNLESS = "unless the method runs in training mode (its setting training_mode)."

INTEGERS = "write them as integers, 1 and not 1.0 (in Python y.long())"


@dataclass(frozen=True)
class Finding:
    """One hazard: its name, how severe it is, a sentence, and what to do where it is known."""

    name: str
    severity: Literal["refuse", "warn", "note"]
    text: str
    remedy: str = ""


def doctor(
    model: nn.Module,
    preprocessing: Inputs,
    records: Records,
    *,
    classes: Sequence[str] | None = None,
    mislabelled: bool = False,
    holdout: Records | None = None,
) -> tuple[Finding, ...]:
    """Everything that could silently invalidate a request, the worst first; no side effects.

    Args:
        model: as it will be unlearned.
        preprocessing: how its inputs were made, None when they came as tensors.
        records: those to forget.
        classes: names of the model's classes.
        mislabelled: the labels of ``records`` are wrong, so that low accuracy means nothing.
        holdout: other records with correct labels.
    """
    findings = [*_check_modules(model), *_check_weights(model)]
    parts = {"records": records} if holdout is None else {"records": records, "holdout": holdout}
    # the holdout too: its labels are right where those of the records are wrong
    for name, part in parts.items():
        inputs = list(_check_inputs(name, part, preprocessing))
        findings += inputs
        # predictions on broken inputs would only repeat the finding
        if len(part) and all(finding.severity != "refuse" for finding in inputs):
            trusted = name == "holdout" or not mislabelled
            findings += _check_fit(model, name, part, classes, trusted=trusted)
        # a model that fails on some records fails on the others too
        if any(finding.name == "forward" for finding in findings):
            break
    order = ("refuse", "warn", "note").index
    return tuple(sorted(dict.fromkeys(findings), key=lambda finding: order(finding.severity)))


def refuse_hazards(findings: Iterable[Finding]) -> None:
    """Raise Hazard, with all reasons, when one of the findings is a reason to refuse."""
    findings = tuple(findings)
    reasons = [finding.text for finding in findings if finding.severity == "refuse"]
    if reasons:
        others = "--mean --std --size, at the order of the classes and at "
        others *= not all(INTEGERS in reason for reason in reasons)
        own = list(dict.fromkeys(one.remedy for one in findings if one.severity == "refuse"))
        look = " ".join(own) if all(own) else f"Look at {others}the label column."
        remedy = f"Nothing was changed. {look}"
        came = " ".join(reasons).rstrip(".")
        raise Hazard("a model and data that fit each other", came, remedy)


def _check_modules(model: nn.Module) -> Iterator[Finding]:
    """What its modules do besides computing."""
    # by base class: users derive their own layers
    kinds = [type(module) for module in model.modules()]
    if model.training:
        text = "The model was in training mode; it is used in eval mode."
        yield Finding("training mode", "warn", text)
    if any(issubclass(kind, _BatchNorm) for kind in kinds):
        text = "BatchNorm: its statistics stay as they are, bit for bit, "
        yield Finding("batchnorm", "note", f"{text}{UNLESS}")
    if any(issubclass(kind, _DropoutNd) for kind in kinds):
        text = f"Dropout: it is off while the model changes, {UNLESS}"
        yield Finding("dropout", "note", text)
    if any(".quantized" in kind.__module__ for kind in kinds):
        yield Finding("quantised", "refuse", "Quantised layers have no gradient.")


def _check_weights(model: nn.Module) -> Iterator[Finding]:
    """What its weights are."""
    # with duplicates: tied weights have several names
    weights = dict(model.named_parameters(remove_duplicate=False))
    if not weights:
        yield Finding("no weights", "refuse", "The model has no weights that could change.")
        return
    if names := [f"{n} {w.dtype}" for n, w in weights.items() if not w.is_floating_point()]:
        text = f"Weights that are not real floating-point numbers: {abbreviate(names)}."
        yield Finding("dtype", "refuse", text)
    # weights of other dtypes have been named above
    if names := [n for n, w in weights.items() if w.is_floating_point() and not w.isfinite().all()]:
        yield Finding("non-finite weights", "refuse", f"nan or inf in {abbreviate(names)}.")
    if names := sorted(set(weights) - set(dict(model.named_parameters()))):
        yield Finding("tied weights", "note", f"Tied weights move together: {abbreviate(names)}.")
    frozen = [name for name, weight in weights.items() if not weight.requires_grad]
    if len(frozen) == len(weights):
        yield Finding("frozen", "refuse", "All weights are frozen (requires_grad is False).")
    elif frozen:
        yield Finding("frozen", "warn", f"Frozen weights stay as they are: {abbreviate(frozen)}.")


def _check_inputs(name: str, part: Records, preprocessing: Inputs) -> Iterator[Finding]:
    """Whether the inputs look like what a model was trained on."""
    if not len(part):
        return
    broken = (~part.x.isfinite()).flatten(1).any(1).nonzero().flatten().tolist()
    if broken:
        ids = abbreviate([part.ids[row] for row in broken])
        yield Finding("non-finite inputs", "refuse", f"nan or inf in the {name} {ids}.")
    # normalised images stay within a few standard deviations
    elif preprocessing is None and part.x.abs().max() > OUT_OF_SCALE:
        text = f"Inputs of the {name} reach {part.x.abs().max():.0f}: raw pixels, not normalised?"
        yield Finding("input range", "warn", text)
    elif preprocessing is not None and (outside := preprocessing.outside(part.x)):
        yield Finding("input range", "warn", f"Inputs of the {name} {outside}.")


def _check_fit(
    model: nn.Module, name: str, part: Records, classes: Sequence[str] | None, *, trusted: bool
) -> Iterator[Finding]:
    """Whether the model takes these inputs, has these labels, and beats chance on them."""
    try:
        outputs = predict(frozen_teacher(model), part)
    except Hazard as error:
        text = f"The model fails on inputs of shape {tuple(part.x.shape[1:])}: {error.came}."
        yield Finding("forward", "refuse", text, error.remedy)
        return
    kind, k = task_of(part).name, outputs.shape[1]
    if classes is not None and len(classes) != k and kind in {"multiclass", "multilabel"}:
        text = f"The model has {k} outputs, and there are {len(classes)} class names."
        yield Finding("class map", "refuse", text)
    if misfit := _misfit(part.y, k, kind):
        yield Finding("labels", "refuse", f"The {name} have {misfit}.")
    elif not outputs.isfinite().all():
        text = f"The model's outputs on the {name} are nan or inf."
        yield Finding("non-finite outputs", "refuse", text)
    elif kind == "multiclass":
        yield from _check_chance(outputs, part.y, name, trusted=trusted)
    elif len(part) >= ENOUGH and trusted and kind in {"multilabel", "regression"}:
        yield from _check_constant(outputs, part, name)


def _misfit(y: Tensor, k: int, kind: str) -> str:
    """Which labels the model's outputs cannot express; empty when they fit."""
    if kind == "multiclass":
        outside = sorted({label for label in y.tolist() if not 0 <= label < k})
        text = f"labels outside the model's {k} outputs: {abbreviate(outside)}"
        return text if outside else ""
    width = y.shape[1] if y.ndim > 1 else 1
    if kind in {"multilabel", "regression"} and width != k:
        noun = "labels" if kind == "multilabel" else "values"
        integers = width == 1 and kind == "regression" and bool((y == y.round()).all())
        # pandas makes 1.0 of a class 1 as soon as a label of the column is missing
        hint = f": if they are classes, {INTEGERS}" if integers else ""
        return f"{width} {noun} each, and the model has {k} outputs{hint}"
    if kind == "multilabel" and (others := sorted(set(y.unique().tolist()) - {0, 1})):
        return f"labels that are not 0 or 1: {abbreviate(others)}"
    return "" if y.isfinite().all() else "values that are nan or inf"


def _check_chance(
    outputs: Float[Tensor, " n k"], y: Tensor, name: str, *, trusted: bool
) -> Iterator[Finding]:
    """Whether the accuracy is above chance: a one-sided binomial test at p < 0.001."""
    from scipy.stats import binomtest

    n, k = outputs.shape
    correct = int((outputs.argmax(1) == y).sum())
    # a test and no fixed margin: few records are above chance by luck
    if binomtest(correct, n, 1 / k, alternative="greater").pvalue < P_VALUE:
        return
    text = f"The model is right on {correct} of {n} {name}, no better than chance (1 in {k})"
    if trusted and n >= ENOUGH:
        yield Finding("chance", "refuse", f"{text}: mean, std, size or the class map may be wrong.")
    else:
        why = f"{n} are too few to tell" if trusted else "their labels are flagged as wrong"
        yield Finding("chance", "warn", f"{text}; {why}.")


def _check_constant(outputs: Float[Tensor, " n k"], part: Records, name: str) -> Iterator[Finding]:
    """Whether the predictions are better than the best constant one."""
    task, y = task_of(part), part.y.cpu()
    # the mean is the best constant under squared error
    constant = y.double().reshape(len(y), -1).mean(0).expand(len(y), -1)
    if task.name == "multilabel":
        constant = constant - 0.5  # as a logit: above 0 for the labels of more than half
    own, blind = (float(task.accuracy(a.double(), y).mean()) for a in (outputs, constant))
    if own <= blind:
        text = f"The model is no better on {len(y)} {name} than a constant prediction: "
        text += "the preprocessing or the order of the outputs may be wrong."
        yield Finding("chance", "refuse", text)

"""Hazards that are seen before anything moves: the model's state, the data, and whether they fit.

Wrong preprocessing is the commonest silent error: nothing fails, and every answer is wrong.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

from jaxtyping import Float, Int64
from scipy.stats import binomtest
from torch import Tensor, nn

from efface.errors import EffaceError, Hazard
from efface.io.checkpoint import some_of
from efface.io.features import FeatureSpec
from efface.io.preprocessing import FAR, Preprocessing
from efface.task import frozen_teacher, predict, task_of
from efface.types import Records

ENOUGH = 50
"""Records from which an accuracy at chance is a reason to refuse."""

P_VALUE = 1e-3

WHOLE = "write them as whole numbers, 1 and not 1.0 (in Python y.long())"


@dataclass(frozen=True)
class Finding:
    """One hazard: its name, how severe it is, and a sentence."""

    name: str
    severity: Literal["refuse", "warn", "note"]
    text: str


def doctor(
    model: nn.Module,
    preprocessing: Preprocessing | FeatureSpec | None,
    records: Records,
    *,
    classes: Sequence[str] | None = None,
    mislabelled: bool = False,
    holdout: Records | None = None,
) -> tuple[Finding, ...]:
    """Everything that could silently spoil a request, the worst first; the model is not changed.

    Args:
        model: as it will be unlearned.
        preprocessing: how its inputs were made, None when they came as tensors.
        records: those to forget.
        classes: names of the model's classes.
        mislabelled: the labels of ``records`` are wrong, so that low accuracy means nothing.
        holdout: other records with right labels.
    """
    found = [*_state(model), *_tensors(model)]
    parts = [("records", records), *([("holdout", holdout)] if holdout is not None else [])]
    for name, part in parts:
        inputs = list(_inputs(name, part, preprocessing))
        found += inputs
        if any(finding.severity == "refuse" for finding in inputs) or not len(part):
            continue
        found += _fit(
            model, name, part, classes=classes, trusted=name == "holdout" or not mislabelled
        )
    order = ("refuse", "warn", "note")
    return tuple(sorted(dict.fromkeys(found), key=lambda finding: order.index(finding.severity)))


def refuse_if_needed(findings: Iterable[Finding]) -> None:
    """Raise Hazard, with all reasons, when one of the findings is a reason to refuse."""
    reasons = [finding.text for finding in findings if finding.severity == "refuse"]
    if reasons:
        others = "--mean --std --size, at the order of the classes and at "
        raise Hazard(
            "a model and data that fit each other",
            " ".join(reasons).rstrip("."),
            f"Nothing was changed. Look at {'' if all(WHOLE in r for r in reasons) else others}"
            "the label column.",
        )


def _state(model: nn.Module) -> Iterator[Finding]:
    """What modules do besides computing."""
    kinds = [type(module) for module in model.modules()]
    if model.training:
        yield Finding(
            "training mode", "warn", "The model was in training mode; it is taken in eval mode."
        )
    if any(issubclass(kind, nn.modules.batchnorm._BatchNorm) for kind in kinds):  # noqa: SLF001
        yield Finding(
            "batchnorm", "note", "BatchNorm: its statistics are kept as they are, bit for bit."
        )
    if any(issubclass(kind, nn.modules.dropout._DropoutNd) for kind in kinds):  # noqa: SLF001
        yield Finding("dropout", "note", "Dropout: it is switched off while the model changes.")
    if any(".quantized" in kind.__module__ for kind in kinds):
        yield Finding("quantised", "refuse", "Quantised layers have no gradient.")


def _tensors(model: nn.Module) -> Iterator[Finding]:
    """What the weights are."""
    weights = dict(model.named_parameters(remove_duplicate=False))
    if not weights:
        yield Finding("no weights", "refuse", "The model has no weights that could change.")
        return
    names = [f"{name} {w.dtype}" for name, w in weights.items() if not w.is_floating_point()]
    if names:
        yield Finding("dtype", "refuse", f"Weights that are no real numbers: {some_of(names)}.")
    broken = [n for n, w in weights.items() if w.is_floating_point() and not w.isfinite().all()]
    if broken:
        yield Finding("non-finite weights", "refuse", f"nan or inf in {some_of(broken)}.")
    tied = set(weights) - set(dict(model.named_parameters()))
    if tied:
        yield Finding(
            "tied weights", "note", f"Tied weights move together: {some_of(sorted(tied))}."
        )
    frozen = [name for name, weight in weights.items() if not weight.requires_grad]
    if len(frozen) == len(weights):
        yield Finding("frozen", "refuse", "All weights are frozen (requires_grad is False).")
    elif frozen:
        yield Finding("frozen", "warn", f"Frozen weights stay as they are: {some_of(frozen)}.")


def _inputs(
    name: str, part: Records, preprocessing: Preprocessing | FeatureSpec | None
) -> Iterator[Finding]:
    """Whether the inputs look like what a model was trained on."""
    if not len(part):
        return
    broken = (~part.x.isfinite()).flatten(1).any(1).nonzero().flatten().tolist()
    if broken:
        ids = some_of([part.ids[row] for row in broken])
        yield Finding("non-finite inputs", "refuse", f"nan or inf in the {name} {ids}.")
    elif preprocessing is None and part.x.abs().max() > FAR:
        yield Finding(
            "input range",
            "warn",
            f"Inputs of the {name} reach {part.x.abs().max():.0f}: raw pixels, not normalised?",
        )
    elif preprocessing is not None and (outside := preprocessing.outside(part.x)):
        yield Finding("input range", "warn", f"Inputs of the {name} {outside}.")


def _fit(
    model: nn.Module, name: str, part: Records, *, classes: Sequence[str] | None, trusted: bool
) -> Iterator[Finding]:
    """Whether the model takes these inputs, has these labels, and knows any of them."""
    try:
        answers = predict(frozen_teacher(model), part)
    except EffaceError:
        raise
    except Exception as error:  # noqa: BLE001  # a user's net may raise anything
        text = f"The model does not take inputs of shape {tuple(part.x.shape[1:])}: "
        yield Finding("input shape", "refuse", text + f"{error}".splitlines()[0] + ".")
        return
    task, k = task_of(part), answers.shape[1]
    if classes is not None and len(classes) != k and task.name in {"multiclass", "multilabel"}:
        text = f"The model has {k} outputs, and there are {len(classes)} class names."
        yield Finding("class map", "refuse", text)
    if misfit := _misfit(part.y, k, task.name):
        yield Finding("labels", "refuse", f"The {name} have {misfit}.")
    elif not answers.isfinite().all():
        yield Finding("answers", "refuse", f"The model answers nan or inf on the {name}.")
    elif task.name == "multiclass":
        yield from _baseline(answers, part.y, name, trusted=trusted)
    elif len(part) >= ENOUGH and trusted:
        yield from _constant(answers, part, name)


def _misfit(y: Tensor, k: int, kind: str) -> str:
    """What labels the records have that the model's outputs cannot say; empty when they fit."""
    if kind == "multiclass":
        outside = sorted({label for label in y.tolist() if not 0 <= label < k})
        told = f"labels that the model with {k} outputs does not: {some_of(outside)}"
        return told if outside else ""
    width = y.shape[1] if y.ndim > 1 else 1
    if kind in {"multilabel", "regression"} and width != k:
        told = f"{width} {kind.rsplit(maxsplit=1)[-1]} each, and the model has {k} outputs"
        whole = width == 1 and kind == "regression" and bool((y == y.round()).all())
        # pandas makes 1.0 of a class 1 as soon as one label of the column is missing
        return told + (f": if they are classes, {WHOLE}" if whole else "")
    if kind == "multilabel" and not ((y == 0) | (y == 1)).all():
        return f"labels that are not 0 or 1: {some_of(sorted(set(y.flatten().tolist()) - {0, 1}))}"
    return "" if y.isfinite().all() else "values that are nan or inf"


def _constant(answers: Float[Tensor, " n k"], part: Records, name: str) -> Iterator[Finding]:
    """Whether the answers are better than always saying what is commonest among these records."""
    task, y = task_of(part), part.y.cpu()
    if task.name not in {"multilabel", "regression"}:
        return
    middle = y.double().reshape(len(y), -1).mean(0).expand(len(y), -1)
    always = middle - 0.5 if task.name == "multilabel" else middle
    own, blind = (float(task.accuracy(a.double(), y).mean()) for a in (answers, always))
    if own <= blind:
        text = f"The model is no better on {len(y)} {name} than one constant answer"
        yield Finding(
            "chance",
            "refuse",
            f"{text}: the preprocessing or the order of the outputs may be wrong.",
        )


def _baseline(
    answers: Float[Tensor, " n k"], y: Int64[Tensor, " n"], name: str, *, trusted: bool
) -> Iterator[Finding]:
    """Whether the accuracy is above that of a guess: a binomial test at p < 0.001."""
    n, k = answers.shape
    right = int((answers.argmax(1) == y).sum())
    if binomtest(right, n, 1 / k, alternative="greater").pvalue < P_VALUE:
        return
    text = f"The model is right on {right} of {n} {name}, no better than chance (1 in {k})"
    if trusted and n >= ENOUGH:
        yield Finding("chance", "refuse", f"{text}: mean, std, size or the class map may be wrong.")
    elif not trusted:
        yield Finding("chance", "warn", f"{text}; their labels are said to be wrong.")
    else:
        yield Finding("chance", "warn", f"{text}; {n} are too few to tell.")

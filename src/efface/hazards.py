"""Hazards that show before anything changes: the model's state, the data, and whether they fit.

Wrong preprocessing is the commonest silent error: nothing fails, and every prediction is wrong. So
``doctor`` says how right the model is on a sample of each part of the data, and what would explain
it where it is wrong. ``FINDINGS`` lists all that it and others can find.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.dropout import _DropoutNd

from efface import causes
from efface.causes import P_VALUE, binomial_tail
from efface.errors import Hazard, InputError, abbreviate, did_you_mean
from efface.io.data import content_digests
from efface.io.features import Spec
from efface.io.images import OUT_OF_SCALE
from efface.runtime import HALF, fork_rng, to_eval
from efface.task import device_of, dtype_of, frozen_teacher, predict, shared_view, task_of
from efface.types import Records, sample_rows

Severity = Literal["refuse", "warn", "note"]

# records of each part that the model predicts
SAMPLE = 250
# of them for other scales and sizes of the inputs, which are tried where the model is at chance
FEW_INPUTS = 100
# of them for what takes several passes: gradients, repetitions, other companions
FEW = 32
# Records from which an accuracy at chance is a reason to refuse.
ENOUGH = 50
# share of an output's standard deviation that rounding may move it by; in half precision
ROUNDING, HALF_ROUNDING = 1e-3, 5e-2
# label vectors from which one 1 in each is no accident
FEW_LABELS = 10
# how texts call the records of a part
NOUNS = {"records": "records", "others": "other records", "holdout": "holdout records"}

UNLESS = "unless the method runs in training mode (its setting training_mode)."

INTEGERS = "write them as integers, 1 and not 1.0 (in Python y.long())"
CHECK_INPUTS = "Look at --mean --std --size, at the order of the classes and at the label column."


class Kind(NamedTuple):
    """What a finding of one name means; ``accept``: whether a refusal can be accepted."""

    severity: str
    cause: str
    remedy: str
    accept: bool = False


# every finding: the page docs/findings.md is this table
FINDINGS = {
    "no-weights": Kind("refuse", "The model has no parameters.", "Give a model that has some."),
    "dtype": Kind("refuse", "Weights are complex or integers.", "Convert them: model.float()."),
    "quantised": Kind(
        "refuse",
        "Quantised layers have no gradient.",
        "Unlearn the model from before its quantisation, then quantise the result.",
    ),
    "non-finite-weights": Kind(
        "refuse", "Training diverged.", "Use a checkpoint from before training diverged."
    ),
    "frozen": Kind(
        "refuse or warn",
        "requires_grad is False, of all weights or of some, which then stay.",
        "Call model.requires_grad_(True).",
    ),
    "no-gradient": Kind(
        "refuse",
        "The outputs do not depend on the weights by a gradient: torch.no_grad or inference_mode "
        "in forward, detached outputs, or frozen weights that answer in eval mode (an average).",
        "Take it out of forward, or give the module that answers with its own weights.",
    ),
    "forward": Kind(
        "refuse", "The model raises on these inputs.", "Give inputs as in training: --size, --mean."
    ),
    "non-finite-inputs": Kind(
        "refuse", "Inputs are nan or inf.", "Fix these records, or omit their ids."
    ),
    "non-finite-outputs": Kind(
        "refuse", "The model overflows.", "Use float32 or bfloat16, or look at the inputs' scale."
    ),
    "labels": Kind(
        "refuse",
        "Labels that the model's outputs cannot express.",
        "Number the classes from 0, in the order of the model's outputs.",
    ),
    "class-map": Kind(
        "refuse",
        "There are more or fewer class names than outputs.",
        "Give --classes, one name an output, in the model's order.",
    ),
    "probabilities": Kind(
        "refuse",
        "The outputs are from 0 to 1 (and their rows sum to 1): a softmax or sigmoid in the model.",
        "Return the logits, before the softmax or sigmoid, or the logarithm of the probabilities.",
        accept=True,
    ),
    "one-hot": Kind(
        "refuse or warn",
        "Every label vector has exactly one 1: one class a record, and not several labels.",
        "Give the class itself: y.argmax(1).",
        accept=True,
    ),
    "output-part": Kind(
        "refuse or warn",
        "The model returns several tensors, and not the first (or logits) is right.",
        "Return the logits first, or alone.",
        accept=True,
    ),
    "class-order": Kind(
        "refuse or warn",
        "The labels are numbered otherwise than the outputs: sorted as text, counted from 1, two "
        "classes swapped, or permuted.",
        "Give --classes in the model's order, or number the labels as the model does.",
        accept=True,
    ),
    "preprocessing": Kind(
        "refuse",
        "The model is at chance on the inputs as given, and right on them in another scale, order "
        "of colours or size.",
        "Make the inputs so: --mean --std --size, or the transform of the training.",
        accept=True,
    ),
    "units": Kind(
        "refuse",
        "Values are right up to their unit: the model was trained on standardised ones.",
        "Standardise the values as in training.",
        accept=True,
    ),
    "chance": Kind(
        "refuse or warn",
        "The model is no better than chance, and nothing that was tried explains it.",
        CHECK_INPUTS,
        accept=True,
    ),
    "holdout-known": Kind(
        "refuse or warn",
        "Records of the holdout are in the training data too (refused where they "
        "are most of either): what was trained on is no measure of unseen.",
        "Give a holdout that the model was not trained on.",
        accept=True,
    ),
    "not-known": Kind(
        "warn",
        "The model is wrong on the records named and right on others: their labels are wrong, or "
        "it does not know them (any more).",
        "Look at their labels; give --mislabelled where they are wrong.",
    ),
    "class-names": Kind(
        "warn",
        "Two classes have one name.",
        "Name such a class by its number, or give --classes with distinct names.",
    ),
    "training-mode": Kind("warn", "The model was in training mode.", "Call model.eval()."),
    "input-range": Kind(
        "warn",
        "Inputs lie outside what their preprocessing makes, or look like raw pixels.",
        "Normalise them as in training: --mean --std.",
    ),
    "constant-inputs": Kind(
        "warn", "Images of one colour: often decoded wrongly.", "Look at these files."
    ),
    "random-outputs": Kind(
        "warn",
        "The same record gets other outputs in a second pass: dropout or noise is on in eval mode.",
        "Switch it off in eval mode (nn.Dropout does); else each number of the report is one draw.",
    ),
    "batch-dependent": Kind(
        "warn",
        "The outputs of a record depend on the others of its batch: BatchNorm without running "
        "statistics.",
        "Track running statistics; else accuracies hold for these batches alone.",
    ),
    "not reached": Kind(
        "warn", "The method stopped before its own target.", "Give more steps or strength."
    ),
    "selection": Kind("warn", "The method saw only the selected records.", "Omit --selection."),
    "whole-group": Kind(
        "warn or note",
        "Whether records of their kind stay decides if their label may be predicted.",
        "Give --whole-group only if the label itself may not be predicted: never for a clinic or a "
        "customer, whose labels other records have too.",
    ),
    "utility-budget": Kind(
        "warn",
        "On the report's part of the holdout more accuracy was lost than the budget. On its own "
        "part the guard allows the budget and two standard errors.",
        "Lower --strength, or give a larger holdout.",
    ),
    "reference-seen": Kind(
        "warn or note",
        "The reference model's log-odds of the labels are higher than on unseen records of the "
        "same classes: it seems to have seen them (or, without a holdout, was not checked).",
        "Give a model that was trained without them.",
    ),
    "reference-unread": Kind(
        "warn", "The method reads no reference model.", "Choose neighbourhood, or omit it."
    ),
    "weights": Kind("warn", "By the weights the method did not see some.", "Omit --weights."),
    "sigma": Kind("warn", "No noise scale keeps that share of predictions.", "Give --sigma."),
    "log-probabilities": Kind("note", "The outputs are logarithms: right as they are.", ""),
    "batchnorm": Kind("note", "Running statistics are kept bit for bit.", ""),
    "dropout": Kind("note", "Dropout layers are off while the model changes.", ""),
    "tied-weights": Kind("note", "Weights of several names move together.", ""),
    "unused-weights": Kind("note", "No output depends on them (another head): they stay.", ""),
    "auto": Kind("note", "Why `--method auto` chose its method.", ""),
    "adapter": Kind("note", "Who removes a separate adapter has the old model.", ""),
}
# models that answer well and cannot learn
UNCHANGEABLE = {"no-weights", "quantised", "frozen", "no-gradient"}
ACCEPTABLE = tuple(name for name, kind in FINDINGS.items() if kind.accept)


@dataclass(frozen=True)
class Finding:
    """One hazard: its name, how severe it is, a sentence, and what to do about it."""

    name: str
    severity: Severity
    text: str
    remedy: str = ""

    def __post_init__(self) -> None:
        """The remedy of its kind, where none of its own is given."""
        if not self.remedy and self.name in FINDINGS:
            object.__setattr__(self, "remedy", FINDINGS[self.name].remedy)


@dataclass(frozen=True)
class Accuracy:
    """The mean accuracy (0 to 1, of the task) on a ``sample`` of the ``of`` records of a part."""

    accuracy: float
    sample: int
    of: int

    def __str__(self) -> str:
        right = self.accuracy * self.sample
        whole = abs(right - round(right)) < 1e-3  # noqa: PLR2004
        return f"{round(right)} of {self.sample}" if whole else f"{self.accuracy:.1%}"


@dataclass(frozen=True)
class Diagnosis:
    """What ``doctor`` returns: the findings, the worst first, and the accuracy by part."""

    findings: tuple[Finding, ...]
    accuracy: dict[str, Accuracy]

    def refuse(self) -> None:
        """Raise Hazard, with all reasons and their remedies, when a finding is one to refuse."""
        refused = [finding for finding in self.findings if finding.severity == "refuse"]
        if not refused:
            return
        remedies = ["Nothing was changed.", *dict.fromkeys(one.remedy for one in refused)]
        names = dict.fromkeys(one.name for one in refused)
        if all(name in ACCEPTABLE for name in names):
            flags = " ".join(f"--accept {name}" for name in names)
            remedies.append(f"Where this is meant: {flags}.")
        came = " ".join(one.text for one in refused).rstrip(".")
        remedy = " ".join(filter(None, remedies))
        error = Hazard("a model and data that fit each other", came, remedy)
        error.diagnosis = self
        raise error


def doctor(
    model: nn.Module,
    preprocessing: Spec | None,
    records: Records,
    *,
    classes: Sequence[str] | None = None,
    mislabelled: bool = False,
    holdout: Records | None = None,
    others: Records | None = None,
    accept: Sequence[str] = (),
) -> Diagnosis:
    """Everything that could silently invalidate a request, the worst first; no side effects.

    Args:
        model: as it will be unlearned.
        preprocessing: how its inputs were made, None when they came as tensors.
        records: those to forget.
        classes: names of the model's classes.
        mislabelled: the labels of ``records`` are wrong, so that low accuracy means nothing.
        holdout: records never trained on, with correct labels.
        others: records of the training data that are not to be forgotten, likewise.
        accept: names of findings that shall warn instead of refusing.

    Raises InputError for a name in ``accept`` that no finding has, or that cannot be right at all.
    """
    check_accept(accept)
    parts = {"records": records, "others": others, "holdout": holdout}
    parts = {name: part for name, part in parts.items() if part is not None and len(part)}
    findings = [*_check_modules(model), *_check_weights(model), *_check_names(classes)]
    accuracy: dict[str, Accuracy] = {}
    # a model that draws at random must not move the caller's state, and draws the same each time
    with fork_rng():
        torch.manual_seed(0)
        for name, part in parts.items():
            findings += _check_inputs(name, part, preprocessing)
        # predictions on broken inputs or by broken weights would only repeat the finding
        if not {f.name for f in findings if f.severity == "refuse"} - UNCHANGEABLE:
            fit = _Fit(model, preprocessing, classes, mislabelled=mislabelled)
            findings += fit.check(parts)
            accuracy = fit.accuracy
    if "holdout" in parts:
        findings += _check_holdout(parts["holdout"], parts.get("others", records))
    order = ("refuse", "warn", "note").index
    findings = [replace(f, severity="warn") if f.name in accept else f for f in findings]
    findings = sorted(dict.fromkeys(findings), key=lambda finding: order(finding.severity))
    return Diagnosis(tuple(findings), accuracy)


def check_accept(names: Iterable[str]) -> None:
    """Raise InputError for a name that no finding has, or whose refusal cannot be accepted."""
    for name in names:
        if name not in ACCEPTABLE:
            wanted = f"findings to accept out of {', '.join(ACCEPTABLE)}"
            otherwise = "This one cannot be right at all: change the model or the data."
            known = name in FINDINGS
            remedy = otherwise if known else did_you_mean(name, ACCEPTABLE)
            raise InputError(wanted, repr(name), remedy)


def _check_modules(model: nn.Module) -> Iterator[Finding]:
    """What its modules do besides computing."""
    # by base class: users derive their own layers
    kinds = [type(module) for module in model.modules()]
    if model.training:
        text = "The model was in training mode; it is used in eval mode."
        yield Finding("training-mode", "warn", text)
    norms = [module for module in model.modules() if isinstance(module, _BatchNorm)]
    # without running statistics a layer has none to keep
    if any(norm.running_mean is not None for norm in norms):
        text = "BatchNorm: its statistics stay as they are, bit for bit, "
        yield Finding("batchnorm", "note", f"{text}{UNLESS}")
    if any(issubclass(kind, _DropoutNd) for kind in kinds):
        text = f"Dropout layers are off while the model changes, {UNLESS}"
        yield Finding("dropout", "note", text)
    if any(".quantized" in kind.__module__ for kind in kinds):
        yield Finding("quantised", "refuse", "Quantised layers have no gradient.")


def _check_weights(model: nn.Module) -> Iterator[Finding]:
    """What its weights are."""
    # with duplicates: tied weights have several names
    weights = dict(model.named_parameters(remove_duplicate=False))
    if not weights:
        yield Finding("no-weights", "refuse", "The model has no weights that could change.")
        return
    if names := [f"{n} {w.dtype}" for n, w in weights.items() if not w.is_floating_point()]:
        text = f"Weights that are not real floating-point numbers: {abbreviate(names)}."
        yield Finding("dtype", "refuse", text)
    # weights of other dtypes have been named above
    if names := [n for n, w in weights.items() if w.is_floating_point() and not w.isfinite().all()]:
        yield Finding("non-finite-weights", "refuse", f"nan or inf in {abbreviate(names)}.")
    if names := sorted(set(weights) - set(dict(model.named_parameters()))):
        yield Finding("tied-weights", "note", f"Tied weights move together: {abbreviate(names)}.")
    frozen = [name for name, weight in weights.items() if not weight.requires_grad]
    if len(frozen) == len(weights):
        yield Finding("frozen", "refuse", "All weights are frozen (requires_grad is False).")
    elif frozen:
        yield Finding("frozen", "warn", f"Frozen weights stay as they are: {abbreviate(frozen)}.")


def _check_names(classes: Sequence[str] | None) -> Iterator[Finding]:
    """Whether each class has a name of its own."""
    names = list(classes or ())
    for name in dict.fromkeys(name for name in names if names.count(name) > 1):
        numbers = " and ".join(str(place) for place, one in enumerate(names) if one == name)
        yield Finding("class-names", "warn", f"The classes {numbers} are both called {name}.")


def _check_inputs(name: str, part: Records, preprocessing: Spec | None) -> Iterator[Finding]:
    """Whether the inputs look like what a model was trained on."""
    broken = (~part.x.isfinite()).flatten(1).any(1).nonzero().flatten().tolist()
    if broken:
        ids = abbreviate([part.ids[row] for row in broken])
        yield Finding("non-finite-inputs", "refuse", f"nan or inf in the {NOUNS[name]} {ids}.")
        return
    # normalised images stay within a few standard deviations
    if preprocessing is None and part.x.abs().max() > OUT_OF_SCALE:
        text = f"Inputs of the {NOUNS[name]} reach {part.x.abs().max():.0f}: "
        yield Finding("input-range", "warn", f"{text}raw pixels, not normalised?")
    elif preprocessing is not None and (outside := preprocessing.outside(part.x)):
        yield Finding("input-range", "warn", f"Inputs of the {NOUNS[name]} {outside}.")
    rows = part.x.flatten(2) if part.x.ndim == 4 else None  # noqa: PLR2004
    # a decoder that fails in silence gives black
    if rows is not None and (flat := (rows.amin(2) == rows.amax(2)).all(1)).any():
        ids = abbreviate([part.ids[row] for row in flat.nonzero().flatten().tolist()])
        text = f"{int(flat.sum())} of {len(part)} {NOUNS[name]} are of one colour: {ids}."
        yield Finding("constant-inputs", "warn", text)


def _check_holdout(holdout: Records, trained: Records) -> Iterator[Finding]:
    """Whether records of the holdout are among those that were trained on."""
    unseen, known = content_digests(holdout), content_digests(trained)
    both = {*unseen} & {*known}
    if shared := sum(one in both for one in unseen):
        most = 2 * shared > len(unseen) or 2 * sum(one in both for one in known) > len(known)
        text = f"{shared} of {len(unseen)} holdout records are among {len(known)} of the training "
        text += "data: known records, and not unseen ones."
        yield Finding("holdout-known", "refuse" if most else "warn", text)


@dataclass(frozen=True)
class _Part:
    """A sample of a part of the data with the model's outputs on it."""

    name: str
    records: Records
    outputs: Tensor
    # of all its records
    size: int
    trusted: bool

    @property
    def right(self) -> int:
        """How many predictions are the label."""
        return int((self.outputs.argmax(1) == self.records.y.cpu()).sum())

    @property
    def above_chance(self) -> bool:
        """Whether the accuracy is above chance: a one-sided binomial test at p < 0.001."""
        # a test and no fixed margin: few records are above chance by luck
        n, k = self.outputs.shape
        return binomial_tail(self.right, n, 1 / k) < P_VALUE

    @property
    def poor(self) -> bool:
        """Whether it is at chance, and not merely a few records most of which are right."""
        n, k = self.outputs.shape
        return not self.above_chance and self.right < n * (1 + 1 / k) / 2

    def __str__(self) -> str:
        return f"{self.right} of {len(self.records)} {NOUNS[self.name]}"


class _Fit:
    """Whether the model takes these inputs, has these labels, and is right on them."""

    def __init__(
        self,
        model: nn.Module,
        preprocessing: Spec | None,
        classes: Sequence[str] | None,
        *,
        mislabelled: bool,
    ) -> None:
        self.model, self.preprocessing, self.classes = model, preprocessing, classes
        self.mislabelled = mislabelled
        self.accuracy: dict[str, Accuracy] = {}

    def check(self, parts: Mapping[str, Records]) -> Iterator[Finding]:
        """The findings of all parts; fills ``accuracy``."""
        measured = []
        # of all parts: those that are named may be of one class
        self.labels = {label for part in parts.values() for label in _class_ids(part)}
        for name, whole in parts.items():
            # of the whole part: the scale of values must not depend on the sample
            records = replace(whole, task=task_of(whole))
            records = records.take(sample_rows(len(whole), SAMPLE))
            try:
                outputs = predict(frozen_teacher(self.model), records)
            except Hazard as error:
                shape, sizes = tuple(whole.x.shape[1:]), causes.sizes_taken(self.model, records)
                # where two records of their own size pass, the size is not the reason
                other = sizes and shape[-1] not in sizes
                remedy = f"It takes images of {abbreviate(sizes)} pixels: --size." if other else ""
                text = f"The model fails on inputs of shape {shape}: {error.came}."
                yield Finding("forward", "refuse", text, remedy or error.remedy)
                # a model that fails on some records fails on the others too
                return
            trusted = name != "records" or not self.mislabelled
            part = _Part(name, records, outputs, len(whole), trusted)
            # labels of the whole part: one that is wrong need not be in the sample
            broken = list(self._misfit(part, whole.y.cpu()))
            yield from broken
            if not broken:
                task = task_of(records)
                right = task.accuracy(outputs, records.y.cpu()).double().mean()
                self.accuracy[name] = Accuracy(float(right), len(records), len(whole))
                measured.append(part)
        if measured:
            most = max(measured, key=lambda part: len(part.records))
            yield from check_behaviour(self.model, most.records)
            yield from self._check_accuracy(measured)

    def _misfit(self, part: _Part, y: Tensor) -> Iterator[Finding]:
        """Whether outputs and labels can belong together at all."""
        (_, k), kind = part.outputs.shape, task_of(part.records).name
        names = self.classes if kind in {"multiclass", "multilabel"} else None
        if names is not None and len(names) != k:
            text = f"The model has {k} outputs, and there are {len(names)} class names."
            yield Finding("class-map", "refuse", text)
        text, remedy = _misfit(y, k, kind, self.labels)
        if text:
            yield Finding("labels", "refuse", f"The {NOUNS[part.name]} have {text}.", remedy)
        elif not part.outputs.isfinite().all():
            text = f"The model's outputs on the {NOUNS[part.name]} are nan or inf."
            yield Finding("non-finite-outputs", "refuse", text)

    def _check_accuracy(self, parts: list[_Part]) -> Iterator[Finding]:
        """What the outputs are, and whether they are right."""
        outputs, kind = torch.cat([part.outputs for part in parts]), task_of(parts[0].records).name
        named = causes.probabilities(outputs, kind, half=dtype_of(self.model) in HALF)
        if named == "probabilities":
            text = f"All {outputs.numel()} outputs are from 0 to 1"
            softmax = ((outputs.sum(1) - 1).abs() < causes.HALF_SUM_ERROR).all()
            text += " and each row sums to 1" * bool(softmax and outputs.shape[1] > 1)
            yield Finding(named, "refuse", f"{text}: probabilities, and not logits.")
        elif named:
            yield Finding(named, "note", "The outputs are log-probabilities: right as they are.")
        if kind == "multiclass":
            yield from self._check_classes(parts)
        classes = list(self._check_one_hot(parts)) if kind == "multilabel" else []
        yield from classes
        # of classes taken for labels nothing else can be said
        if kind in {"multilabel", "regression"} and not classes:
            for part in parts:
                if len(part.records) >= ENOUGH and part.trusted:
                    yield from _check_constant(part)

    def _check_classes(self, parts: list[_Part]) -> Iterator[Finding]:
        """Whether each part is above chance and, where labels are to be trusted, why it is not."""
        named, *references = parts if parts[0].name == "records" else (None, *parts)
        for part in references:
            yield from self._explain(part)
        if named is None:
            return
        good = [part for part in references if part.above_chance]
        if not named.trusted:
            if named.poor:
                text = f"The model gives {named} their flagged label: the others it never learned."
                yield Finding("not-known", "note", text)
        elif not good:
            yield from self._explain(named)
        elif named.poor:
            right = " and ".join(map(str, good))
            yield Finding("not-known", "warn", f"The model is right on {named}, and on {right}.")

    def _explain(self, part: _Part) -> Iterator[Finding]:
        """The most likely cause where a part is at chance, or its classes in another order."""
        n, k = part.outputs.shape
        serious: Severity = "refuse" if n >= ENOUGH and not part.above_chance else "warn"
        text = f"The model is right on {part}"
        text += "" if part.above_chance else f", no better than chance (1 in {k})"
        y, view = part.records.y.cpu(), frozen_teacher(self.model)
        found: dict[str, causes.Cause | None] = {
            "class-order": causes.class_order(part.outputs.argmax(1), y, k, self.classes),
            "output-part": causes.other_outputs(view, part.records, part.right),
        }
        if part.poor:
            few = part.records.take(range(min(n, FEW_INPUTS)))
            found["preprocessing"] = causes.other_inputs(view, few, self.preprocessing)
        likely = {name: cause for name, cause in found.items() if cause is not None}
        if likely:
            # the one that explains most
            name, cause = max(likely.items(), key=lambda pair: pair[1].right / pair[1].n)
            yield Finding(name, serious, f"{text}; on {cause.right} of {cause.n} {cause.what}.")
        elif part.poor and n >= ENOUGH:
            text += ": mean, std, size or the class map may be wrong."
            yield Finding("chance", serious, text)
        elif part.poor:
            yield Finding("chance", serious, f"{text}; {n} are too few to tell.")

    def _check_one_hot(self, parts: list[_Part]) -> Iterator[Finding]:
        """Whether multilabel labels are classes, written as vectors with one 1."""
        y = torch.cat([part.records.y.cpu() for part in parts])
        outputs = torch.cat([part.outputs for part in parts])
        # in a few records it may be chance
        if y.shape[1] < 2 or len(y) < FEW_LABELS or not (y.sum(1) == 1).all():  # noqa: PLR2004
            return
        text = f"Each of {len(y)} label vectors has exactly one 1"
        right = int((outputs.argmax(1) == y.argmax(1)).sum())
        exact = int(((outputs > 0) == (y > 0)).all(1).sum())
        # sigmoids that learned such labels are above 0 once a record
        if 2 * exact <= len(y) and binomial_tail(right, len(y), 1 / y.shape[1]) < P_VALUE:
            text += f", and the highest output is that one for {right}: a class each, of a softmax."
            yield Finding("one-hot", "refuse", text)
        else:
            yield Finding("one-hot", "warn", f"{text}: classes, or several labels?")


def _class_ids(part: Records) -> list[int]:
    """The class ids of a part, none where it has no classes."""
    one_each = part.y.ndim == 1 and not part.y.dtype.is_floating_point
    return part.y.unique().tolist() if one_each else []


def _misfit(y: Tensor, k: int, kind: str, seen: set[int]) -> tuple[str, str]:
    """(which labels the model's outputs cannot express, what to do); empty when they fit.

    ``seen``: the class ids of all parts.
    """
    if kind == "multiclass":
        return _misfit_classes(sorted(set(y.tolist())), k, seen)
    width = y.shape[1] if y.ndim > 1 else 1
    if kind in {"multilabel", "regression"} and width != k:
        noun = "labels" if kind == "multilabel" else "values"
        text, remedy = f"{width} {noun} each, and the model has {k} outputs", "Give one an output."
        if width == 1 and kind == "multilabel":
            remedy = "Give classes as one number a record: y[:, 0]."
        elif width == 1 and bool((y == y.round()).all()):
            # pandas makes 1.0 of a class 1 as soon as a label of the column is missing
            text, remedy = f"{text}: if they are classes, {INTEGERS}", "Look at the label column."
        return text, remedy
    if kind == "multilabel" and (others := sorted(set(y.unique().tolist()) - {0, 1})):
        return f"labels that are not 0 or 1: {abbreviate(others)}", "Write 0 and 1."
    return ("", "") if y.isfinite().all() else ("values that are nan or inf", "Fix these records.")


def _misfit_classes(values: list[int], k: int, seen: set[int]) -> tuple[str, str]:
    """As ``_misfit``, of the class ids that occur."""
    outside = [label for label in values if not 0 <= label < k]
    text = f"labels outside the model's {k} outputs: {abbreviate(outside)}"
    if seen == {-1, 1} and outside:
        return text, "Write -1 as 0: (y + 1) // 2."
    if outside and min(seen) == 1 and max(seen) == k:
        return f"{text}, counted from 1, as it seems", "Count from 0: y - 1."
    return (text, "") if outside else ("", "")


def _check_constant(part: _Part) -> Iterator[Finding]:
    """Whether the predictions are better than the best constant one, and if not, why."""
    task, y, outputs = task_of(part.records), part.records.y.cpu(), part.outputs.double()
    # the mean is the best constant under squared error
    constant = y.double().reshape(len(y), -1).mean(0).expand(len(y), -1)
    if task.name == "multilabel":
        constant = constant - 0.5  # as a logit: above 0 for the labels of more than half
    own, blind = (float(task.accuracy(a, y).mean()) for a in (outputs, constant))
    if own > blind:
        return
    noun = NOUNS[part.name]
    text = f"The model is no better on {len(y)} {noun} than a constant prediction: "
    if outputs.shape[1] > 1 and (order := causes.output_order(outputs, y)):
        yield Finding("class-order", "refuse", f"{text}it is with {order.what}.")
    elif task.name == "regression" and (units := causes.scale_of_values(outputs, y)):
        yield Finding("units", "refuse", f"{text}{units}.")
    else:
        text += "the preprocessing or the order of the outputs may be wrong."
        yield Finding("chance", "refuse", text)


def check_behaviour(model: nn.Module, records: Records) -> Iterator[Finding]:
    """Whether outputs have a gradient, are the same in a second pass, and alone or with others."""
    few = records.take(range(min(FEW, len(records))))
    yield from _check_gradient(model, few.take([0, min(1, len(few) - 1)]))
    view, rows = frozen_teacher(model), few
    first, second = predict(view, rows), predict(view, rows)
    overall = first.double().std().clamp_min(1e-12)
    # by output, since values may differ in scale; two records say little about it
    scale = first.double().std(0).clamp_min(overall / 100) if len(first) > 2 else overall  # noqa: PLR2004
    slack = HALF_ROUNDING if dtype_of(model) in HALF else ROUNDING
    if (moved := ((first - second).abs() / scale).max()) > slack:
        changed = int((first.argmax(1) != second.argmax(1)).sum())
        text = f"In a second pass the same {len(rows)} records get outputs that differ by up to "
        text += f"{moved:.2g} standard deviations"
        text += f", and {changed} other predictions." if first.shape[1] > 1 else "."
        yield Finding("random-outputs", "warn", text)
    elif len(few) > 2:  # noqa: PLR2004
        pair = predict(view, few.take([0, 1]))
        if (moved := ((first[:2] - pair).abs() / scale).max()) > slack:
            norms = [n for n, m in model.named_modules() if isinstance(m, _BatchNorm)]
            norms = [n for n in norms if model.get_submodule(n).running_mean is None]
            text = f"In a batch of 2 the same records get outputs that differ by up to {moved:.2g} "
            text += f"standard deviations from those in a batch of {len(few)}"
            why = f": BatchNorm without running statistics ({abbreviate(norms)})."
            text += why if norms else "."
            yield Finding("batch-dependent", "warn", text)


def _check_gradient(model: nn.Module, pair: Records) -> Iterator[Finding]:
    """Whether a gradient of the outputs reaches the weights; if not, the true reason."""
    view = to_eval(shared_view(model))
    weights = {name: w for name, w in view.named_parameters() if w.requires_grad}
    if not weights:
        return
    called: list[tuple[str, nn.Module, bool]] = []
    hooks = [
        module.register_forward_hook(
            lambda m, _args, _out, n=name: called.append((n, m, torch.is_grad_enabled()))
        )
        for name, module in view.named_modules()
        if not any(True for _ in module.children())
    ]
    try:
        answer = task_of(pair).outputs(view, pair.x.to(device_of(model)))
    finally:
        for hook in hooks:
            hook.remove()
    if not answer.requires_grad:
        own = [(n, list(m.parameters(recurse=False)), grad) for n, m, grad in called]
        frozen = [n for n, own_weights, _ in own if own_weights]
        if any(not grad for *_, grad in own):
            why = "its forward runs under torch.no_grad() or torch.inference_mode()"
        elif frozen and not any(w.requires_grad for _, ws, _ in own for w in ws):
            why = f"in eval mode frozen weights answer: {abbreviate(frozen)}"
        else:
            why = "they are detached on the way (detach, .data, numpy or argmax in forward)"
        yield Finding("no-gradient", "refuse", f"The outputs have no gradient: {why}.")
        return
    gradients = torch.autograd.grad(answer.sum(), list(weights.values()), allow_unused=True)
    unused = [n for n, g in zip(weights, gradients, strict=True) if g is None]
    if len(unused) == len(weights):
        text = "The outputs have a gradient, and it reaches no weight that may change."
        yield Finding("no-gradient", "refuse", text)
    elif unused:
        text = f"No output depends on {abbreviate(unused)}: they stay as they are."
        yield Finding("unused-weights", "note", text)

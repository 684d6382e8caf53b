"""The most likely cause of wrong answers: the order of the classes, the inputs' scale, the outputs.

Each function tries one kind of misunderstanding on a sample and returns what would explain it, with
how right the model is then; None where it explains nothing. A cause counts when chance would not
give it at one in a thousand, after a correction for how many were tried, on records that did not
choose it.
"""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional

from efface.errors import abbreviate
from efface.io.features import FeatureSpec, Spec
from efface.io.images import OUT_OF_SCALE, Preprocessing
from efface.task import device_of, dtype_of, frozen_teacher, predict
from efface.types import Records

P_VALUE = 1e-3
# classes whose new place is known, from which an order counts that does not close on itself
MANY = 5
# rows of this sum are probabilities; half precision rounds to some three digits
SUM_ERROR, HALF_SUM_ERROR = 1e-3, 2e-2
# numbers of a sigmoid between 0 and 1 from which they cannot be logits by accident
ENOUGH_NUMBERS = 20
# how near to 0 and 1 the extremes of trained sigmoids are
NEAR = 0.1

IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
SIZES = (8, 16, 28, 32, 64, 96, 128, 160, 224, 256, 299, 384)


@dataclass(frozen=True)
class Cause:
    """A misunderstanding that explains errors: ``right`` of ``n`` are, ``what`` being so."""

    what: str
    right: int
    n: int


def binomial_tail(successes: int, n: int, p: float) -> float:
    """P(at least ``successes`` of ``n`` draws of probability ``p``); n up to 1,000."""
    # exact: scipy.stats takes longer to import than all else here to compute
    terms = range(successes, n + 1)
    return sum(math.comb(n, i) * p**i * (1 - p) ** (n - i) for i in terms)


# Classes


def class_order(
    predictions: Int[Tensor, " n"], y: Int[Tensor, " n"], k: int, names: Sequence[str] | None
) -> Cause | None:
    """Whether the labels are those of other classes: numbers sorted as text, from 1, or permuted.

    A permutation is fitted on half of the records and judged on the other, and the other way round.
    """
    found, labels = predictions.numpy(), y.numpy()
    # of one class, or of a constant prediction, any order could be said
    if min(len(np.unique(found)), len(np.unique(labels))) < 2:  # noqa: PLR2004
        return None
    orders = dict(_known_orders(k, names))
    best = None
    for what, order in orders.items():
        # a label beyond the order is nobody's
        read = np.where((labels >= 0) & (labels < k), np.array(order)[labels.clip(0, k - 1)], -1)
        cause = Cause(f"with {what}", int((found == read).sum()), len(labels))
        gained = _explains(found == read, found == labels, len(orders))
        if gained and (best is None or cause.right > best.right):
            best = cause
    fitted = _fitted_order(found, labels, names)
    # a permutation of one's own is right a little more often by its freedom alone
    if best is None or (fitted and fitted.right - best.right > len(labels) / 20):
        return fitted
    return best


def _known_orders(k: int, names: Sequence[str] | None) -> Iterator[tuple[str, list[int]]]:
    """Orders that a mistake makes: (what it is, the class that label i means; -1 for none)."""
    as_text = sorted(range(k), key=str)
    if as_text != list(range(k)):
        shown = ", ".join(map(str, as_text[:4]))
        yield f"the data's numbers sorted as text ({shown}, …)", as_text
        yield f"the model's classes sorted as text ({shown}, …)", _inverse(as_text)
    yield "labels counted from 1", [-1, *range(k - 1)]
    yield "classes of the model counted from 1", [*range(1, k), -1]
    if names is not None and len(names) == k:
        by_name = sorted(range(k), key=names.__getitem__)
        if by_name not in (list(range(k)), as_text):
            yield "labels in the alphabetical order of the names", by_name
            yield "classes of the model in the alphabetical order of the names", _inverse(by_name)


def _inverse(order: Sequence[int]) -> list[int]:
    return sorted(range(len(order)), key=order.__getitem__)


def _explains(then: np.ndarray, now: np.ndarray, tried: int) -> bool:
    """Whether more answers became right than wrong: a one-sided sign test."""
    gained, lost = int((then & ~now).sum()), int((now & ~then).sum())
    return gained > lost and binomial_tail(gained, gained + lost, 0.5) < P_VALUE / tried


def _fitted_order(found: np.ndarray, labels: np.ndarray, names: Sequence[str] | None) -> Any:
    """The permutation of classes that makes most predictions right, if it holds out of sample."""
    # only classes that occur: a matrix of 20,000 classes would not fit
    classes = np.unique(np.concatenate([found, labels]))
    rows, columns = np.searchsorted(classes, labels), np.searchsorted(classes, found)
    counts = _confusion(rows, columns, len(classes))
    # an order with a gain has a class that is mostly taken for another
    if (counts.max(1) <= counts.diagonal()).all():
        return None
    # at random: in turn, a table whose labels alternate would give each half other classes
    halves = np.random.default_rng(0).permutation(len(labels)) % 2
    then = np.zeros(len(labels), bool)
    for half in (0, 1):
        chosen = halves == half
        order = _assignment(_confusion(rows[chosen], columns[chosen], len(classes)))
        then |= (halves != half) & (order[rows] == columns)
    order = _assignment(counts)
    moved = [i for i in range(len(classes)) if order[i] != i and (rows == i).any()]
    closed = {int(order[i]) for i in moved} == set(moved)
    if not _explains(then, rows == columns, 1) or not (closed or len(moved) >= MANY):
        return None

    def name(place: int) -> str:
        label = int(classes[place])
        return names[label] if names is not None and label < len(names) else str(label)

    if closed and len(moved) == 2:  # noqa: PLR2004
        what = f"with classes {name(moved[0])} and {name(moved[1])} swapped"
    else:
        pairs = abbreviate(f"{name(i)} for {name(int(order[i]))}" for i in moved)
        what = f"with the classes in another order ({pairs})"
    return Cause(what, int((order[rows] == columns).sum()), len(labels))


def _confusion(rows: np.ndarray, columns: np.ndarray, k: int) -> np.ndarray:
    counts = np.zeros((k, k))
    np.add.at(counts, (rows, columns), 1.0)
    return counts


def _assignment(counts: np.ndarray) -> np.ndarray:
    """(k,) the class that each label means; without evidence its own."""
    from scipy.optimize import linear_sum_assignment

    return linear_sum_assignment(counts + 0.5 * np.eye(len(counts)), maximize=True)[1]


def output_order(outputs: Float[Tensor, " n k"], y: Tensor) -> Cause | None:
    """Whether the k labels or values of a record stand in another order than the outputs."""
    from scipy.optimize import linear_sum_assignment

    scores = _correlations(outputs, y)
    order = linear_sum_assignment(scores, maximize=True)[1]
    own, other = scores.diagonal().mean(), scores[np.arange(len(order)), order].mean()
    # correlations of some hundred records err by a tenth
    if (order == np.arange(len(order))).all() or other < max(0.5, own + 0.3):
        return None
    pairs = abbreviate(f"{i} for {j}" for i, j in enumerate(order.tolist()) if i != j)
    return Cause(f"the columns in another order ({pairs})", len(y), len(y))


def scale_of_values(outputs: Float[Tensor, " n d"], y: Tensor) -> str:
    """Whether values are right up to their unit: both means and standard deviations; else empty."""
    values = y.reshape(len(y), -1).double()
    if not (_correlations(outputs, values).diagonal() > 0.5).all():  # noqa: PLR2004
        return ""
    means, stds = ([float(f(t)) for t in (outputs.double(), values)] for f in (torch.mean, _std))
    return (
        f"outputs and values correlate, in another unit: outputs of mean {means[0]:.3g} and "
        f"standard deviation {stds[0]:.3g}, values of {means[1]:.3g} and {stds[1]:.3g}"
    )


def _std(t: Tensor) -> Tensor:
    return t.std(0).mean()


def _correlations(outputs: Tensor, y: Tensor) -> np.ndarray:
    """(d, k) Pearson's correlation of each label or value with each output; 0 for constant ones."""
    a, b = (t.reshape(len(t), -1).double() for t in (y, outputs))
    a, b = ((t - t.mean(0)) / t.std(0).clamp_min(1e-12) for t in (a, b))
    return (a.T @ b / max(1, len(y) - 1)).numpy()


# Outputs


def probabilities(outputs: Float[Tensor, " n k"], kind: str, *, half: bool) -> str:
    """``probabilities`` or ``log-probabilities`` where the outputs are such, else empty.

    Of a softmax: rows from 0 to 1 that sum to 1, or whose exponentials do. Of sigmoids: twenty
    numbers or more, all from 0 to 1; of one a class, which untrained logits can be too, near both.
    """
    inside = bool(((outputs >= 0) & (outputs <= 1)).all())
    if kind == "multiclass" and not _is_sigmoid(outputs):
        error = HALF_SUM_ERROR if half else SUM_ERROR
        # 2 or more: with one output the sum says nothing
        if inside and ((outputs.sum(1) - 1).abs() < error).all():
            return "probabilities"
        if (outputs <= 0).all() and ((outputs.exp().sum(1) - 1).abs() < error).all():
            return "log-probabilities"
        inside = inside and bool(outputs.amin() < NEAR and outputs.amax() > 1 - NEAR)
    numbers = outputs[:, 1:] if kind == "multiclass" and _is_sigmoid(outputs) else outputs
    # a trained model whose every logit is positive and below 1 knows nothing
    sure = numbers.numel() >= ENOUGH_NUMBERS and kind in {"multiclass", "multilabel"}
    return "probabilities" if inside and sure and numbers.unique().numel() > 1 else ""


def _is_sigmoid(outputs: Tensor) -> bool:
    # a single unit z became (0, z)
    return outputs.shape[1] == 2 and not outputs[:, 0].any()  # noqa: PLR2004


def other_outputs(model: nn.Module, part: Records, right: int) -> Cause | None:
    """Another entry of a mapping that is right more often than ``logits``, which is read."""
    y, best = part.y.cpu(), None
    with torch.no_grad():
        answer = model(part.x.to(device_of(model), dtype_of(model)))
    for name, outputs in answer.items() if isinstance(answer, Mapping) else ():
        if not isinstance(outputs, Tensor) or outputs.ndim != 2 or len(outputs) != len(y):  # noqa: PLR2004
            continue
        count = int((outputs.cpu().argmax(1) == y).sum())
        better = count > max(right, best.right if best else 0)
        if better and binomial_tail(count, len(y), max(right, 1) / len(y)) < P_VALUE:
            best = Cause(f"by the entry {name!r} of what it returns", count, len(y))
    return best


# Inputs


def other_inputs(model: nn.Module, part: Records, preprocessing: Spec | None) -> Cause | None:
    """The scale, colours or size under which the model beats chance, where it does not as given."""
    best, tried = None, list(_alternatives(part.x, preprocessing))
    share = int(part.y.bincount().max()) / len(part)
    for what, change in tried:
        # a model may refuse a size
        with suppress(Exception):
            outputs = predict(model, replace(part, x=change(part.x)))
            right = int((outputs.argmax(1) == part.y).sum())
            # a constant prediction is right on the most frequent class
            chance = binomial_tail(right, len(part), max(share, 1 / outputs.shape[1]))
            if chance < P_VALUE / len(tried) and (best is None or right > best.right):
                best = Cause(f"with {what}", right, len(part))
    return best


def _alternatives(
    x: Tensor, preprocessing: Spec | None
) -> Iterator[tuple[str, Callable[[Tensor], Tensor]]]:
    """Ways in which inputs are commonly misread: (in words, the change)."""
    if isinstance(preprocessing, FeatureSpec) or not x.is_floating_point():
        return
    pixels, low, high = _as_pixels(x, preprocessing)
    yield "inputs of 0 to 1, not normalised", pixels
    yield "inputs of 0 to 255", lambda x: pixels(x) * 255
    yield "inputs divided by 255", lambda x: x / 255
    yield "black and white exchanged", lambda x: low + high - x
    if x.ndim != 4:  # noqa: PLR2004
        yield "standardised inputs", lambda x: (x - x.mean(0)) / x.std(0).clamp_min(1e-6)
        return
    yield "inputs normalised to -1 to 1 (mean and std 0.5)", lambda x: (pixels(x) - 0.5) / 0.5
    if x.shape[1] == 3:  # noqa: PLR2004
        mean, std = (torch.tensor(part).view(1, 3, 1, 1) for part in IMAGENET)
        yield "ImageNet's mean and std", lambda x: (pixels(x) - mean) / std
        yield "colours in the order blue, green, red", lambda x: x.flip(1)
        both = "colours in the order blue, green, red, of 0 to 255"
        yield both, lambda x: (pixels(x) * 255).flip(1)
    yield "rows and columns of the image exchanged", lambda x: x.transpose(2, 3)
    for size in SIZES:
        if size not in x.shape[2:]:
            yield f"images of {size} pixels (--size {size})", _resized(size)


def _as_pixels(
    x: Tensor, preprocessing: Preprocessing | None
) -> tuple[Callable[[Tensor], Tensor], Tensor, Tensor]:
    """(from inputs to pixels of 0 to 1, the input of black, that of white)."""
    if preprocessing is not None:
        low, high = preprocessing.low, preprocessing.high
    elif float(x.abs().max()) > OUT_OF_SCALE:
        low, high = torch.tensor(0.0), torch.tensor(255.0)
    elif float(x.min()) >= 0 and float(x.max()) <= 1:
        low, high = torch.tensor(0.0), torch.tensor(1.0)
    else:
        # normalised in an unknown way: the range of the sample stands for black and white
        low, high = x.min(), x.max()
    return lambda x: (x - low) / (high - low).clamp_min(1e-12), low, high


def sizes_taken(model: nn.Module, part: Records) -> list[int]:
    """The usual sizes of images with which the model does not raise."""
    pair, taken = part.take([0, len(part) - 1]), []
    for size in SIZES if part.x.ndim == 4 else ():  # noqa: PLR2004
        with suppress(Exception):
            predict(frozen_teacher(model), replace(pair, x=_resized(size)(pair.x)))
            taken.append(size)
    return taken


def _resized(size: int) -> Callable[[Tensor], Tensor]:
    how = {"size": (size, size), "mode": "bilinear", "antialias": True}
    return lambda x: functional.interpolate(x, **how)

"""Distance to retrained models in one number: average gap, ToW, NoMUS, forgetting quality.

Each stands next to what two retrained models reach (the floor). One number hides whether forgetting
or utility was given up: report its columns with it. Shapes: u unlearned models · r retrained models
· n records; rows are models.

``epsilon_each`` and ``forgetting_quality`` follow the NeurIPS 2023 challenge
(https://github.com/google-deepmind/unlearning_evaluation, https://arxiv.org/abs/2406.09073), mended
where its code stops or errs: it asserts on an array, which stops it at the first record; it needs
CUDA; its single thresholds lie on a grid of 0.01, so a gap narrower than that is missed and every
threshold is dropped; when both sides are constant it divides 0 by 0; the largest epsilon is taken
from the unlearned models' number even when there are fewer retrained ones.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from itertools import combinations
from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from efface.errors import InputError
from efface.metrics.accuracy import accuracy
from efface.metrics.evaluation import Evaluation
from efface.metrics.membership import entropy_attack
from efface.metrics.refusals import need_at_least, need_same_records

# Accuracies and entropy attack; in published tables D_r, D_f and MIA. Shares, 0 to 1.
COLUMNS = ("retain", "forget", "attack")

# The challenge's constants: largest epsilon, delta, width of a bucket, search grid, models.
CAP, DELTA, BUCKET, BUFFER, POINTS, MIN_MODELS = 50.0, 1e-5, 0.5, 2.0, 400, 3

Classes = Sequence[int]
Columns = Mapping[str, float]
Aggregate = Callable[[Columns, Columns], float]
Models = Float[np.ndarray, "u n"]
Retrained = Float[np.ndarray, "r m"]
Rates = tuple[np.ndarray, np.ndarray]


def columns(
    forget: Evaluation, holdout: Evaluation, retain: Evaluation, *, forget_classes: Classes = ()
) -> dict[str, float]:
    """Retain and forget accuracy and entropy attack, 0 to 1; reference: the retrained model's.

    A class is forgotten (``forget_classes``): ``retain`` is the accuracy on the holdout of the
    other classes, ``forget`` that on the holdout of the forgotten ones. Random records: ``retain``
    is the accuracy on the whole holdout, ``forget`` that on the forget records themselves.
    ``attack`` is the entropy attack in both, against the whole holdout.
    """
    # No forget class: nothing is taken out of the holdout, and the forget records are read.
    forgotten = np.isin(holdout.y, list(forget_classes))
    kept, gone = holdout.take(~forgotten), holdout.take(forgotten) if forget_classes else forget
    shares = (accuracy(part.predicted, part.y) for part in (kept, gone))
    attack = entropy_attack(retain.entropy, holdout.entropy, forget.entropy)
    return dict(zip(COLUMNS, (*shares, attack), strict=True))


def gap(values: Columns, reference: Columns) -> float:
    """Mean absolute difference to ``reference`` over its columns, equal weights.

    Range 0 to 1, lower is nearer; no chance level. The reference is the retrained model's columns;
    what can be reached is not 0 but ``floor``. Raises InputError for other columns.
    """
    _need_same_columns(values, reference)
    return float(np.mean([abs(values[name] - reference[name]) for name in reference]))


def floor(retrained: Sequence[Columns]) -> float:
    """Retrain-to-retrain variability: mean gap between retrained models of different seeds.

    Range 0 to 1. Raises InputError with fewer than two.
    """
    return float(np.mean([gap(one, other) for one, other in _pairs(retrained)]))


def tug_of_war(values: Columns, reference: Columns) -> float:
    """ToW: the product over the columns of 1 - |value - reference|.

    The paper's columns are the accuracies on ``forget``, ``retain`` and ``test``; its ToW-MIA puts
    an attack in the place of the forget accuracy. Range 0 to 1, 1 at the reference; no chance
    level. The reference is the retrained model's columns; what can be reached is not 1 but the
    value of two retrained models (``against_floor``). Zhao et al. 2024,
    https://arxiv.org/abs/2406.01257. Raises InputError when the columns differ or a value is no
    share.
    """
    _need_same_columns(values, reference)
    _need_shares({**values, **{f"reference {name}": value for name, value in reference.items()}})
    # A product: a column that is far off is not made up for by the others.
    return float(np.prod([1 - abs(values[name] - reference[name]) for name in reference]))


def nomus(*, test_accuracy: float, attack_accuracy: float) -> float:
    """NoMUS: the mean of the test accuracy and of 1 - 2 |attack accuracy - 0.5|.

    ``attack_accuracy``: of a balanced membership attack, 0.5 is chance; where a table prints its
    distance from 0.5, add 0.5 to it. Range 0 to 1; a model that predicts one class of k always has
    (1 + 1/k) / 2, so it is near a good one where accuracy is low. Reference: the retrained model's
    value. Choi and Na 2023, https://arxiv.org/abs/2311.02240. Raises InputError when a value is no
    share.
    """
    _need_shares({"test_accuracy": test_accuracy, "attack_accuracy": attack_accuracy})
    return test_accuracy / 2 + (1 - 2 * abs(attack_accuracy - 0.5)) / 2


class AgainstFloor(NamedTuple):
    """An aggregate of an unlearned model next to the same aggregate of retrained models.

    ``value``: mean over the retrained models as references; ``floor``: mean over all pairs of
    retrained models, the reference; ``pair_range``: the smallest and the largest such pair;
    ``retrained``: how many models; ``columns``: what was compared.
    """

    value: float
    floor: float
    pair_range: tuple[float, float]
    retrained: int
    columns: tuple[str, ...]


def against_floor(
    values: Columns, retrained: Sequence[Columns], *, aggregate: Aggregate = gap
) -> AgainstFloor:
    """An aggregate over any columns (of ``columns``, or all that were measured) and its floor.

    ``aggregate``: ``gap`` (lower is nearer) or ``tug_of_war`` (higher is nearer). Range and unit
    are those of the aggregate; the reference is ``floor``. For one number such as NoMUS give one
    column: the gap is then its distance. Raises InputError with fewer than two retrained models,
    when a value is not finite or the columns differ.
    """
    pairs = _pairs(retrained)
    for one in (values, *retrained):
        if bad := [name for name, value in one.items() if not np.isfinite(value)]:
            remedy = "Omit a column that was not measured, for all models."
            raise InputError("a finite number in each column", f"none for {', '.join(bad)}", remedy)
    # Pairs once: both aggregates are symmetric.
    found = [aggregate(one, other) for one, other in pairs]
    value = float(np.mean([aggregate(values, reference) for reference in retrained]))
    found_range = min(found), max(found)
    return AgainstFloor(value, float(np.mean(found)), found_range, len(retrained), tuple(values))


def _pairs(retrained: Sequence[Columns]) -> list[tuple[Columns, Columns]]:
    remedy = "Retrain with another seed, or say that the floor is not known."
    need_at_least(2, "retrained models", len(retrained), remedy)
    return list(combinations(retrained, 2))


def _need_same_columns(values: Columns, reference: Columns) -> None:
    if not reference or values.keys() != reference.keys():
        ours, theirs = (", ".join(sorted(side)) or "none" for side in (values, reference))
        remedy = "Score both models in the same way."
        raise InputError("the same columns on both sides", f"{ours} and {theirs}", remedy)


def _need_shares(values: Columns) -> None:
    if bad := [f"{name} {value:g}" for name, value in values.items() if not 0 <= value <= 1]:
        raise InputError("shares from 0 to 1", ", ".join(bad), "Divide per cent by 100.")


def epsilon_each(unlearned: Models, retrained: Retrained) -> Float[np.ndarray, " n"]:
    """The epsilon that the best of many thresholds shows for each record.

    ``unlearned``, ``retrained``: ``Evaluation.logit_margin``. Epsilon is the larger of
    ln((1 - d - FPR) / FNR) and ln((1 - d - FNR) / FPR) over one threshold and over intervals about
    as wide as the narrower side; thresholds at which one of the two rates is 0 are dropped, those
    at which both are give infinity. Range 0 (indistinguishable) to 50 (the cap: always
    distinguished, or one side is a hundred times narrower); the largest finite value is about ln of
    the number of models. Reference: the epsilon of two sets of retrained models, which is not 0,
    since the best of many thresholds is taken. Raises InputError for fewer than three models on a
    side, or records that do not pair up.
    """
    need_same_records(unlearned=unlearned, retrained=retrained)
    if min(len(unlearned), len(retrained)) < MIN_MODELS:
        wanted = f"at least {MIN_MODELS} unlearned and {MIN_MODELS} retrained models"
        remedy = "Repeat both with other seeds; the challenge took 512 of each."
        raise InputError(wanted, f"{len(unlearned)} and {len(retrained)}", remedy)
    pairs = zip(unlearned.T, retrained.T, strict=True)
    return np.array([_epsilon(np.sort(ours), np.sort(theirs)) for ours, theirs in pairs])


def _epsilon(ours: Float[np.ndarray, " u"], theirs: Float[np.ndarray, " r"]) -> float:
    """Of one record; both sides sorted."""
    narrow, wide = sorted((ours, theirs), key=np.ptp)
    if not np.ptp(wide):
        return CAP if narrow[0] != wide[0] else 0.0
    single, double = _single_rates(ours, theirs), _double_rates(narrow, wide)
    rates = np.concatenate([single, double], axis=1)
    # A threshold without any error separates the two sides for certain.
    if np.ptp(narrow) / np.ptp(wide) < 0.01 or (rates.sum(axis=0) == 0).any():  # noqa: PLR2004
        return CAP
    low, high = np.sort(rates[:, (rates > 0).all(axis=0)], axis=0)
    # Where either logarithm is above 0, the one with the smaller rate below the line is larger.
    return min(CAP, math.log(((1 - DELTA - high) / low).max(initial=1.0)))


def _single_rates(ours: np.ndarray, theirs: np.ndarray) -> Rates:
    """FPR and FNR when what is at a threshold or above is assigned to the side of larger median.

    Every value is a threshold, so that none that matters is missed.
    """
    # The direction is not known beforehand: either side may have the larger margins.
    upper, lower = (ours, theirs) if np.median(ours) >= np.median(theirs) else (theirs, ours)
    thresholds = np.unique(np.concatenate([ours, theirs]))
    return 1 - _below(lower, thresholds), _below(upper, thresholds)


def _double_rates(narrow: np.ndarray, wide: np.ndarray) -> Rates:
    """FPR and FNR when what is in an interval is assigned to the narrower side.

    The right end is within 2 of that side's largest value, in steps of 0.01; the left end is one
    width below it, again within 2.
    """
    right = narrow[-1] + np.linspace(-BUFFER, BUFFER, POINTS)
    # The left end is the sum of two even grids, so it takes only these values.
    left = narrow[0] + np.linspace(-2 * BUFFER, 2 * BUFFER, 2 * POINTS - 1)
    which = np.add.outer(np.arange(POINTS), np.arange(POINTS))

    def inside(side: np.ndarray) -> np.ndarray:
        up_to = np.searchsorted(side, right, side="right") / len(side)
        return (up_to[:, None] - _below(side, left)[which]).clip(0).ravel()

    return inside(wide), 1 - inside(narrow)


def _below(side: np.ndarray, thresholds: np.ndarray) -> np.ndarray:
    return np.searchsorted(side, thresholds, side="left") / len(side)


def forgetting_quality(unlearned: Models, retrained: Retrained) -> float:
    """Mean over records of a point that halves with each 0.5 of epsilon; 0 beyond ln(models - 1).

    Range 0 to 1, higher is nearer to retraining. Reference: the value of two sets of retrained
    models of the same size, which is below 1. It depends on the number of models: compare like with
    like. Errors as ``epsilon_each``.
    """
    # Floor division: the challenge's buckets, not a smooth discount.
    steps = epsilon_each(unlearned, retrained) // BUCKET
    buckets = math.ceil(math.log(min(len(unlearned), len(retrained)) - 1)) / BUCKET
    return float(np.where(steps < buckets, 0.5**steps, 0.0).mean())


def challenge_score(quality: float, values: Columns, reference: Columns) -> float:
    """The challenge's final number: forgetting quality times both accuracies over the retrained's.

    ``values``: the accuracies ``retain`` and ``test``; ``reference``: those of the retrained model.

    Range 0 upwards: above 1 when the unlearned model is more accurate than the retrained one, which
    the challenge rewards. Reference: that of two sets of retrained models. Raises InputError when a
    retrained accuracy is not above 0.
    """
    if not min(reference["retain"], reference["test"]) > 0:
        came = f"{reference['retain']:g} and {reference['test']:g}"
        remedy = "Give the accuracies of the retrained models as shares."
        raise InputError("retrained accuracies above 0", came, remedy)
    kept = values["retain"] / reference["retain"]
    return quality * kept * values["test"] / reference["test"]

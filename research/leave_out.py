"""What omitting records changes: gain, memorisation, removal of groups, and a rule for τ.

The thing itself, which information content, curvature and margins stand in for. It needs models
trained with the records and without them: subsets drawn at random serve all records at once, as in
Feldman and Zhang, https://arxiv.org/abs/2008.03703. A group is removed from training as a whole.

Shapes: s models · n records · k classes · r models trained without a group. ``member`` (s, n):
whether a model was trained on a record.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Int64, Shaped
from scipy.spatial.distance import pdist

from efface.errors import InputError
from efface.metrics.lira import moments
from efface.metrics.refusals import enough, need_numbers, need_same_records, same_shape, sound

# Models a record needs on each side: one has no variance.
MIN_MODELS = 2


@dataclass(frozen=True, eq=False)
class Difference:
    """Of each record the mean over models trained with it minus that over models without it.

    ``with_it``, ``without_it`` (n,): the two means; ``standard_error`` (n,) of ``value``, from the
    variance of the models on both sides.
    """

    with_it: Float[np.ndarray, " n"]
    without_it: Float[np.ndarray, " n"]
    standard_error: Float[np.ndarray, " n"]

    @property
    def value(self) -> Float[np.ndarray, " n"]:
        """With minus without: 0 where the record taught nothing about itself."""
        return self.with_it - self.without_it


def difference(
    values: Float[np.ndarray, "s n"], member: Bool[np.ndarray, "s n"], *, what: str
) -> Difference:
    """Means with and without each record, and the standard error of their difference.

    ``what`` names the values in an error. Raises InputError for values that are not finite, shapes
    that differ, or a record with fewer than two models on a side.
    """
    same_shape(values=values, member=member)
    values, member = sound(values, what), member.astype(bool)
    sides = []
    for chosen, side in ((member, "models trained on it"), (~member, "models trained without it")):
        enough(chosen, MIN_MODELS, side)
        sides.append(moments(values, chosen))
    errors = [found.squares / (found.count - 1) / found.count for found in sides]
    return Difference(sides[0].mean, sides[1].mean, np.sqrt(errors[0] + errors[1]))


def information_gain(
    log_p: Float[np.ndarray, "s n"], member: Bool[np.ndarray, "s n"]
) -> Difference:
    """The label's ln p with the record minus without it, in nats: a mean over retrained pairs.

    ``log_p``: what each model gives the label. Range: any; 0: the record taught nothing about
    itself; below 0: noise, or a record that its neighbours explain better than itself. Reference of
    an unlearned model: as without. ln p has a long tail: one model that is surely wrong weighs
    as much as many that are not. Raises InputError as ``difference``.
    """
    return difference(log_p, member, what="ln p(y|x)")


def answer_gain(
    probabilities: Float[np.ndarray, "s n k"], member: Bool[np.ndarray, "s n"]
) -> Float[np.ndarray, " n"]:
    """KL(p ‖ q) in nats: p the mean prediction with the record, q the mean prediction without it.

    At least 0; without any effect above it by the seed noise of few models, see
    ``answer_floor``. The label plays no part. Raises InputError for a p outside 0 to 1 or not
    summing to 1, and as ``difference``.
    """
    _refuse_no_answers(probabilities)
    same_shape(probabilities=probabilities[..., 0], member=member)
    member = member.astype(bool)
    for chosen, side in ((member, "models trained on it"), (~member, "models trained without it")):
        enough(chosen, MIN_MODELS, side)
    return _divergence(_mean(probabilities, member), _mean(probabilities, ~member))


def answer_floor(
    probabilities: Float[np.ndarray, "s n k"], member: Bool[np.ndarray, "s n"], *, seed: int = 0
) -> Float[np.ndarray, " n"]:
    """The same between two random halves of the models without the record: seed noise alone.

    Half as many models a side as ``answer_gain`` has, so it is above that one's floor.
    Raises InputError as ``answer_gain``, for halves of two models.
    """
    _refuse_no_answers(probabilities)
    same_shape(probabilities=probabilities[..., 0], member=member)
    without = ~member.astype(bool)
    enough(without, 2 * MIN_MODELS, "models trained without it")
    order = np.random.default_rng(seed).random(member.shape)
    # models trained with the record sort last, and fall into neither half
    order[~without] = np.inf
    rank = order.argsort(axis=0, kind="stable").argsort(axis=0, kind="stable")
    half = without.sum(axis=0) // 2
    first, second = rank < half, (rank >= half) & without
    return _divergence(_mean(probabilities, first), _mean(probabilities, second))


def _mean(probabilities: np.ndarray, chosen: np.ndarray) -> np.ndarray:
    """(n, k) mean over the chosen models."""
    total = np.einsum("sn,snk->nk", chosen.astype(np.float64), probabilities.astype(np.float64))
    return total / chosen.sum(axis=0)[:, None]


def _divergence(p: np.ndarray, q: np.ndarray) -> np.ndarray:
    """KL of each row; a class that is impossible in p adds nothing."""
    tiny = np.finfo(np.float64).tiny
    return np.where(p > 0, p * (np.log(p + (p == 0)) - np.log(np.maximum(q, tiny))), 0).sum(axis=1)


def _refuse_no_answers(probabilities: np.ndarray) -> None:
    """Raises InputError for anything but probabilities of k classes."""
    found = np.asarray(probabilities, np.float64)
    if not (np.isfinite(found).all() and (found >= 0).all()):
        raise InputError(
            "probabilities of 0 to 1", "nan, inf or less than 0", "Give the softmax of the outputs."
        )
    if found.size and np.abs(found.sum(axis=2) - 1).max() > 1e-3:  # noqa: PLR2004
        far = float(found.sum(axis=2).flat[np.abs(found.sum(axis=2) - 1).argmax()])
        raise InputError(
            "probabilities that sum to 1", f"a sum of {far:.3g}", "Give the softmax of the outputs."
        )


def memorisation(correct: Shaped[np.ndarray, "s n"], member: Bool[np.ndarray, "s n"]) -> Difference:
    """mem(i) = P[h(x_i) = y_i | S] - P[h(x_i) = y_i | S without i] (Feldman and Zhang).

    ``correct``: whether each of s models predicts the label of each of n records. Range -1 to 1; 0
    for a record that others explain, 1 for one that nothing but itself explains; below 0 is noise.
    Its standard error is some 0.09 with 32 models on each side, and 0 where all agree: that is
    overconfident. What is estimated is memorisation in subsets of the size that the models were
    trained on. Raises InputError for values other than 0 and 1, and as ``difference``.
    """
    if not np.isin(correct, (0, 1)).all():
        raise InputError(
            "0 or 1 for each answer",
            "other values",
            "Give whether the model answers with the label.",
        )
    return difference(np.asarray(correct, np.float64), member, what="answers")


def correct_from(margin: Float[np.ndarray, "s n"]) -> Bool[np.ndarray, "s n"]:
    """Whether the label has the largest logit, from the margin over the largest other one."""
    return margin > 0


def least_informative_first(
    alpha: Float[np.ndarray, " n"], tie_break: Float[np.ndarray, " n"]
) -> Int64[np.ndarray, " n"]:
    """Rows from the least informative (largest α) on; ties by the larger ``tie_break``, then row.

    α from few copies has many ties; the margin is what usually breaks them.
    """
    return np.lexsort((-tie_break, -alpha)).astype(np.int64)


@dataclass(frozen=True)
class Removal:
    """What removing a group did to the retrained models, on one set of records.

    ``difference``: of the mean over the records, with the group minus without, in the unit of the
    values; ``noise``: by how much two models that differ in their seed alone are apart in that
    mean, on average; ``most``: at most. Both of the kind of models, with or without the group,
    where it is larger: models agree less on records that none of them trained on.
    """

    difference: float
    noise: float
    most: float

    @property
    def within_noise(self) -> bool:
        """Whether the removal changes the mean no more than another seed does, on average."""
        return abs(self.difference) <= self.noise

    @property
    def shows(self) -> bool:
        """Whether the removal changes the mean more than any other seed did."""
        return abs(self.difference) > self.most


def removal(with_it: Float[np.ndarray, "s n"], without_it: Float[np.ndarray, "r n"]) -> Removal:
    """Compare models trained without a group with those trained with it, on the same records.

    Values: p(y|x), ln p(y|x) or whether the prediction is correct. A mean, since a distance between
    whole distributions barely moves for the few records in a group that are no longer known. Raises
    InputError for values that are not finite, or fewer than two models on a side.
    """
    need_numbers(with_it=with_it, without_it=without_it)
    need_same_records(with_it=with_it, without_it=without_it)
    for models, side in ((with_it, "with"), (without_it, "without")):
        if len(models) < 2:  # noqa: PLR2004
            raise InputError(
                f"two models or more trained {side} the group",
                str(len(models)),
                "Train with another seed: one model alone shows no seed noise.",
            )
    means = [models.mean(axis=1) for models in (with_it, without_it)]
    apart = [pdist(side[:, None], "cityblock") for side in means]
    return Removal(
        difference=float(means[0].mean() - means[1].mean()),
        noise=float(max(pairs.mean() for pairs in apart)),
        most=float(max(pairs.max() for pairs in apart)),
    )


@dataclass(frozen=True)
class Threshold:
    """The calibrated τ: the ``records`` that lie at or above it were removed, and it did not show.

    ``value`` is α of the last of them, ``tie_break`` how it was ranked among those of the same α:
    records of that α and a lesser rank are not among them, and the paper's α ≥ τ alone would take
    them in. Both are None, and ``records`` 0, where no size passed.
    """

    value: float | None
    tie_break: float | None
    records: int


def calibrated_threshold(
    alpha: Float[np.ndarray, " n"],
    tie_break: Float[np.ndarray, " n"],
    removals: Mapping[int, Mapping[str, Removal]],
) -> Threshold:
    """τ from nested groups: the largest low group within the noise, while the others show.

    The paper calls a record low in information when α(x) ≥ τ and gives no τ. Here it follows from
    its purpose: the largest group of the least informative records whose removal changes retrained
    models no more than another seed does, while the removal of as many random and of as many highly
    informative records shows. Where no group is like that there is no τ, and no record may be left
    alone.

    ``removals``: by size, what the removal of the ``low`` (first of ``least_informative_first``),
    ``random`` and ``high`` group of that size did. Sizes beyond a low group that was not within the
    noise do not count: a larger group cannot be safer.
    """
    order, records = least_informative_first(alpha, tie_break), 0
    for size in sorted(removals):
        found = removals[size]
        if not found["low"].within_noise:
            break
        if found["high"].shows and found["random"].shows:
            records = size
    if not records:
        return Threshold(None, None, 0)
    last = order[records - 1]
    return Threshold(float(alpha[last]), float(tie_break[last]), records)

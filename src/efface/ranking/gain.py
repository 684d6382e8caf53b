"""Information gain: how much surer of a record are the models that were trained on it?

The thing itself, which information content, curvature and margins stand in for. It needs models
that were trained with the record and without it: subsets drawn at random serve all records at once,
as in Feldman and Zhang, https://arxiv.org/abs/2008.03703.

Shapes: s models · n records · k classes. ``member``: where a model was trained on a record.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float

from efface.errors import InputError
from efface.metrics.shadows import enough, moments, same_shape, sound

LEAST = 2
"""Models a record needs on each side: one has no spread."""


@dataclass(frozen=True, eq=False)
class Difference:
    """Of each record the mean over models trained with it less that over models without it.

    ``with_it``, ``without_it`` (n,): the two means; ``standard_error`` (n,) of ``value``, from the
    spread of the models on both sides.
    """

    with_it: Float[np.ndarray, " n"]
    without_it: Float[np.ndarray, " n"]
    standard_error: Float[np.ndarray, " n"]

    @property
    def value(self) -> Float[np.ndarray, " n"]:
        """With less without: 0 where the record taught nothing about itself."""
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
        enough(chosen, LEAST, side)
        sides.append(moments(values, chosen))
    errors = [found.squares / (found.count - 1) / found.count for found in sides]
    return Difference(sides[0].mean, sides[1].mean, np.sqrt(errors[0] + errors[1]))


def information_gain(
    log_p: Float[np.ndarray, "s n"], member: Bool[np.ndarray, "s n"]
) -> Difference:
    """The label's ln p with the record less that without it, in nats: a mean over retrained pairs.

    ``log_p``: what each model gives the label. Range: any; 0: the record taught nothing about
    itself; below 0: noise, or a record that its neighbours explain better than itself. Target of an
    unlearned model: to be as without. ln p has a long tail: one model that is surely wrong weighs
    as much as many that are not. Raises InputError as ``difference``.
    """
    return difference(log_p, member, what="ln p(y|x)")


def answer_gain(
    probabilities: Float[np.ndarray, "s n k"], member: Bool[np.ndarray, "s n"]
) -> Float[np.ndarray, " n"]:
    """KL(p ‖ q) in nats: p the mean answer with the record, q the mean answer without it.

    At least 0; without any effect above it by what few models leave of seed noise, see
    ``answer_floor``. The label plays no part. Raises InputError for a p outside 0 to 1 or not
    summing to 1, and as ``difference``.
    """
    _refuse_no_answers(probabilities)
    same_shape(probabilities=probabilities[..., 0], member=member)
    member = member.astype(bool)
    for chosen, side in ((member, "models trained on it"), (~member, "models trained without it")):
        enough(chosen, LEAST, side)
    return _divergence(_mean(probabilities, member), _mean(probabilities, ~member))


def answer_floor(
    probabilities: Float[np.ndarray, "s n k"], member: Bool[np.ndarray, "s n"], *, seed: int = 0
) -> Float[np.ndarray, " n"]:
    """The same between two random halves of the models without the record: what noise alone makes.

    Half as many models a side as ``answer_gain`` has, so it is above that one's floor.
    Raises InputError as ``answer_gain``, for halves of two models.
    """
    _refuse_no_answers(probabilities)
    same_shape(probabilities=probabilities[..., 0], member=member)
    without = ~member.astype(bool)
    enough(without, 2 * LEAST, "models trained without it")
    order = np.random.default_rng(seed).random(member.shape)
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

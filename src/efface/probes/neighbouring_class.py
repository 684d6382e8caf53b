"""After a class has left: do the classes that stay still give its records away?

A model that answers nothing of the class may still call each of its records by the same neighbour,
and surer for those that it knew (https://arxiv.org/abs/2506.20893). The probabilities of the
classes that left are taken out, and what is left is asked.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int64
from scipy.special import log_softmax
from torch import nn

from efface.errors import InputError
from efface.metrics.equivalence import ks
from efface.metrics.evaluation import Evaluation, evaluate
from efface.metrics.membership import Attack, loss_attack
from efface.probes.attackers import told_apart
from efface.probes.needs import refuse_without_classes
from efface.runtime import Passes
from efface.types import Records


@dataclass(frozen=True, eq=False)
class Nearest:
    """Of n records the class that they are taken for among those that stay, and how surely.

    ``classes``: ids; ``confidence``: its re-normalised probability, from 1/(classes that stay)
    to 1. Target: the retrained model's distribution, or that of unseen records of the class.
    """

    classes: Int64[np.ndarray, " n"]
    confidence: Float[np.ndarray, " n"]


@dataclass(frozen=True, eq=False)
class NeighbouringClass:
    """What the classes that stay tell of the records of those that left.

    ``by_confidence``: forget told from unseen records by how sure the nearest class is;
    ``by_all``: by a linear attacker on all re-normalised log-probabilities, fitted on one half
    and judged on the other. Chance and target of both areas 0.5.
    """

    forget: Nearest
    unseen: Nearest
    by_confidence: Attack
    by_all: Attack


@dataclass(frozen=True)
class Agreement:
    """Do two models take the records that left for the same classes, and as surely?

    ``same``: share of records with the same nearest class, 0 to 1; ``surer``: mean confidence of
    the first minus that of the second, -1 to 1; ``distance`` and ``p``: Kolmogorov-Smirnov between
    their confidences. Target of each: that of two retrained models.
    """

    same: float
    surer: float
    distance: float
    p: float


def neighbouring_class(
    model: nn.Module,
    forget: Records,
    unseen: Records,
    *,
    forget_classes: Sequence[int],
    seed: int = 0,
) -> NeighbouringClass:
    """Take the classes ``forget_classes`` out of the answers, and attack what is left.

    ``forget``: records of these classes; of ``unseen`` (never trained on) those of these classes
    are read. Costs ``neighbouring_class_cost``. Raises InputError where a forget record is of
    another class, no unseen one is of these, or fewer than two classes stay.
    """
    refuse_without_classes(forget)
    theirs = unseen.take(_of(unseen, forget_classes))
    refuse_without_classes(theirs)
    if len(_of(forget, forget_classes)) < len(forget):
        wanted = "forget records of the classes that leave"
        came = f"{len(forget) - len(_of(forget, forget_classes))} of other classes"
        raise InputError(wanted, came, "Ask this only where classes go altogether.")
    measured = evaluate(model, forget), evaluate(model, theirs)
    logs = [staying_log_probabilities(one, forget_classes) for one in measured]
    y, unseen_y = (one.y for one in measured)
    near = [_nearest(one, log, forget_classes) for one, log in zip(measured, logs, strict=True)]
    losses = [-np.log(one.confidence) for one in near]
    return NeighbouringClass(
        forget=near[0],
        unseen=near[1],
        by_confidence=loss_attack(*losses, forget_classes=y, unseen_classes=unseen_y),
        by_all=told_apart(*logs, classes=y, unseen_classes=unseen_y, seed=seed),
    )


def neighbouring_class_cost(
    forget: Records, unseen: Records, *, forget_classes: Sequence[int]
) -> Passes:
    """The passes of ``neighbouring_class``: one forward of each record of these classes."""
    return Passes(forward=len(forget) + len(_of(unseen, forget_classes)), backward=0)


def staying_log_probabilities(
    measured: Evaluation, forget_classes: Sequence[int]
) -> Float[np.ndarray, "n s"]:
    """Log-probabilities of the s classes that stay, re-normalised, in nats.

    Raises InputError when fewer than two classes stay.
    """
    kept = _staying(measured, forget_classes)
    if len(kept) < 2:  # noqa: PLR2004
        wanted = "two classes or more that stay"
        remedy = "With one class left there is no neighbour to compare it with."
        raise InputError(wanted, f"{len(kept)} of {measured.logits.shape[1]}", remedy)
    return log_softmax(measured.logits[:, kept].astype(np.float64), axis=1)


def agreement(one: Nearest, other: Nearest) -> Agreement:
    """Compare what two models, say the unlearned and a retrained one, say of the same records.

    Raises InputError for other records, or none.
    """
    if len(one.classes) != len(other.classes) or not len(one.classes):
        wanted = "the same records, at least one, for both models"
        came = f"{len(one.classes)} and {len(other.classes)}"
        raise InputError(wanted, came, "Probe both models with the same forget records.")
    distance, p = ks(one.confidence, other.confidence)
    surer = float(one.confidence.mean() - other.confidence.mean())
    return Agreement(float((one.classes == other.classes).mean()), surer, distance, p)


def _nearest(measured: Evaluation, logs: np.ndarray, forget_classes: Sequence[int]) -> Nearest:
    return Nearest(_staying(measured, forget_classes)[logs.argmax(1)], np.exp(logs.max(1)))


def _staying(measured: Evaluation, forget_classes: Sequence[int]) -> Int64[np.ndarray, " s"]:
    return np.setdiff1d(np.arange(measured.logits.shape[1]), np.array(forget_classes, np.int64))


def _of(records: Records, forget_classes: Sequence[int]) -> list[int]:
    """The rows whose class leaves."""
    return np.flatnonzero(np.isin(records.y.cpu().numpy(), list(forget_classes))).tolist()

"""Linear attackers: on the embeddings that go into the head, and on the retained classes.

Output tests are passed by a model of which only the head was changed; the embeddings still tell
(https://arxiv.org/abs/2405.17878, https://arxiv.org/abs/2604.08271): ``linear_probe`` asks frozen
embeddings which class a record has, and whether it was to be forgotten. A model that predicts
nothing of a forgotten class may still assign each of its records to the same neighbouring class,
more confidently for those that it was trained on (https://arxiv.org/abs/2506.20893):
``neighbouring_class`` removes the forgotten classes' probabilities and attacks what is left.
Attackers are fitted on one half of the records and judged on the other.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int64
from scipy.special import log_softmax
from torch import nn

from efface.errors import InputError
from efface.methods._head import embed
from efface.metrics.equivalence import expected_from_unseen, ks
from efface.metrics.evaluation import Evaluation, evaluate
from efface.metrics.intervals import clopper_pearson
from efface.metrics.membership import Attack, loss_attack
from efface.probes.residual import NOT_RUN, need_multiclass
from efface.runtime import Passes, nonfinite_tensors, state_of
from efface.types import Records

MAX_ITERATIONS = 10_000

Classes = Sequence[int]
Labels = Int64[np.ndarray, " _"]
Rows = Float[np.ndarray, "_ d"]


class LinearProbe(NamedTuple):
    """What two linear models read off the embeddings, on the half that they were not fitted on.

    ``accuracy``: share of ``scored`` forget records whose class is recovered, 0 to 1; chance 1/k;
    reference: the retrained model's value, or ``unseen_accuracy``, that of unseen records with the
    same mixture of classes. Below the retrained model's: over-forgotten. ``correct``,
    ``unseen_correct``: of which records it is, 0 or 1, of ``classes`` and ``unseen_classes``.
    ``membership``: forget against unseen records; chance and reference 0.5.
    """

    accuracy: float
    interval: tuple[float, float]
    unseen_accuracy: float
    membership: Attack
    scored: int
    correct: Float[np.ndarray, " n"]
    unseen_correct: Float[np.ndarray, " u"]
    classes: Int64[np.ndarray, " n"]
    unseen_classes: Int64[np.ndarray, " u"]


def linear_probe(
    model: nn.Module, forget: Records, unseen: Records, *, seed: int = 0
) -> LinearProbe:
    """Fit on the embeddings of a seeded half of each class, and read the other half.

    ``unseen``: records never trained on, of the classes of ``forget`` and of others. The class is
    learned from forget and unseen records together. Costs ``linear_probe_cost``. Raises InputError
    where a weight is not finite, the last layer with weights is not linear, or records are not
    multiclass, are of one class alone, or too few.
    """
    for some in (forget, unseen):
        need_multiclass(some)
    y, unseen_y = forget.y.cpu().numpy(), unseen.y.cpu().numpy()
    ours, theirs = (_embeddings(model, some) for some in (forget, unseen))
    membership = linear_attack(ours, theirs, classes=y, unseen_classes=unseen_y, seed=seed)
    # The same halves as the attack, so that no record is judged by what learned from it.
    fit, fit_unseen = fitted_half(y, seed=seed), fitted_half(unseen_y, seed=seed)
    labels = np.concatenate([y[fit], unseen_y[fit_unseen]])
    if len(np.unique(labels)) < 2:  # noqa: PLR2004
        remedy = "Give unseen records of the other classes too."
        raise InputError("records of two classes or more", f"class {labels[0]} alone", remedy)
    reader = linear().fit(np.concatenate([ours[fit], theirs[fit_unseen]]), labels)
    rest, unseen_rest = y[~fit], unseen_y[~fit_unseen]
    correct = (reader.predict(ours[~fit]) == rest) * 1.0
    unseen_correct = (reader.predict(theirs[~fit_unseen]) == unseen_rest) * 1.0
    interval = clopper_pearson(int(correct.sum()), len(correct))
    expected = expected_from_unseen(rest, unseen_correct, unseen_rest)
    shares = float(correct.mean()), interval, expected, membership, len(correct)
    return LinearProbe(*shares, correct, unseen_correct, rest, unseen_rest)


def linear_probe_cost(forget: Records, unseen: Records) -> Passes:
    """The passes of ``linear_probe``: one forward of each record."""
    return Passes(forward=len(forget) + len(unseen), backward=0)


def _embeddings(model: nn.Module, records: Records) -> np.ndarray:
    """What goes into the head, (n, d)."""
    # Named here: scikit-learn would only say that its input holds nan.
    if broken := nonfinite_tensors(state_of(model)):
        came, remedy = f"nan or inf in {broken[0]}", "Look at what broke it."
        raise InputError("a model with finite weights", came, remedy)
    try:
        return embed(model, records).x.cpu().double().numpy()
    except InputError as why:
        raise InputError(why.wanted, why.came, NOT_RUN) from why


def linear_attack(
    ours: Rows, theirs: Rows, *, classes: Labels, unseen_classes: Labels, seed: int
) -> Attack:
    """Forget rows (``ours``) against unseen ones by a linear attacker, class by class.

    ``auc``: 0 to 1, chance and reference 0.5, see ``efface.metrics.membership.Attack``; it is that
    of records that the attacker was not fitted on. Above 0.5: distinguished, for whichever reason.
    Raises InputError when a half has no record of a side.
    """
    fit, fit_theirs = (fitted_half(y, seed=seed) for y in (classes, unseen_classes))
    # Records of other classes would be distinguished by their class.
    known = np.isin(unseen_classes, classes)
    fit_unseen, unseen = fit_theirs & known, ~fit_theirs & known
    if not all(side.any() for side in (fit, ~fit, fit_unseen, unseen)):
        wanted = "two forget and two unseen records or more of one class, one for each half"
        came = f"{len(ours)} and {int(known.sum())}"
        raise InputError(wanted, came, "Give more records of these classes.")
    member = np.repeat([1, 0], [int(fit.sum()), int(fit_unseen.sum())])
    attacker = linear().fit(np.concatenate([ours[fit], theirs[fit_unseen]]), member)
    # loss_attack takes losses: low for members.
    signals = (-attacker.decision_function(rows) for rows in (ours[~fit], theirs[unseen]))
    return loss_attack(*signals, classes=(classes[~fit], unseen_classes[unseen]))


def linear() -> Any:
    """Balanced logistic regression on standardised features; deterministic."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    # Standardised: the penalty would otherwise depend on the scale of each embedding.
    regression = LogisticRegression(class_weight="balanced", max_iter=MAX_ITERATIONS)
    return make_pipeline(StandardScaler(), regression)


def fitted_half(classes: Int64[np.ndarray, " n"], *, seed: int) -> Bool[np.ndarray, " n"]:
    """A seeded half of each class, the odd one included: what an attacker may learn from."""
    order = np.random.default_rng(seed).permutation(len(classes))
    chosen = np.zeros(len(classes), bool)
    for label in np.unique(classes):
        # Every other one of a shuffled class: halves of each class differ by one at most.
        chosen[order[classes[order] == label][::2]] = True
    return chosen


class Nearest(NamedTuple):
    """Of n records the most probable retained class, and its probability.

    ``classes``: ids; ``confidence``: its re-normalised probability, from 1/(retained classes) to 1.
    Reference: the retrained model's distribution, or that of unseen records of the class.
    """

    classes: Int64[np.ndarray, " n"]
    confidence: Float[np.ndarray, " n"]


class NeighbouringClass(NamedTuple):
    """What the retained classes tell of the records of the forgotten ones.

    ``by_confidence``: forget against unseen records by the confidence in the nearest class;
    ``by_all``: by a linear attacker on all re-normalised log-probabilities. Chance and reference of
    both AUCs 0.5.
    """

    forget: Nearest
    unseen: Nearest
    by_confidence: Attack
    by_all: Attack


class Agreement(NamedTuple):
    """Do two models assign the forgotten records to the same classes, as confidently?

    ``same``: share of records with the same nearest class, 0 to 1; ``difference``: mean confidence
    of the first minus that of the second, -1 to 1; ``distance`` and ``p``: Kolmogorov-Smirnov
    between their confidences. Reference of each: that of two retrained models.
    """

    same: float
    difference: float
    distance: float
    p: float


def neighbouring_class(
    model: nn.Module, forget: Records, unseen: Records, *, forget_classes: Classes, seed: int = 0
) -> NeighbouringClass:
    """Remove ``forget_classes`` from the probabilities, and attack what is left.

    ``forget``: records of these classes; of ``unseen`` (never trained on) those of these classes
    are read. Costs ``neighbouring_class_cost``. Raises InputError where a forget record is of
    another class, no unseen one is of these, or fewer than two classes remain.
    """
    need_multiclass(forget)
    # Unseen records of other classes would be distinguished by their class.
    theirs = unseen.take(_rows_of(unseen, forget_classes))
    need_multiclass(theirs)
    if others := len(forget) - len(_rows_of(forget, forget_classes)):
        remedy = "Use this only where whole classes are forgotten."
        raise InputError("forget records of the forgotten classes", f"{others} of others", remedy)
    evaluations = evaluate(model, forget), evaluate(model, theirs)
    logs = [retained_log_probabilities(one, forget_classes) for one in evaluations]
    # Ids of the model, not positions among the retained classes.
    ids = _retained(evaluations[0], forget_classes)
    nearest = [Nearest(ids[one.argmax(1)], np.exp(one.max(1))) for one in logs]
    # An attack on the loss of the nearest class: low for a confident neighbour.
    losses = (-np.log(one.confidence) for one in nearest)
    y, unseen_y = (one.y for one in evaluations)
    by_confidence = loss_attack(*losses, classes=(y, unseen_y))
    by_all = linear_attack(*logs, classes=y, unseen_classes=unseen_y, seed=seed)
    return NeighbouringClass(nearest[0], nearest[1], by_confidence, by_all)


def neighbouring_class_cost(forget: Records, unseen: Records, *, forget_classes: Classes) -> Passes:
    """The passes of ``neighbouring_class``: one forward of each record of these classes."""
    return Passes(forward=len(forget) + len(_rows_of(unseen, forget_classes)), backward=0)


def retained_log_probabilities(evaluation: Evaluation, forget_classes: Classes) -> Rows:
    """Log-probabilities of the s retained classes, re-normalised, in nats.

    Raises InputError when fewer than two classes remain.
    """
    kept = _retained(evaluation, forget_classes)
    if len(kept) < 2:  # noqa: PLR2004
        came = f"{len(kept)} of {evaluation.logits.shape[1]}"
        remedy = "With one class left there is no neighbour to compare it with."
        raise InputError("two classes or more that remain", came, remedy)
    # A softmax over the rest is conditioning on the rest: the removed logits cancel.
    return log_softmax(evaluation.logits[:, kept].astype(np.float64), axis=1)


def agreement(one: Nearest, other: Nearest) -> Agreement:
    """Compare the predictions of two models, unlearned and retrained, for the same records.

    Raises InputError for other records, or none.
    """
    counts = [len(some.classes) for some in (one, other)]
    if counts[0] != counts[1] or not counts[0]:
        remedy = "Probe both models with the same forget records."
        wanted = "the same records, at least one, for both models"
        raise InputError(wanted, f"{counts[0]} and {counts[1]}", remedy)
    difference = float(one.confidence.mean() - other.confidence.mean())
    same = float((one.classes == other.classes).mean())
    return Agreement(same, difference, *ks(one.confidence, other.confidence))


def _retained(evaluation: Evaluation, forget_classes: Classes) -> Int64[np.ndarray, " s"]:
    return np.setdiff1d(np.arange(evaluation.logits.shape[1]), np.array(forget_classes, np.int64))


def _rows_of(records: Records, classes: Classes) -> list[int]:
    return np.flatnonzero(np.isin(records.y.cpu().numpy(), list(classes))).tolist()

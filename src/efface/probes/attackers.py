"""Linear attackers: fitted on one half of the records, judged on the other."""

from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Int64
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from efface.errors import InputError
from efface.metrics.membership import Attack, loss_attack

MOST_ITERATIONS = 10_000


def told_apart(
    ours: Float[np.ndarray, "n d"],
    theirs: Float[np.ndarray, "m d"],
    *,
    classes: Int64[np.ndarray, " n"],
    unseen_classes: Int64[np.ndarray, " m"],
    seed: int,
) -> Attack:
    """Forget rows (``ours``) told from unseen ones by a linear attacker, class by class.

    ``auc``: 0 to 1, chance and target 0.5, see ``efface.metrics.membership.Attack``; it is that of
    records that the attacker was not fitted on. Above 0.5: told apart, for whichever reason.
    Raises InputError when a half has no record of a side.
    """
    fit, fit_theirs = fitted_half(classes, seed=seed), fitted_half(unseen_classes, seed=seed)
    known = np.isin(unseen_classes, classes)
    sides = (fit, ~fit, fit_theirs & known, ~fit_theirs & known)
    if not all(side.any() for side in sides):
        wanted = "two forget and two unseen records or more of one class, one for each half"
        came = f"{len(ours)} and {int(known.sum())}"
        raise InputError(wanted, came, "Give more records of these classes.")
    x = np.concatenate([ours[fit], theirs[sides[2]]])
    member = np.repeat([1, 0], [int(fit.sum()), int(sides[2].sum())])
    attacker = linear().fit(x, member)
    return loss_attack(
        -attacker.decision_function(ours[~fit]),
        -attacker.decision_function(theirs[sides[3]]),
        forget_classes=classes[~fit],
        unseen_classes=unseen_classes[sides[3]],
    )


def linear() -> Any:
    """Balanced logistic regression on standardised features; it draws nothing."""
    regression = LogisticRegression(class_weight="balanced", max_iter=MOST_ITERATIONS)
    return make_pipeline(StandardScaler(), regression)


def fitted_half(classes: Int64[np.ndarray, " n"], *, seed: int) -> Bool[np.ndarray, " n"]:
    """A seeded half of each class, the odd one included: what an attacker may learn from."""
    order = np.random.default_rng(seed).permutation(len(classes))
    chosen = np.zeros(len(classes), bool)
    for label in np.unique(classes):
        chosen[order[classes[order] == label][::2]] = True
    return chosen

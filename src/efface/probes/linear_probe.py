"""A linear probe on what goes into the head: is the knowledge gone, or not shown any more?

Output tests are passed by a model of which only the head was changed; the features still tell
(https://arxiv.org/abs/2405.17878, https://arxiv.org/abs/2604.08271). Two questions to the same
frozen features: which class is this, and was this a record that had to go?
"""

from dataclasses import dataclass

import numpy as np
from torch import nn

from efface.errors import InputError
from efface.methods._head import embed
from efface.metrics.equivalence import expected_from_unseen
from efface.metrics.intervals import clopper_pearson
from efface.metrics.membership import Attack
from efface.probes.attackers import fitted_half, linear, told_apart
from efface.probes.needs import refuse_without_classes
from efface.runtime import Passes, nonfinite_tensors
from efface.types import Records


@dataclass(frozen=True)
class LinearProbe:
    """What two linear models read off the features, on the half that they were not fitted on.

    ``accuracy``: share of ``scored`` forget records whose class is found, 0 to 1; chance 1/k;
    target: the retrained model's value, or ``unseen_accuracy``, that of unseen records with the
    same mixture of classes. Below the retrained model's: forgotten too far. ``membership``: forget
    told from unseen records; chance and target 0.5.
    """

    accuracy: float
    interval: tuple[float, float]
    unseen_accuracy: float
    membership: Attack
    scored: int


def linear_probe(
    model: nn.Module, forget: Records, unseen: Records, *, seed: int = 0
) -> LinearProbe:
    """Fit on the features of a seeded half of each class, and read the other half.

    ``unseen``: records never trained on, of the classes of ``forget`` and of others. The class is
    learned from forget and unseen records together. Costs ``linear_probe_cost``. Raises InputError
    where a weight is not finite, the last layer with weights is not linear, or records have not one
    class each, are of one class alone, or too few.
    """
    for some in (forget, unseen):
        refuse_without_classes(some)
    y, unseen_y = forget.y.cpu().numpy(), unseen.y.cpu().numpy()
    ours, theirs = (_features(model, some) for some in (forget, unseen))
    membership = told_apart(ours, theirs, classes=y, unseen_classes=unseen_y, seed=seed)
    fit, fit_unseen = fitted_half(y, seed=seed), fitted_half(unseen_y, seed=seed)
    labels = np.concatenate([y[fit], unseen_y[fit_unseen]])
    if len(np.unique(labels)) < 2:  # noqa: PLR2004
        remedy = "Give unseen records of the other classes too."
        raise InputError("records of two classes or more", f"class {labels[0]} alone", remedy)
    reader = linear().fit(np.concatenate([ours[fit], theirs[fit_unseen]]), labels)
    right = reader.predict(ours[~fit]) == y[~fit]
    unseen_right = reader.predict(theirs[~fit_unseen]) == unseen_y[~fit_unseen]
    return LinearProbe(
        accuracy=float(right.mean()),
        interval=clopper_pearson(int(right.sum()), len(right)),
        unseen_accuracy=expected_from_unseen(
            y[~fit], unseen_right.astype(np.float64), unseen_y[~fit_unseen]
        ),
        membership=membership,
        scored=len(right),
    )


def linear_probe_cost(forget: Records, unseen: Records) -> Passes:
    """The passes of ``linear_probe``: one forward of each record."""
    return Passes(forward=len(forget) + len(unseen), backward=0)


def _features(model: nn.Module, records: Records) -> np.ndarray:
    """What goes into the head, (n, d)."""
    if broken := nonfinite_tensors(model.state_dict()):
        raise InputError(
            "a model of finite weights", f"nan or inf in {broken[0]}", "Look at what broke it."
        )
    try:
        return embed(model, records).x.cpu().double().numpy()
    except InputError as why:
        remedy = "Leave this probe out, and say that it was not run."
        raise InputError(why.wanted, why.came, remedy) from why

"""Can an attacker tell that the records were trained on? Two population attacks, both weak.

A population attack has one threshold for all records; attacks per record (likelihood ratios over
shadow models) see more. What these two do not find may still be there.
"""

import math
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Int64
from sklearn.linear_model import LogisticRegression

from efface.errors import InputError
from efface.scores.indistinguishability import placements
from efface.scores.intervals import auc_interval, auc_p, clopper_pearson, smallest_auc

LEAST_FALSE_ALARMS = 3
"""A rate of false alarms is resolvable when at least so many non-members may be flagged."""


def entropy_attack(
    retain: Float[np.ndarray, " r"],
    holdout: Float[np.ndarray, " h"],
    forget: Float[np.ndarray, " f"],
) -> float:
    """The paper's attack (column MIA): share of forget records taken for training records.

    Range 0 to 1. Weak and easily fooled: it is one threshold that ignores the label, so a
    collapsed model scores 0. No chance level of its own: a record never seen scores the attack's
    false alarms. Target: the retrained model's value; lower is not better.
    Raises InputError when one of the three is empty.
    """
    if not len(forget):
        raise InputError("entropies of forget records", "none", "Give at least one.")
    return float(taken_for_members(retain, holdout, forget).mean())


def taken_for_members(
    retain: Float[np.ndarray, " r"],
    holdout: Float[np.ndarray, " h"],
    values: Float[np.ndarray, " n"],
) -> Bool[np.ndarray, " n"]:
    """The paper's attacker at work: a balanced logistic regression on the entropy alone.

    It learns retain (True) from holdout (False), then judges ``values``. The authors' code asks for
    scikit-learn's multinomial form, since removed; for two classes it differs in the weight of the
    penalty alone. Raises InputError when retain or holdout is empty.
    """
    if not (len(retain) and len(holdout)):
        raise InputError(
            "entropies of retain and of holdout records",
            f"{len(retain)} and {len(holdout)}",
            "Give at least one of each.",
        )
    entropies = np.concatenate([retain, holdout])[:, None]
    member = np.concatenate([np.ones(len(retain), int), np.zeros(len(holdout), int)])
    attacker = LogisticRegression(class_weight="balanced").fit(entropies, member)
    return np.asarray(attacker.predict(values[:, None])) == 1


@dataclass(frozen=True)
class Attack:
    """What a threshold on the loss finds.

    ``auc``: 0 to 1, chance and target 0.5: the chance that a forget record has a lower loss than an
    unseen one of its class. Above: still recognised. Below: recognised by being too bad.
    ``tpr``: share of forget records found at ``fpr`` false alarms; chance and target ``fpr``; None
    when the non-members are too few to resolve it. ``unmatched``: forget records left out because
    no unseen record has their class. ``smallest_auc``: what the sample could have seen; ``p``: of
    the area, two-sided, where the records are like unseen ones.
    """

    auc: float
    auc_interval: tuple[float, float]
    tpr: float | None
    tpr_interval: tuple[float, float] | None
    fpr: float
    forget_n: int
    unseen_n: int
    unmatched: int
    smallest_auc: float
    p: float

    @property
    def recognised(self) -> bool:
        """Whether the interval lies above chance."""
        return self.auc_interval[0] > 0.5  # noqa: PLR2004

    @property
    def over_forgotten(self) -> bool:
        """Whether the interval lies below chance."""
        return self.auc_interval[1] < 0.5  # noqa: PLR2004

    @property
    def sees(self) -> bool:
        """Whether the records are told from unseen ones, on whichever side."""
        return self.recognised or self.over_forgotten


def loss_attack(
    forget: Float[np.ndarray, " f"],
    unseen: Float[np.ndarray, " u"],
    *,
    forget_classes: Int64[np.ndarray, " f"] | None = None,
    unseen_classes: Int64[np.ndarray, " u"] | None = None,
    fpr: float = 0.01,
    level: float = 0.95,
) -> Attack:
    """Tell forget records from unseen ones by their loss: see ``Attack``.

    With classes each forget record is compared with unseen records of its own class (the area is
    the mean over forget records), and the threshold of ``tpr`` is set on unseen records of these
    classes. Without, all are one class. Raises InputError when nothing can be compared.
    """
    ours = np.zeros(len(forget), np.int64) if forget_classes is None else forget_classes
    theirs = np.zeros(len(unseen), np.int64) if unseen_classes is None else unseen_classes
    places = placements(-forget, -unseen, classes=ours, unseen_classes=theirs)
    matched = ~np.isnan(places)
    if not matched.any():
        raise InputError(
            "unseen records of the same classes as the forget records",
            "none",
            "Give a holdout that has the classes of the forget records.",
        )
    auc, m = float(places[matched].mean()), int(matched.sum())
    n = _effective(ours[matched], theirs)
    rivals = unseen[np.isin(theirs, ours)]
    tpr, tpr_interval = _found_at(forget[matched], rivals, fpr, level)
    return Attack(
        auc=auc,
        auc_interval=auc_interval(auc, m, n, level=level),
        tpr=tpr,
        tpr_interval=tpr_interval,
        fpr=fpr,
        forget_n=m,
        unseen_n=len(rivals),
        unmatched=len(forget) - m,
        smallest_auc=smallest_auc(m, n, level=level),
        p=auc_p(auc, m, n),
    )


def _effective(classes: Int64[np.ndarray, " f"], unseen_classes: Int64[np.ndarray, " u"]) -> float:
    """Unseen records that count when each class weighs as much as among the forget records."""
    labels, counts = np.unique(classes, return_counts=True)
    weights = counts / counts.sum()
    return 1 / sum(w**2 / (unseen_classes == c).sum() for c, w in zip(labels, weights, strict=True))


def _found_at(
    forget: Float[np.ndarray, " f"], unseen: Float[np.ndarray, " u"], fpr: float, level: float
) -> tuple[float | None, tuple[float, float] | None]:
    """Share of forget records below the loss that at most ``fpr`` of the unseen are below."""
    alarms = math.floor(fpr * len(unseen))
    if alarms < LEAST_FALSE_ALARMS:
        return None, None
    hits = int((forget < np.sort(unseen)[alarms]).sum())
    return hits / len(forget), clopper_pearson(hits, len(forget), level=level)

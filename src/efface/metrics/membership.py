"""Can an attacker tell that the records were trained on? Population attacks, all of them weak.

A population attack has one threshold for all records; per-record attacks (``lira``) detect more.
What these do not detect may still be there.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Bool, Float, Int64

from efface.errors import InputError
from efface.metrics import permutation
from efface.metrics.equivalence import placements
from efface.metrics.evaluation import Evaluation, confidence, lead, modified_entropy
from efface.metrics.intervals import FPRS, Rate, auc_interval, false_positives, rate, smallest_auc

Forget = Float[np.ndarray, " f"]
Unseen = Float[np.ndarray, " u"]
# Classes of the forget and of the unseen records; None: all are of one.
Pair = tuple[Int64[np.ndarray, " f"], Int64[np.ndarray, " u"]] | None


def entropy_attack(
    retain: Float[np.ndarray, " r"], holdout: Float[np.ndarray, " h"], forget: Forget
) -> float:
    """Entropy attack (MIA in published tables): share of forget records classified as members.

    Range 0 to 1. Weak and easily fooled: it is one threshold that ignores the label, so a collapsed
    model scores 0. No chance level of its own: a record never seen scores the attack's FPR.
    Reference: the retrained model's value; lower is not better. Raises InputError when one of the
    three is empty.
    """
    if not len(forget):
        raise InputError("entropies of forget records", "none", "Give at least one.")
    return float(classified_as_members(retain, holdout, forget).mean())


def classified_as_members(
    retain: Float[np.ndarray, " r"],
    holdout: Float[np.ndarray, " h"],
    values: Float[np.ndarray, " n"],
) -> Bool[np.ndarray, " n"]:
    """The entropy attack at work: a balanced logistic regression on the entropy alone.

    It learns retain (True) from holdout (False), then judges ``values``. The authors' code asks for
    scikit-learn's multinomial form, since removed; for two classes it differs in the weight of the
    penalty alone. Raises InputError when retain or holdout is empty.
    """
    from sklearn.linear_model import LogisticRegression

    if not (len(retain) and len(holdout)):
        wanted = "entropies of retain and of holdout records"
        raise InputError(wanted, f"{len(retain)} and {len(holdout)}", "Give at least one of each.")
    entropies = np.concatenate([retain, holdout])[:, None]
    member = np.repeat([1, 0], [len(retain), len(holdout)])
    # Balanced: retain is usually far larger, and everything would be called a member.
    attacker = LogisticRegression(class_weight="balanced").fit(entropies, member)
    return np.asarray(attacker.predict(values[:, None])) == 1


@dataclass(frozen=True)
class Attack:
    """What an attack detects.

    ``auc``: 0 to 1, chance and reference 0.5: the probability that a forget record looks more like
    a member than an unseen one of its class. Above: still detected. Below: detected by being
    too bad. ``rates``: TPR at low FPR, see ``Rate``: at ``fpr``, 1 % and 0.1 %.
    ``unmatched``: forget records omitted because no unseen record has their class.
    ``smallest_auc``: what the sample could have shown; ``p``: of the AUC, two-sided, under the null
    that the records are distributed as unseen ones; where it is not significant, ``auc_interval``
    holds 0.5, however narrow its approximation is. ``smallest_p``: that of an AUC of 1, so an
    attack where it is above 1 - ``level`` could not have detected anything; ``needed``: forget
    records, of the same classes, with which it could (None: no number of them is enough).
    """

    auc: float
    auc_interval: tuple[float, float]
    fpr: float
    rates: tuple[Rate, ...]
    forget_n: int
    unseen_n: int
    unmatched: int
    smallest_auc: float
    p: float
    smallest_p: float = 0.0
    needed: int | None = None
    level: float = 0.95

    @property
    def tpr(self) -> float | None:
        """TPR at ``fpr``; chance and reference ``fpr``; None when it is not resolvable."""
        return self.at(self.fpr).tpr

    def at(self, fpr: float) -> Rate:
        """The rate at ``fpr``, which must be among ``rates``."""
        return next(found for found in self.rates if found.fpr == fpr)

    @property
    def detected(self) -> bool:
        """Whether the AUC is significantly above chance: by its interval, and so by its p."""
        return self.auc_interval[0] > 0.5  # noqa: PLR2004

    @property
    def over_forgotten(self) -> bool:
        """Whether the AUC is significantly below chance: by its interval, and so by its p."""
        return self.auc_interval[1] < 0.5  # noqa: PLR2004

    @property
    def significant(self) -> bool:
        """Whether the records differ from unseen ones, on whichever side."""
        return self.detected or self.over_forgotten


def loss_attack(
    forget: Forget, unseen: Unseen, *, classes: Pair = None, fpr: float = 0.01, level: float = 0.95
) -> Attack:
    """Distinguish forget from unseen records by their loss: see ``Attack`` and ``signal_attack``.

    The probability of the label and its log-odds order records as the loss does: one attack stands
    for the three. Raises InputError when nothing can be compared.
    """
    # A low loss is the sign of a member.
    return signal_attack(-forget, -unseen, classes=classes, fpr=fpr, level=level)


def margin_attack(forget: Evaluation, unseen: Evaluation) -> Attack:
    """By the logit of the label minus the largest other one, class by class: see ``Attack``."""
    return _within_classes(lead, forget, unseen)


def confidence_attack(forget: Evaluation, unseen: Evaluation) -> Attack:
    """By the largest probability: the attacker compares within a class, but needs no label else.

    A confident wrong prediction looks like a member to it. See ``Attack``.
    """
    return _within_classes(confidence, forget, unseen)


def modified_entropy_attack(forget: Evaluation, unseen: Evaluation) -> Attack:
    """By Song and Mittal's entropy that uses the label, class by class: see ``Attack``.

    With two classes it orders records as the loss does.
    """
    return _within_classes(lambda one: -modified_entropy(one), forget, unseen)


def _within_classes(
    signal: Callable[[Evaluation], np.ndarray], forget: Evaluation, unseen: Evaluation
) -> Attack:
    return signal_attack(signal(forget), signal(unseen), classes=(forget.groups, unseen.groups))


def signal_attack(
    forget: Forget, unseen: Unseen, *, classes: Pair = None, fpr: float = 0.01, level: float = 0.95
) -> Attack:
    """Distinguish forget from unseen records by any signal that is higher for members.

    Reference: the retrained model's value, an AUC of 0.5 and TPRs at their FPR. With classes each
    forget record is compared with unseen records of its own class (the AUC is the mean over forget
    records), and the thresholds of the rates are set on unseen records of these classes together.
    Without, all are one class. p-values and what chance allows are those of permutations within the
    classes. Raises InputError when nothing can be compared or a value is nan.
    """
    # Sorting puts nan last, so that it would pass for the surest member.
    if np.isnan(forget).any() or np.isnan(unseen).any():
        raise InputError("numbers to compare", "nan", "See whether the model's outputs are nan.")
    # Without classes all records are of one: the code below knows no second case.
    ours, theirs = classes or (np.zeros(len(side), np.int64) for side in (forget, unseen))
    pooled = permutation.pool(forget, unseen, classes=ours, unseen_classes=theirs)
    m, shifts = pooled.forget_n, permutation.auc_shifts(pooled)
    auc = float(np.nanmean(placements(forget, unseen, classes=ours, unseen_classes=theirs)))
    # Kish's effective sample size: unseen classes weigh as much as among the forget records.
    n = float(1 / (pooled.weights[~pooled.forget] ** 2).sum())
    # One threshold for all classes: per class there are too few records for a low FPR.
    fprs = sorted({fpr, *FPRS}, reverse=True)
    rates = tuple(_class_matched_rate(pooled, fpr=one, level=level) for one in fprs)

    def smallest(count: int) -> float:
        # The interval of the AUC is approximate, and wider than p where one side has few records.
        significant = auc_interval(1.0, count, n, level=level)[0] > 0.5  # noqa: PLR2004
        return permutation.smallest_p(ours, theirs, n=count) if significant else 1.0

    least, needed = smallest(m), None
    if least > 1 - level:
        needed = permutation.records_needed(smallest, level=1 - level)
    counts = m, pooled.unseen_n, len(forget) - m
    low, high = auc_interval(auc, m, n, level=level)
    # What the exact test does not reject belongs in the interval, which is an approximation.
    if (p := permutation.two_sided_p(shifts)) > 1 - level:
        low, high = min(low, 0.5), max(high, 0.5)
    power = smallest_auc(m, n, level=level), p, least, needed, level
    return Attack(auc, (low, high), fpr, rates, *counts, *power)


def _class_matched_rate(pooled: permutation.Pooled, *, fpr: float, level: float) -> Rate:
    """The rate; p and chance by permutation, since the classes may be mixed unequally."""
    sides = (pooled.values[side] for side in (pooled.forget, ~pooled.forget))
    found = rate(*sides, fpr=fpr, level=level)
    if found.tpr is None:
        return found
    shares = permutation.hit_rates(pooled, flagged=false_positives(pooled.unseen_n, fpr))
    tails = (1 - level) / 2, (1 + level) / 2
    low, high = np.quantile(shares, tails, method="inverted_cdf").tolist()
    return replace(found, chance=(low, high), p=min(1.0, 2 * permutation.upper_p(shares)))

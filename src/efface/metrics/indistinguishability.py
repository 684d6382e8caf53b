"""Do forget records look like records that the model never saw? Two-sided, class by class."""

import numpy as np
from jaxtyping import Bool, Float, Int64
from scipy import stats

from efface.errors import InputError


def placements(
    values: Float[np.ndarray, " n"],
    unseen: Float[np.ndarray, " m"],
    *,
    classes: Int64[np.ndarray, " n"],
    unseen_classes: Int64[np.ndarray, " m"],
) -> Float[np.ndarray, " n"]:
    """Where each value stands among the unseen values of its class: the share below it.

    Ties count half. Range 0 to 1, uniform for a record that was never seen (mean 0.5: the target);
    NaN where the class has no unseen record. Near 1 for a margin: still known; near 0: forgotten
    beyond what unseen records are.
    """
    places = np.full(len(values), np.nan)
    for label in np.unique(classes):
        own, others = classes == label, np.sort(unseen[unseen_classes == label])
        if len(others):
            below = np.searchsorted(others, values[own], side="left")
            up_to = np.searchsorted(others, values[own], side="right")
            places[own] = (below + up_to) / 2 / len(others)
    return places


def two_sided(
    places: Float[np.ndarray, " n"],
    classes: Int64[np.ndarray, " n"],
    unseen_classes: Int64[np.ndarray, " m"],
) -> Float[np.ndarray, " n"]:
    """Two-sided p-value of each placement: how rare a value so far out is among unseen records.

    Range 0 to 1; uniform for unseen records, never below 2/(m + 1) with m unseen records of the
    class; NaN where the placement is.
    """
    counts = np.array([(unseen_classes == label).sum() for label in classes], dtype=np.float64)
    nearer = np.minimum(places, 1 - places)
    return np.minimum(1.0, 2 * (1 + nearer * counts) / (1 + counts))


def like_unseen(p_values: Float[np.ndarray, " n"], *, level: float = 0.95) -> float:
    """Share of records that are as near the middle as ``level`` of unseen records are.

    Range 0 to 1; the chance level is the target: ``level`` for records that were never seen. Both
    lower (still known, or forgotten too far) and higher (suspiciously average) are off target.
    Raises InputError when no class of the records has an unseen one.
    """
    known = p_values[~np.isnan(p_values)]
    if not len(known):
        raise InputError(
            "unseen records of the same classes",
            "none",
            "Give a holdout that has the classes of the forget records.",
        )
    return float((known > 1 - level).mean())


def more_often_p(
    ours: Bool[np.ndarray, " n"],
    theirs: Bool[np.ndarray, " m"],
    *,
    classes: Int64[np.ndarray, " n"],
    unseen_classes: Int64[np.ndarray, " m"],
    seed: int,
    permutations: int = 2000,
) -> float:
    """One-sided p that a thing is so more often of our records than of unseen ones of their class.

    Records change sides within their class, by chance: 1/(permutations + 1) to 1, uniform or
    greater where nothing is. Classes that one side lacks are left out; 1 when none is left.
    """
    draw, drawn, seen = np.random.default_rng(seed), np.zeros(permutations), 0.0
    for label in np.unique(classes):
        own, others = ours[classes == label], theirs[unseen_classes == label]
        if len(others):
            both = np.concatenate([own, others]).astype(np.float64)
            turned = draw.permuted(np.tile(both, (permutations, 1)), axis=1)[:, : len(own)]
            drawn += turned.sum(axis=1) - len(own) * both.mean()
            seen += own.sum() - len(own) * both.mean()
    return float((1 + (drawn >= seen - 1e-9).sum()) / (1 + permutations))


def expected_from_unseen(
    classes: Int64[np.ndarray, " n"],
    unseen: Float[np.ndarray, " m"],
    unseen_classes: Int64[np.ndarray, " m"],
) -> float:
    """The mean that unseen records with the same mixture of classes have: the class-matched target.

    In the unit of ``unseen``. Records whose class has no unseen one are left out; NaN when all are.
    """
    means = {c: unseen[unseen_classes == c].mean() for c in np.unique(unseen_classes)}
    found = [means[c] for c in classes if c in means]
    return float(np.mean(found)) if found else float("nan")


def ks(values: Float[np.ndarray, " n"], unseen: Float[np.ndarray, " m"]) -> tuple[float, float]:
    """Two-sample Kolmogorov-Smirnov: the greatest distance of the two distributions, and p.

    Distance 0 (the same) to 1 (apart). Target: the distance between two sets of unseen records,
    which shrinks with n: read p beside it, and with large n the distance, since p then falls for
    trivial shifts. Raises InputError when either is empty.
    """
    if not len(values) or not len(unseen):
        raise InputError(
            "values on both sides",
            f"{len(values)} and {len(unseen)}",
            "Give forget records and unseen records of the same classes.",
        )
    found = stats.ks_2samp(values, unseen)
    return float(found.statistic), float(found.pvalue)

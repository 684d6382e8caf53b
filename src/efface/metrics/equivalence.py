"""Equivalence to unseen records and to retrained models; tests of two samples.

Do forget records look like records that the model never saw? Two-sided, class by class:
``placements``, ``two_sided``, ``central_share``; how far they came: ``progress_to_unseen``. Is a
model one of the retrained ones? ``compare_with_retrained`` decides by how far retrained models are
from each other; ``likeness`` adds the two-sample tests that the field reports, of which none
decides: with many records their p-values are small for differences that any new seed makes.

Energy distance here is twice the integral of the squared difference of the two distribution
functions: 0 where they are the same, in the unit of the values; scipy's is its root.
Shapes: n records · m unseen records · s retrained models, one row each.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int64
from scipy import stats
from scipy.spatial.distance import pdist

from efface.errors import InputError
from efface.metrics.refusals import need_at_least, need_classes, need_numbers, need_same_records

LEVEL = 0.95
# Of Cohen's d; half of what is conventionally called small.
SMALL_EFFECT = 0.1

MIN_PERMUTATIONS = 2000
# Numbers in memory at once while permuting.
BLOCK = 4_000_000

FEW = "With fewer p depends on the seed."

Values = Float[np.ndarray, " n"]
Others = Float[np.ndarray, " m"]
Models = Float[np.ndarray, "s m"]
Classes = Int64[np.ndarray, " n"]
OtherClasses = Int64[np.ndarray, " m"]


def placements(
    values: Values, unseen: Others, *, classes: Classes, unseen_classes: OtherClasses
) -> Values:
    """Rank of each value among the unseen values of its class: the share below it.

    Ties count half. Range 0 to 1, uniform for a record that was never seen (mean 0.5: the
    reference); NaN where the class has no unseen record. Near 1 for a margin: still known; near 0:
    over-forgotten.
    """
    places = np.full(len(values), np.nan)
    for label in np.unique(classes):
        # Within a class: easy classes have low losses whether or not a record was trained on.
        own, others = classes == label, unseen[unseen_classes == label]
        if len(others):
            places[own] = share_below(values[own], others)
    return places


def share_below(values: Values, others: Others) -> Values:
    """Share of the others below each value, 0 to 1; ties count half. At least one other."""
    ranked = np.sort(others)
    below = np.searchsorted(ranked, values, "left") + np.searchsorted(ranked, values, "right")
    return below / 2 / len(others)


def two_sided(places: Values, classes: Classes, unseen_classes: OtherClasses) -> Values:
    """Two-sided p-value of each placement: how rare so extreme a value is among unseen records.

    Range 0 to 1; uniform for unseen records, never below 2/(m + 1) with m unseen records of the
    class; NaN where the placement is.
    """
    counts = np.array([(unseen_classes == label).sum() for label in classes], dtype=np.float64)
    # Half of a tied value counts as below, so the two tails are symmetric.
    nearer = np.minimum(places, 1 - places)
    return np.minimum(1.0, 2 * (1 + nearer * counts) / (1 + counts))


def central_share(p_values: Values, *, level: float = 0.95) -> float:
    """Share of records that are as near the middle as ``level`` of unseen records are.

    Range 0 to 1; the chance level is the reference: ``level`` for records that were never seen.
    Both lower (still known, or over-forgotten) and higher (suspiciously average) are off. Raises
    InputError when no class of the records has an unseen one.
    """
    known = p_values[~np.isnan(p_values)]
    need_classes(len(known))
    return float((known > 1 - level).mean())


def expected_from_unseen(classes: Classes, unseen: Others, unseen_classes: OtherClasses) -> float:
    """The mean of unseen records with the same mixture of classes: the class-matched reference.

    In the unit of ``unseen``. Records whose class has no unseen one are omitted; NaN when all are.
    """
    means = {c: unseen[unseen_classes == c].mean() for c in np.unique(unseen_classes)}
    found = [means[c] for c in classes if c in means]
    return float(np.mean(found)) if found else float("nan")


def progress_to_unseen(
    before: Values, after: Values, unseen: Others, *, classes: Classes, unseen_classes: OtherClasses
) -> float:
    """How far the mean came from ``before`` to that of unseen records of the same classes.

    (before - after) / (before - unseen). Unbounded: 0 where nothing moved, 1 as unseen (the
    reference: a retrained model's value), above 1 over-forgotten, below 0 better known than before.
    Records whose class has no unseen one are omitted. NaN where none is left, and where ``before``
    is not above the unseen mean by a tenth of the unseen values' standard deviation: there is no
    distance to cover. For log-odds or minus a loss: higher is better known.
    """
    known = np.isin(classes, unseen_classes)
    reference = expected_from_unseen(classes, unseen, unseen_classes)
    if not known.any():
        return float("nan")
    distance = float(before[known].mean()) - reference
    if distance <= SMALL_EFFECT * float(unseen.std()) or distance <= 0:
        return float("nan")
    return float((before[known] - after[known]).mean()) / distance


def ks(values: Values, unseen: Others) -> tuple[float, float]:
    """Two-sample Kolmogorov-Smirnov: the largest distance of the two distributions, and p.

    Distance 0 (the same) to 1 (disjoint). Reference: the distance between two sets of unseen
    records, which shrinks with n: read p next to it, and with large n the distance, since p then
    falls for trivial shifts. Raises InputError when either is empty.
    """
    if not len(values) or not len(unseen):
        remedy = "Give forget records and unseen records of the same classes."
        raise InputError("values on both sides", f"{len(values)} and {len(unseen)}", remedy)
    found = stats.ks_2samp(values, unseen)
    return float(found.statistic), float(found.pvalue)


@dataclass(frozen=True, eq=False)
class RetrainComparison:
    """A model among s retrained ones, and the verdict.

    ``ks_to_each`` (s,): Kolmogorov-Smirnov distance to each, 0 to 1; ``ks_mean``: their mean;
    ``floor``: mean distance of retrained pairs, the reference; ``percentile``: share of retrained
    pairs that are less far apart than ``ks_mean``, reference at most 0.95; ``outlier_p``: how rare
    so distant a model is among retrained ones; ``rank_p``: the same without an assumption, never
    below 1/(s + 1). ``difference``: mean difference to the retrained models in pooled ranks, -1 to
    1; ``margin``: how far two retrained models differ; ``tost_p``: is the difference within it?
    """

    n: int
    retrained: int
    ks_to_each: Float[np.ndarray, " s"]
    ks_mean: float
    floor: float
    percentile: float
    outlier_p: float
    rank_p: float
    difference: float
    margin: float
    tost_p: float

    @property
    def like_retrained(self) -> bool | None:
        """True, False, or None where the retrained models are too few to tell.

        True: within the retrain-to-retrain variability (percentile at most the 95th) and equivalent
        (TOST). False: beyond it, and farther out than one retrained model in twenty would be.
        """
        if self.percentile <= LEVEL:
            return True if self.tost_p <= 1 - LEVEL else None
        return False if self.outlier_p <= 1 - LEVEL else None


@dataclass(frozen=True, eq=False)
class Likeness:
    """A verdict (``comparison``), and two-sample tests that the field reports: no part of it.

    ``a12``: probability that a value is above a retrained model's, mean over these; reference 0.5.
    The p-values are medians over the retrained models, ``energy_p`` is against all of them; each is
    small for what any new seed does once there are many records.
    """

    comparison: RetrainComparison
    a12: float
    ks_p: float
    mann_whitney_p: float
    wilcoxon_p: float
    energy: float
    energy_p: float


def likeness(
    unlearned: Values, retrained: Models, *, permutations: int = 2000, seed: int = 0
) -> Likeness:
    """Compare a model's values (entropies, margins) with those of retrained models, same records.

    See ``Likeness`` and ``RetrainComparison`` for ranges and references; monotone transforms of the
    values change no number. Raises InputError as ``compare_with_retrained``.
    """
    comparison = compare_with_retrained(unlearned, retrained)
    ranks = _ranks(np.vstack([unlearned[None], retrained]))
    # Of ranks: the energy distance of skewed entropies is that of a few records.
    energy = energy_test_paired(ranks[0], ranks[1:], permutations=permutations, seed=seed)
    effects, rank_sum = zip(*(a12(unlearned, other) for other in retrained), strict=True)
    ks_p = [stats.ks_2samp(unlearned, other, method="asymp").pvalue for other in retrained]
    signed_rank = [wilcoxon_p(unlearned, other) for other in retrained]
    # Medians: one retrained model that happens to be near or far must not decide.
    medians = [float(np.median(p_values)) for p_values in (ks_p, rank_sum, signed_rank)]
    return Likeness(comparison, float(np.mean(effects)), *(*medians, *energy))


def compare_with_retrained(unlearned: Values, retrained: Models) -> RetrainComparison:
    """Where a model lies within the variability of retrained ones, on the same records.

    See ``RetrainComparison`` for ranges and references. With 8 retrained models a ninth of the same
    kind was called like them in 91 to 93 % of simulated cases, unlike in 0 to 3 %, and undecided in
    6 to 8 % (docs/metrics.md). The variability is that of the models given: it covers what differed
    between them (seed, order, machine). Raises InputError for fewer than two retrained models,
    equal ones, values that are not finite, or records that do not pair up.
    """
    need_same_records(unlearned=unlearned, retrained=retrained)
    count, remedy = len(retrained), "Retrain with another seed: one model shows no variability."
    need_at_least(2, "retrained models", count, remedy)
    # The judged model is row 0, so that ranks and distances treat it like any other model.
    models = np.vstack([unlearned[None], retrained])
    apart = ks_between(models)
    pairs = apart[1:, 1:][np.triu_indices(count, 1)]
    if not pairs.any():
        wanted, came = "retrained models that differ", f"{count} with the same values"
        raise InputError(wanted, came, "Retrain with other seeds.")
    ks_to_each = apart[0, 1:]
    ks_mean, floor = float(ks_to_each.mean()), float(pairs.mean())
    percentile = float((pairs < ks_mean).mean())
    rank_p = float((apart.sum(axis=1) >= apart[0].sum() - 1e-9).mean())
    distances = (ks_to_each, ks_mean, floor, percentile, outlier_p(apart), rank_p)
    means = _equivalence(_ranks(models).mean(axis=1))
    return RetrainComparison(len(unlearned), count, *distances, *means)


def _ranks(models: Float[np.ndarray, "s n"]) -> Float[np.ndarray, "s n"]:
    """Pooled ranks, 0 to 1: entropies are skewed, and a mean of them is that of a few."""
    return stats.rankdata(models).reshape(models.shape) / models.size


def ks_between(models: Float[np.ndarray, "s n"]) -> Float[np.ndarray, "s s"]:
    """Two-sample Kolmogorov-Smirnov distance of every two rows, 0 to 1: all pairs at one sort."""
    # Every distribution function as steps on the same sorted values: ties fall on one step.
    places, at = np.unique(models, return_inverse=True)
    steps = np.zeros((len(models), len(places)))
    np.add.at(steps, (np.arange(len(models))[:, None], at.reshape(models.shape)), 1)
    shares = steps.cumsum(axis=1) / models.shape[1]
    return np.stack([np.abs(shares - row).max(axis=1) for row in shares])


def outlier_p(apart: Float[np.ndarray, "s s"]) -> float:
    """How rare so distant a first model is among the others, by squared distances.

    ``apart``: distances of every two, the judged model first; the others must differ, two or more.
    Range 0 to 1; uniform or larger where the first is one of them. The pseudo-F of Anderson
    (Austral Ecology 26, 2001) with a group of one, against F(1, s - 1): exact for a normal shift of
    one number, and conservative for distances in more directions.
    """
    s = len(apart) - 1
    # Sums of squares from distances alone, so it serves any distance without coordinates.
    within = (apart[1:, 1:] ** 2).sum() / 2 / s
    between = (apart**2).sum() / 2 / (s + 1) - within
    return float(stats.f.sf(max(between, 0) / (within / (s - 1)), 1, s - 1))


def _equivalence(means: Float[np.ndarray, " s"]) -> tuple[float, float, float]:
    """Difference of the first mean to the others, the margin that pairs of others set, TOST's p.

    The unit is a model, not a record: the records are all that the request has, while another seed
    gives another mean.
    """
    differences, between = means[0] - means[1:], np.sort(pdist(means[1:, None], "cityblock"))
    # The conformal quantile: with few pairs the margin is the largest difference seen.
    margin = float(between[min(len(between), int(np.ceil(LEVEL * (len(between) + 1)))) - 1])
    return float(differences.mean()), margin, tost(differences, margin=margin)


def tost(differences: Values, *, margin: float) -> float:
    """Two one-sided t-tests, their p: is the mean difference within ``margin`` on both sides?

    Range 0 to 1; at most 0.05 says that the two are equivalent: the 90 % interval lies inside the
    margin. A large p does not say that they differ. Schuirmann 1987. Raises InputError for fewer
    than two differences.
    """
    need_numbers(differences=differences)
    need_at_least(2, "differences", len(differences), "Give more records or models.")
    # A t-test of equal differences would divide by 0; here the answer is certain.
    if np.ptp(differences) == 0:
        return float(abs(differences[0]) >= margin)
    above = stats.ttest_1samp(differences, -margin, alternative="greater").pvalue
    below = stats.ttest_1samp(differences, margin, alternative="less").pvalue
    return float(max(above, below))


def a12(values: Values, others: Others) -> tuple[float, float]:
    """Probability that one of ``values`` exceeds one of ``others`` (ties half), Mann-Whitney's p.

    Range 0 to 1; chance and reference 0.5. Vargha and Delaney 2000. Raises InputError when either
    is empty or not finite.
    """
    need_numbers(values=values, others=others)
    found = stats.mannwhitneyu(values, others)
    return float(found.statistic) / len(values) / len(others), float(found.pvalue)


def wilcoxon_p(values: Values, others: Others) -> float:
    """Wilcoxon's signed-rank p for the same records under two models; 1 when all are equal.

    Range 0 to 1. With many records it is small for what any new seed does. Raises InputError when
    the two do not pair up.
    """
    need_same_records(values=values, others=others)
    # scipy refuses differences that are all 0.
    return float(stats.wilcoxon(values, others).pvalue) if (values != others).any() else 1.0


def energy_test(
    values: Values, others: Others, *, permutations: int = MIN_PERMUTATIONS, seed: int = 0
) -> tuple[float, float]:
    """Energy distance of values of *different* records, and its permutation p.

    p never below 1/(permutations + 1); uniform when both are drawn alike. Read the distance too:
    with many records p falls for trivial shifts. Raises InputError for fewer than 2,000
    permutations, or when a side has no or only one value, or one that is not finite.
    """
    need_numbers(values=values, others=others)
    need_at_least(MIN_PERMUTATIONS, "permutations", permutations, FEW)
    if min(len(values), len(others)) < 2:  # noqa: PLR2004
        came = f"{len(values)} and {len(others)}"
        raise InputError("two values or more on both sides", came, "Give more records.")
    draw, how = np.random.default_rng(seed), {"vectorized": False, "alternative": "greater"}
    both, energy = (values, others), stats.energy_distance
    found = stats.permutation_test(both, energy, n_resamples=permutations, random_state=draw, **how)
    # scipy gives the root; a monotone transform, so p stays.
    return float(found.statistic) ** 2, float(found.pvalue)


def energy_test_paired(
    values: Values, others: Models, *, permutations: int = MIN_PERMUTATIONS, seed: int = 0
) -> tuple[float, float]:
    """Energy distance to the pooled values of s models on the *same* records, and p.

    Labels are permuted within each record: any of its s + 1 values may be the one compared. p never
    below 1/(permutations + 1). It treats records as independent: a shift of a whole model, which
    any new seed brings, is a difference; so p detects *a* difference, not one that matters. Raises
    InputError for fewer than 2,000 permutations, or records that do not pair up.
    """
    need_same_records(values=values, others=others)
    need_at_least(MIN_PERMUTATIONS, "permutations", permutations, FEW)
    models = np.vstack([values[None], others])
    count, n = models.shape
    # One sort of all values: a permutation then only moves marks along the sorted axis.
    order = np.argsort(models, axis=None, kind="stable")
    place, widths = np.empty_like(order), np.diff(models.ravel()[order])
    place[order] = np.arange(order.size)
    place = place.reshape(models.shape)
    everyone = np.arange(1, order.size) / order.size
    draw, block = np.random.default_rng(seed), max(1, BLOCK // order.size)

    def distances(picked: Int64[np.ndarray, "b n"]) -> Float[np.ndarray, " b"]:
        marks = np.zeros((len(picked), order.size))
        np.put_along_axis(marks, place[picked, np.arange(n)], 1 / n, axis=1)
        # The pool without the one is what is left of all: (count F_all - F_one) / s.
        apart = (marks.cumsum(axis=1)[:, :-1] - everyone) * count / (count - 1)
        return 2 * (apart**2) @ widths

    own, larger = float(distances(np.zeros((1, n), np.int64))[0]), 0
    for start in range(0, permutations, block):
        permuted = distances(draw.integers(0, count, (min(block, permutations - start), n)))
        larger += int((permuted >= own * (1 - 1e-9)).sum())
    return own, (1 + larger) / (permutations + 1)

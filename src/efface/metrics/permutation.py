"""Energy distance of two sets of values, and how often shuffled labels give a greater one.

Energy distance here is twice the integral of the squared difference of the two distribution
functions: 0 where they are the same, in the unit of the values; scipy's is its root.
"""

import numpy as np
from jaxtyping import Float, Int64
from scipy import stats

from efface.errors import InputError
from efface.metrics.refusals import need_numbers, need_same_records

LEAST_PERMUTATIONS = 2000
BLOCK = 4_000_000
"""Numbers held at once while permuting."""


def energy_test(
    values: Float[np.ndarray, " n"],
    others: Float[np.ndarray, " m"],
    *,
    permutations: int = LEAST_PERMUTATIONS,
    seed: int = 0,
) -> tuple[float, float]:
    """Energy distance of values of *different* records, and its permutation p.

    p never below 1/(permutations + 1); uniform when both are drawn alike. Read the distance too:
    with many records p falls for trivial shifts. Raises InputError for fewer than 2,000
    permutations, or when a side has no or only one value, or one that is not finite.
    """
    need_numbers(values=values, others=others)
    _need_permutations(permutations)
    if min(len(values), len(others)) < 2:  # noqa: PLR2004
        raise InputError(
            "two values or more on both sides",
            f"{len(values)} and {len(others)}",
            "Give more records.",
        )
    found = stats.permutation_test(
        (values, others),
        stats.energy_distance,
        n_resamples=permutations,
        vectorized=False,
        alternative="greater",
        random_state=np.random.default_rng(seed),
    )
    return float(found.statistic) ** 2, float(found.pvalue)


def energy_test_paired(
    values: Float[np.ndarray, " n"],
    others: Float[np.ndarray, "s m"],
    *,
    permutations: int = LEAST_PERMUTATIONS,
    seed: int = 0,
) -> tuple[float, float]:
    """Energy distance to the pooled values of s models on the *same* records, and p.

    Labels are shuffled within each record: any of its s + 1 values may be the one compared. p never
    below 1/(permutations + 1). It takes records for independent: a shift of a whole model, which
    any new seed brings, is found to be a difference; so p tells *a* difference, not one that
    matters. Raises InputError for fewer than 2,000 permutations, or records that do not pair up.
    """
    need_numbers(values=values, others=others)
    need_same_records(values=values, others=others)
    _need_permutations(permutations)
    models = np.vstack([values[None], others])
    count, n = models.shape
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

    own = float(distances(np.zeros((1, n), np.int64))[0])
    greater = 0
    for start in range(0, permutations, block):
        rows = min(block, permutations - start)
        shuffled = distances(draw.integers(0, count, (rows, n)))
        greater += int((shuffled >= own * (1 - 1e-9)).sum())
    return own, (1 + greater) / (permutations + 1)


def _need_permutations(permutations: int) -> None:
    if permutations < LEAST_PERMUTATIONS:
        raise InputError(
            f"at least {LEAST_PERMUTATIONS} permutations",
            str(permutations),
            "With fewer the p-value depends on the seed.",
        )

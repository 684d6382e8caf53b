"""Do those who stay pay for those who leave? The records whose risk rose most."""

import math
from dataclasses import dataclass
from functools import partial

import numpy as np
from jaxtyping import Float
from scipy import stats

from efface.errors import InputError
from efface.metrics.refusals import need_numbers, need_same_rows


@dataclass(frozen=True)
class WorstChange:
    """Change of membership risk among those who stay, in the unit of the risk.

    ``worst``: mean change of the tenth whose risk rose most; ``interval``: its bootstrap interval;
    ``mean``: change over all; ``rose``: share of records whose risk rose; ``worst_n`` of ``n``.
    """

    worst: float
    interval: tuple[float, float]
    mean: float
    rose: float
    worst_n: int
    n: int


def worst_decile_change(
    before: Float[np.ndarray, " n"],
    after: Float[np.ndarray, " m"],
    *,
    chosen_by: Float[np.ndarray, " c"] | None = None,
    share: float = 0.1,
    level: float = 0.95,
    resamples: int = 2000,
    seed: int = 0,
) -> WorstChange:
    """Mean change of risk (after - before) of the ``share`` of records that it rose most for.

    ``before``, ``after``: a membership risk of each retained record, higher is more at risk. Range:
    that of a difference of risks. **Chance is above 0**: the worst tenth of changes that are noise
    alone has risen. Target: the value that a retrained model in the place of the unlearned one has.
    ``chosen_by``: changes of the same records measured independently (other shadow models, other
    views); the tenth is chosen by these and read from the others, and chance is 0. The interval
    resamples records, not models. Hayes et al. 2024 (https://arxiv.org/abs/2403.01218): unlearning
    can raise the risk of those who stay. Raises InputError for fewer than 20 records, a share that
    holds no record, or records that do not pair up.
    """
    chooser = after if chosen_by is None else chosen_by
    need_numbers(before=before, after=after, chosen_by=chooser)
    need_same_rows(before=before, after=after, chosen_by=chooser)
    n, k = len(before), math.ceil(share * len(before))
    if n < LEAST_RECORDS or not 0 < share <= 1:
        raise InputError(
            f"at least {LEAST_RECORDS} records and a share above 0, at most 1",
            f"{n} records and a share of {share:g}",
            "Give the risks of more of the records that stay.",
        )
    change = after - before
    order = change if chosen_by is None else chosen_by
    found = stats.bootstrap(
        (change, order),
        partial(_worst_mean, k=k),
        paired=True,
        vectorized=True,
        method="percentile",
        confidence_level=level,
        n_resamples=resamples,
        batch=max(1, BATCH // n),
        random_state=np.random.default_rng(seed),
    ).confidence_interval
    return WorstChange(
        worst=float(_worst_mean(change, order, k=k)),
        interval=(float(found.low), float(found.high)),
        mean=float(change.mean()),
        rose=float((change > 0).mean()),
        worst_n=k,
        n=n,
    )


LEAST_RECORDS = 20
"""With fewer a tenth is one record, and a resample says nothing of it."""

BATCH = 1_000_000
"""Numbers held at once while resampling."""


def _worst_mean(
    change: Float[np.ndarray, "*b n"],
    order: Float[np.ndarray, "*b n"],
    axis: int = -1,
    *,
    k: int,
) -> Float[np.ndarray, "*b"] | np.float64:
    """Mean change of the k entries that ``order`` puts highest, along the last axis."""
    worst = np.argpartition(order, -k, axis=axis)[..., -k:]
    return np.take_along_axis(change, worst, axis=axis).mean(axis=axis)

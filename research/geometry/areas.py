"""How far two boundaries are apart, and medians over seeds with their intervals."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float
from scipy import stats


def area(
    one: Bool[np.ndarray, " n"],
    other: Bool[np.ndarray, " n"],
    weight: Float[np.ndarray, " n"] | None = None,
) -> float:
    """Share of a grid where two models' answers differ: 0 to 1, 0 where they agree everywhere.

    ``weight``: of each point of the grid, for instance how often data lie there; all alike if not
    given. Its target is the area between two retrained models, not 0.
    """
    return float(np.average(one != other, weights=weight))


def shift(
    before: Bool[np.ndarray, " n"],
    after: Bool[np.ndarray, " n"],
    weight: Float[np.ndarray, " n"] | None = None,
) -> float:
    """Share of a grid that class 1 has lost: -1 to 1; above 0 its boundary came nearer to it."""
    lost = before.astype(float) - after.astype(float)
    return float(np.average(lost, weights=weight))


def accuracy(answers: Bool[np.ndarray, " n"], density: Float[np.ndarray, "n 2"]) -> float:
    """Share of what the two blobs draw that is answered with its class: 0 to 1, chance 0.5."""
    right = np.where(answers, density[:, 1], density[:, 0])
    return float(right.sum() / density.sum())


@dataclass(frozen=True)
class Middle:
    """A median over ``n`` seeds, with the 95 % interval of the bootstrap; none below 3 seeds."""

    median: float
    low: float | None
    high: float | None
    n: int

    @property
    def above_0(self) -> bool:
        """Whether the whole interval is."""
        return self.low is not None and self.low > 0

    @property
    def below_0(self) -> bool:
        """Whether the whole interval is."""
        return self.high is not None and self.high < 0


FEWEST = 3


def middle(values: Sequence[float], *, seed: int = 0) -> Middle:
    """The median over seeds; the interval is the percentile bootstrap's, 4,000 draws."""
    # a bootstrap of one or two values has no width worth showing
    found = np.asarray(values, dtype=float)
    if len(found) < FEWEST:
        return Middle(float(np.median(found)), None, None, len(found))
    how = {"n_resamples": 4000, "method": "percentile", "random_state": np.random.default_rng(seed)}
    drawn = stats.bootstrap((found,), np.median, **how).confidence_interval
    return Middle(float(np.median(found)), float(drawn.low), float(drawn.high), len(found))

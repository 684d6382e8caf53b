"""The noise at which copies of records tell them apart: σ of zero-shot information content."""

from typing import NamedTuple

import numpy as np
from torch import nn

from efface.ranking.copies import kept_share
from efface.types import Records

TAU = 0.9
"""τ: records with an information content from here on are called low in information."""

KEPT = 0.75
"""Share of noisy copies that should keep the answer, where nothing else is said.

A share near 1 tells no records apart, nor does one as low as chance; how much it matters in between
stands in research/results/information.md.
"""

START, DOUBLINGS, HALVINGS = 0.05, 12, 6
"""σ from which one is looked for, how far, in powers of 2; how fine: within 2 %."""

SAMPLE, ANSWERS, MOST_COPIES = 512, 1000, 64
"""Records that are asked, answers that a share should be of, copies of one record at most."""

FAR = 0.05
"""A share that is farther than this from the one wanted was not reached."""


class Noise(NamedTuple):
    """``sigma`` over the range of the data, and the share of copies that ``kept`` the answer."""

    sigma: float
    kept: float

    def reached(self, wanted: float) -> bool:
        """Whether the share is about the one that was wanted."""
        return abs(self.kept - wanted) <= FAR


def _spread(records: Records, size: int) -> Records:
    """At most so many of the records, spread over all of them."""
    rows = np.unique(np.linspace(0, len(records) - 1, min(size, len(records))).round())
    return records.take(rows.astype(np.int64).tolist())


def sigma_keeping(model: nn.Module, records: Records, wanted: float, *, seed: int) -> Noise:
    """σ at which about ``wanted`` (0 to 1) of the noisy copies of a sample keep the answer.

    Doubles or halves until the share is passed, then narrows down. Where it is never passed (a
    model that answers everything alike, a share of 1 or below chance) it is ``START``: look at
    ``reached``. Costs at most 19 shares of 1,000 copies, or of 64 a record.
    """
    sample = _spread(records, SAMPLE)
    copies = min(MOST_COPIES, max(2, -(-ANSWERS // len(sample))))

    def kept(sigma: float) -> float:
        return float(kept_share(model, sample, sigma=sigma, copies=copies, seed=seed).mean())

    first = kept(START)
    enough, low, high = first > wanted, START, START
    for _ in range(DOUBLINGS):
        low, high = (high, 2 * high) if enough else (low / 2, low)
        if (kept(high if enough else low) > wanted) != enough:
            break
    else:
        return Noise(START, first)
    for _ in range(HALVINGS):
        middle = (low * high) ** 0.5
        low, high = (middle, high) if kept(middle) > wanted else (low, middle)
    found = (low * high) ** 0.5
    return Noise(found, kept(found))

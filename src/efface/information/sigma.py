"""The noise at which copies of records tell them apart: σ of zero-shot information content."""

from torch import nn

from efface.information.copies import kept_share
from efface.types import Records

TAU = 0.9
"""τ: records with an information content from here on are called low in information."""

KEPT = 0.75
"""Share of noisy copies that should keep the answer, where nothing else is said.

A share near 1 tells no records apart, nor does one as low as chance; how much it matters in between
stands in results/information.md.
"""

START, DOUBLINGS, HALVINGS = 0.05, 12, 6
"""σ from which one is looked for, how far, in powers of 2; how fine: within 2 %."""

COPIES_IN_ALL = 1000


def sigma_keeping(model: nn.Module, sample: Records, wanted: float, *, seed: int) -> float:
    """σ at which about ``wanted`` (0 to 1) of the noisy copies of a sample keep the answer.

    Doubles or halves until the share is passed, then narrows down. Where it is never passed (a
    model that answers everything alike) it is ``START``: look at the share that comes of it.
    """
    copies = max(2, -(-COPIES_IN_ALL // len(sample)))

    def kept(sigma: float) -> float:
        return float(kept_share(model, sample, sigma=sigma, copies=copies, seed=seed).mean())

    enough = kept(START) > wanted
    low = high = START
    for _ in range(DOUBLINGS):
        low, high = (high, 2 * high) if enough else (low / 2, low)
        if (kept(high if enough else low) > wanted) != enough:
            break
    else:
        return START
    for _ in range(HALVINGS):
        middle = (low * high) ** 0.5
        low, high = (middle, high) if kept(middle) > wanted else (low, middle)
    return (low * high) ** 0.5

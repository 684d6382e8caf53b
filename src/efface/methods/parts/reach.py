"""How far a record's neighbourhood reaches: the noise at which neighbours change the answer."""

from collections.abc import Callable
from itertools import pairwise

from torch import nn

from efface.methods.parts.natural import perturbed
from efface.methods.parts.unseen import share_right
from efface.task import predict, task_of
from efface.types import Records

SAMPLE, DOUBLINGS, HALVINGS = 512, 16, 3
"""Neighbours asked at each σ; how far the search goes, in powers of 2; how fine: within 9 %."""


def sigma_where(
    teacher: nn.Module, forget: Records, wanted: float, *, start: float, seed: int
) -> tuple[float, float]:
    """σ at which about ``wanted`` (0 to 1) of the neighbours keep the given answer; and that share.

    Doubles or halves from ``start`` until the share is passed, then narrows down; of a share of 1,
    until the first neighbour changes its answer. Where it is never passed (a blank record, a model
    that answers everything alike) it is ``start``.
    """
    sample = forget.take(range(min(len(forget), SAMPLE)))
    own = task_of(sample).predict(predict(teacher, sample))
    copies = 1 if len(sample) > SAMPLE // 10 else -(-SAMPLE // 10 // len(sample))
    wanted = min(wanted, 1 - 1 / (copies * len(sample)))

    def kept(sigma: float) -> float:
        draws = (perturbed(sample, sigma, seed=seed, step=_FAR + copy) for copy in range(copies))
        return sum(share_right(teacher, draw, own) for draw in draws) / copies

    bracket = _bracket(kept, wanted, start)
    if bracket is None:
        return start, kept(start)
    return _narrowed(kept, wanted, *bracket)


_FAR = 1_000_000
"""Draws of no step."""


def _bracket(
    kept: Callable[[float], float], wanted: float, start: float
) -> tuple[float, float] | None:
    """Two σ, a factor of 2 apart, between which the share falls to ``wanted``."""
    enough = kept(start) > wanted
    factor = 2.0 if enough else 0.5
    for near, far in pairwise(start * factor**power for power in range(DOUBLINGS + 1)):
        if (kept(far) > wanted) != enough:
            return min(near, far), max(near, far)
    return None


def _narrowed(
    kept: Callable[[float], float], wanted: float, low: float, high: float
) -> tuple[float, float]:
    for _ in range(HALVINGS):
        middle = (low * high) ** 0.5
        low, high = (middle, high) if kept(middle) > wanted else (low, middle)
    found = (low * high) ** 0.5
    return found, kept(found)

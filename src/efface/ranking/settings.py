"""What an inspection may be told: its numbers, their defaults, their ranges."""

import math
from dataclasses import dataclass
from typing import Any

from efface.errors import InputError
from efface.ranking.sigma import KEPT, TAU

FUNCTIONS = ("probability", "log_probability", "loss")
"""What a curvature may be of."""

LEAST = {"copies": 1, "neighbours": 0, "probes": 2, "seed": 0}


@dataclass(frozen=True)
class Settings:
    """How records are inspected; refuses what no number can come of.

    ``sigma``: of the noise over the range of the data, the first ranks; none: found from the model,
    where a share ``expected_accuracy`` of noisy copies keeps the answer (``KEPT`` where that is not
    said). ``copies``: noisy ones of each record. ``neighbours``: other records in a ball, 0 for no
    balls. ``threshold``: τ. ``curvature``: the function it is of, None for none; ``probes``: its
    random directions, where the model has no exact form. ``seed``: of everything drawn at random.
    """

    sigma: tuple[float, ...] = ()
    expected_accuracy: float | None = None
    copies: int = 16
    neighbours: int = 20
    threshold: float = TAU
    curvature: str | None = None
    probes: int = 64
    seed: int = 0

    def __post_init__(self) -> None:
        """Refuse by name."""
        for value in self.sigma:
            _refuse(value, "sigma above 0", good=0 < value < math.inf)
        if len(set(self.sigma)) < len(self.sigma):
            raise InputError("each sigma once", f"{self.sigma}", "Leave the others out.")
        if self.expected_accuracy is not None:
            good = 0 < self.expected_accuracy < 1
            _refuse(self.expected_accuracy, "expected_accuracy above 0 and below 1", good=good)
        _refuse(self.threshold, "threshold above 0 and up to 1", good=0 < self.threshold <= 1)
        for name, least in LEAST.items():
            value = getattr(self, name)
            good = isinstance(value, int) and value >= least
            _refuse(value, f"{name} of {least} or more, a whole number", good=good)
        if self.curvature not in {None, *FUNCTIONS}:
            raise InputError(
                f"the curvature of one of {', '.join(FUNCTIONS)}",
                repr(self.curvature),
                "Logits of a net of ReLUs have none.",
            )

    @property
    def kept(self) -> float:
        """The share of noisy copies that should keep the answer."""
        return KEPT if self.expected_accuracy is None else self.expected_accuracy


def _refuse(value: Any, wanted: str, *, good: bool) -> None:
    if not good:
        raise InputError(wanted, repr(value), f"Change {wanted.split(maxsplit=1)[0]}.")

"""What the table of methods says of each: what it sees, what it needs, what it costs."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from efface.runtime import Passes
from efface.types import Method

PARTS = (
    "model",
    "forget",
    "forget labels",
    "retain",
    "retain labels",
    "holdout",
    "forget_classes",
    "fresh",
    "train",
)
"""Everything that a method may see, in the words of ``Split``."""

DATA = frozenset({"retain", "holdout", "fresh", "train"})
"""What a method without any need of it is called zero-shot for."""


@dataclass(frozen=True)
class Cost:
    """The passes of a method, each a formula in the numbers of records and its settings.

    Names in a formula: ``forget``, ``retain``, ``holdout`` (records), ``batch`` (records of a step
    of the forget set), ``forget_classes`` (classes that go), ``classes`` (that the model tells apart),
    ``recipe`` (passes a record of ``Split.train``), and every setting of the method. ``at_most``:
    the method ends when it sees that it is done, so this is a bound. A step that the guard refuses
    is taken again and not counted here.
    """

    forward: str
    backward: str
    at_most: bool = False

    def passes(self, numbers: Mapping[str, Any]) -> Passes:
        """The formulas with these numbers put in."""
        return Passes(*(_value(text, numbers) for text in (self.forward, self.backward)))

    def __str__(self) -> str:
        """As a person reads it."""
        forward, backward = (text.replace("*", "×") for text in (self.forward, self.backward))
        same = f"{forward} forward and backward"
        both = same if forward == backward else f"{forward} forward, {backward} backward"
        return f"at most {both}" if self.at_most else both


def _value(formula: str, numbers: Mapping[str, Any]) -> int:
    known = {"min": min, "max": max, "round": round, **numbers}
    return int(eval(formula, {"__builtins__": {}}, known))  # noqa: S307  # the table's own code


@dataclass(frozen=True)
class Entry:
    """A method and what it may touch; anything else raises in the tests when touched.

    ``sees``: names out of ``PARTS``; ``needs``: those of them without which it refuses, beside
    model and forget records; ``cost``: its passes; ``fresh_start``: it starts from an untrained
    model, so the guard's limits on movement do not hold for it; ``one_step``: it changes the
    weights once, and asks the guard once; ``exact``: it trains anew without the forget records.

    ``copies``: float32 states that it and the guard hold at once beside the given model (student,
    gradients, momentum, average, the guard's last good state, and one in passing); ``graphs``:
    forward passes of a micro-batch that wait for their backward pass at once, and one for that
    pass itself. Both say the memory needed; research/benchmarks/memory_need.py holds them to it.
    ``batch_size``: records in one step of a method that has no setting of that name;
    ``neighbours``: inputs beside the records in a step of few of them.
    """

    function: Method
    sees: frozenset[str]
    copies: int
    graphs: int
    cost: Cost
    needs: frozenset[str] = frozenset()
    fresh_start: bool = False
    one_step: bool = False
    exact: bool = False
    batch_size: int = 128
    neighbours: int = 0

    @property
    def zero_shot(self) -> bool:
        """Whether the model and the forget records are enough."""
        return not self.needs & DATA

    @staticmethod
    def in_order(parts: frozenset[str]) -> tuple[str, ...]:
        """These parts in the order of ``PARTS``."""
        return tuple(part for part in PARTS if part in parts)

    @property
    def optional(self) -> tuple[str, ...]:
        """What it works with where that is at hand, beside what it cannot do without."""
        further = self.in_order(self.sees - self.needs - {"model", "forget"})
        return tuple(part for part in further if "labels" not in part)

    @property
    def labels(self) -> tuple[str, ...]:
        """Of which parts it may look at the labels."""
        return tuple(part for part in ("forget", "retain") if f"{part} labels" in self.sees)

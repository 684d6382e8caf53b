"""Methods: a table of functions, with what each may see of a split."""

from dataclasses import dataclass

from efface.methods.jit import jit
from efface.methods.jit_paper import jit_paper
from efface.methods.jit_reference import jit_reference
from efface.methods.neighbourhood import neighbourhood
from efface.types import Method


@dataclass(frozen=True)
class Entry:
    """A method and what it may touch; anything else raises in the tests when touched.

    ``copies``: float32 states that it and the guard hold at once beside the given model (student,
    gradients, momentum, average, the guard's last good state, and one in passing); ``graphs``:
    forward passes of a micro-batch that wait for their backward pass at once, and one for that
    pass itself. Both say the memory needed; benchmarks/memory_need.py holds them to it.
    ``records_per_step``: records in one step of a method that has no setting of that name;
    ``neighbours``: inputs beside the records in a step of few of them.
    """

    function: Method
    sees: frozenset[str]
    copies: int
    graphs: int
    records_per_step: int = 128
    neighbours: int = 0


METHODS: dict[str, Entry] = {
    "jit": Entry(
        jit,
        frozenset({"model", "forget", "forget labels", "holdout", "leaving"}),
        copies=4,
        graphs=3,
        neighbours=32,
    ),
    "jit_paper": Entry(
        jit_paper, frozenset({"model", "forget"}), copies=6, graphs=27, records_per_step=1
    ),
    "jit_reference": Entry(jit_reference, frozenset({"model", "forget"}), copies=5, graphs=2),
    "neighbourhood": Entry(
        neighbourhood,
        frozenset({"model", "forget", "forget labels", "holdout", "leaving"}),
        copies=6,
        graphs=4,
    ),
}

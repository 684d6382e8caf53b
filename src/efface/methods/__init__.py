"""Methods: a table of functions, with what each may see of a split."""

from dataclasses import dataclass

from efface.methods.jit import jit
from efface.methods.neighbourhood import neighbourhood
from efface.types import Method


@dataclass(frozen=True)
class Entry:
    """A method and what it may touch; anything else raises in the tests when touched.

    ``copies``: float32 states that it and the guard hold at once beside the given model (student,
    gradients, momentum, average, the guard's last good state and a new one); ``graphs``: forward
    passes of a micro-batch that wait for their backward pass at once. Both say the memory needed.
    """

    function: Method
    sees: frozenset[str]
    copies: int
    graphs: int


METHODS: dict[str, Entry] = {
    "jit": Entry(jit, frozenset({"model", "forget"}), copies=3, graphs=1),
    "neighbourhood": Entry(
        neighbourhood,
        frozenset({"model", "forget", "forget labels", "holdout", "leaving"}),
        copies=5,
        graphs=3,
    ),
}

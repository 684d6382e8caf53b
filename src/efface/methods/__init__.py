"""Methods: a table of functions, with what each may see of a split."""

from dataclasses import dataclass

from efface.methods.jit import jit
from efface.methods.neighbourhood import neighbourhood
from efface.types import Method


@dataclass(frozen=True)
class Entry:
    """A method and what it may touch; anything else raises in the tests when touched."""

    function: Method
    sees: frozenset[str]


METHODS: dict[str, Entry] = {
    "jit": Entry(jit, frozenset({"model", "forget"})),
    "neighbourhood": Entry(
        neighbourhood, frozenset({"model", "forget", "forget labels", "holdout", "leaving"})
    ),
}

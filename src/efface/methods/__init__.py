"""Methods: a table of functions, with what each may see of a split, needs and costs."""

from efface.methods.entries.retain_free import RETAIN_FREE
from efface.methods.entries.with_retain import WITH_RETAIN
from efface.methods.parts.entry import Entry

METHODS: dict[str, Entry] = RETAIN_FREE | WITH_RETAIN
"""Every method by its name; what the tests promise of all, they promise of each entry here."""

"""Methods: a table of functions, with what each may see of a split, needs and costs."""

from efface.methods.entries.installed import installed
from efface.methods.entries.retain_free import RETAIN_FREE
from efface.methods.entries.table import Table
from efface.methods.entries.with_retain import WITH_RETAIN
from efface.methods.parts.entry import Cost, Entry

__all__ = ["BUILT_IN", "METHODS", "Cost", "Entry"]

BUILT_IN: dict[str, Entry] = RETAIN_FREE | WITH_RETAIN
"""The methods of this package; what the tests promise of all, they promise of each entry here."""

METHODS = Table(BUILT_IN, installed)
"""Every method by its name, those of other installed packages too."""

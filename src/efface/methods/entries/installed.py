"""Methods from other packages, by the entry points of the group ``efface.methods``."""

import warnings
from collections.abc import Container
from importlib.metadata import EntryPoint, entry_points

from efface.methods.parts.entry import Entry


def installed(taken: Container[str]) -> dict[str, Entry]:
    """What installed packages bring, by name.

    One that cannot be loaded, is no ``Entry``, or has a name that is ``taken`` or is not its
    function's is left out with a warning: a package of others must not end the command.
    """
    found: dict[str, Entry] = {}
    for point in entry_points(group="efface.methods"):
        try:
            entry = point.load()
            fault = _fault(point, entry, taken)
        except Exception as error:  # noqa: BLE001  # whatever another's module does on import
            entry, fault = None, f"{type(error).__name__}: {error}"
        if fault or entry is None:
            text = f"the method {point.name!r} of {point.value} is left out: {fault}"
            warnings.warn(text, stacklevel=2)
        else:
            found[point.name] = entry
    return found


def _fault(point: EntryPoint, entry: object, taken: Container[str]) -> str | None:
    """Why it cannot join; None when it can."""
    if not isinstance(entry, Entry):
        return f"wanted an efface.methods.Entry, got {type(entry).__name__}"
    if point.name in taken:
        return "efface has a method of that name"
    if entry.function.__name__ != point.name:
        return f"its function is called {entry.function.__name__!r}: one name for both"
    return None

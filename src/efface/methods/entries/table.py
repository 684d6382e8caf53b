"""The table of methods: those of this package at once, those of others when it is first asked."""

from collections.abc import Callable, Iterator, Mapping, MutableMapping

from efface.methods.parts.entry import Entry


class Table(MutableMapping[str, Entry]):
    """Entries by name.

    What ``further`` gives joins at the first question and not before: a module of another package
    that imports efface is itself half imported until then.
    """

    def __init__(
        self,
        built_in: Mapping[str, Entry],
        further: Callable[[Mapping[str, Entry]], Mapping[str, Entry]],
    ) -> None:
        self._entries, self._further = dict(built_in), further
        self._waiting = True

    def _all(self) -> dict[str, Entry]:
        if self._waiting:
            self._waiting = False
            self._entries |= self._further(self._entries)
        return self._entries

    def __getitem__(self, name: str) -> Entry:
        """The entry of a method. Raises KeyError."""
        return self._all()[name]

    def __setitem__(self, name: str, entry: Entry) -> None:
        """Join, or take the place of another."""
        self._all()[name] = entry

    def __delitem__(self, name: str) -> None:
        """Leave."""
        del self._all()[name]

    def __iter__(self) -> Iterator[str]:
        """The names, those of this package first."""
        return iter(self._all())

    def __len__(self) -> int:
        """How many there are."""
        return len(self._all())

"""The files of a data set: none outside its folder is read, and each is digested as it was read."""

import hashlib
from collections.abc import Iterable
from pathlib import Path

from efface.errors import UnsafeFile


class Folder:
    """A folder that a user named, from which other names lead to files.

    ``root``: the folder; ``read`` and ``read_inside`` keep the SHA-256 of what they gave out, so
    that a digest speaks of these bytes, whatever is written to the disk meanwhile.
    """

    def __init__(self, root: Path, files: tuple[Path, ...] = ()) -> None:
        self.root, self.files = root, files
        self._known: dict[Path, bytes] = {}

    def read(self, path: Path) -> bytes:
        """The bytes of a file. Raises UnsafeFile when they are not those that were read before."""
        content = path.read_bytes()
        digest = hashlib.sha256(content).digest()
        if self._known.setdefault(path.resolve(), digest) != digest:
            wanted, came = f"{path} as it was when first read", "other bytes in its place"
            raise UnsafeFile(wanted, came, "Start again.")
        return content

    def read_inside(self, name: str) -> bytes | None:
        """A file that the data name; None when it is not there, or not inside the folder."""
        try:
            path = self._inside(name)
            return self.read(path) if path else None
        except OSError:
            return None

    def _inside(self, name: str) -> Path | None:
        # a table from a stranger may name any file of this machine, also through a link
        try:
            path = (self.root / name).resolve()
            return path if path.is_relative_to(self.root.resolve()) and path.is_file() else None
        except (OSError, ValueError):
            return None

    def digest(self, names: Iterable[str] = ()) -> str:
        """SHA-256 over names and contents of ``files``, and of those that the data name."""
        total, root = hashlib.sha256(), self.root.resolve()
        files = {path.resolve(): path.relative_to(self.root) for path in self.files}
        for place in filter(None, map(self._inside, names)):
            files.setdefault(place, place.relative_to(root))
        for place, path in files.items():
            if place not in self._known:
                # a portion at a time: such a file may be larger than the memory
                with place.open("rb") as file:
                    self._known[place] = hashlib.file_digest(file, "sha256").digest()
            total.update(path.as_posix().encode() + self._known[place])
        return total.hexdigest()

"""The files of a data set: none outside its folder is read, and each is digested as it was read."""

import hashlib
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
        # a table from a stranger may name any file of this machine, also through a link
        try:
            path = (self.root / name).resolve()
            inside = path.is_relative_to(self.root.resolve()) and path.is_file()
            return self.read(path) if inside else None
        except (OSError, ValueError) as error:
            if isinstance(error, UnsafeFile):
                raise
            return None

    def digest(self) -> str:
        """SHA-256 over names and contents of ``files``; those not read yet are read."""
        total = hashlib.sha256()
        for path in self.files:
            if (place := path.resolve()) not in self._known:
                # a portion at a time: such a file may be larger than the memory
                with path.open("rb") as file:
                    self._known[place] = hashlib.file_digest(file, "sha256").digest()
            total.update(path.relative_to(self.root).as_posix().encode() + self._known[place])
        return total.hexdigest()

"""Where the arrays of whole shards are kept, so that a run that was stopped goes on after them."""

import io
import json
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np

from efface.errors import InputError
from efface.io.atomic import write_whole

Arrays = Mapping[str, np.ndarray]
KEY = "key.json"


@runtime_checkable
class Keeper(Protocol):
    """Arrays by the name of a part."""

    def __contains__(self, name: object) -> bool:
        """Whether the part is there, whole."""

    def put(self, name: str, arrays: Arrays) -> None:
        """Keep a part."""

    def get(self, name: str, array: str) -> np.ndarray:
        """One array of a part."""

    def empty(self, name: str, shape: tuple[int, ...]) -> np.ndarray:
        """Room for float32 numbers that may be too many for the memory."""


@dataclass(frozen=True)
class InMemory:
    """Nothing is left when the process ends."""

    parts: dict[str, Arrays] = field(default_factory=dict)

    def __contains__(self, name: object) -> bool:
        return name in self.parts

    def put(self, name: str, arrays: Arrays) -> None:
        """See ``Keeper``."""
        self.parts[name] = arrays

    def get(self, name: str, array: str) -> np.ndarray:
        """See ``Keeper``."""
        return self.parts[name][array]

    def empty(self, name: str, shape: tuple[int, ...]) -> np.ndarray:  # noqa: ARG002
        """See ``Keeper``."""
        return np.empty(shape, np.float32)


@dataclass(frozen=True)
class InFolder:
    """One file a part, each whole or absent; ``opened`` makes one."""

    folder: Path

    def __len__(self) -> int:
        return sum(1 for _ in self.folder.glob("[0-9]*.npz"))

    def __contains__(self, name: object) -> bool:
        return self._file(str(name)).is_file()

    def put(self, name: str, arrays: Arrays) -> None:
        """See ``Keeper``."""
        sink = io.BytesIO()
        np.savez(sink, **dict(arrays))  # type: ignore[arg-type]
        write_whole(self._file(name), sink.getvalue())

    def get(self, name: str, array: str) -> np.ndarray:
        """See ``Keeper``."""
        with np.load(self._file(name), allow_pickle=False) as found:
            return found[array]

    def empty(self, name: str, shape: tuple[int, ...]) -> np.ndarray:
        """See ``Keeper``: a file, of which the system holds as much in memory as there is room."""
        path = self.folder / f"{name}.npy"
        return np.lib.format.open_memmap(path, mode="w+", dtype=np.float32, shape=shape)

    def _file(self, name: str) -> Path:
        return self.folder / f"{name}.npz"


def opened(folder: Path, key: Mapping[str, Any]) -> InFolder:
    """What an earlier run of the same key has left in ``folder``, or an empty one.

    ``key``: all that the arrays depend on, as JSON.
    """
    text = json.dumps(key, sort_keys=True, indent=1)
    path = folder / KEY
    if not path.is_file() or path.read_text(encoding="utf-8") != text:
        _refuse_foreign(folder)
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True, mode=0o700)  # it holds features and labels
        write_whole(path, text.encode())
    return InFolder(folder)


def _refuse_foreign(folder: Path) -> None:
    """Raises InputError for a folder with anything that no inspection writes."""
    others = folder.iterdir() if folder.is_dir() else [folder] if folder.exists() else []
    for path in others:
        ours = path.is_file() and any(end in path.name for end in (".npz", ".npy", ".json"))
        if not ours:
            raise InputError(
                f"a folder of a stopped inspection, or none, at {folder}",
                f"{path.name} in it",
                "Move it away; what lies there is not touched.",
            )


def forgotten(folder: Path) -> None:
    """Remove it; the key goes first, so that half a folder is never taken for a whole one."""
    (folder / KEY).unlink(missing_ok=True)
    shutil.rmtree(folder, ignore_errors=True)


def joined(keeper: Keeper, parts: Sequence[str], array: str) -> np.ndarray:
    """One array of all parts, one part after another."""
    return np.concatenate([keeper.get(part, array) for part in parts])


def joined_apart(keeper: Keeper, parts: Sequence[str], array: str) -> np.ndarray:
    """As ``joined``, where all of it may be more than the memory holds: rows of numbers."""
    shapes = [keeper.get(part, array).shape for part in parts]
    whole = keeper.empty(array, (sum(shape[0] for shape in shapes), shapes[0][1]))
    at = 0
    for rows in (keeper.get(part, array) for part in parts):
        whole[at : at + len(rows)] = rows
        at += len(rows)
    return whole

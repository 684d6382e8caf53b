"""The folder of records: ``ID/record.json``, ``ID/margins.safetensors``, and weights if kept.

A record is there whole or not at all. ``failed/ID.json`` says how a cell failed, until it succeeds.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from safetensors.numpy import load_file, save_file

from efface.cells.cell import Cell, Reduced
from efface.errors import InputError
from efface.io.atomic import whole_folder, write_whole
from efface.manifest import versions

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True, eq=False)
class Record:
    """What is left of one cell: ``facts`` is its record.json."""

    folder: Path
    facts: dict[str, Any]

    @property
    def statistics(self) -> dict[str, Any]:
        """The numbers."""
        return self.facts["statistics"]

    @property
    def settings(self) -> dict[str, Any]:
        """What the cell was made with."""
        return self.facts["description"]["settings"]

    @property
    def seconds(self) -> float:
        """Wall-clock time of the whole cell."""
        return self.facts["seconds"]

    @cached_property
    def margins(self) -> dict[str, np.ndarray]:
        """The arrays by name."""
        return load_file(self.folder / "margins.safetensors")


def read(store: str | Path, cell: Cell | str) -> Record:
    """The record of a cell, or of an id. Raises InputError when there is none."""
    identity = cell if isinstance(cell, str) else cell.id
    folder = Path(store, identity)
    if not is_done(store, identity):
        failed = failure(store, identity)
        raise InputError(
            f"a record of cell {identity}",
            f"a failure: {failed['error']}" if failed else "none",
            "Run the cell first.",
        )
    return Record(folder, json.loads((folder / "record.json").read_text()))


def records(store: str | Path) -> list[Record]:
    """Every record of a store, in the order of the ids."""
    found = sorted(Path(store).glob("[0-9a-f]*/record.json"))
    return [Record(path.parent, json.loads(path.read_text())) for path in found]


def is_done(store: str | Path, identity: str) -> bool:
    """Whether the record is there; it is then whole."""
    return Path(store, identity, "record.json").is_file()


def failure(store: str | Path, identity: str) -> dict[str, Any] | None:
    """How a cell failed: its description, ``error`` and ``traceback``; None when it did not."""
    path = Path(store, "failed", f"{identity}.json")
    if is_done(store, identity) or not path.is_file():
        return None
    return json.loads(path.read_text())


def write_failure(
    store: str | Path, identity: str, *, description: Mapping[str, Any], error: str, traceback: str
) -> None:
    """Keep how a cell failed, in place of an earlier failure."""
    folder = Path(store, "failed")
    folder.mkdir(parents=True, exist_ok=True)
    facts = {"description": description, "error": error, "traceback": traceback}
    write_whole(folder / f"{identity}.json", (json.dumps(facts, indent=1) + "\n").encode())


def write(store: str | Path, identity: str, reduced: Reduced, *, facts: Mapping[str, Any]) -> None:
    """Write a record, whole or not at all; an earlier failure of the cell goes."""
    whole = {"schema": 1, "id": identity, **facts, "versions": versions()}
    text = json.dumps({**whole, "statistics": reduced.statistics}, indent=1, allow_nan=False)
    with whole_folder(Path(store, identity)) as folder:
        save_file({n: _kept(a) for n, a in reduced.margins.items()}, folder / "margins.safetensors")
        if reduced.weights is not None:
            _write_weights(reduced.weights, folder / "weights.safetensors")
        (folder / "record.json").write_text(text + "\n")
    Path(store, "failed", f"{identity}.json").unlink(missing_ok=True)


def _kept(array: np.ndarray) -> np.ndarray:
    """Floats in half precision, the rest as it is."""
    array = np.ascontiguousarray(array)
    return array.astype(np.float16) if np.issubdtype(array.dtype, np.floating) else array


def _write_weights(weights: "Mapping[str, Tensor]", path: Path) -> None:
    from safetensors.torch import save_file as save_tensors

    save_tensors({name: t.detach().cpu().contiguous().clone() for name, t in weights.items()}, path)

"""What the commands do: load, call the library, write the result whole or not at all."""

import secrets
import shlex
import sys
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from efface import show
from efface.doctor import examine
from efface.errors import Hazard, InputError, NotMet
from efface.evidence import write as write_evidence
from efface.io.atomic import whole_folder
from efface.io.dataset import Table, open_table, read_ids
from efface.io.model import LoadedModel, load_model
from efface.methods import METHODS
from efface.record import exclusion_table, keyed_hashes
from efface.request import Result, forget, hyperparameters
from efface.types import Records, Split


@dataclass(frozen=True)
class Flags:
    """How to read the model and the data, as given on the command line."""

    architecture: str | None = None
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None
    size: int | None = None
    id_column: str | None = None
    image_column: str | None = None
    label_column: str | None = None
    device: str = "cpu"

    def model(self, path: Path) -> LoadedModel:
        """The model of a folder or a weights file, on the device."""
        return load_model(
            path, architecture=self.architecture, mean=self.mean, std=self.std, size=self.size
        )

    def table(self, spec: str, loaded: LoadedModel) -> Table:
        """A table of records; the model's classes settle which label column is meant."""
        return open_table(
            spec,
            id_column=self.id_column,
            image_column=self.image_column,
            label_column=self.label_column,
            num_classes=len(loaded.classes) if loaded.classes else None,
        )


def _rows(table: Table, naming: dict[str, Any]) -> tuple[list[int], tuple[int, ...]]:
    """The rows that a request names, and the classes that go altogether."""
    given = [name for name, value in naming.items() if value is not None]
    if len(given) != 1:
        flags = "--ids, --where or --forget-class"
        came = " and ".join(f"--{name.replace('_', '-')}" for name in given) or "none"
        raise InputError(f"one of {flags}", came, "Name the records in one way.")
    if naming.get("ids") is not None:
        return table.rows_of(read_ids(naming["ids"])), ()
    if naming.get("where") is not None:
        return table.rows_where(naming["where"]), ()
    rows, class_id = table.rows_of_class(naming["forget_class"])
    return rows, (class_id,)

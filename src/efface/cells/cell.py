"""One cell: a model that is described, not yet made; and what is left of it when it was."""

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from efface.cells.sources import addresses_in, digest_of, refuse_unknown
from efface.errors import InputError

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True, eq=False)
class Reduced:
    """What a cell's function gives back.

    ``statistics``: numbers that JSON can hold; ``margins``: arrays by name, floats kept as float16;
    ``weights``: only where another cell starts from them.
    """

    statistics: Mapping[str, Any]
    margins: Mapping[str, np.ndarray] = field(default_factory=dict)
    weights: "Mapping[str, Tensor] | None" = None


@dataclass(frozen=True, eq=False)
class Cell:
    """What one model is made of; ``id`` is the digest of all of it.

    ``function``: ``package.module:name`` of ``name(settings, inputs, shared) -> Reduced``, where
    ``inputs`` names the folder of each needed cell's record and ``shared`` is a folder for what
    cells have in common; ``settings``: JSON; ``needs``: the cells that come first, by name.
    ``kind`` (cells that take about as long) and ``guess_seconds`` (before any of them is known)
    serve the plan alone. Raises InputError for an unknown function, or settings that are no JSON.
    """

    function: str
    settings: Mapping[str, Any] = field(default_factory=dict)
    needs: Mapping[str, "Cell"] = field(default_factory=dict)
    kind: str = ""
    guess_seconds: float = 60.0

    def __post_init__(self) -> None:
        """Settings become what JSON makes of them, so that every process reads the same."""
        refuse_unknown(self.function)
        object.__setattr__(self, "settings", json.loads(canonical(self.settings)))
        object.__setattr__(self, "kind", self.kind or self.function)

    @cached_property
    def description(self) -> dict[str, Any]:
        """All that the record depends on."""
        return {
            "function": self.function,
            "settings": self.settings,
            "needs": {name: need.id for name, need in self.needs.items()},
            "sources": digest_of([self.function, *addresses_in(self.settings)]),
        }

    @cached_property
    def id(self) -> str:
        """The address of the record: half a SHA-256 over the description."""
        return hashlib.sha256(canonical(self.description).encode()).hexdigest()[:32]


def canonical(value: Any) -> str:
    """The one JSON text of a value. Raises InputError for what JSON cannot hold, nan included."""
    try:
        return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)
    except (TypeError, ValueError) as error:
        raise InputError(
            "settings that JSON can hold", str(error), "Use numbers, texts, lists and mappings."
        ) from error


def in_order(cells: Iterable[Cell]) -> dict[str, Cell]:
    """The cells and all that they need by id, each once, what is needed first."""
    found: dict[str, Cell] = {}

    def visit(cell: Cell) -> None:
        if cell.id not in found:
            for need in cell.needs.values():
                visit(need)
            found[cell.id] = cell

    for cell in cells:
        visit(cell)
    return found

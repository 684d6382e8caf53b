"""What an inspection finds: arrays, ranks, groups, and what each threshold would mean."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Int64

from efface.display import table
from efface.io.preprocessing import Preprocessing
from efface.ranking.sigma import TAU

HIGH, LOW = "high", "low"
THRESHOLDS = (0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 1.0)
SHOWN = 10

HOLDS = (
    "This page and the tables hold ids, labels and pictures or values of records, in clear, and "
    "say which of them the model knows best by itself. Whoever may not see the data must not see "
    "them; keep them as you keep the data, and delete them when they have served."
)
"""Stands on the page and in the record."""


@dataclass(frozen=True, eq=False)
class Threshold:
    """What one τ would mean: how many of the records have ``content`` ≥ τ, and what they are.

    ``wrong``: how many of them the model answers with another class than their label; ``margin``:
    their lowest, None where there are none.
    """

    tau: float
    left_alone: int
    wrong: int
    margin: float | None


@dataclass(frozen=True, eq=False)
class Inspection:
    """n records, each with what it may have told the model.

    ``columns``: arrays (n,) by name, in the order of the data; ``docs/information.md`` says what
    each is. ``content`` (n,): the information content that ranks, zero-shot at the first σ; **low
    is high information**. ``record``: settings, versions, digests.
    """

    ids: tuple[str, ...]
    columns: Mapping[str, np.ndarray]
    rows: Int64[np.ndarray, " n"]
    threshold: float = TAU
    record: dict[str, Any] = field(default_factory=dict)
    classes: tuple[str, ...] | None = None
    preprocessing: Preprocessing | Any = None

    def __len__(self) -> int:
        return len(self.ids)

    def __getitem__(self, name: str) -> np.ndarray:
        """One column."""
        return self.columns[name]

    @property
    def content(self) -> Float[np.ndarray, " n"]:
        """α, zero-shot, at the first σ."""
        return self.columns["content"]

    @property
    def contents(self) -> dict[str, Float[np.ndarray, " n"]]:
        """Each α that was asked for, by its column."""
        return {name: a for name, a in self.columns.items() if name.startswith("content")}

    @property
    def wrong(self) -> Bool[np.ndarray, " n"]:
        """Whether the model answers with another class than the label."""
        return self.columns["label"] != self.columns["answer"]

    @property
    def by_rank(self) -> Int64[np.ndarray, " n"]:
        """Rows, the most informative first."""
        return np.argsort(self.columns["rank"])

    @property
    def high(self) -> Bool[np.ndarray, " n"]:
        """Whether a record is of high information: α < τ."""
        return self.content < self.threshold

    def thresholds(self) -> list[Threshold]:
        """What each of some τ would mean, the one in use among them."""
        return [self._at(tau) for tau in sorted({*THRESHOLDS, self.threshold})]

    def _at(self, tau: float) -> Threshold:
        left = self.content >= tau
        lowest = float(self.columns["margin"][left].min()) if left.any() else None
        return Threshold(tau, int(left.sum()), int((left & self.wrong).sum()), lowest)

    def name_of(self, label: int) -> str:
        """A class as people call it."""
        return self.classes[label] if self.classes else str(label)

    def _repr_html_(self) -> str:
        """The most informative records: what a notebook shows."""
        names = [name for name in self.columns if name not in {"label", "answer", "group"}]
        rows = [
            [
                self.ids[row],
                *(self.name_of(int(self.columns[name][row])) for name in ("label", "answer")),
                *(f"{self.columns[name][row]:.3g}" for name in names),
            ]
            for row in self.by_rank[:SHOWN]
        ]
        told = f"{int(self.high.sum())} of {len(self)} records: content below {self.threshold:g}."
        return f"<p>{told}</p>" + table(["id", "label", "answer", *names], rows)


def ranks(
    content: Float[np.ndarray, " n"], margin: Float[np.ndarray, " n"]
) -> Int64[np.ndarray, " n"]:
    """1 for the most informative record: by the lowest content, then margin, then the first."""
    found = np.empty(len(content), np.int64)
    found[np.lexsort((margin, content))] = np.arange(1, len(content) + 1)
    return found


def groups(content: Float[np.ndarray, " n"], tau: float) -> np.ndarray:
    """``high`` where α < τ, else ``low``."""
    return np.where(content < tau, HIGH, LOW)

"""The result of ``efface.inspect``: columns, ranks, and what each threshold would mean."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int64

from efface.display import table
from efface.io.features import Spec
from efface.ranking.content import TAU

THRESHOLDS = (0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 1.0)
SHOWN = 10

# Stands on the page and in the manifest.
PRIVACY = (
    "This page and the tables hold ids, labels and pictures or values of records, in clear, and "
    "say which of them the model knows best by itself. Whoever may not see the data must not see "
    "them; keep them as you keep the data, and delete them when they have served."
)


class Threshold(NamedTuple):
    """What one τ would mean: how many records have ``content`` ≥ τ, and what they are.

    ``wrong``: how many of them the model predicts wrongly; ``logit_margin``: their lowest, None
    where there are none.
    """

    tau: float
    low: int
    wrong: int
    logit_margin: float | None


@dataclass(frozen=True, eq=False)
class Ranking:
    """n records, ranked by how much the model memorised them.

    ``columns``: arrays (n,) by name, in the order of the data; ``docs/information.md`` says what
    each is. ``rows`` (n,): their places in the data. ``manifest``: settings, versions, digests.
    """

    ids: tuple[str, ...]
    columns: Mapping[str, np.ndarray]
    rows: Int64[np.ndarray, " n"]
    threshold: float = TAU
    manifest: dict[str, Any] = field(default_factory=dict)
    classes: tuple[str, ...] | None = None
    preprocessing: Spec | None = None

    def __len__(self) -> int:
        return len(self.ids)

    def __repr__(self) -> str:
        return f"Ranking({len(self)} records, columns: {', '.join(self.columns)})"

    def __getitem__(self, name: str) -> np.ndarray:
        """One column."""
        return self.columns[name]

    @property
    def content(self) -> Float[np.ndarray, " n"]:
        """Zero-shot information content at the first σ; **low is high information**."""
        return self["content"]

    @property
    def wrong(self) -> Bool[np.ndarray, " n"]:
        """Whether the prediction is not the label."""
        return self["label"] != self["prediction"]

    @property
    def by_rank(self) -> Int64[np.ndarray, " n"]:
        """Positions, the most informative record first."""
        return np.argsort(self["rank"])

    @property
    def high(self) -> Bool[np.ndarray, " n"]:
        """Whether a record is high in information: α < τ."""
        return self.content < self.threshold

    def thresholds(self) -> list[Threshold]:
        """What each of some τ would mean, the one in use among them."""
        found = []
        for tau in sorted({*THRESHOLDS, self.threshold}):
            low = self.content >= tau
            margin = float(self["logit_margin"][low].min()) if low.any() else None
            found.append(Threshold(tau, int(low.sum()), int((low & self.wrong).sum()), margin))
        return found

    def class_name(self, column: str, place: int) -> str:
        """The name, or number, of a record's ``label`` or ``prediction``."""
        label = int(self[column][place])
        return self.classes[label] if self.classes else str(label)

    def top(self, count: int, columns: tuple[str, ...]) -> list[list[str]]:
        """Cells of the ``count`` most informative records: id, label, prediction, ``columns``."""
        rows = self.by_rank[:count].tolist()
        known = ([self.class_name(name, row) for name in ("label", "prediction")] for row in rows)
        values = ([f"{self[name][row]:.3g}" for name in columns] for row in rows)
        return [[self.ids[row], *a, *b] for row, a, b in zip(rows, known, values, strict=True)]

    def _repr_html_(self) -> str:
        """The most informative records, for a notebook."""
        names = tuple(name for name in self.columns if name not in {"label", "prediction", "group"})
        text = f"{int(self.high.sum())} of {len(self)} records: content below {self.threshold:g}."
        cells = table(["id", "label", "prediction", *names], self.top(SHOWN, names))
        return f"<p>{text}</p>{cells}"

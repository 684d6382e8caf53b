"""What evidence is made of: rows, and the whole that they stand in."""

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, is_dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from efface.errors import InputError

SCHEMA = 1

TIERS = {
    "T0": "the model and the forget records",
    "T1": "the model, the forget records and a holdout that was never trained on",
    "T2": "the model, the forget records, a holdout and a sample of the records that stay",
    "T3": "the model, the forget records, a holdout, a sample of the records that stay, and models "
    "retrained without the forget records",
    "T4": "the model, the forget records, a holdout, a sample of the records that stay, and shadow "
    "models",
    "TE": "a model that was trained anew without the forget records: what is to be stated is the "
    "exclusion",
}
"""What is at hand at each tier."""

PLAIN, LOOK, RED, NOT_RUN = "plain", "look", "red", "not run"
"""The status of a row: as wanted or without a target; stands out; crashed or harmful; not run."""


@dataclass(frozen=True)
class Row:
    """One test: ``before`` is the old model's number, ``after`` the new model's.

    ``target``: a number in the same unit, words ("like unseen"), or None where the tier has none.
    ``interval``: 95 % interval of ``after`` unless the note says otherwise. ``unit``: share, nats,
    logits, area, distance, p, ratio or count. ``verdict``: in words; ``status``: see PLAIN.
    ``p``: how often a model that never saw the records would be so far off; None where that is not
    known. What ``alarms`` decides by.
    """

    key: str
    name: str
    section: str
    tier: str
    before: float | None = None
    after: float | None = None
    target: float | str | None = None
    interval: tuple[float, float] | None = None
    unit: str = "share"
    verdict: str = ""
    status: str = PLAIN
    note: str = ""
    p: float | None = None


def not_run(row: Row, why: str) -> Row:
    """The row of a test that says nothing, and why."""
    silent = {"before": None, "after": None, "interval": None, "p": None}
    return replace(row, **silent, verdict="not run", status=NOT_RUN, note=why)


def count(n: int, thing: str = "record") -> str:
    """``n`` things, in words that fit the number."""
    many = f"{thing}es" if thing.endswith("s") else f"{thing}s"
    return f"{n} {thing if n == 1 else many}"


@dataclass(frozen=True)
class Named:
    """One attack that the EDPB's Opinion 28/2024 names, and what there is to say of it.

    ``answer``: tested, not tested or not applicable; ``why``: of the last two; ``rows``,
    ``controls`` and ``power``: keys of the rows with the results, of those that say whether the
    test can be trusted, and of those that say what it could have seen; ``status``: the worst of
    them, red where a test crashed, not run where none ran.
    """

    attack: str
    answer: str
    status: str = NOT_RUN
    why: str = ""
    rows: tuple[str, ...] = ()
    controls: tuple[str, ...] = ()
    power: tuple[str, ...] = ()


@dataclass(frozen=True, eq=False)
class Evidence:
    """What changed, against which target, and how strong the test was.

    ``rows``: every test, run or not; ``attacks``: those that the EDPB names;
    ``alarms``: keys of the rows that are off for more than chance, by one level for all of them;
    ``records``: one entry for each forget record, with its id;
    ``per_class`` and ``tensors``: one entry for each; ``arrays``: what the figures draw;
    ``counts``: how many records of each kind were looked at; ``outcome``: done or not met.
    """

    tier: str
    rows: tuple[Row, ...]
    records: list[dict[str, Any]]
    attacks: tuple[Named, ...] = ()
    alarms: tuple[str, ...] = ()
    per_class: list[dict[str, Any]] = field(default_factory=list)
    tensors: list[dict[str, Any]] = field(default_factory=list)
    arrays: dict[str, Any] = field(default_factory=dict)
    counts: dict[str, int] = field(default_factory=dict)
    forget_classes: tuple[str, ...] = ()
    mislabelled: bool = False
    seed: int = 0
    outcome: str = "done"

    def row(self, key: str) -> Row:
        """The row with this key. Raises InputError when there is none."""
        for row in self.rows:
            if row.key == key:
                return row
        raise InputError(
            "the key of a row", key, f"The rows are {', '.join(row.key for row in self.rows)}."
        )

    def as_json(self) -> dict[str, Any]:
        """Plain dicts, lists, texts and numbers; what is not a finite number is None."""
        whole = {"schema": SCHEMA} | {
            name: getattr(self, name) for name in self.__dataclass_fields__
        }
        return plain(whole)

    def _repr_html_(self) -> str:
        """The outcome and the rows that ran: what a notebook shows."""
        from efface.report.report import fragment

        return fragment(self)


def plain(value: Any) -> Any:
    """``value`` as JSON can hold it; NaN and infinity become None, what is unknown its text."""
    if isinstance(value, float):
        return float(value) if math.isfinite(value) else None
    if value is None or isinstance(value, (bool, int, str)):
        return value
    if isinstance(value, Mapping):
        return {str(key): plain(part) for key, part in value.items()}
    if isinstance(value, (list, tuple, set, frozenset)):
        return [plain(part) for part in value]
    return _plain_object(value)


def _plain_object(value: Any) -> Any:
    if is_dataclass(value) and not isinstance(value, type):
        return plain(asdict(value))
    if isinstance(value, (Tensor, np.ndarray, np.generic)):
        return plain(value.tolist())
    return value.as_posix() if isinstance(value, Path) else str(value)

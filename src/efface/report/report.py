"""The report and its parts: rows, attack coverage, and the whole as JSON and as a page."""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, is_dataclass
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Any

from efface.display import csv_cell
from efface.errors import InputError, Outcome
from efface.report.verdicts import Status, Verdict

# a type checker, and beartype in the tests, read the whole name
if TYPE_CHECKING:
    import pandas  # noqa: ICN001

SCHEMA = 3
# Family-wise error of a page.
LEVEL = 0.05


@dataclass(frozen=True)
class Row:
    """One number of a test: ``before`` for the old model, ``after`` for the new one.

    ``reference``: what a model that never saw the records would have, in the same unit, or in words
    ("unchanged"); None where the tier has none. ``interval``: 95 % interval of ``after`` unless the
    note says otherwise. ``p``: how often a model that never saw the records would be so far off,
    None where that is not known; Holm's correction decides by it. ``unit``: share, nats, logits,
    auc, distance, ratio or count. ``key`` to ``tier``: of the test's declaration where left empty.
    ``smallest_p``: p of the most extreme result: above 5 % the test could not have failed, and the
    row is inconclusive; ``needed``: records of its kind with which it could (None: no number is
    known to be enough). ``n``: records that the row is measured on, None where there are none.
    """

    before: float | None = None
    after: float | None = None
    reference: float | str | None = None
    interval: tuple[float, float] | None = None
    verdict: Verdict = Verdict.DESCRIPTIVE
    note: str = ""
    p: float | None = None
    unit: str = "share"
    key: str = ""
    name: str = ""
    section: str = ""
    tier: str = ""
    smallest_p: float | None = None
    needed: int | None = None
    n: int | None = None

    @property
    def status(self) -> Status:
        """How the row is marked."""
        return self.verdict.status


class Coverage(StrEnum):
    """Whether an attack was tried."""

    TESTED = "tested"
    NOT_TESTED = "not tested"
    NOT_APPLICABLE = "not applicable"


@dataclass(frozen=True)
class AttackCoverage:
    """One attack that the EDPB's Opinion 28/2024 names, and what the report says of it.

    ``why``: why it was not tested; ``rows``, ``controls``, ``power``: keys of the rows with the
    results, of those that say whether to trust them, and of those that say how small an effect
    would have been detected; ``status``: the worst of rows and controls.
    """

    attack: str
    coverage: Coverage
    status: Status = Status.NOT_RUN
    why: str = ""
    rows: tuple[str, ...] = ()
    controls: tuple[str, ...] = ()
    power: tuple[str, ...] = ()


@dataclass(frozen=True, eq=False, repr=False)
class Report:
    """What changed between an old and a new model on the forget records, and how certain that is.

    ``rows``: every test, run or not; ``attacks``: those that the EDPB names; ``records``: one entry
    for each forget record, with its id; ``per_class`` and ``tensors``: one entry for each;
    ``arrays``: histograms for the figures; ``counts``: records and models of each kind that were
    measured; ``outcome``, ``reason``: why; ``progress``: how far the records came, 0 (nothing) to 1
    (as unseen) and above (over-forgotten), None where that is not known.
    """

    tier: str
    rows: tuple[Row, ...]
    records: list[dict[str, Any]] = field(default_factory=list)
    attacks: tuple[AttackCoverage, ...] = ()
    per_class: list[dict[str, Any]] = field(default_factory=list)
    tensors: list[dict[str, Any]] = field(default_factory=list)
    arrays: dict[str, Any] = field(default_factory=dict)
    counts: dict[str, int] = field(default_factory=dict)
    forget_classes: tuple[str, ...] = ()
    mislabelled: bool = False
    seed: int = 0
    outcome: Outcome = Outcome.NOT_JUDGED
    reason: str = ""
    progress: float | None = None

    def __repr__(self) -> str:
        ran = sum(row.status is not Status.NOT_RUN for row in self.rows)
        flagged = sum(row.status is Status.FLAGGED for row in self.rows)
        return f"Report({self.tier}, {self.outcome}: {ran} rows, {flagged} flagged)"

    def _repr_html_(self) -> str:
        """The outcome and the rows that ran: what a notebook shows."""
        from efface.report.html import notebook_html

        return notebook_html(self)

    @property
    def significant(self) -> tuple[str, ...]:
        """Keys of the rows that are significant after Holm correction."""
        return tuple(row.key for row in significant_rows(self.rows))

    @property
    def summary(self) -> str:
        """Outcome, tier, reason and progress in a sentence or two."""
        from efface.report.text import summary

        return summary(self)

    def row(self, key: str) -> Row:
        """The row with this key. Raises InputError when there is none."""
        for row in self.rows:
            if row.key == key:
                return row
        known = ", ".join(row.key for row in self.rows)
        raise InputError("the key of a row", key, f"The rows are {known}.")

    def to_json(self) -> dict[str, Any]:
        """Plain dicts, lists, strings and numbers, as ``schema.json`` describes them."""
        fields = {name: getattr(self, name) for name in self.__dataclass_fields__}
        # Names of verdicts, not their words: words may change without a new schema.
        verdicts = [{"verdict": r.verdict.name.lower(), "status": r.status} for r in self.rows]
        rows = [vars(row) | more for row, more in zip(self.rows, verdicts, strict=True)]
        more = {"rows": rows, "significant": self.significant, "summary": self.summary}
        return jsonable({"schema": SCHEMA, **fields, **more})

    def __str__(self) -> str:
        """The sentences that the page begins with."""
        from efface.report.text import headline

        return "\n".join(headline(self))

    def to_frame(self) -> "pandas.DataFrame":
        """One row per test, indexed by its key; ``low`` and ``high`` are the ends of its interval.

        Verdicts are those of ``evidence.json``; what a test has no value for is None or NaN.
        """
        import pandas as pd

        rows = self.to_json()["rows"]
        ends = [dict(zip(("low", "high"), row.pop("interval") or (), strict=False)) for row in rows]
        parts = [row | end for row, end in zip(rows, ends, strict=True)]
        return pd.DataFrame(parts, columns=[*rows[0], "low", "high"]).set_index("key")

    def to_html(self, manifest: Any = None) -> str:
        """One self-contained page; what ``manifest`` lacks it calls not recorded."""
        from efface.report.html import page

        return page(self, manifest)

    def save(self, folder: str | Path, manifest: Any = None) -> None:
        """Write ``evidence.json``, ``report.html`` and ``records.csv`` into an existing folder.

        ``records.csv``: one line per forget record; a text that is a formula after a ``'``.
        Plain writes: the caller makes the folder appear whole or not at all.
        """
        text = json.dumps(self.to_json(), indent=1, ensure_ascii=False, allow_nan=False)
        Path(folder, "evidence.json").write_text(f"{text}\n", "utf-8", errors="backslashreplace")
        Path(folder, "report.html").write_text(
            self.to_html(manifest), "utf-8", errors="backslashreplace"
        )
        import pandas as pd

        cells = pd.DataFrame(self.records).map(lambda v: csv_cell(v) if isinstance(v, str) else v)
        cells.to_csv(Path(folder, "records.csv"), index=False, errors="backslashreplace")


def significant_rows(rows: Sequence[Row], *, tier: str | None = None) -> list[Row]:
    """Rows that are significant after Holm correction (1979): errors first, then by p; often none.

    A page of twenty rows with 95 % intervals has one off by chance most of the time; here the
    chance that any row of a model that never saw the records is listed is at most 5 %, if each
    row's p is right. ``tier``: use only the rows up to it.
    """
    rows = [row for row in rows if tier is None or row.tier <= tier]
    # An error may hide anything, so it is listed whatever the p-values say.
    errors = [row for row in rows if row.status is Status.ERROR]
    judged = sorted(
        (row.p, row.key, row) for row in rows if row.p is not None and row not in errors
    )
    # Holm: the smallest p against 0.05 / n, the next against 0.05 / (n - 1); the first that fails
    # ends it, whatever comes after.
    rejected = []
    for rank, (p, _, row) in enumerate(judged):
        if p > LEVEL / (len(judged) - rank):
            break
        rejected.append(row)
    return errors + rejected


def jsonable(value: Any) -> Any:
    """``value`` as JSON can hold it; NaN and infinity become None, unknown objects their text."""
    # numpy floats are floats, and JSON has neither NaN nor infinity.
    if isinstance(value, float):
        return float(value) if math.isfinite(value) else None
    if value is None or isinstance(value, (bool, int, str)):
        return value
    if isinstance(value, Mapping):
        return {str(key): jsonable(part) for key, part in value.items()}
    if isinstance(value, (list, tuple, set, frozenset)):
        return [jsonable(part) for part in value]
    for method in ("to_json", "tolist", "as_posix"):  # a manifest; arrays and tensors; a path
        if hasattr(value, method):
            return jsonable(getattr(value, method)())
    dataclass_instance = is_dataclass(value) and not isinstance(value, type)
    return jsonable(asdict(value)) if dataclass_instance else str(value)

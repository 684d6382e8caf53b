"""What an inspection leaves in a folder: two tables of the same rows, a record, a page."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from pyarrow import csv, parquet

from efface.ranking.found import Inspection
from efface.ranking.page import render
from efface.ranking.reading import Reader
from efface.report.rows import plain

ROWS = 65_536
"""Rows that are turned into a table at once."""


def write(folder: Path, found: Inspection, reader: Reader) -> None:
    """``records.csv``, ``records.parquet``, ``record.json`` and ``inspect.html``.

    Plain writes into a folder that is there: the caller makes it appear whole or not at all.
    """
    schema = next(_tables(found)).schema
    with (
        parquet.ParquetWriter(folder / "records.parquet", schema) as columns,
        csv.CSVWriter(folder / "records.csv", schema) as lines,
    ):
        for table in _tables(found):
            columns.write_table(table)
            lines.write_table(table)
    text = json.dumps(plain(found.record), indent=1, ensure_ascii=False, allow_nan=False)
    (folder / "record.json").write_text(text + "\n", encoding="utf-8")
    (folder / "inspect.html").write_text(render(found, reader), encoding="utf-8")


def _tables(found: Inspection) -> Iterator[pa.Table]:
    """Ids first, classes by their names where they have any."""
    for start in range(0, len(found), ROWS):
        some = slice(start, start + ROWS)
        cells: dict[str, Any] = {"id": pa.array(found.ids[some], pa.string())}
        for name, values in found.columns.items():
            part = values[some]
            if name in {"label", "answer"} and found.classes:
                part = np.array(found.classes, dtype=object)[part]
            cells[name] = pa.array(part)
        yield pa.table(cells)

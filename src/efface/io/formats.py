"""Files of tables: parquet, arrow (IPC, as a file or as a stream) and CSV, read by pyarrow."""

import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import datasets
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as pv
import pyarrow.parquet as pq

from efface.errors import InputError

WHOLE = r"^-?(0|[1-9][0-9]*)$"
"""A whole number as it is written; 007 is a name."""

NUMBER = r"^[-+]?((0|[1-9][0-9]*)(\.[0-9]*)?|\.[0-9]+)([eE][-+]?[0-9]+)?$"

BLANK = ("", "NA", "N/A", "NaN", "nan", "null", "NULL")
"""What stands in a CSV of numbers where there is none."""

OTHER = re.compile(r"[;\t|]")
"""What stands between the columns of a CSV in countries where numbers have a comma."""

COMMAS = "Write it separated by commas, UTF-8."

ARROW_FILE = b"ARROW1"
call: Any = pc  # its functions are made while it is imported, unseen by a type checker


def _parquet(file: Path) -> pa.Table:
    return pq.ParquetFile(file).read()


def _arrow(file: Path) -> pa.Table:
    """As a file with an index, or as a stream, which is what ``datasets`` writes."""
    with pa.OSFile(str(file)) as source:
        indexed = source.read(len(ARROW_FILE)) == ARROW_FILE
        source.seek(0)
        return (pa.ipc.open_file if indexed else pa.ipc.open_stream)(source).read_all()


def _csv(file: Path) -> pa.Table:
    """Every cell as it is written; an empty one is null."""
    parse = pv.ParseOptions(newlines_in_values=True)
    with pv.open_csv(file, parse_options=parse) as head:
        names = head.schema.names
    text = pv.ConvertOptions(
        column_types=dict.fromkeys(names, pa.string()),
        null_values=[""],
        strings_can_be_null=True,
    )
    return pv.read_csv(file, parse_options=parse, convert_options=text)


FORMATS: dict[str, tuple[str, Callable[[Path], pa.Table]]] = {
    ".parquet": ("a parquet", _parquet),
    ".arrow": ("an arrow", _arrow),
    ".csv": ("a CSV", _csv),
}
"""By the end of a file's name; a folder holds one of these kinds."""


def read_tables(files: Sequence[Path], names: Sequence[str] = ()) -> datasets.Dataset:
    """One table out of files of one kind; the cells of columns in ``names`` are names.

    Raises InputError for a file of another kind, a damaged one, and files of other columns.
    """
    tables = [_read(file) for file in files]
    try:
        table = pa.concat_tables(tables)
        if files[0].suffix.lower() == ".csv":
            cells = {n: typed(table[n], broken=n not in names) for n in table.column_names}
            table = pa.table(cells)
        return datasets.Dataset(_decoded(table))
    except (ValueError, TypeError, KeyError, AttributeError, NotImplementedError) as error:
        raise InputError(
            "files of one split with the same columns, of types that datasets knows",
            str(error).splitlines()[0][:200],
            "Keep tables of different kinds in different folders.",
        ) from error


def _read(file: Path) -> pa.Table:
    if file.suffix.lower() not in FORMATS:
        raise InputError(
            f"a table as {', '.join(FORMATS)}",
            f"the file {file}",
            "Write it as one of these, such as with pandas or datasets.",
        )
    what, reader = FORMATS[file.suffix.lower()]
    try:
        table = reader(file)
        table.validate(full=True)  # texts that are none would fail later, without a name
    except (pa.ArrowException, OSError, ValueError) as error:
        raise InputError(
            f"{what} file at {file}",
            str(error).splitlines()[0][:200],
            COMMAS if reader is _csv else "Fetch or write it again.",
        ) from error
    if reader is _csv and len(table.column_names) == 1 and OTHER.search(table.column_names[0]):
        raise InputError(
            f"a CSV file with more than one column at {file}", repr(table.column_names[0]), COMMAS
        )
    if twice := sorted({n for n in table.column_names if table.column_names.count(n) > 1}):
        raise InputError(
            f"columns of different names in {file}", f"{twice[0]!r} twice", "Rename one of them."
        )
    return table


def typed(cells: pa.ChunkedArray, *, broken: bool = True) -> pa.ChunkedArray:
    """Written cells as whole numbers or as numbers where all of them are, else as they stand.

    A cell that was left empty, also in words such as NA, does not decide; it is null. With
    ``broken`` False only whole numbers count: 2021.10 is then a name, and not 2021.1.
    """
    bare = call.utf8_trim_whitespace(cells)
    blank = call.is_in(bare, value_set=pa.array(BLANK))
    bare = call.if_else(blank, pa.scalar(None, pa.string()), bare)
    if bare.null_count == len(bare):
        return cells
    for pattern, kind in ((WHOLE, pa.int64()), (NUMBER, pa.float64()))[: 1 + broken]:
        if call.all(call.match_substring_regex(bare, pattern)).as_py():
            try:
                return bare.cast(kind)
            except pa.ArrowInvalid:  # more digits than a number holds: a name
                return cells
    return cells


def _decoded(table: pa.Table) -> pa.Table:
    """Categories of pandas as the words that they stand for."""
    columns: dict[str, Any] = {}
    for field in table.schema:
        cells = table[field.name]
        pointed = pa.types.is_dictionary(field.type)
        columns[field.name] = cells.cast(field.type.value_type) if pointed else cells
    return pa.table(columns, metadata=table.schema.metadata)

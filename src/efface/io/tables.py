"""Tables with pyarrow and datasets: files to a data set, columns to labels, ``--where`` to rows.

``read_split`` reads parquet, arrow (IPC, as a file or as a stream), CSV, JSON lines, tar archives
of webdataset and numpy's .npz without a cache outside the folder; other folders hold one folder of
images a class, or images and a metadata table that names them. A split is known by the names of
files and folders, as the library ``datasets`` knows it.

``read_labels`` makes of label columns:

| columns | labels |
|---|---|
| one of names, classes, integers, yes and no | (n,) class ids, -1 for none |
| several of 0 and 1; one of lists of them, or of lists of names | (n, k) of 0 and 1, -1 for none |
| one or several of numbers; one of lists of them | (n,) or (n, d) values, nan for none |

Integers other than 0 and 1 are values where they cannot be classes: in several columns, and for a
model with one output. Integers written as text are class numbers, unless the model has such names.
Names are numbered as the model numbers them; where it names none, in the order of the file's own
types, else in alphabetical order. What could be two things (1 to k, -1 and 1) is refused.

``select_rows`` parses comparisons joined by and, or and parentheses, and never evaluates them:

    any = all ("or" all)*        all = one ("and" one)*
    one = "(" any ")" | column ("=" | "!=" | ">=" | "<=" | ">" | "<") value

A value is a word or a text in quotes, and the whole cell. An empty cell is neither equal nor
unequal to anything.
"""

import re
from collections import defaultdict
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute
import pyarrow.csv as pv
import pyarrow.parquet as pq

from efface.errors import InputError, UnsafeFile, abbreviate, did_you_mean
from efface.io.containers import IMAGES, read_jsonl, read_npz, read_tar
from efface.io.features import AMBIGUOUS, NUMBER, USE_COMMAS, arrow_column, unknown_column
from efface.io.folder import Folder

SPLIT_WORDS = {
    "train": {"train", "training"},
    "validation": {"validation", "valid", "val", "dev"},
    "test": {"test", "testing", "eval", "evaluation"},
}
# of datasets' image folders: what names the images next to it
METADATA = re.compile(r"metadata\.(csv|jsonl|parquet)")
NAMED_FILE = "file_name"

# 007 is a name
INTEGER = r"^-?(0|[1-9][0-9]*)$"
# more are no class number
DIGITS = 19
# no number, in a CSV column of numbers
BLANK = ("", "NA", "N/A", "NaN", "nan", "null", "NULL")
# of CSV where numbers have a decimal comma
SEPARATORS = re.compile(r"[;\t|]")

HUB = "hub:"
PART = r"\w[\w.\-]*"

# its functions are made at import, invisible to a type checker
pc: Any = pyarrow.compute


SplitFiles = tuple[datasets.Dataset, Folder]

Names = tuple[str, ...] | None
Classes = Sequence[str] | None
Labels = tuple[np.ndarray, Names]
OTHER_COLUMN = "Name others with --label-column."
REWRITE = "Write comparisons such as label=dog and age>=30; put words with spaces in quotes."

# of parentheses: each takes the stack three functions deep
MAX_DEPTH = 100

Mask = np.ndarray[Any, np.dtype[np.bool_]]

# kind, text and place in the expression
Token = tuple[str, str, int]
TOKEN = re.compile(
    r"""(?P<quoted>"[^"]*"|'[^']*')|(?P<operator>!=|>=|<=|==|=|>|<)|(?P<bracket>[()])"""
    r"""|(?P<word>[^\s()=!<>"']+)|(?P<other>\S)"""
)
OPERATORS = {"=": "equal", "==": "equal", "!=": "not_equal", ">": "greater", "<": "less"}
OPERATORS |= {">=": "greater_equal", "<=": "less_equal"}


# Files


def read_split(spec: str | Path, text_columns: Sequence[str] = ()) -> SplitFiles:
    """Read ``DATA`` or ``DATA:split``: a table, a folder of tables or images, or of the hub.

    In a CSV the cells of ``text_columns`` (ids) stay as written unless they are all integers.
    Raises InputError when there is no such data or split, or a file is damaged.
    """
    if str(spec).startswith(HUB):
        return _read_hub(str(spec))
    path, split = _path_and_split(str(spec))
    if path.is_file():
        # an archive of arrays may hold several splits
        if split and path.suffix.lower() != ".npz":
            wanted = f"a folder of which {split!r} is a split"
            raise InputError(wanted, f"the file {path}", "Omit the split.")
        chosen, folder = [path], Folder(path.parent, (path,))
        return _read_tables(chosen, folder, text_columns, split), folder
    files = _files_of_one_kind(path)
    if not files:
        wanted = f"files of {', '.join(READERS)}, or a folder of images a class"
        raise InputError(wanted, f"none in {path}", "Check the path.")
    chosen = _files_of_split(files, path, split)
    folder = Folder(path, tuple(chosen))
    if files[0].suffix.lower() in READERS:
        return _read_tables(chosen, folder, text_columns), folder
    return _image_table(chosen, files, path), folder


def in_memory(given: Any) -> tuple[datasets.Dataset, tuple[str, ...]]:
    """A ``datasets.Dataset``, without its format; a DataFrame of pandas or polars, an arrow table.

    Next to it the columns that were an index of pandas. Raises InputError for anything else, and
    for columns of values of several types.
    """
    index: tuple[str, ...] = ()
    if isinstance(given, datasets.Dataset):
        return given.with_format(None), index
    try:
        if hasattr(given, "to_arrow"):
            given = given.to_arrow()
        elif not isinstance(given, pa.Table):
            # 0 to n - 1 is what a table without ids has; a part of one has numbers of the whole
            plain, width = pd.RangeIndex(len(given)).equals(given.index), len(given.columns)
            given = pa.Table.from_pandas(given, preserve_index=not plain)
            index = tuple(given.column_names[width:])
    except (pa.ArrowException, AttributeError, ValueError, TypeError) as error:
        wanted, came = "a table of plain values", str(error).splitlines()[0][:200]
        raise InputError(wanted, came, "Give numbers, texts and paths, or a Dataset.") from error
    names = given.column_names
    if repeated := sorted({name for name in names if names.count(name) > 1}):
        raise InputError("unique column names", f"{repeated[0]!r} twice", "Rename one of them.")
    # without metadata: that of pandas would call an index a column of its own
    return datasets.Dataset(pa.table({name: _plain(given[name]) for name in names})), index


def _plain(cells: pa.ChunkedArray) -> pa.ChunkedArray:
    """Categories of pandas as their words."""
    kind = cells.type
    return cells.cast(kind.value_type) if pa.types.is_dictionary(kind) else cells


def _path_and_split(spec: str) -> tuple[Path, str | None]:
    if Path(spec).exists():
        return Path(spec), None
    head, colon, split = spec.rpartition(":")
    if colon and Path(head).exists():
        return Path(head), split
    raise InputError("a file or a folder of data", f"{spec}, which is not there", "Check the path.")


# Files of a folder


def _files_of_one_kind(root: Path) -> list[Path]:
    """The tables, or the images where there are none. Raises InputError for two kinds.

    Tables next to images may name them, or be a list of ids; of two kinds of tables one may be the
    other, written again.
    """
    kinds: dict[str, list[Path]] = defaultdict(list)
    for file in sorted(root.rglob("*")):
        kind, relative = file.suffix.lower(), file.relative_to(root)
        hidden = any(part.startswith((".", "__")) for part in relative.parts)
        # datasets keeps the results of map in cache files next to the data: records twice
        cache = re.fullmatch(r"cache-.*\.arrow", file.name)
        if (kind in READERS or kind in IMAGES) and not hidden and not cache:
            # a pipe would wait for a writer, a device never end
            if file.exists() and not file.is_file():
                wanted, came = f"files in {root}", f"{relative}, which is no regular file"
                raise InputError(wanted, came, "Take it out of the folder.")
            kinds[kind if kind in READERS else "image"].append(file)
    tables = [kind for kind in kinds if kind != "image"]
    if len(tables) == 1 and all(METADATA.fullmatch(file.name) for file in kinds[tables[0]]):
        # the images are those that it names
        return kinds[tables[0]]
    if len(kinds) > 1:
        order = [*READERS, "image"]
        first, second, *_ = (kinds[kind][0] for kind in sorted(kinds, key=order.index))
        came = f"both {first.relative_to(root)} and {second.relative_to(root)}"
        raise InputError(f"tables of one kind, or images, in {root}", came, f"Name one: {first}.")
    return next(iter(kinds.values()), [])


def _files_of_split(files: list[Path], root: Path, split: str | None) -> list[Path]:
    """The files of one split; everything is train where nothing is named."""
    splits: dict[str, list[Path]] = defaultdict(list)
    for file in files:
        splits[_split_name(file.relative_to(root))].append(file)
    wanted = next((name for name, words in SPLIT_WORDS.items() if split in words), split) or "train"
    if wanted not in splits:
        remedy = f"Name one: {root}:{next(iter(splits))}."
        raise InputError(f"a split {wanted!r} in {root}", f"the splits {', '.join(splits)}", remedy)
    return splits[wanted]


def _split_name(relative: Path) -> str:
    """The split that the name of a table, or the first of two folders around an image, says."""
    # train/dog/1.png names a split, train/1.png the class of trains
    places = relative.parts if relative.suffix.lower() in READERS else relative.parts[:-2]
    words = {word for place in places for word in re.split(r"[-._ 0-9]+", place.lower())}
    return next((name for name, known in SPLIT_WORDS.items() if words & known), "train")


def _image_table(chosen: list[Path], images: list[Path], root: Path) -> datasets.Dataset:
    """Columns image, label and file_name; the classes are the folders of all splits, in order."""
    for image in images:
        if not image.resolve().is_relative_to(root.resolve()):
            came = f"{image.relative_to(root)}, a link to {image.resolve()}"
            raise InputError(f"images inside {root}", came, "Copy the image into the folder.")
    if bare := [image.name for image in images if image.parent == root]:
        wanted, came = f"one folder a class in {root}", f"images without a class, such as {bare[0]}"
        raise InputError(wanted, came, "Put each image into a folder named after its class.")
    names = sorted({image.parent.name for image in images})
    # 2 before 10
    names = sorted(names, key=int) if all(re.match(INTEGER, name) for name in names) else names
    label = datasets.ClassLabel(names=names)
    features = {"image": datasets.Image(), "label": label, "file_name": datasets.Value("string")}
    # absolute, since relative paths of a table are taken from its own folder
    columns = {"image": [str(image.absolute()) for image in chosen]}
    columns |= {"label": [image.parent.name for image in chosen]}
    columns |= {"file_name": [image.relative_to(root).as_posix() for image in chosen]}
    return datasets.Dataset.from_dict(columns, features=datasets.Features(features))


# Tables


def _arrow(content: bytes) -> pa.Table:
    """As a file with an index, or as a stream, which is what ``datasets`` writes."""
    indexed = content[:6] == b"ARROW1"
    return (pa.ipc.open_file if indexed else pa.ipc.open_stream)(content).read_all()


def _csv(content: bytes) -> pa.Table:
    """Every cell as text; an empty one is null."""
    parse = pv.ParseOptions(newlines_in_values=True)
    # the header alone, for the names
    with pv.open_csv(pa.BufferReader(content), parse_options=parse) as head:
        types = dict.fromkeys(head.schema.names, pa.string())
    convert = pv.ConvertOptions(column_types=types, null_values=[""], strings_can_be_null=True)
    return pv.read_csv(pa.BufferReader(content), parse_options=parse, convert_options=convert)


def _parquet(content: bytes) -> pa.Table:
    return pq.ParquetFile(pa.BufferReader(content)).read()


READERS: dict[str, Any] = {".parquet": _parquet, ".arrow": _arrow, ".csv": _csv}
READERS |= {".jsonl": read_jsonl, ".tar": read_tar, ".npz": read_npz}


def _read_tables(
    files: Sequence[Path], folder: Folder, text_columns: Sequence[str], split: str | None = None
) -> datasets.Dataset:
    """One table out of files of one kind.

    Raises InputError for a file of another kind, a damaged one, and files of other columns.
    """
    tables = [_read_table(file, folder, split) for file in files]
    try:
        table = pa.concat_tables(tables)
        columns: dict[str, Any] = {field.name: table[field.name] for field in table.schema}
        for name, cells in columns.items():
            if files[0].suffix.lower() == ".csv":
                columns[name] = _infer_type(cells, fractions=name not in text_columns)
            else:
                columns[name] = _plain(cells)
        return datasets.Dataset(pa.table(columns, metadata=table.schema.metadata))
    except (ValueError, TypeError, KeyError, AttributeError, NotImplementedError) as error:
        wanted, came = "files of one split with the same columns", str(error).splitlines()[0][:200]
        raise InputError(wanted, came, "Keep different tables in other folders.") from error


def _read_table(file: Path, folder: Folder, split: str | None) -> pa.Table:
    kind = file.suffix.lower()
    if kind not in READERS:
        wanted, remedy = f"a table as {', '.join(READERS)}", "Write it so (pandas, datasets)."
        raise InputError(wanted, f"the file {file}", remedy)
    try:
        content = folder.read(file)
        if kind == ".npz":
            own = _split_name(file.relative_to(folder.root))
            table = read_npz(content, split, own, SPLIT_WORDS)
        else:
            table = READERS[kind](content)
        # invalid UTF-8 would fail later, without the name of the file
        table.validate(full=True)
    except (InputError, UnsafeFile):
        raise
    except (pa.ArrowException, OSError, ValueError) as error:
        wanted, came = (
            f"a valid {kind} file at {file}",
            (str(error) or "none").splitlines()[0][:200],
        )
        remedy = USE_COMMAS if kind == ".csv" else "Fetch or write it again."
        raise InputError(wanted, came, remedy) from error
    names = table.column_names
    if kind == ".csv" and len(names) == 1 and SEPARATORS.search(names[0]):
        raise InputError(f"a CSV file with commas at {file}", repr(names[0]), USE_COMMAS)
    if repeated := sorted({name for name in names if names.count(name) > 1}):
        wanted = f"unique column names in {file}"
        raise InputError(wanted, f"{repeated[0]!r} twice", "Rename one of them.")
    if METADATA.fullmatch(file.name) and NAMED_FILE in names and file.parent != folder.root:
        # datasets has such names from the folder of the table, we from that of the data
        prefix = pa.scalar(f"{file.parent.relative_to(folder.root).as_posix()}/")
        inside = pc.binary_join_element_wise(prefix, table[NAMED_FILE].cast(pa.string()), "")
        table = table.set_column(names.index(NAMED_FILE), NAMED_FILE, inside)
    return table


def _infer_type(cells: pa.ChunkedArray, *, fractions: bool) -> pa.ChunkedArray:
    """Text cells as integers or as floats where all of them are, else unchanged.

    A blank cell, also in words such as NA, does not decide; it is null. Without ``fractions`` only
    integers count: 2021.10 is then a name, and not 2021.1.
    """
    # regular expressions of RE2: linear in the length of a hostile cell
    bare = pc.utf8_trim_whitespace(cells)
    is_blank = pc.is_in(bare, value_set=pa.array(BLANK))
    bare = pc.if_else(is_blank, pa.scalar(None, pa.string()), bare)
    if bare.null_count == len(bare):
        return cells
    for pattern, kind in ((INTEGER, pa.int64()), (NUMBER, pa.float64()))[: 1 + fractions]:
        if pc.all(pc.match_substring_regex(bare, pattern)).as_py():
            try:
                return bare.cast(kind)
            except pa.ArrowInvalid:
                # more digits than an int64 has: a name
                return cells
    return cells


# The Hugging Face hub


def _read_hub(spec: str) -> SplitFiles:
    """``hub:owner/name[/configuration][:split]``, from the network or the local cache.

    What was fetched once is read without a network (HF_HOME says where the cache is). Raises
    InputError for another spelling and when there is no such data; code of the hub is never run.
    """
    match = re.fullmatch(rf"hub:({PART}/{PART})(?:/({PART}))?(?::({PART}))?", spec)
    if not match:
        wanted = "hub:owner/name, hub:owner/name:split or hub:owner/name/configuration:split"
        raise InputError(wanted, repr(spec), "Such as hub:ylecun/mnist:test.")
    name, configuration, split = match.group(1), match.group(2), match.group(3) or "train"
    # load_dataset prefers a local folder of this name, without a word
    if Path(name).exists():
        wanted, came = f"the data set {name} of the hub", "a folder of that name, read instead"
        raise InputError(wanted, came, f"Give the folder as {name}, or start from elsewhere.")
    try:
        dataset = datasets.load_dataset(name, configuration, split=split, keep_in_memory=False)
    except Exception as error:
        # whatever a network can raise
        came = f"{type(error).__name__}: {(str(error) or 'no message').splitlines()[0][:300]}"
        wanted = f"the split {split!r} of {name}, from the hub or from the local cache"
        raise InputError(wanted, came, "Check the name and the network, or give files.") from error
    files = tuple(Path(part["filename"]) for part in dataset.cache_files)
    # the whole cache of the hub where files lie in it: its images lie apart from its tables
    home, folders = Path(datasets.config.HF_CACHE_HOME), {file.parent for file in files}
    inside = all(folder.is_relative_to(home) for folder in folders)
    return dataset, Folder(home if inside else next(iter(folders)), files)


# Labels


def read_labels(
    dataset: datasets.Dataset, columns: Sequence[str], classes: Classes, num_classes: int | None
) -> Labels:
    """The labels of every row, numbered as the model numbers its classes, and their names.

    ``classes`` and ``num_classes`` are the model's. Raises InputError when the columns hold no
    labels of one kind, or names that the model does not know.
    """
    # the model's order decides which column is which output
    if classes is not None and len(columns) > 1 and set(classes) == set(columns):
        columns = tuple(classes)
    cells = [arrow_column(dataset, name) for name in columns]
    if len(columns) > 1:
        return _several(columns, cells, classes)
    column, kind = columns[0], dataset.features[columns[0]]
    if isinstance(cells[0].type, pa.ListType | pa.LargeListType | pa.FixedSizeListType):
        return _lists(column, kind, cells[0], classes)
    rows = cells[0].to_pylist()
    if isinstance(kind, datasets.Value) and _is_fractional(cells[0].type):
        return _values(columns, rows)[:, 0], None
    if not isinstance(kind, datasets.ClassLabel):
        rows = _named_numbers(_read_words(column, rows, classes), classes)
    y, own = _class_ids(column, kind, rows)
    # one output is a sigmoid unit or a value: integers beyond 0 and 1 decide
    one_output = num_classes == 1
    if own is None:
        _refuse_ambiguous(column, y, num_classes)
        if one_output and not np.isin(y, (-1, 0, 1)).all():
            return _values(columns, rows)[:, 0], None
    return _renumber(y, own, classes, 2 if one_output else num_classes)


def _is_fractional(kind: pa.DataType) -> bool:
    return pa.types.is_floating(kind) or pa.types.is_decimal(kind)


def _is_number(kind: pa.DataType) -> bool:
    return pa.types.is_integer(kind) or pa.types.is_boolean(kind) or _is_fractional(kind)


def _values(columns: Sequence[str], rows: Sequence[Any]) -> np.ndarray:
    """(n, d) float32, nan for none. Raises InputError for 0 and 1 alone, which are ambiguous."""
    # numpy makes nan of None
    values = np.array(rows, dtype=np.float64).reshape(len(rows), -1)
    finite = values[np.isfinite(values)]
    if len(finite) and np.isin(finite, (0, 1)).all():
        named = ", ".join(map(repr, columns))
        raise InputError(f"labels as integers, or values, in {named}", AMBIGUOUS, "Write integers.")
    with np.errstate(over="ignore"):
        return values.astype(np.float32)


def _class_ids(column: str, kind: Any, cells: list[Any]) -> tuple[np.ndarray, Names]:
    """Class ids (-1 for none) and the names of the classes, if they have any."""
    names = None
    if isinstance(kind, datasets.ClassLabel):
        names = tuple(kind.names)
        _refuse_unnamed(column, cells, range(-1, len(names)), "-1 or nothing for none")
    elif all(cell is None or isinstance(cell, str) for cell in cells):
        names = tuple(sorted({cell for cell in cells if cell is not None}))
        places = {name: place for place, name in enumerate(names)}
        # alphabetical order, where the model does not say its own
        cells = [None if cell is None else places[cell] for cell in cells]
    # bool is an int: yes and no are classes 1 and 0
    if not all(cell is None or (isinstance(cell, int) and abs(cell) < 2**62) for cell in cells):
        raise InputError(f"class names or numbers in {column!r}", str(kind), OTHER_COLUMN)
    return np.array([-1 if cell is None else int(cell) for cell in cells], dtype=np.int64), names


def _read_words(column: str, cells: list[Any], classes: Classes) -> list[Any]:
    """Text cells as names, or as class numbers where all are integers; blank ones are None."""
    if not all(cell is None or isinstance(cell, str) for cell in cells):
        return cells
    cells = [cell if cell and cell.strip() else None for cell in cells]
    words = {cell for cell in cells if cell is not None}
    numbers = {word for word in words if re.match(INTEGER, word) and len(word) < DIGITS}
    if words <= set(classes or ()):
        return cells
    if numbers == words:
        return [None if cell is None else int(cell) for cell in cells]
    # one slip of the pen would make names of all numbers
    if numbers and classes is None:
        came = f"both, such as {min(numbers)} and {min(words - numbers)}"
        raise InputError(f"class numbers or class names in {column!r}", came, OTHER_COLUMN)
    return cells


def _named_numbers(cells: list[Any], classes: Classes) -> list[Any]:
    """Integers as the model's names where it has them as names and counts otherwise."""
    none = (None,) if classes and "-1" in classes else (None, -1)
    found = {str(cell) for cell in cells if cell not in none}
    numbered = not classes or list(classes) == list(map(str, range(len(classes))))
    if numbered or not found or not found <= set(classes):
        return cells
    return [None if cell in none else str(cell) for cell in cells]


def _refuse_ambiguous(column: str, y: np.ndarray, num_classes: int | None) -> None:
    """Class numbers that count from 1 or -1 would be another class, or no label, each."""
    found, k = set(y.tolist()) - {-1}, num_classes
    wanted = f"class numbers 0..{k - 1 if k and k > 1 else 1} in {column!r}, nothing for no label"
    if found == {1} and -1 in y and k in {None, 1, 2}:
        came = "-1 and 1, of which -1 may be a class or no label"
        raise InputError(wanted, came, "Write 0 and 1, and nothing for no label.")
    counts_from_1 = (
        found == {1, 2} if k == 1 else k and found and min(found) > 0 and max(found) == k
    )
    if counts_from_1:
        remedy = "Subtract 1, or give the model's names of its classes (--classes)."
        raise InputError(wanted, f"{min(found)}..{max(found)}, as if counted from 1", remedy)
    if k != 1 and (low := sorted(label for label in found if label < 0)):
        raise InputError(wanted, abbreviate(low), "Leave cells without a label empty.")


def _refuse_unnamed(column: str, cells: Iterable[Any], known: range, none: str) -> None:
    """A number without a name would be taken for another class, or for none."""
    if outside := sorted({cell for cell in cells if cell is not None and cell not in known}):
        wanted = f"class numbers 0..{known.stop - 1} in {column!r}, {none}"
        raise InputError(wanted, abbreviate(outside), "Name all classes, or fix these labels.")


def _several(columns: Sequence[str], cells: Sequence[Any], classes: Classes) -> Labels:
    """A column each: of 0 and 1 multilabel, of other numbers regression."""
    for column, part in zip(columns, cells, strict=True):
        if not _is_number(part.type):
            wanted = f"numbers (0 and 1, or values) in the columns {', '.join(map(repr, columns))}"
            raise InputError(wanted, f"{part.type} in {column!r}", OTHER_COLUMN)
    rows = list(zip(*(part.to_pylist() for part in cells), strict=True))
    y = np.array([[-1 if v is None else v for v in row] for row in rows])
    if any(_is_fractional(part.type) for part in cells) or not np.isin(y, (-1, 0, 1)).all():
        return _values(columns, rows), None
    return y.astype(np.int64), tuple(classes or columns)


def _lists(column: str, kind: Any, cells: Any, classes: Classes) -> Labels:
    """A list a row: 0 and 1 or numbers, as many in each, or the names of the row's labels."""
    item, rows = cells.type.value_type, cells.to_pylist()
    inner = getattr(kind, "feature", None)
    present = [value for row in rows for value in row or () if value is not None]
    if isinstance(inner, datasets.ClassLabel):
        names = tuple(inner.names)
        _refuse_unnamed(column, present, range(len(names)), "an empty list for none")
        named = [row and [v if v is None else names[v] for v in row] for row in rows]
        return _multi_hot(column, named, names, classes)
    if pa.types.is_string(item) or pa.types.is_large_string(item):
        return _multi_hot(column, rows, tuple(sorted(set(present))), classes)
    widths = {len(row) for row in rows if row is not None}
    if len(widths) != 1 or not _is_number(item):
        wanted = f"lists of names, or of 0 or 1 for each label of the model, in {column!r}"
        came = f"lists of {item} of length {abbreviate(sorted(map(str, widths)))}"
        raise InputError(wanted, came, OTHER_COLUMN)
    width, blank = widths.pop(), [np.nan if _is_fractional(item) else -1]
    full = [row if row is not None and None not in row else blank * width for row in rows]
    if _is_fractional(item):
        return _values([column], full), None
    y = np.array(full, dtype=np.int64).reshape(len(rows), width)
    if other := {str(value) for value in y.flatten().tolist()} - {"-1", "0", "1"}:
        wanted = f"0 or 1 for each label, or lists of names, in {column!r}"
        raise InputError(wanted, abbreviate(sorted(other)), OTHER_COLUMN)
    return y, tuple(classes) if classes else None


def _multi_hot(column: str, rows: list[Any], own: Iterable[str], classes: Classes) -> Labels:
    """Lists of names as (n, k) of 0 and 1."""
    names = tuple(classes or own)
    _refuse_unknown(own, names)
    if not names:
        raise InputError(f"names of labels in {column!r}", "none", OTHER_COLUMN)
    none = [-1] * len(names)
    # half a label is none
    known = [None if row is None or None in row else set(row) for row in rows]
    y = [none if row is None else [int(name in row) for name in names] for row in known]
    return np.array(y, dtype=np.int64).reshape(len(rows), len(names)), names


def _renumber(y: np.ndarray, own: Names, classes: Classes, num_classes: int | None) -> Labels:
    """Class ids renumbered by name where the model names its classes."""
    if own is None or (classes is None and num_classes in {None, len(own)}):
        return y, own if classes is None else tuple(classes)
    if classes is None:
        wanted, came = f"the {num_classes} classes of the model", f"{len(own)}: {abbreviate(own)}"
        raise InputError(wanted, came, "Give all classes, or numbers: the model names none.")
    _refuse_unknown(own, classes)
    # a name of two classes would be taken for the first
    if twice := [name for name in own if list(classes).count(name) > 1]:
        came = f"{abbreviate(twice)}, the name of more than one"
        remedy = "Write labels as numbers, or give --classes with distinct names."
        raise InputError("labels that name one class of the model each", came, remedy)
    # the last entry is that of -1, a row without a label
    ids = np.array([*(list(classes).index(name) for name in own), -1], dtype=np.int64)
    return ids[y], tuple(classes)


def _refuse_unknown(names: Iterable[str], classes: Sequence[str]) -> None:
    if unknown := [name for name in names if name not in classes]:
        wanted = f"class names of the model: {abbreviate(classes)}"
        remedy = "Rename them, or name another --label-column."
        raise InputError(wanted, abbreviate(unknown), remedy)


# Expressions


def select_rows(expression: str, dataset: datasets.Dataset) -> Mask:
    """(n,) of which rows the expression is true.

    Raises InputError, with the place or the most similar known word, for anything but comparisons.
    """
    parser = _Parser(expression, dataset)
    mask = parser.parse_any()
    parser.take("and, or, or the end", "end")
    return mask


class _Parser:
    """Recursive descent over the tokens; each rule returns the mask of its rows."""

    def __init__(self, expression: str, dataset: datasets.Dataset) -> None:
        self.expression, self.dataset, self.depth = expression, dataset, 0
        self.tokens = _tokenize(expression)

    def accept(self, word: str) -> bool:
        kind, text, _ = self.tokens[0]
        matches = kind != "quoted" and text.lower() == word
        if matches:
            self.tokens.pop(0)
        return matches

    def take(self, wanted: str, *kinds: str) -> str:
        """The text of the next token. Raises InputError when it is of none of these kinds."""
        kind, text, place = self.tokens[0]
        if kind not in kinds:
            came = "the end" if kind == "end" else f"{text!r} at character {place + 1}"
            raise InputError(f"{wanted} in the expression {self.expression!r}", came, REWRITE)
        self.tokens.pop(0)
        return text

    def parse_any(self) -> Mask:
        mask = self.parse_all()
        while self.accept("or"):
            mask = mask | self.parse_all()
        return mask

    def parse_all(self) -> Mask:
        mask = self.parse_one()
        while self.accept("and"):
            mask = mask & self.parse_one()
        return mask

    def parse_one(self) -> Mask:
        if self.accept("("):
            self.depth += 1
            if self.depth > MAX_DEPTH:
                came = f"more than {MAX_DEPTH} parentheses in each other"
                raise InputError("an expression of comparisons", came, REWRITE)
            mask = self.parse_any()
            self.take("a closing parenthesis", ")")
            self.depth -= 1
            return mask
        column = self.take("a column", "quoted", "word")
        operator = self.take("one of = != >= <= > <", "operator")
        return _compare(self.dataset, column, operator, self.take("a value", "quoted", "word"))


def _tokenize(expression: str) -> list[Token]:
    tokens: list[Token] = []
    for match in TOKEN.finditer(expression):
        kind, text, place = str(match.lastgroup), match[0], match.start()
        if kind == "other":
            came = f"{text!r} at character {place + 1}"
            raise InputError(f"words in {expression!r}", came, f"Close open quotes. {REWRITE}")
        text = text[1:-1] if kind == "quoted" else text
        tokens.append((text if kind == "bracket" else kind, text, place))
    return [*tokens, ("end", "", len(expression))]


def _compare(dataset: datasets.Dataset, column: str, operator: str, value: str) -> Mask:
    """(n,) of which rows it is true; the type of the column decides what ``value`` is."""
    if column not in dataset.features:
        raise unknown_column(column, dataset.features)
    kind = dataset.features[column]
    cells = arrow_column(dataset, column)
    if isinstance(kind, datasets.ClassLabel):
        scalar: Any = pa.scalar(_class_id(kind, column, operator, value), pa.int64())
    elif not isinstance(kind, datasets.Value) or pa.types.is_nested(cells.type):
        came = f"{column!r} of {kind}"
        raise InputError("a column of numbers, words or classes", came, "Choose another column.")
    else:
        scalar = _cast(value, cells.type, column)
    # integers stay integers where they can: ids beyond 2**53 are alike as floats
    if pa.types.is_integer(cells.type) and pa.types.is_floating(scalar.type):
        cells = cells.cast(pa.float64(), safe=False)
    mask = pc.call_function(OPERATORS[operator], [cells, scalar])
    mask = pc.fill_null(mask, fill_value=False).to_numpy()
    # nan is an empty cell too
    if pa.types.is_floating(cells.type):
        mask &= ~np.isnan(cells.to_numpy())
    return mask


def _class_id(kind: datasets.ClassLabel, column: str, operator: str, value: str) -> int:
    if operator not in {"=", "==", "!="}:
        wanted = f"= or != with the class {column!r}"
        raise InputError(wanted, repr(operator), "Classes have no order.")
    if value in kind.names:
        return kind.names.index(value)
    if value.isdecimal() and int(value) < len(kind.names):
        return int(value)
    wanted = f"a class of {column!r}: {', '.join(kind.names)}"
    raise InputError(wanted, repr(value), did_you_mean(value, kind.names))


def _cast(value: str, kind: pa.DataType, column: str) -> pa.Scalar:
    """The value as a cell of this column; integers may be compared with any number."""
    for target in [kind, pa.float64()] if pa.types.is_integer(kind) else [kind]:
        try:
            return pa.scalar(value).cast(target)
        except (pa.ArrowInvalid, pa.ArrowNotImplementedError):
            continue
    remedy = "Write a value as its cells have it."
    raise InputError(f"a value of {column!r}, which holds {kind}", repr(value), remedy)

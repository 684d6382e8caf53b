"""From a path or ``hub:owner/name`` to one split of a data set; no image is decoded yet.

Tables are parquet, arrow (IPC, as a file or as a stream) and CSV, read by pyarrow so that nothing
is cached outside the folder; other folders hold one folder of images a class. A split is known by
the names of files and folders, as the library ``datasets`` knows it.
"""

import hashlib
import re
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import datasets
import pyarrow as pa
import pyarrow.compute
import pyarrow.csv as pv
import pyarrow.parquet as pq

from efface.errors import InputError
from efface.io.features import NUMBER

SPLIT_WORDS = {
    "train": {"train", "training"},
    "validation": {"validation", "valid", "val", "dev"},
    "test": {"test", "testing", "eval", "evaluation"},
}
IMAGES = {".bmp", ".gif", ".jpeg", ".jpg", ".png", ".ppm", ".tif", ".tiff", ".webp"}

INTEGER = r"^-?(0|[1-9][0-9]*)$"  # 007 is a name
BLANK = ("", "NA", "N/A", "NaN", "nan", "null", "NULL")  # no number, in a CSV column of numbers
SEPARATORS = re.compile(r"[;\t|]")  # of CSV where numbers have a decimal comma
USE_COMMAS = "Write it separated by commas, UTF-8."

HUB = "hub:"
PART = r"\w[\w.\-]*"

pc: Any = pyarrow.compute  # its functions are made at import, invisible to a type checker


@dataclass(frozen=True, eq=False)
class Source:
    """One split as it lies on the disk: ``root`` is the folder that no image path may leave."""

    dataset: datasets.Dataset
    root: Path
    files: tuple[Path, ...]

    def digest(self) -> str:
        """SHA-256 over names and contents of the files, in the order of the names."""
        total = hashlib.sha256()
        for path in self.files:
            total.update(path.relative_to(self.root).as_posix().encode())
            with path.open("rb") as file:
                total.update(hashlib.file_digest(file, "sha256").digest())
        return total.hexdigest()


def read_split(spec: str | Path, text_columns: Sequence[str] = ()) -> Source:
    """Read ``DATA`` or ``DATA:split``: a table, a folder of tables or images, or of the hub.

    In a CSV the cells of ``text_columns`` (ids) stay as written unless they are all integers.
    Raises InputError when there is no such data or split, or a file is damaged.
    """
    if str(spec).startswith(HUB):
        return _read_hub(str(spec))
    path, split = _path_and_split(str(spec))
    if path.is_file():
        if split:
            wanted, came = f"a folder of which {split!r} is a split", f"the file {path}"
            raise InputError(wanted, came, "Omit the split.")
        return Source(_read_tables([path], text_columns), path.parent, (path,))
    files = _files_of_one_kind(path)
    if not files:
        wanted = f"files of {', '.join(READERS)}, or a folder of images a class"
        raise InputError(wanted, f"none in {path}", "Check the path.")
    chosen = _files_of_split(files, path, split)
    if files[0].suffix.lower() in READERS:
        return Source(_read_tables(chosen, text_columns), path, tuple(chosen))
    return Source(_image_table(chosen, files, path), path, tuple(chosen))


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
            kinds[kind if kind in READERS else "image"].append(file)
    if len(kinds) > 1:
        order = [*READERS, "image"]
        first, second, *_ = (kinds[kind][0] for kind in sorted(kinds, key=order.index))
        raise InputError(
            f"tables of one kind, or images, in {root}",
            f"both, such as {first.relative_to(root)} and {second.relative_to(root)}",
            f"Name the table itself, as in {first}, or put it elsewhere.",
        )
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
    """Columns image, label and file_name; the classes are the folders of all splits, sorted."""
    for image in images:
        if not image.resolve().is_relative_to(root.resolve()):
            came = f"{image.relative_to(root)}, a link to {image.resolve()}"
            raise InputError(f"images inside {root}", came, "Copy the image into the folder.")
    if bare := [image.name for image in images if image.parent == root]:
        remedy = "Put each image into a folder named after its class."
        came = f"images without a class, such as {bare[0]}"
        raise InputError(f"one folder a class in {root}", came, remedy)
    columns = {
        # absolute, since relative paths of a table are taken from its own folder
        "image": [str(image.absolute()) for image in chosen],
        "label": [image.parent.name for image in chosen],
        "file_name": [image.relative_to(root).as_posix() for image in chosen],
    }
    label = datasets.ClassLabel(names=sorted({image.parent.name for image in images}))
    features = {"image": datasets.Image(), "label": label, "file_name": datasets.Value("string")}
    return datasets.Dataset.from_dict(columns, features=datasets.Features(features))


# Tables


def _parquet(file: Path) -> pa.Table:
    return pq.ParquetFile(file).read()


def _arrow(file: Path) -> pa.Table:
    """As a file with an index, or as a stream, which is what ``datasets`` writes."""
    with pa.OSFile(str(file)) as source:
        indexed = source.read(6) == b"ARROW1"
        source.seek(0)
        return (pa.ipc.open_file if indexed else pa.ipc.open_stream)(source).read_all()


def _csv(file: Path) -> pa.Table:
    """Every cell as text; an empty one is null."""
    parse = pv.ParseOptions(newlines_in_values=True)
    with pv.open_csv(file, parse_options=parse) as head:
        types = dict.fromkeys(head.schema.names, pa.string())
    convert = pv.ConvertOptions(column_types=types, null_values=[""], strings_can_be_null=True)
    return pv.read_csv(file, parse_options=parse, convert_options=convert)


READERS: dict[str, tuple[str, Callable[[Path], pa.Table]]] = {
    ".parquet": ("a parquet", _parquet),
    ".arrow": ("an arrow", _arrow),
    ".csv": ("a CSV", _csv),
}


def _read_tables(files: Sequence[Path], text_columns: Sequence[str]) -> datasets.Dataset:
    """One table out of files of one kind.

    Raises InputError for a file of another kind, a damaged one, and files of other columns.
    """
    tables = [_read_table(file) for file in files]
    try:
        table = pa.concat_tables(tables)
        is_csv = files[0].suffix.lower() == ".csv"
        columns: dict[str, Any] = {}
        for field in table.schema:
            cells = table[field.name]
            if is_csv:
                cells = _infer_type(cells, fractions=field.name not in text_columns)
            elif pa.types.is_dictionary(field.type):  # categories of pandas: the words
                cells = cells.cast(field.type.value_type)
            columns[field.name] = cells
        return datasets.Dataset(pa.table(columns, metadata=table.schema.metadata))
    except (ValueError, TypeError, KeyError, AttributeError, NotImplementedError) as error:
        raise InputError(
            "files of one split with the same columns, of types that datasets knows",
            str(error).splitlines()[0][:200],
            "Keep tables of different kinds in different folders.",
        ) from error


def _read_table(file: Path) -> pa.Table:
    kind = file.suffix.lower()
    if kind not in READERS:
        remedy = "Write it as one of these, such as with pandas or datasets."
        raise InputError(f"a table as {', '.join(READERS)}", f"the file {file}", remedy)
    article_and_kind, reader = READERS[kind]
    try:
        table = reader(file)
        table.validate(full=True)  # invalid UTF-8 would fail later, without the name of the file
    except (pa.ArrowException, OSError, ValueError) as error:
        remedy = USE_COMMAS if kind == ".csv" else "Fetch or write it again."
        came = str(error).splitlines()[0][:200]
        raise InputError(f"{article_and_kind} file at {file}", came, remedy) from error
    names = table.column_names
    if kind == ".csv" and len(names) == 1 and SEPARATORS.search(names[0]):
        wanted = f"a CSV file with more than one column at {file}"
        raise InputError(wanted, repr(names[0]), USE_COMMAS)
    if repeated := sorted({name for name in names if names.count(name) > 1}):
        wanted, came = f"columns of different names in {file}", f"{repeated[0]!r} twice"
        raise InputError(wanted, came, "Rename one of them.")
    return table


def _infer_type(cells: pa.ChunkedArray, *, fractions: bool) -> pa.ChunkedArray:
    """Text cells as integers or as floats where all of them are, else unchanged.

    A blank cell, also in words such as NA, does not decide; it is null. Without ``fractions`` only
    integers count: 2021.10 is then a name, and not 2021.1.
    """
    bare = pc.utf8_trim_whitespace(cells)
    is_blank = pc.is_in(bare, value_set=pa.array(BLANK))
    bare = pc.if_else(is_blank, pa.scalar(None, pa.string()), bare)
    if bare.null_count == len(bare):
        return cells
    for pattern, kind in ((INTEGER, pa.int64()), (NUMBER, pa.float64()))[: 1 + fractions]:
        if pc.all(pc.match_substring_regex(bare, pattern)).as_py():
            try:
                return bare.cast(kind)
            except pa.ArrowInvalid:  # more digits than an int64 has: a name
                return cells
    return cells


# The Hugging Face hub


def _read_hub(spec: str) -> Source:
    """``hub:owner/name[/configuration][:split]``, from the network or the local cache.

    What was fetched once is read without a network (HF_HOME says where the cache is). Raises
    InputError for another spelling and when there is no such data; code of the hub is never run.
    """
    match = re.fullmatch(rf"hub:({PART}/{PART})(?:/({PART}))?(?::({PART}))?", spec)
    if not match:
        wanted = "hub:owner/name, hub:owner/name:split or hub:owner/name/configuration:split"
        raise InputError(wanted, repr(spec), "Such as hub:ylecun/mnist:test.")
    name, configuration, split = match.group(1), match.group(2), match.group(3) or "train"
    if Path(name).exists():
        came = "a folder of that name here, which datasets would read instead"
        remedy = f"Give the folder as {name}, or start from elsewhere."
        raise InputError(f"the data set {name} of the hub", came, remedy)
    try:
        dataset = datasets.load_dataset(name, configuration, split=split, keep_in_memory=False)
    except Exception as error:  # whatever a network can raise
        reason = (str(error) or "no message").splitlines()[0][:300]
        raise InputError(
            f"the split {split!r} of {name}, from the hub or from the local cache",
            f"{type(error).__name__}: {reason}",
            "Check the name and the network, fetch it once where there is one, or give it as files "
            "(parquet, arrow, CSV).",
        ) from error
    files = tuple(Path(part["filename"]) for part in dataset.cache_files)
    return Source(dataset, _common_root(files), files)


def _common_root(files: Iterable[Path]) -> Path:
    """The whole cache of the hub where files lie in it: its images lie apart from its tables."""
    home, folders = Path(datasets.config.HF_CACHE_HOME), {file.parent for file in files}
    inside = all(folder.is_relative_to(home) for folder in folders)
    return home if inside or not folders else next(iter(folders))

"""Tables in containers that are no tables: JSON lines, tar archives of webdataset, numpy's .npz.

Each reader makes an arrow table of the bytes of one file. Nothing is unpickled, and nothing is
written to the disk; of a tar archive only regular files of images and texts are read.

| in a tar archive, by the end of a name | column |
|---|---|
| .jpg, .png and other images | image (``a.mask.png`` is mask.png) |
| .cls, .id, .txt | label, id, text |
| .json | its fields |

| in an .npz, alone or with a split as in x_train, train_images | column |
|---|---|
| x, images, data: bytes (n, h, w), (n, h, w, c) or (n, c, h, w) | image |
| the same: numbers (n, d) | x0, x1, … |
| y, labels, targets; id, ids; other arrays of n values | label; id; their names |
"""

import io
import json
import re
import tarfile
import zipfile
from collections.abc import Iterable, Mapping
from pathlib import PurePosixPath
from typing import Any

import datasets
import numpy as np
import pyarrow as pa
from PIL import Image

from efface.errors import UnsafeFile
from efface.io.files import MAX_DEPTH, depth

# endings of images, also outside of containers
IMAGES = {".bmp", ".gif", ".jpeg", ".jpg", ".png", ".ppm", ".tif", ".tiff", ".webp"}
TEXTS = {"cls": "label", "class": "label", "id": "id", "txt": "text", "text": "text"}
# names of arrays, without their split
ROLES = dict.fromkeys(("x", "image", "images", "img", "imgs", "data", "input", "inputs"), "x")
ROLES |= dict.fromkeys(("y", "label", "labels", "target", "targets"), "label")
ROLES |= {"id": "id", "ids": "id"}
# zip stores zeros in a thousandth of their size
MOST_RATIO, SMALL = 100, 64 * 2**20
CHANNELS = (1, 3)


def read_jsonl(content: bytes) -> pa.Table:
    """A row for each line that holds a JSON object. Raises ValueError for any other."""
    # at line feeds alone: other ends of a line may stand within a text
    lines = content.decode("utf-8-sig").split("\n")
    return _table(_columns(_json_object(line) for line in lines if line.strip()))


def read_tar(content: bytes) -> pa.Table:
    """A row for each sample: the files that share a name up to its first dot.

    Raises UnsafeFile for links, devices and names outside, ValueError for a damaged archive.
    """
    rows: dict[str, dict[str, Any]] = {}
    images: set[str] = set()
    try:
        with tarfile.open(fileobj=io.BytesIO(content), mode="r:") as archive:
            for member in archive:
                _refuse_unsafe(member, len(content))
                match = re.fullmatch(r"((?:.*/)?[^./]+)\.([^/]+)", member.name)
                if not member.isreg() or not match:
                    continue
                file = archive.extractfile(member)
                cells = _cells(match[2].lower(), member.name, file.read() if file else b"")
                images |= {name for name, value in cells.items() if isinstance(value, Mapping)}
                row = rows.setdefault(match[1], {})
                if twice := sorted(row.keys() & cells.keys()):
                    raise ValueError(f"{twice[0]!r} twice in the sample {match[1]}")
                row |= cells
    except (tarfile.TarError, EOFError, OverflowError) as error:
        raise ValueError(str(error) or type(error).__name__) from error
    if not images:
        raise ValueError("no image in it")
    return _table(_columns(rows.values()), images)


def _refuse_unsafe(member: tarfile.TarInfo, size: int) -> None:
    """A name is an id here, but who writes such names wants a file in another place."""
    path = PurePosixPath(member.name)
    inside = not path.is_absolute() and ".." not in path.parts
    if not inside or not (member.isreg() or member.isdir()) or member.sparse is not None:
        wanted, came = "regular files inside a tar archive", f"{member.name!r:.80}"
        raise UnsafeFile(wanted, came, "Fetch or write it again.")
    if member.size > size:
        raise ValueError(f"{member.size} bytes of {member.name} in an archive of {size}")


def _cells(end: str, name: str, content: bytes) -> dict[str, Any]:
    """The columns that a file of a sample fills; none where it is of no known kind."""
    last = f".{end.rpartition('.')[2]}"
    if last in IMAGES:
        return {"image" if f".{end}" == last else end: {"bytes": content, "path": name}}
    if end == "json":
        return _json_object(content.decode())
    return {TEXTS[end]: content.decode().strip()} if end in TEXTS else {}


def read_npz(content: bytes, split: str | None, words: Mapping[str, set[str]]) -> pa.Table:
    """The arrays of one split, side by side; ``words``: by the name of a split its spellings.

    Raises UnsafeFile for pickled objects, ValueError for what is no such archive.
    """
    arrays: dict[str, dict[str, np.ndarray]] = {}
    for name, array in _arrays(content):
        parts = re.split(r"[_.-]", name.lower())
        own = next((s for s, known in words.items() if known & set(parts)), "train")
        plain = "_".join(part for part in parts if part not in words.get(own, ()))
        arrays.setdefault(own, {})[ROLES.get(plain, plain)] = array
    wanted = next((s for s, known in words.items() if split in known), split) or "train"
    # without names of splits the whole file is what its own name says
    named = arrays[wanted] if wanted in arrays else next(iter(arrays.values()), {})
    if len(arrays) > 1 and wanted not in arrays:
        raise ValueError(f"no split {wanted!r}, but {', '.join(arrays)}")
    if "x" not in named:
        raise ValueError(f"no array of inputs (x, images, data), but {', '.join(named) or 'none'}")
    columns: dict[str, list[Any]] = {}
    for name, array in named.items():
        columns |= _inputs(array) if name == "x" else {name: _squeezed(array).tolist()}
    if len({len(cells) for cells in columns.values()}) > 1:
        raise ValueError("arrays of several lengths")
    return _table(columns, {"image"} & columns.keys())


def _arrays(content: bytes) -> Iterable[tuple[str, np.ndarray]]:
    try:
        archive = zipfile.ZipFile(io.BytesIO(content))
        for entry in archive.infolist():
            if entry.file_size > MOST_RATIO * entry.compress_size + SMALL:
                raise ValueError(f"{entry.filename} of {entry.file_size} bytes once unpacked")
            data = io.BytesIO(archive.read(entry))
            yield entry.filename.removesuffix(".npy"), _array(entry.filename, data)
    except (zipfile.BadZipFile, NotImplementedError, RuntimeError, EOFError) as error:
        raise ValueError(str(error) or type(error).__name__) from error


def _array(name: str, data: io.BytesIO) -> np.ndarray:
    """One array. Raises UnsafeFile for objects, ValueError for a header that promises more."""
    version = np.lib.format.read_magic(data)
    read = np.lib.format.read_array_header_1_0 if version == (1, 0) else None
    shape, _, dtype = (read or np.lib.format.read_array_header_2_0)(data)
    if dtype.hasobject:
        wanted, came = "arrays of numbers and texts", f"{name}, which holds pickled objects"
        raise UnsafeFile(wanted, came, "Write them as numbers or texts.")
    if int(np.prod(shape, dtype=object)) * dtype.itemsize > data.getbuffer().nbytes:
        raise ValueError(f"{name} is cut short")
    data.seek(0)
    return np.atleast_1d(np.lib.format.read_array(data, allow_pickle=False))


def _squeezed(array: np.ndarray) -> np.ndarray:
    """Labels (n, 1) as (n,)."""
    return array[:, 0] if array.ndim == 2 and array.shape[1] == 1 else array  # noqa: PLR2004


def _inputs(x: np.ndarray) -> dict[str, list[Any]]:
    """Images as PNG, or a column for each number of a row."""
    if x.ndim == 2 and x.dtype.kind in "iufb":  # noqa: PLR2004
        return {f"x{place}": x[:, place].tolist() for place in range(x.shape[1])}
    # channels first
    if x.ndim == 4 and x.shape[3] not in CHANNELS and x.shape[1] in CHANNELS:  # noqa: PLR2004
        x = x.transpose(0, 2, 3, 1)
    if x.ndim == 4 and x.shape[3] == 1:  # noqa: PLR2004
        x = x[..., 0]
    if x.dtype != np.uint8 or x.ndim not in {3, 4} or x.shape[3:] not in {(), (3,)}:
        remedy = "bytes (n, h, w), (n, h, w, 3) or rows (n, d); in Python give (x, y[, ids])"
        raise ValueError(f"inputs of {x.dtype} and shape {x.shape}: images are {remedy}")
    return {"image": [{"bytes": _png(image), "path": None} for image in x]}


def _png(pixels: np.ndarray) -> bytes:
    file = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(pixels)).save(file, "PNG", compress_level=1)
    return file.getvalue()


def _json_object(text: str) -> dict[str, Any]:
    if depth(text) > MAX_DEPTH:
        raise ValueError(f"more than {MAX_DEPTH} brackets in each other")
    value = json.loads(text)
    if not isinstance(value, dict):
        raise ValueError(f"{type(value).__name__} where an object is wanted")  # noqa: TRY004
    return value


def _columns(rows: Iterable[dict[str, Any]]) -> dict[str, list[Any]]:
    """By the name of a key its value in each row, None where there is none."""
    rows = list(rows)
    names = dict.fromkeys(name for row in rows for name in row)
    return {name: [row.get(name) for row in rows] for name in names}


def _table(columns: Mapping[str, list[Any]], images: Iterable[str] = ()) -> pa.Table:
    """Those of ``images`` are typed so. Raises ValueError for values of several types in one."""
    try:
        table = pa.table({name: pa.array(cells) for name, cells in columns.items()})
        kinds = datasets.Features.from_arrow_schema(table.schema)
        kinds |= {name: datasets.Image() for name in images}
        return table.cast(datasets.Features(kinds).arrow_schema)
    except (pa.ArrowException, TypeError, OverflowError, UnicodeError) as error:
        raise ValueError(str(error).splitlines()[0]) from error

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

A split of an .npz is what has inputs of its own: test_score without x_test is a column.
"""

import io
import json
import lzma
import re
import tarfile
import zipfile
import zlib
from collections.abc import Iterable, Mapping
from pathlib import PurePosixPath
from typing import Any

import datasets
import numpy as np
import pyarrow as pa
from PIL import Image

from efface.errors import InputError, UnsafeFile
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
# what zipfile raises of a damaged archive, and each decompressor of a damaged stream
DAMAGED = (zipfile.BadZipFile, NotImplementedError, RuntimeError, EOFError)
DAMAGED += (zlib.error, lzma.LZMAError)
IN_PYTHON = "Of inputs as the model takes them, in Python: data = np.load(FILE); "
IN_PYTHON += "forget(model, (data['x'], data['y']), …)."


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
    others: set[str] = set()
    try:
        with tarfile.open(fileobj=io.BytesIO(content), mode="r:") as archive:
            for member in archive:
                _refuse_unsafe(member, len(content))
                match = re.fullmatch(r"((?:.*/)?[^./]+)\.([^/]+)", member.name)
                if not member.isreg() or not match:
                    continue
                file = archive.extractfile(member)
                cells = _cells(match[2].lower(), member.name, file.read() if file else b"")
                # an object in a .json is no image: its path would be read from the folder
                is_image = PurePosixPath(member.name).suffix.lower() in IMAGES
                (images if is_image else others).update(cells)
                row = rows.setdefault(match[1], {})
                if twice := sorted(row.keys() & cells.keys()):
                    raise ValueError(f"{twice[0]!r} twice in the sample {match[1]}")
                row |= cells
    except (tarfile.TarError, EOFError, OverflowError) as error:
        raise ValueError(str(error) or type(error).__name__) from error
    if not images:
        raise ValueError("no image in it")
    if both := sorted(images & others):
        raise ValueError(f"{both[0]!r} as an image and as a field of a .json")
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


def read_npz(
    content: bytes, split: str | None, own: str, words: Mapping[str, set[str]]
) -> pa.Table:
    """The arrays of one split, side by side.

    ``split``: the one wanted, None for ``own``, which the name of the file says; ``words``: by the
    name of a split its spellings. Raises UnsafeFile for pickled objects, InputError for a split
    that is not there, two arrays of one role and inputs of no known form, ValueError for what is
    no such archive.
    """
    arrays = [(name, *_split_and_role(name, words), array) for name, array in _arrays(content)]
    with_inputs = {one for _, one, role, _ in arrays if role == "x"}
    # without names of splits the whole file is what its own name says
    unnamed = "train" if with_inputs - {None} else own
    splits: dict[str, dict[str, np.ndarray]] = {}
    for name, one, role, array in arrays:
        if one is not None and one not in with_inputs:
            one, role = None, name.lower()  # noqa: PLW2901
        if role in (found := splits.setdefault(one or unnamed, {})):
            came = f"two of {'inputs' if role == 'x' else role!r}, the second {name!r}"
            raise InputError("one array of each role in a split", came, "Take one of them out.")
        found[role] = array
    wanted = next((s for s, known in words.items() if split in known), split) or own
    if splits and wanted not in splits:
        remedy = f"Name one, such as DATA:{next(iter(splits))}."
        raise InputError(f"a split {wanted!r} of the arrays", ", ".join(splits), remedy)
    named = splits.get(wanted, {})
    if "x" not in named:
        raise ValueError(f"no array of inputs (x, images, data), but {', '.join(named) or 'none'}")
    columns: dict[str, list[Any]] = {}
    for name, array in named.items():
        columns |= _inputs(array) if name == "x" else {name: _squeezed(array).tolist()}
    if len({len(cells) for cells in columns.values()}) > 1:
        raise ValueError("arrays of several lengths")
    return _table(columns, {"image"} & columns.keys())


def _split_and_role(name: str, words: Mapping[str, set[str]]) -> tuple[str | None, str]:
    """Of the name of an array the split in it, None without one, and what is left of it."""
    parts = re.split(r"[_.-]", name.lower())
    split = next((s for s, known in words.items() if known & set(parts)), None)
    plain = "_".join(part for part in parts if part not in words.get(split or "", ()))
    return split, ROLES.get(plain, plain)


def _arrays(content: bytes) -> Iterable[tuple[str, np.ndarray]]:
    try:
        archive = zipfile.ZipFile(io.BytesIO(content))
        for entry in archive.infolist():
            if entry.file_size > MOST_RATIO * entry.compress_size + SMALL:
                raise ValueError(f"{entry.filename} of {entry.file_size} bytes once unpacked")
            data = io.BytesIO(archive.read(entry))
            yield entry.filename.removesuffix(".npy"), _array(entry.filename, data)
    except DAMAGED as error:
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
    """Images as PNG, or a column for each number of a row. Raises InputError for others."""
    if x.ndim == 2 and x.dtype.kind in "iufb":  # noqa: PLR2004
        return {f"x{place}": x[:, place].tolist() for place in range(x.shape[1])}
    # channels first
    if x.ndim == 4 and x.shape[3] not in CHANNELS and x.shape[1] in CHANNELS:  # noqa: PLR2004
        x = x.transpose(0, 2, 3, 1)
    if x.ndim == 4 and x.shape[3] == 1:  # noqa: PLR2004
        x = x[..., 0]
    if x.dtype != np.uint8 or x.ndim not in {3, 4} or x.shape[3:] not in {(), (3,)}:
        wanted = "inputs as images in bytes (n, h, w), (n, h, w, 3), (n, 3, h, w), or rows (n, d)"
        raise InputError(wanted, f"{x.dtype} of shape {x.shape}", IN_PYTHON)
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

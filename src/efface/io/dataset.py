"""Records from wherever they lie: files on the disk, or a user's own objects in memory."""

import csv
import hashlib
import io
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import datasets
import torch
from torch import Tensor
from torch.utils.data import DataLoader, IterableDataset
from torch.utils.data import Dataset as TorchDataset

from efface.errors import InputError
from efface.io.checkpoint import some_of
from efface.io.columns import ID_NAMES
from efface.io.features import FeatureSpec
from efface.io.files import read_split
from efface.io.formats import COMMAS, OTHER
from efface.io.preprocessing import Preprocessing
from efface.io.table import Table, table_of, written
from efface.types import Records

X_NAMES = ("pixel_values", "x", "image", "img")
Y_NAMES = ("label", "labels", "y")
FORMS = (
    "Give Records, tensors (x, y) or (x, y, ids), a torch Dataset or DataLoader that yields such, "
    "or a datasets.Dataset with its preprocessing."
)


def load_data(
    spec: str | Path,
    *,
    id_column: str | None = None,
    image_column: str | None = None,
    label_column: str | Sequence[str] | None = None,
    classes: Sequence[str] | None = None,
    num_classes: int | None = None,
) -> Table:
    """Open ``DATA`` or ``DATA:split``; no image is decoded yet.

    Args:
        spec: a table as parquet, arrow or CSV, a folder of them, a folder with one folder of images
            a class, or ``hub:owner/name``; without a split it is train.
        id_column: else ``id``, ``record_id`` or ``file_name``, the image's file name, the row.
        image_column: of images or their paths; else the one of type image, or named so.
        label_column: one, or several of many labels or values; else the one of type class label,
            or named so; of several the one that has as many names as the model has classes.
        classes: the model's class names; labels are renumbered by name.
        num_classes: how many classes the model has, when their names are not known.

    Raises:
        InputError: no such data or column, ids that are not distinct, labels of no kind.
    """
    source = read_split(spec, id_column)
    return table_of(
        source.dataset,
        source=source,
        id_column=id_column,
        image_column=image_column,
        label_column=label_column,
        classes=classes,
        num_classes=num_classes,
    )


def read_ids(path: str | Path, id_column: str | None = None) -> tuple[str, ...]:
    """The ids in a text file (one a line) or a CSV: its column of ids by name, else its first.

    Raises InputError when the file is not there, is not text, or holds no id.
    """
    path = Path(path)
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(
            f"a text file or CSV of ids at {path}",
            type(error).__name__,
            "Write one id a line, UTF-8.",
        ) from error
    if path.suffix.lower() == ".csv":
        rows = [row for row in csv.reader(io.StringIO(text)) if any(row)]
        ids = _column_of_ids(rows, [id_column, *ID_NAMES] if id_column else ID_NAMES)
    else:
        ids = [line.strip() for line in text.splitlines()]
    ids = [identity for identity in ids if identity]
    if not ids:
        raise InputError(f"at least one id in {path}", "none", "Write one id a line.")
    return tuple(ids)


def _column_of_ids(rows: list[list[str]], names: Sequence[str]) -> list[str]:
    head = [cell.strip() for cell in rows[0]] if rows else []
    place = next((head.index(name) for name in names if name in head), None)
    if len(head) == 1 and place is None and set(OTHER.split(head[0])) & set(names):
        raise InputError("ids in a CSV with a column of ids", repr(head[0]), COMMAS)
    below = rows if place is None else rows[1:]
    return [row[place or 0].strip() for row in below if len(row) > (place or 0)]


def content_digests(records: Records) -> tuple[str, ...]:
    """A BLAKE2b digest of each record's input: equal exactly when the inputs are, bit for bit."""
    rows = records.x.detach().cpu().contiguous()
    head = f"{rows.dtype}{tuple(rows.shape[1:])}".encode()
    flat = rows.reshape(len(rows), -1).view(torch.uint8).numpy() if rows.numel() else ()
    return tuple(hashlib.blake2b(head + row.tobytes(), digest_size=16).hexdigest() for row in flat)


def records_of(given: Any, preprocessing: Preprocessing | FeatureSpec | None = None) -> Records:
    """Records out of what a user holds: Records, tensors, a Dataset, a DataLoader.

    Items are (x, y), (x, y, id) or a mapping; x as the model takes it. Whole numbers y are class
    ids (n,) or many labels (n, k) of 0 and 1, floats are values (n,) or (n, d); floats that are
    all 0 or 1 could be either and are refused: give ``y.long()`` for labels. A
    ``datasets.Dataset`` needs the ``preprocessing``. Ids that are not given are the numbers of the
    items.
    Raises InputError for anything else, and when an item does not fit the others.
    """
    if isinstance(given, Records):
        return given
    _refuse_streams(given)
    if isinstance(given, Table):
        return given.records(None, _needed(preprocessing))
    if isinstance(given, datasets.Dataset):
        return table_of(given).records(None, _needed(preprocessing))
    if isinstance(given, tuple | list) and given and isinstance(given[0], Tensor):
        return _from_items([given], batched=True)
    if isinstance(given, DataLoader):
        return _from_loader(given)
    if isinstance(given, TorchDataset):
        return _from_items(list(_items(given)), batched=False)
    raise InputError("records", type(given).__name__, FORMS)


def _refuse_streams(given: Any) -> None:
    """A stream has no record that could be named again, and a dictionary more than one split."""
    if isinstance(given, datasets.DatasetDict | datasets.IterableDatasetDict):
        raise InputError(
            "one split",
            f"a {type(given).__name__} of {', '.join(map(str, given))}",
            f"Give one of them, such as data[{next(iter(given), 'train')!r}].",
        )
    data = given.dataset if isinstance(given, DataLoader) else given
    if isinstance(data, datasets.IterableDataset | IterableDataset):
        raise InputError(
            "records that can be asked for by number",
            f"a stream, {type(data).__name__}",
            "Cache it: load_dataset without streaming, datasets.Dataset.from_generator, or "
            "tensors (x, y, ids).",
        )


def _needed(preprocessing: Preprocessing | FeatureSpec | None) -> Preprocessing | FeatureSpec:
    if preprocessing is None:
        raise InputError(
            "the preprocessing that turns images or rows into inputs",
            "none",
            "Give preprocessing=Preprocessing(mean, std, size) of images, or Features(columns).",
        )
    return preprocessing


def _items(given: TorchDataset) -> Iterator[Any]:
    for row in range(len(given)):  # type: ignore[arg-type]
        yield given[row]


def _from_loader(loader: DataLoader) -> Records:
    """Every item that the loader's sampler names, numbered as its data set numbers it."""
    with torch.random.fork_rng(devices=[]):
        if loader.batch_sampler is None:
            return _from_items(list(loader), batched=loader.batch_size is not None)
        batches = [list(rows) for rows in loader.batch_sampler]
        if loader.drop_last and sum(map(len, batches)) < len(list(loader.sampler)):
            raise InputError(
                "a loader of all its records", "drop_last=True", "Make it with drop_last=False."
            )
        parts = [loader.collate_fn([loader.dataset[row] for row in rows]) for rows in batches]
    rows = [str(row) for batch in batches for row in batch]
    return _from_items(parts, batched=True, ids=rows)


def _from_items(items: list[Any], *, batched: bool, ids: Sequence[str] = ()) -> Records:
    """Join (x, y), (x, y, id) and mappings, each of one record or of a batch."""
    parts = [_x_y_id(item) for item in items]
    if not parts:
        raise InputError("at least one record", "none", FORMS)
    x, y = ([_tensor(part[place]) for part in parts] for place in (0, 1))
    if any(tensor.shape[batched:] != x[0].shape[batched:] for tensor in x):
        raise InputError(
            "inputs of one shape", some_of({str(tuple(t.shape)) for t in x}), "Resize them."
        )
    if any(tensor.shape[batched:] != y[0].shape[batched:] for tensor in y):
        raise InputError(
            "as many labels in each record",
            f"labels of shape {some_of(dict.fromkeys(str(tuple(t.shape)) for t in y))}",
            "Give 0 or 1 for each label that the model knows.",
        )
    named = [part[2] for part in parts if part[2] is not None]
    if named:
        ids = [written(i) for part in named for i in (_listed(part) if batched else [part])]
    join = torch.cat if batched else torch.stack
    return _checked(join(x), join(y), tuple(ids))


def _x_y_id(item: Any) -> tuple[Any, Any, Any]:
    if isinstance(item, Mapping):
        x, y, identity = (
            next((item[name] for name in names if name in item), None)
            for names in (X_NAMES, Y_NAMES, ID_NAMES)
        )
        if x is None or y is None:
            raise InputError(
                f"one of {', '.join(X_NAMES)} and one of {', '.join(Y_NAMES)} in each item",
                f"the keys {', '.join(map(str, item))}",
                FORMS,
            )
        return x, y, identity
    if isinstance(item, tuple | list) and len(item) in {2, 3}:
        return item[0], item[1], item[2] if len(item) > 2 else None  # noqa: PLR2004
    raise InputError("items (x, y) or (x, y, id)", type(item).__name__, FORMS)


def _tensor(value: Any) -> Tensor:
    try:
        return torch.as_tensor(value)
    except (TypeError, ValueError, RuntimeError) as error:
        raise InputError(
            "inputs and labels as tensors or numbers",
            type(value).__name__,
            "Add a transform such as torchvision.transforms.ToTensor with the model's Normalize.",
        ) from error


def _listed(ids: Any) -> list[Any]:
    return ids.tolist() if isinstance(ids, Tensor) else list(ids)


def _checked(x: Tensor, y: Tensor, ids: tuple[str, ...]) -> Records:
    """Records out of tensors that hold what their names say."""
    if not x.is_floating_point() or x.ndim < 2:  # noqa: PLR2004
        raise InputError(
            "inputs x as the model takes them: floating point, one row a record",
            f"{x.dtype} of shape {tuple(x.shape)}",
            "Normalise images as in training before you hand them over.",
        )
    if len(x) != len(y) or len(ids) not in {0, len(x)}:
        raise InputError(
            "as many labels and ids as inputs",
            f"{len(x)} inputs, {len(y)} labels, {len(ids)} ids",
            "Give one label and, if any, one id for each record.",
        )
    if len(set(ids)) != len(ids):
        raise InputError("ids that each stand once", "some that repeat", "Make them distinct.")
    return Records(x=x.detach().cpu(), y=_labels(y.detach().cpu()), ids=ids)


def _labels(y: Tensor) -> Tensor:
    """Classes and many labels as whole numbers, values as float32: what ``Records`` tells apart."""
    if y.ndim not in {1, 2} or y.is_complex():
        raise InputError(
            "labels y: class ids (n,), many labels (n, k) of 0 and 1, or float values (n,), (n, d)",
            f"{y.dtype} of shape {tuple(y.shape)}",
            "Other tasks need Records(…, adapter=efface.task.own_outputs(…)).",
        )
    coins = bool(((y == 0) | (y == 1)).all())
    if y.is_floating_point():
        if coins and len(y):
            raise InputError(
                "labels y as whole numbers, or values",
                "0 and 1 as broken numbers, which could be either",
                "Give y.long() for many labels or one sigmoid unit, y.argmax(1) for one-hot rows "
                "of classes, or Records(x, y) for values.",
            )
        return y.float()
    if y.ndim > 1 and not coins:
        raise InputError(
            "many labels y, each 0 or 1",
            some_of(sorted(set(y.flatten().tolist()) - {0, 1})),
            "Give class ids as (n,), such as y[:, 0], or values as y.float().",
        )
    return y.to(torch.int64)

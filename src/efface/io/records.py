"""Records out of what a Python user holds: tensors, a Dataset, a DataLoader, a datasets.Dataset."""

import hashlib
import sys
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader, IterableDataset
from torch.utils.data import Dataset as TorchDataset

from efface.errors import InputError, abbreviate
from efface.io.data import DataSource, id_as_text
from efface.io.features import FeatureSpec
from efface.io.images import Preprocessing
from efface.types import Records

# the names of inputs, labels and ids in items that are mappings
KEYS = (("pixel_values", "x", "image", "img"), ("label", "labels", "y"))
ID_KEYS = ("id", "record_id", "file_name", "filename")
FORMS = (
    "Give Records, tensors (x, y) or (x, y, ids), a torch Dataset or DataLoader that yields such, "
    "or a datasets.Dataset with its preprocessing."
)


def content_digests(records: Records) -> tuple[str, ...]:
    """A BLAKE2b digest of each record's input: equal exactly when the inputs are, bit for bit."""
    rows = records.x.detach().cpu().contiguous()
    head = f"{rows.dtype}{tuple(rows.shape[1:])}".encode()
    flat = rows.reshape(len(rows), -1).view(torch.uint8).numpy() if rows.numel() else ()
    return tuple(hashlib.blake2b(head + row.tobytes(), digest_size=16).hexdigest() for row in flat)


def as_records(given: Any, preprocessing: Preprocessing | FeatureSpec | None = None) -> Records:
    """Records out of Records, tensors, a Dataset or a DataLoader.

    Items are (x, y), (x, y, id) or a mapping; x as the model takes it. Integers y are class ids
    (n,) or multilabel (n, k) of 0 and 1, floats are values (n,) or (n, d); floats that are all 0 or
    1 could be either and are refused: give ``y.long()`` for labels. A ``datasets.Dataset`` needs
    the ``preprocessing``. Ids that are not given are the numbers of the items.
    Raises InputError for anything else, and when an item does not fit the others.
    """
    if isinstance(given, Records):
        return given
    _refuse_streams(given)
    if _is_from_datasets(given, "Dataset"):
        given = DataSource.from_dataset(given)
    if isinstance(given, DataSource):
        if preprocessing is None:
            wanted = "the preprocessing that turns images or rows into inputs"
            remedy = "Give preprocessing=Preprocessing(mean, std, size) or FeatureSpec(columns)."
            raise InputError(wanted, "none", remedy)
        return given.records(None, preprocessing)
    if isinstance(given, tuple | list) and given and isinstance(given[0], Tensor):
        return _join([given], batched=True)
    if isinstance(given, DataLoader):
        return _from_loader(given)
    if isinstance(given, TorchDataset):
        return _join([given[row] for row in range(len(given))], batched=False)  # type: ignore[arg-type]
    raise InputError("records", type(given).__name__, FORMS)


def _is_from_datasets(value: Any, *names: str) -> bool:
    # whoever holds an object of datasets has imported it; nobody else should pay for its import
    datasets = sys.modules.get("datasets")
    return datasets is not None and isinstance(value, tuple(getattr(datasets, n) for n in names))


def _refuse_streams(given: Any) -> None:
    """A record of a stream cannot be named again, and a dictionary holds more than one split."""
    if _is_from_datasets(given, "DatasetDict", "IterableDatasetDict"):
        came = f"a {type(given).__name__} of {', '.join(map(str, given))}"
        remedy = f"Give one of them, such as data[{next(iter(given), 'train')!r}]."
        raise InputError("one split", came, remedy)
    data = given.dataset if isinstance(given, DataLoader) else given
    if isinstance(data, IterableDataset) or _is_from_datasets(data, "IterableDataset"):
        raise InputError(
            "records with random access",
            f"a stream, {type(data).__name__}",
            "Cache it: load_dataset without streaming, datasets.Dataset.from_generator, or "
            "tensors (x, y, ids).",
        )


def _from_loader(loader: DataLoader) -> Records:
    """Every item that the loader's sampler names, numbered as its data set numbers it."""
    with torch.random.fork_rng(devices=[]):  # a sampler draws from the global generator
        if loader.batch_sampler is None:
            return _join(list(loader), batched=loader.batch_size is not None)
        batches = [list(rows) for rows in loader.batch_sampler]
        if loader.drop_last and sum(map(len, batches)) < len(list(loader.sampler)):
            remedy = "Make it with drop_last=False."
            raise InputError("a loader of all its records", "drop_last=True", remedy)
        parts = [loader.collate_fn([loader.dataset[row] for row in rows]) for rows in batches]
    return _join(parts, batched=True, ids=[str(row) for batch in batches for row in batch])


def _join(items: list[Any], *, batched: bool, ids: Sequence[str] = ()) -> Records:
    """Join (x, y), (x, y, id) and mappings, each of one record or of a batch."""
    parts = [_unpack(item) for item in items]
    if not parts:
        raise InputError("at least one record", "none", FORMS)
    tensors = [[_as_tensor(part[place]) for part in parts] for place in (0, 1)]
    shapes = [list(dict.fromkeys(tuple(t.shape) for t in column)) for column in tensors]
    if len({shape[batched:] for shape in shapes[0]}) > 1:
        raise InputError("inputs of one shape", abbreviate(shapes[0]), "Resize them.")
    if len({shape[batched:] for shape in shapes[1]}) > 1:
        wanted, came = "as many labels in each record", f"labels of shape {abbreviate(shapes[1])}"
        raise InputError(wanted, came, "Give 0 or 1 for each label that the model knows.")
    if given := [part[2] for part in parts if part[2] is not None]:
        listed = [part.tolist() if isinstance(part, Tensor) else part for part in given]
        ids = [id_as_text(i) for part in listed for i in (part if batched else [part])]
    x, y = ((torch.cat if batched else torch.stack)(column) for column in tensors)
    return _checked(x, y, tuple(ids))


def _unpack(item: Any) -> tuple[Any, Any, Any]:
    """Input, label and id (None where there is none) of an item."""
    if isinstance(item, Mapping):
        keys = [next((k for k in names if k in item), None) for names in (*KEYS, ID_KEYS)]
        if keys[0] is None or keys[1] is None:
            wanted = " and ".join(f"one of {', '.join(names)}" for names in KEYS) + " in each item"
            raise InputError(wanted, f"the keys {', '.join(map(str, item))}", FORMS)
        return item[keys[0]], item[keys[1]], item.get(keys[2])
    if isinstance(item, tuple | list) and len(item) in {2, 3}:
        return item[0], item[1], item[2] if len(item) > 2 else None  # noqa: PLR2004
    raise InputError("items (x, y) or (x, y, id)", type(item).__name__, FORMS)


def _as_tensor(value: Any) -> Tensor:
    try:
        return torch.as_tensor(value)
    except (TypeError, ValueError, RuntimeError) as error:
        raise InputError(
            "inputs and labels as tensors or numbers",
            type(value).__name__,
            "Add a transform such as torchvision.transforms.ToTensor with the model's Normalize.",
        ) from error


def _checked(x: Tensor, y: Tensor, ids: tuple[str, ...]) -> Records:
    """Records out of tensors that hold what their names say."""
    if not x.is_floating_point() or x.ndim < 2:  # noqa: PLR2004
        wanted = "inputs x as the model takes them: floating point, one row a record"
        remedy = "Normalise images as in training before you pass them."
        raise InputError(wanted, f"{x.dtype} of shape {tuple(x.shape)}", remedy)
    if len(x) != len(y) or len(ids) not in {0, len(x)}:
        came = f"{len(x)} inputs, {len(y)} labels, {len(ids)} ids"
        remedy = "Give one label and, if any, one id for each record."
        raise InputError("as many labels and ids as inputs", came, remedy)
    if len(set(ids)) != len(ids):
        raise InputError("unique ids", "some that repeat", "Make them unique.")
    return Records(x=x.detach().cpu(), y=_as_labels(y.detach().cpu()), ids=ids)


def _as_labels(y: Tensor) -> Tensor:
    """Class ids and multilabel as int64, values as float32: what ``Records`` tells apart."""
    if y.ndim not in {1, 2} or y.is_complex():
        raise InputError(
            "labels y: class ids (n,), multilabel (n, k) of 0 and 1, or float values (n,), (n, d)",
            f"{y.dtype} of shape {tuple(y.shape)}",
            "Other tasks need Records(…, task=efface.task.custom(…)).",
        )
    binary = bool(((y == 0) | (y == 1)).all())
    if y.is_floating_point():
        if binary and len(y):
            raise InputError(
                "labels y as integers, or values",
                "0 and 1 as floats: ambiguous",
                "Give y.long() for multilabel or one sigmoid unit, y.argmax(1) for one-hot rows "
                "of classes, or Records(x, y) for values.",
            )
        return y.float()
    if y.ndim > 1 and not binary:
        came = abbreviate(sorted(set(y.flatten().tolist()) - {0, 1}))
        remedy = "Give class ids as (n,), such as y[:, 0], or values as y.float()."
        raise InputError("multilabel y, each 0 or 1", came, remedy)
    return y.to(torch.int64)

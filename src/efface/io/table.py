"""A table of images with labels and ids: rows by id, class or expression, records for a model."""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import datasets
import numpy as np
import pyarrow as pa
import torch

from efface.errors import InputError, UnknownRecords
from efface.io.checkpoint import some_of
from efface.io.columns import Columns, find_columns, nearest
from efface.io.expression import select
from efface.io.files import Source
from efface.io.pixels import pixels_of
from efface.io.preprocessing import Preprocessing
from efface.types import Records

BATCH = 1000


@dataclass(frozen=True, eq=False)
class Table:
    """n records that are still files: nothing is decoded before it is asked for.

    ``labels``: (n,) class ids, in the order of ``classes``, -1 where there is none; ``ids``: n
    distinct strings; ``source``: the files that it came from, None for a table in memory.
    """

    dataset: datasets.Dataset
    columns: Columns
    labels: np.ndarray[Any, np.dtype[np.int64]]
    classes: tuple[str, ...] | None
    ids: tuple[str, ...]
    source: Source | None = None

    def __len__(self) -> int:
        return len(self.ids)

    @cached_property
    def digest(self) -> str:
        """SHA-256 of the files; empty for a table in memory."""
        return self.source.digest() if self.source else ""

    @property
    def num_classes(self) -> int:
        """How many classes have a name or, where none has, the highest class id and one."""
        return len(self.classes) if self.classes else int(self.labels.max(initial=-1)) + 1

    def rows_of(self, ids: Iterable[str]) -> list[int]:
        """The rows of these ids, in their order, each once. Raises UnknownRecords, naming all."""
        places = {identity: row for row, identity in enumerate(self.ids)}
        wanted = list(dict.fromkeys(ids))
        if unknown := [identity for identity in wanted if identity not in places]:
            kind = repr(self.columns.id) if self.columns.id else "file name or row number"
            raise UnknownRecords(
                f"ids that the data hold (by {kind}, such as {self.ids[0]!r})",
                f"{len(unknown)} unknown: {', '.join(unknown)}",
                "Name the split that holds them, as in DATA:test, or give --id-column.",
            )
        return [places[identity] for identity in wanted]

    def rows_where(self, expression: str) -> list[int]:
        """The rows of which an expression such as ``label=dog and age>=30`` is true."""
        return np.flatnonzero(select(expression, self.dataset)).tolist()

    def class_id(self, name: str) -> int:
        """The number of a class by its name or, where there are no names, by its number."""
        known = self.classes or tuple(str(label) for label in sorted(set(self.labels.tolist())))
        if name not in known:
            raise InputError(f"a class of {some_of(known)}", repr(name), nearest(name, known))
        return known.index(name) if self.classes else int(name)

    def rows_of_class(self, name: str) -> list[int]:
        """The rows with this label."""
        return np.flatnonzero(self.labels == self.class_id(name)).tolist()

    def nearly_whole_classes(self, rows: Sequence[int], share: float = 0.95) -> tuple[str, ...]:
        """Classes of which these rows hold at least this share (and ten records)."""
        everywhere, here = Counter(self.labels.tolist()), Counter(self.labels[list(rows)].tolist())
        whole = [k for k, count in here.items() if count >= max(10, share * everywhere[k])]
        return tuple(self.classes[k] if self.classes else str(k) for k in sorted(whole))

    def records(self, rows: Sequence[int] | None, preprocessing: Preprocessing) -> Records:
        """These rows (None: all) as the model takes them.

        Raises InputError when an image is unreadable: what was not read is not forgotten.
        """
        records, unreadable = self.readable(rows, preprocessing)
        if unreadable:
            raise InputError(
                "images that can be read",
                f"{len(unreadable)} that cannot: {', '.join(unreadable)}",
                "Nothing was changed. Mend these images, or leave their ids out of the request.",
            )
        return records

    def readable(
        self, rows: Sequence[int] | None, preprocessing: Preprocessing
    ) -> tuple[Records, tuple[str, ...]]:
        """As ``records``, but unreadable images are left out and their ids listed."""
        rows = list(range(len(self)) if rows is None else rows)
        if unlabelled := [self.ids[row] for row in rows if self.labels[row] < 0]:
            raise InputError(
                f"a label for each record in {self.columns.label!r}",
                f"none for {some_of(unlabelled)}",
                "Leave these records out, or give them labels.",
            )
        x, read = self._decoded(rows, preprocessing)
        kept = [row for row, fine in zip(rows, read, strict=True) if fine]
        lost = tuple(self.ids[row] for row, fine in zip(rows, read, strict=True) if not fine)
        return Records(
            x=x,
            y=torch.from_numpy(self.labels[kept]),
            ids=tuple(self.ids[row] for row in kept),
            low=preprocessing.low,
            high=preprocessing.high,
        ), lost

    def _decoded(
        self, rows: Sequence[int], preprocessing: Preprocessing
    ) -> tuple[torch.Tensor, list[bool]]:
        """Inputs of the readable rows, and which rows those are."""
        images = _undecoded(self.dataset, self.columns.image)
        channels, size = len(preprocessing.mean), preprocessing.size
        root = self.source.root if self.source else None
        names = ("size", "resize", "interpolation", "squash")
        scaled = {name: getattr(preprocessing, name) for name in names}
        x, filled, read = torch.empty(0), 0, []
        for start in range(0, len(rows), BATCH):
            raw = images[list(rows[start : start + BATCH])][self.columns.image]
            found = [pixels_of(r, root=root, channels=channels, **scaled) for r in raw]
            read += [pixels is not None for pixels in found]
            if fine := [pixels for pixels in found if pixels is not None]:
                if not filled:
                    x = torch.empty(len(rows), *fine[0].shape)
                _refuse_other_shapes(fine, tuple(x.shape[1:]))
                x[filled : filled + len(fine)] = preprocessing(torch.from_numpy(np.stack(fine)))
                filled += len(fine)
        return x[:filled] if filled else torch.zeros(0, channels, size or 1, size or 1), read


def table_of(
    dataset: datasets.Dataset,
    *,
    source: Source | None = None,
    image_column: str | None = None,
    label_column: str | None = None,
    id_column: str | None = None,
    classes: Sequence[str] | None = None,
    num_classes: int | None = None,
) -> Table:
    """Find the columns, number labels as the model does, and see that ids are distinct.

    ``classes`` and ``num_classes`` are the model's. Raises InputError when a column is not to be
    found, an id stands twice, or class names do not fit the model's.
    """
    dataset = dataset.with_format(None)
    num_classes = num_classes if classes is None else len(classes)
    columns = find_columns(
        dataset.features,
        image=image_column,
        label=label_column,
        identity=id_column,
        num_classes=num_classes,
    )
    labels, own = _labels(dataset, columns.label)
    labels, names = _as_the_model_numbers(labels, own, classes, num_classes)
    return Table(dataset, columns, labels, names, _ids(dataset, columns), source)


def _undecoded(dataset: datasets.Dataset, column: str) -> Any:
    """The image column as the files it holds."""
    if not isinstance(dataset.features[column], datasets.Image):
        return dataset.select_columns([column])
    return dataset.select_columns([column]).cast_column(column, datasets.Image(decode=False))


def _refuse_other_shapes(images: Iterable[np.ndarray], shape: tuple[int, ...]) -> None:
    if other := [image.shape for image in images if image.shape != shape]:
        raise InputError(
            "images of one size", f"{shape[1:]} and {other[0][1:]}", "Give the size with --size."
        )


def _labels(dataset: datasets.Dataset, column: str) -> tuple[np.ndarray, tuple[str, ...] | None]:
    """Class ids (-1 for none) and the names of the classes, if they have any."""
    kind, values = dataset.features[column], dataset[column][:]
    if isinstance(kind, datasets.ClassLabel):
        names = tuple(kind.names)
    elif all(value is None or isinstance(value, str) for value in values):
        names = tuple(sorted({value for value in values if value is not None}))
        values = [None if value is None else names.index(value) for value in values]
    else:
        names = None
    if not all(value is None or isinstance(value, int) for value in values):
        raise InputError(
            f"class names or whole numbers in {column!r}",
            str(kind),
            "Name one with --label-column.",
        )
    return np.array([-1 if value is None else value for value in values], dtype=np.int64), names


def _as_the_model_numbers(
    labels: np.ndarray,
    own: tuple[str, ...] | None,
    classes: Sequence[str] | None,
    num_classes: int | None,
) -> tuple[np.ndarray, tuple[str, ...] | None]:
    """Labels renumbered by name where the model names its classes."""
    if own is None or (classes is None and num_classes in {None, len(own)}):
        return labels, own if classes is None else tuple(classes)
    if classes is None:
        raise InputError(
            f"the {num_classes} classes of the model",
            f"{len(own)} class names: {some_of(own)}",
            "Without the model's own class names the numbers cannot be matched: give data with all "
            "classes, or with labels as numbers.",
        )
    if strange := [name for name in own if name not in classes]:
        raise InputError(
            f"class names that the model knows: {some_of(classes)}",
            some_of(strange),
            "Rename the classes of the data, or choose another --label-column.",
        )
    numbers = np.array([*(list(classes).index(name) for name in own), -1], dtype=np.int64)
    return numbers[labels], tuple(classes)


def _ids(dataset: datasets.Dataset, columns: Columns) -> tuple[str, ...]:
    """From the id column, else the names of the image files, else the numbers of the rows."""
    if columns.id is None:
        return _file_names(dataset, columns.image) or tuple(map(str, range(len(dataset))))
    ids = dataset[columns.id][:]
    if missing := [str(row) for row, identity in enumerate(ids) if identity is None]:
        raise InputError(
            f"an id in each row of {columns.id!r}", f"none in row {some_of(missing)}", "Add them."
        )
    ids = tuple(map(str, ids))
    if twice := [identity for identity, count in Counter(ids).items() if count > 1]:
        raise InputError(
            f"ids in {columns.id!r} that each stand once",
            f"more than once: {some_of(twice)}",
            "Make them distinct, or name another column with --id-column.",
        )
    return ids


def _file_names(dataset: datasets.Dataset, column: str) -> tuple[str, ...]:
    """The names that the images had as files; empty when one has none or two share one."""
    kind = dataset.features[column]
    if not isinstance(kind, datasets.Image):
        return ()
    table: pa.Table = dataset.select_columns([column]).with_format("arrow")[:]
    paths = [p for chunk in table[column].chunks for p in chunk.field("path").to_pylist()]
    return tuple(paths) if None not in paths and len(set(paths)) == len(paths) else ()

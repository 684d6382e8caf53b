"""A data set with labels and ids: rows by id, class or expression, records for a model.

``load_data`` opens files, or a table in memory, and ``as_records`` takes what else a Python user
holds: tensors, arrays, a torch Dataset, a DataLoader; in ``open_rows`` rows of all these are named
alike. Columns are found by their type and the usual names, or given; between two candidates nothing
is guessed. ``read_ids`` and ``read_record_weights`` read the lists that go with a request.
"""

import csv
import hashlib
import io
import logging
import re
import sys
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, IterableDataset, Subset

from efface.display import from_csv_cell
from efface.errors import InputError, UnknownRecords, abbreviate, did_you_mean
from efface.io.features import (
    AMBIGUOUS,
    USE_COMMAS,
    FeatureSpec,
    Spec,
    arrow_column,
    unknown_column,
)
from efface.io.files import read_text
from efface.io.folder import Folder
from efface.io.images import UNREADABLE, Inputs, read_images
from efface.task import MIN_VALUES, regression, require_multiclass
from efface.types import Records

# datasets, pyarrow and pandas are loaded when a table is: they take longer than torch
if TYPE_CHECKING:
    import datasets

LOG = logging.getLogger(__name__)

Name = str | None

IMAGE_NAMES = ("image", "img")
PATH_NAMES = ("image_path", "path", "file_name", "filename")
LABEL_NAMES = ("label", "labels", "fine_label", "target", "class")
ID_NAMES = ("id", "record_id", "file_name", "filename")
UNLABELLED = "has no label"

# the end of sample_id, image-key, PassengerId and ID, and not that of paid or monkey; what pandas
# makes of its index
LIKE_AN_ID = re.compile(
    r"(^|[\W_]|(?<=[a-z0-9])(?=[A-Z]))(?i:id|uid|uuid|key)$"
    r"|^(Unnamed: 0|index|__index_level_0__)?$"
)
UNNAMED_INDEX = "__index_level_0__"
# the names of inputs, labels and ids in items that are mappings
INPUT_KEYS = ("pixel_values", "image", "images", "img", "x", "input", "inputs", "features")
LABEL_KEYS = ("label", "labels", "y", "target", "targets", "class")
ID_KEYS = (*ID_NAMES, "ids")
FORMS = "Give Records, (x, y[, ids]), a Dataset, a DataLoader, or a table with preprocessing."
AS_TUPLES = "Let the items be (x, y) or (x, y, id)."
GIVE_PREPROCESSING = "Give preprocessing=Preprocessing(mean, std, size) or FeatureSpec(columns)."
NO_MATCH = "A value is a whole cell, upper and lower case count, and there are no patterns: write "
NO_MATCH += "the ids that match one into a file for --ids."
WORDS_OR_INTEGERS = {"string", "large_string", "int64"}
# more are hardly classes
MOST_VALUES = 20
FIX_OR_OMIT = "Nothing was changed. Fix them, or omit their ids from the request."


@dataclass(frozen=True)
class Columns:
    """Names of columns.

    ``images``: those that could hold the image, one where it is clear; ``label``: one, or several
    of multilabel or regression; ``id`` None: records have no column of their own for it; ``index``:
    those that were an index of pandas, where nothing else names the records.
    """

    images: tuple[str, ...]
    label: tuple[str, ...]
    id: str | None
    known: tuple[str, ...]
    index: tuple[str, ...] = ()

    @property
    def image(self) -> str:
        """The column of the image. Raises InputError when there is none, or more than one."""
        rows = "" if self.images else " A tabular model needs --feature-spec FILE.json."
        return _only("image", self.images, self.known, f"Name it with --image-column.{rows}")

    @property
    def like_ids(self) -> tuple[str, ...]:
        """Columns that by their names could hold ids, though they were not chosen."""
        used = {self.id, *self.images, *self.label}
        like = (n for n in self.known if n in self.index or LIKE_AN_ID.search(n))
        return tuple(name for name in like if name not in used)


def find_columns(
    dataset: "datasets.Dataset",
    image: Name,
    label: Sequence[str],
    identity: Name,
    num_classes: int | None,
) -> Columns:
    """What is given, else what the types say, else the usual names.

    Of several label columns the one with ``num_classes`` names is taken.
    Raises InputError when a column is not there, or more than one could be the label or the id.
    """
    from datasets import ClassLabel, Image

    features: Any = dataset.features
    for name in (image, *label, identity):
        if name is not None and name not in features:
            raise unknown_column(name, features)
    known = tuple(features)
    # types are reliable, names are a convention
    images = [n for n in known if isinstance(features[n], Image) or n in IMAGE_NAMES]
    images = [image] if image else images or [name for name in PATH_NAMES if name in features]
    if not label:
        found = [name for name in known if isinstance(features[name], ClassLabel)]
        if len(found) > 1:
            found = [n for n in found if len(features[n].names) == num_classes] or found
        # a column of that name which has no such type could be it as well
        named = (n for n in LABEL_NAMES if n in features)
        found += [name for name in named if not isinstance(features[name], ClassLabel)]
        few = "" if found else _with_few_values(dataset)
        label = [_only("label", found, known, f"Name it with --label-column.{few}")]
    if identity is None and (found := [name for name in ID_NAMES if name in features]):
        # a file has a name besides its id
        others = [name for name in found if name not in PATH_NAMES] or found[:1]
        identity = _only("id", others, known, "Name it with --id-column.")
    return Columns(tuple(images), tuple(label), identity, known)


def _with_few_values(dataset: "datasets.Dataset") -> str:
    """A hint: the columns that could be labels."""
    counts = {}
    for name, kind in dataset.features.items():
        if getattr(kind, "dtype", "") in {"bool"} | WORDS_OR_INTEGERS:
            counts[name] = len(arrow_column(dataset, name).drop_null().unique())
    few = [
        name for name, count in counts.items() if 1 < count <= min(MOST_VALUES, len(dataset) // 2)
    ]
    return f" Of few values: {abbreviate(few)}." if few else ""


def _only(what: str, found: Sequence[str], known: Sequence[str], remedy: str) -> str:
    if len(found) == 1:
        return found[0]
    came = f"{', '.join(found)}: ambiguous" if found else f"the columns {', '.join(known)}"
    raise InputError(f"one column of the table that holds the {what}", came, remedy)


@dataclass(frozen=True, eq=False)
class DataSource:
    """n records that are still files: nothing is decoded before it is read.

    ``labels``: (n,) class ids, in the order of ``classes``, -1 for none; (n, k) of 0 and 1, -1 for
    none; or (n,) or (n, d) floats, nan for none; ``classes``: names of the classes, or of the
    labels of multilabel, if they have any; ``ids``: n distinct strings; ``folder``: what it was
    read from, None for a data set in memory; ``notes``: how the labels were read, where it could be
    otherwise; ``items``: the same rows where they give inputs themselves (a transform), else None.
    """

    dataset: "datasets.Dataset"
    columns: Columns
    labels: np.ndarray
    classes: tuple[str, ...] | None
    ids: tuple[str, ...]
    folder: Folder | None = None
    notes: tuple[str, ...] = ()
    items: Any = None

    def __len__(self) -> int:
        return len(self.ids)

    @cached_property
    def digest(self) -> str:
        """SHA-256 over names and contents of the files; empty for a data set in memory.

        Images that a table names are among them.
        """
        if not self.folder:
            return ""
        images = (_paths(self.dataset, name, stored=False) for name in self.columns.images)
        return self.folder.digest(path for paths in images for path in paths if path)

    @property
    def kind(self) -> str:
        """``multiclass``, ``multilabel`` or ``regression``."""
        if self.labels.dtype.kind == "f":
            return "regression"
        return "multilabel" if self.labels.ndim > 1 else "multiclass"

    @property
    def num_classes(self) -> int:
        """How many classes have a name or, where none has, the highest class id and one."""
        require_multiclass(self.kind)
        return len(self.classes) if self.classes else int(self.labels.max(initial=-1)) + 1

    @property
    def has_names_in_text(self) -> bool:
        """Whether the labels are names, and the table itself does not number them."""
        kind = self.dataset.features[self.columns.label[0]]
        words = getattr(getattr(kind, "feature", kind), "dtype", "") in {"string", "large_string"}
        return words and self.classes is not None

    @property
    def ids_are_row_numbers(self) -> bool:
        """Whether nothing else names the records."""
        return self.columns.id is None and self.ids == tuple(map(str, range(len(self))))

    @property
    def numbered(self) -> bool:
        """Whether equal ids of two data sets may be different records: nobody gave these."""
        # the numbers that pandas gave a table, of which this is a part
        if self.columns.id in self.columns.index and self.columns.id == UNNAMED_INDEX:
            return "int" in getattr(self.dataset.features[UNNAMED_INDEX], "dtype", "")
        return self.ids_are_row_numbers

    def rows_of(self, ids: Iterable[str]) -> list[int]:
        """The rows of these ids, in their order, each once.

        Raises UnknownRecords, naming all, and InputError for row numbers where a column could hold
        the ids.
        """
        # every unknown id is listed: a request with forty wrong ones needs one answer
        places = {identity: row for row, identity in enumerate(self.ids)}
        requested = list(dict.fromkeys(ids))
        if unknown := [identity for identity in requested if identity not in places]:
            kind = repr(self.columns.id) if self.columns.id else "file name"
            kind, known = ("row number", ()) if self.ids_are_row_numbers else (kind, self.ids)
            wanted = f"ids that the data hold (by {kind}, such as {self.ids[0]!r})"
            came = f"{len(unknown)} unknown: {', '.join(unknown)}"
            raise UnknownRecords(wanted, came, self._found_in(unknown) or _spell_as(known, unknown))
        # a 3 in a column sample_id is another record than row 3, and both are there
        like = self.columns.like_ids if requested and self.ids_are_row_numbers else ()
        if like := [name for name in like if self.dataset[name][:] != [*range(len(self))]]:
            wanted, came = "an id column instead of row numbers", f"{like[0]!r}, not chosen"
            remedy = "Name it with --id-column, in Python load_data(…, id_column=…), "
            raise InputError(wanted, came, f"{remedy}or rename it to 'id'.")
        return [places[identity] for identity in requested]

    def _found_in(self, names: Sequence[str]) -> str:
        """A remedy: the one column in which all of these stand; empty where there is none."""
        found = {}
        for name in {*self.columns.known} - {self.columns.id, *self.columns.label}:
            if getattr(self.dataset.features[name], "dtype", "") in WORDS_OR_INTEGERS:
                values = set(map(str, arrow_column(self.dataset, name).to_pylist()))
                found |= {name: len(values)} if values.issuperset(names) else {}
        if len(found) != 1:
            return ""
        [(name, count)] = found.items()
        where = f'name records by --where "{name}={names[0]}"'
        column = (
            f"give --id-column {name}, in Python load_data(…, id_column={name!r}), or let items "
        )
        column += "of a Dataset hold it under the key 'id'"
        each = f"All {len(names)} stand" if len(names) > 1 else "It stands"
        return f"{each} in the column {name!r}: {column if count == len(self) else where}."

    def rows_where(self, expression: str) -> list[int]:
        """The rows of which an expression such as ``label=dog and age>=30`` is true."""
        from efface.io.tables import select_rows

        return np.flatnonzero(select_rows(expression, self.dataset)).tolist()

    def rows_of_class(self, name: str | int) -> list[int]:
        """The rows with this label. Raises InputError where records have no one class."""
        return np.flatnonzero(self.labels == self.class_id(name)).tolist()

    def class_id(self, name: str | int) -> int:
        """The id of a class by its name or, where no class is called so, by its number.

        An integer is a number, whatever the names. Raises InputError for neither, and for a name
        of two classes.
        """
        require_multiclass(self.kind)
        places = [place for place, known in enumerate(self.classes or ()) if known == name]
        if len(places) == 1:
            return places[0]
        if places:
            came = f"{name!r}, the name of the classes {abbreviate(places)}"
            remedy = f"Give its number, such as --forget-class {places[-1]}, and labels as numbers."
            raise InputError("a class that has its name alone", came, remedy)
        numbers = range(len(self.classes)) if self.classes else sorted(set(self.labels.tolist()))
        if str(name) not in map(str, numbers):
            known = self.classes or tuple(map(str, numbers))
            remedy = did_you_mean(str(name), known)
            raise InputError(f"a class of {abbreviate(known)}", repr(name), remedy)
        return int(name)

    def requested_rows(self, request: Mapping[str, Any]) -> tuple[list[int], tuple[int, ...]]:
        """The rows of a request, and the classes that it removes altogether.

        ``request``: ``ids`` (a path), ``where`` and the name of a class under a third name; one of
        them is not None. Raises InputError otherwise.
        """
        given = {name: value for name, value in request.items() if value is not None}
        if len(given) != 1:
            flags = {name: f"--{name.replace('_', '-')}" for name in request}
            came = " and ".join(flags[name] for name in given) or "none"
            join = " To join them list all ids in one file, or write --where with 'or'."
            remedy = "Give one." + join * bool(given)
            raise InputError(f"one of {', '.join(flags.values())}", came, remedy)
        [(way, value)] = given.items()
        if way == "ids":
            return self.rows_of(read_ids(value, self.columns.id)), ()
        if way == "where":
            if rows := self.rows_where(value):
                return rows, ()
            wanted, came = (
                "an expression that is true of a record",
                f"none of {len(self)} by {value}",
            )
            raise InputError(wanted, came, NO_MATCH)
        return self.rows_of_class(value), (self.class_id(value),)

    def nearly_whole_classes(self, rows: Sequence[int], share: float = 0.95) -> tuple[str, ...]:
        """Classes of which these rows hold at least this share (and ten records)."""
        if self.kind != "multiclass":
            return ()
        totals, counts = Counter(self.labels.tolist()), Counter(self.labels[list(rows)].tolist())
        # below ten records a class may be whole by accident
        whole = [k for k, count in counts.items() if count >= max(10, share * totals[k])]
        return tuple(self.classes[k] if self.classes else str(k) for k in sorted(whole))

    def records(
        self,
        rows: Sequence[int] | None,
        preprocessing: Spec | None,
        read: Callable[[int], Any] = lambda _: None,
    ) -> Records:
        """These rows (None: all) as the model takes them; no ``preprocessing`` where ``items`` are.

        ``read`` is called with how many more were read.

        Raises InputError when one is unreadable or has no label: what is not read is not forgotten.
        """
        records, unreadable = self.readable(rows, preprocessing, read)
        if unlabelled := [i for i, reason in unreadable.items() if reason == UNLABELLED]:
            came = f"none in {', '.join(self.columns.label)} for {abbreviate(unlabelled)}"
            raise InputError("a label for each record", came, "Omit these records, or label them.")
        if unreadable:
            bad = [i if why == UNREADABLE else f"{i} ({why})" for i, why in unreadable.items()]
            came = f"{len(bad)} unreadable: {', '.join(bad)}"
            items = preprocessing.items if preprocessing else "items"
            raise InputError(f"readable {items}", came, FIX_OR_OMIT)
        return records

    def readable(
        self,
        rows: Sequence[int] | None,
        preprocessing: Spec | None,
        read: Callable[[int], Any] = lambda _: None,
    ) -> tuple[Records, dict[str, str]]:
        """The readable and labelled rows, and by the id of any other what is wrong with it."""
        # half a label is none: all columns must be there
        y = self.labels.reshape(len(self), -1)
        known = np.isfinite(y) if self.kind == "regression" else y >= 0
        present = np.array(known.all(axis=1))
        rows = list(range(len(self)) if rows is None else rows)
        labelled = [row for row in rows if present[row]]
        if preprocessing is None:
            inputs = self._inputs(labelled)
        elif isinstance(preprocessing, FeatureSpec):
            inputs = preprocessing.inputs(self.dataset, labelled)
            read(len(labelled))
        else:
            image = self.columns.image
            inputs = read_images(self.dataset, image, labelled, preprocessing, self.folder, read)
        reasons = dict(zip(labelled, inputs.errors, strict=True))
        readable = [row for row in labelled if reasons[row] is None]
        errors = {self.ids[row]: reasons.get(row, UNLABELLED) for row in rows}
        task = None
        # values are judged at the scale of the whole table; of a few rows it is not known here
        if self.kind == "regression" and present.sum() >= MIN_VALUES:
            std = y[present].astype(np.float64).std(0, ddof=1)
            task = regression(scale=[float(value) or 1.0 for value in std])
        ids, labels = tuple(self.ids[row] for row in readable), self.labels[readable]
        records = Records(
            inputs.x,
            torch.from_numpy(labels),
            ids,
            inputs.low,
            inputs.high,
            task,
            numbered=self.numbered,
        )
        return records, {identity: error for identity, error in errors.items() if error}

    def _inputs(self, rows: Sequence[int]) -> Inputs:
        """What the items hold themselves."""
        if self.items is None:
            raise InputError("the preprocessing of images or rows", "none", GIVE_PREPROCESSING)
        x = _stack([_input_of(self.items[row]) for row in rows], "inputs", "Resize them.")
        _refuse_raw(x)
        return Inputs(x, [None] * len(x), x.min(), x.max())


def load_data(
    data: Any,
    *,
    id_column: str | None = None,
    image_column: str | None = None,
    label_column: str | Sequence[str] | None = None,
    classes: Sequence[str] | None = None,
    num_classes: int | None = None,
) -> DataSource:
    """Open ``DATA`` or ``DATA:split``, or a data set in memory; no image is decoded yet.

    Args:
        data: a table as parquet, arrow or CSV, a folder of them, a folder with one folder of images
            a class, or ``hub:owner/name``; without a split it is train. Or a table in memory: a
            ``datasets.Dataset``, a DataFrame of pandas or polars, an arrow table.
        id_column: else ``id``, ``record_id`` or ``file_name``, the image's file name, the row.
        image_column: of images or their paths; else the one of type image, or named so.
        label_column: one, or several of multilabel or regression; else the one of type class label,
            or named so; of several the one that has as many names as the model has classes.
        classes: the model's class names; labels are renumbered by name.
        num_classes: how many classes the model has, when their names are not known.

    Raises:
        InputError: no such data or column, ids that are not unique, labels of no kind.
    """
    from efface.io.tables import in_memory, read_labels, read_split

    text_columns = (id_column,) if id_column else ID_NAMES
    index: tuple[str, ...] = ()
    if isinstance(data, str | Path):
        dataset, folder = read_split(data, text_columns)
    else:
        (dataset, index), folder = in_memory(data), None
    if not len(dataset):
        raise InputError("at least one record in the data", "none", "Check the path and the split.")
    label = [label_column] if isinstance(label_column, str) else label_column or ()
    num_classes = num_classes if classes is None else len(classes)
    columns = find_columns(dataset, image_column, label, id_column, num_classes)
    labels, names = read_labels(dataset, columns.label, classes, num_classes)
    # no index names files, and tables in memory have no folder
    if index and columns.id is None and not _file_names(dataset, columns.images, None):
        columns = replace(columns, id=_unique(dataset, index), index=index)
    ids = _read_ids_of(dataset, columns, folder.root if folder else None)
    notes = tuple(_label_notes(dataset.features[columns.label[0]], columns, names, classes))
    items = None if folder else _items_with_inputs(data)
    return DataSource(dataset, columns, labels, names, ids, folder, notes, items)


def _label_notes(kind: Any, columns: Columns, names: Any, classes: Any) -> Iterator[str]:
    """What was decided of the labels that neither the model nor the data say."""
    column = repr(columns.label[0])
    if len(columns.label) == 1 and names and classes is None:
        yield f"The model does not name its classes; {column} has them as {', '.join(names)}."
    if names is None and getattr(kind, "dtype", "") in {"string", "large_string"}:
        yield f"The text in {column} was read as class numbers."


def _read_ids_of(
    dataset: "datasets.Dataset", columns: Columns, root: Path | None
) -> tuple[str, ...]:
    """From the id column, else the names of the image files, else the row numbers."""
    if columns.id is None:
        names = _file_names(dataset, columns.images, root)
        return names or tuple(map(str, range(len(dataset))))
    import pyarrow as pa

    # undecoded: a stranger's column of type image, audio or video would open what its cells name
    cells = arrow_column(dataset, columns.id)
    if pa.types.is_nested(cells.type):
        wanted, came = f"ids as text or integers in {columns.id!r}", f"{cells.type!s:.80}"
        raise InputError(wanted, came, "Name another --id-column.")
    cells = cells.to_pylist()
    empty = [cell is None or (isinstance(cell, float) and np.isnan(cell)) for cell in cells]
    if any(empty):
        came = f"none in row {abbreviate(np.flatnonzero(empty))}"
        raise InputError(f"an id in each row of {columns.id!r}", came, "Add them.")
    ids = tuple(map(id_as_text, cells))
    if columns.id in PATH_NAMES:
        ids = tuple(_file_name(name, root) for name in ids)
    if repeated := [identity for identity, count in Counter(ids).items() if count > 1]:
        wanted, came = f"unique ids in {columns.id!r}", f"duplicates: {abbreviate(repeated)}"
        raise InputError(wanted, came, "Make them unique, or name another --id-column.")
    return ids


def _unique(dataset: "datasets.Dataset", index: Sequence[str]) -> str | None:
    """The one column of an index of pandas, None where it does not tell the rows apart."""
    if len(index) > 1:
        return None
    cells = arrow_column(dataset, index[0])
    return index[0] if len(cells.unique()) == len(cells) and not cells.null_count else None


def _file_names(
    dataset: "datasets.Dataset", images: Sequence[str], root: Path | None
) -> tuple[str, ...]:
    """The names that the images had as files; empty when one has none or two share one."""
    if len(images) != 1:
        return ()
    paths = _paths(dataset, images[0])
    names = tuple(_file_name(path, root) for path in paths if path is not None)
    return names if len(set(names)) == len(dataset) else ()


def _paths(dataset: "datasets.Dataset", image: str, *, stored: bool = True) -> list[str | None]:
    """The paths in a column of images; empty where it is of another type.

    Without ``stored`` None for an image that the table itself holds.
    """
    import datasets

    kind, cells = dataset.features[image], arrow_column(dataset, image)
    if isinstance(kind, datasets.Image):
        paths = [path for part in cells.chunks for path in part.field("path").to_pylist()]
        if stored:
            return paths
        held = [one for part in cells.chunks for one in part.field("bytes").is_valid().to_pylist()]
        return [None if here else path for path, here in zip(paths, held, strict=True)]
    return cells.to_pylist() if getattr(kind, "dtype", None) in {"string", "large_string"} else []


def _file_name(path: str, root: Path | None) -> str:
    """The one spelling of a file: its path in the folder of the data, with / between.

    As far as the data know it: containers that store the images keep the last part alone.
    """
    name = PurePosixPath(path.replace("\\", "/"))
    if root and name.is_relative_to(root.absolute()):
        name = name.relative_to(root.absolute())
    return str(name)


def _spell_as(ids: Sequence[str], unknown: Sequence[str]) -> str:
    """A remedy: the id of the same file where an unknown one has other folders or another end."""
    similar: dict[str, list[str]] = defaultdict(list)
    for identity in ids:
        similar[_stem(identity)].append(identity)
    for name in unknown:
        same, inside = similar.get(_stem(name), []), re.split(r"[\\/]", name)
        # images/dog/1.png is dog/1.png of the folder images, and there may be a cat/1.png
        ends = ["/".join(inside[place:]) for place in range(1, len(inside))]
        same = [end for end in ends if end in same][:1] or same
        if len(same) == 1:
            return f"Write ids as the data have them: {same[0]!r} and not {name!r}."
    return "Name their split (DATA:test), or give --id-column."


def _stem(identity: str) -> str:
    return re.sub(r"\.[A-Za-z0-9]{1,5}$", "", re.split(r"[\\/]", identity)[-1]).lower()


def id_as_text(identity: Any) -> str:
    """An id as people write it: bytes are text, and 7.0 is 7.

    Raises InputError for bytes that are not text.
    """
    if isinstance(identity, float) and identity.is_integer():
        # pandas makes 7.0 of a 7 as soon as one is missing
        return str(int(identity))
    if not isinstance(identity, bytes):
        return str(identity)
    try:
        return identity.decode()
    except UnicodeDecodeError as error:
        wanted, came = "ids as text or integers", f"bytes that are not text: {identity.hex()[:40]}"
        raise InputError(wanted, came, "Write them as text (identity.hex()).") from error


def read_ids(path: str | Path, id_column: str | None = None) -> tuple[str, ...]:
    """The ids in a text file (one a line), or in the column of ids of a CSV.

    The column is ``id_column`` (that of the data) where the CSV has it, else the one with a usual
    name. Raises InputError when the file is not there, is not text, holds no id, or has no column
    of ids or several, or a line without one.
    """
    path = Path(path)
    text = read_text(path, f"a text file or CSV of ids at {path}", "Write one id a line, UTF-8.")
    if path.suffix.lower() == ".csv":
        rows = [row for row in _csv_rows(path, text) if any(map(str.strip, row))]
        # as exclude.csv has them
        ids = list(map(from_csv_cell, _id_column(path, rows, id_column))) if rows else []
    else:
        ids = [line.strip() for line in text.splitlines() if line.strip()]
    if not ids:
        raise InputError(f"at least one id in {path}", "none", "Write one id a line.")
    return tuple(ids)


def _csv_rows(path: Path, text: str) -> list[list[str]]:
    """The cells of each line. Raises InputError for what the module csv does not read."""
    try:
        return list(csv.reader(io.StringIO(text)))
    # a cell of more than 128 KiB
    except csv.Error as error:
        raise InputError(f"a CSV file at {path}", str(error), USE_COMMAS) from error


def _id_column(path: Path, rows: list[list[str]], id_column: str | None) -> list[str]:
    """The cells of the one column of ids, that has a name."""
    head = [cell.strip() for cell in rows[0]]
    names = (id_column,) if id_column in head else ID_NAMES
    places = [place for place, name in enumerate(head) if name in names]
    if len(places) != 1:
        # with another separator the whole line is one name
        if len(head) == 1 and set(re.split(r"[;\t|]", head[0])) & set(names):
            raise InputError("ids in a CSV with a column of ids", repr(head[0]), USE_COMMAS)
        # pandas writes its row numbers as a first column without a name
        came = abbreviate(name or "one without a name" for name in head)
        wanted = f"one column {id_column or 'id'!r} in {path}"
        remedy = "Rename the column of ids to it, give --id-column where the data have that name "
        remedy += "too, or write one id a line in a text file."
        raise InputError(wanted, f"the columns {came}", remedy)
    [place] = places
    ids = [row[place].strip() if len(row) > place else "" for row in rows[1:]]
    if "" in ids:
        came = f"none in row {ids.index('') + 1}"
        raise InputError(f"an id in each row of {path}", came, "Add it, or remove the row.")
    return ids


def read_record_weights(path: Path) -> dict[str, float]:
    """The columns ``id`` and ``weight`` of a CSV, by id.

    Raises InputError for a file that is not there, lacks a column, names a record twice, or has a
    weight that is no number.
    """
    text = read_text(path, f"a CSV of weights at {path}", "Columns id and weight, UTF-8.")
    weights: dict[str, float] = {}
    head, *rows = [row for row in _csv_rows(path, text) if row] or [[]]
    for row in (dict(zip(head, cells, strict=False)) for cells in rows):
        name, cell = from_csv_cell(row.get("id", "").strip()), row.get("weight", "").strip()
        try:
            weight = float(cell)
        except ValueError:
            weight = None
        if not name or weight is None or name in weights:
            came = f"{name!r} twice" if name in weights else f"id {name!r} and weight {cell!r}"
            wanted = f"under the header id,weight unique ids and numbers in {path}"
            raise InputError(wanted, came, "Write one line a record.")
        weights[name] = weight
    if not weights:
        raise InputError(f"at least one weight in {path}", "none", "Write a line for each record.")
    return weights


# Records of a Python user


def content_digests(records: Records) -> tuple[str, ...]:
    """A BLAKE2b digest of each record's input: equal exactly when the inputs are, bit for bit."""
    rows = records.x.detach().cpu().contiguous()
    # the dtype and the shape are hashed too: equal bytes may be other numbers
    head = f"{rows.dtype}{tuple(rows.shape[1:])}".encode()
    flat = rows.reshape(len(rows), -1).view(torch.uint8).numpy() if rows.numel() else ()
    return tuple(hashlib.blake2b(head + row.tobytes(), digest_size=16).hexdigest() for row in flat)


def as_records(
    given: Any, preprocessing: Spec | None = None, classes: Sequence[str] | None = None
) -> Records:
    """Records out of Records, tensors, arrays, items, a Dataset, a DataLoader, or a table.

    Items are (x, y), (x, y, id) or a mapping with a usual name of each; x as the model takes it.
    Integers y are class ids (n,) or multilabel (n, k) of 0 and 1, floats are values (n,) or (n, d);
    floats that are all 0 or 1 could be either and are refused: give ``y.long()`` for labels. A
    table (``datasets.Dataset``, DataFrame) needs the ``preprocessing``, unless its own transform
    gives inputs, and, where its labels are names, the model's ``classes``. Ids that are not given
    are the numbers of the items.
    Raises InputError for anything else, and when an item does not fit the others.
    """
    if isinstance(given, Records):
        return given
    if isinstance(given, DataLoader):
        _refuse_streams(given)
        return _read_collated(given, _loader_rows(given))
    rows = open_rows(given, preprocessing, classes)
    return rows.read(range(rows.size))


@dataclass(frozen=True)
class Rows:
    """Records of any form by their row, read when they are wanted.

    ``size``: how many there are; ``read(rows)``: those as Records; ``source()``: the data that name
    rows by id, class or expression, which may take a pass over all items; ``usable(rows)``: of a
    table those that can be read and have a label, else those.
    """

    size: int
    read: Callable[[Sequence[int]], Records]
    source: Callable[[], DataSource]
    usable: Callable[[Sequence[int]], Records]


def open_rows(given: Any, preprocessing: Spec | None, classes: Sequence[str] | None) -> Rows:
    """The rows of anything that ``as_records`` takes; of a DataLoader those of its data set.

    Raises InputError for anything else, and for a loader that leaves out some of its data set.
    """
    _refuse_streams(given)
    names = classes or class_names(given)
    arrays = isinstance(given, tuple | list) and given and hasattr(given[0], "__array__")
    if arrays or isinstance(given, Mapping):
        given = _join([given], batched=True)
    if isinstance(given, Records):
        ids = None if given.numbered else given.ids
        items = [(None, y, ids and ids[row]) for row, y in enumerate(given.y)]
        return Rows(len(given), given.take, lambda: _scan(items, names), given.take)
    if is_table(given):
        source = given if isinstance(given, DataSource) else _load_ordered(given, classes)
        return Rows(
            len(source),
            lambda rows: source.records(rows, preprocessing),
            lambda: source,
            lambda rows: source.readable(rows, preprocessing)[0],
        )
    if isinstance(given, str | Path):
        raise InputError("records", f"{given!r:.80}", f"Give load_data({str(given)!r:.80}).")
    items, read = given, partial(_read_items, given)
    if isinstance(given, DataLoader):
        items, read = given.dataset, partial(_read_collated, given)
        _refuse_partial(given)
    if not (hasattr(items, "__getitem__") and hasattr(items, "__len__")):
        raise InputError("records", type(given).__name__, FORMS)
    return Rows(len(items), read, lambda: _scan(items, names), read)


def exclude_rows(
    part: Any,
    data: Any,
    rows: Iterable[int] | None,
    preprocessing: Spec | None,
    classes: Sequence[str] | None,
) -> Any:
    """The records of ``part`` but these rows of ``data`` (None: all), if both are of one data set.

    Else ``part`` as it is. By row: a transform that draws makes another input of a record each
    time. Raises InputError where nothing is left.
    """
    if part is None or _base(part) is not _base(data):
        return part
    own = _base_rows(data, preprocessing, classes)
    gone = set(own.values() if rows is None else map(own.__getitem__, rows))
    pairs = _base_rows(part, preprocessing, classes).items()
    kept = [row for row, number in pairs if number not in gone]
    if not kept:
        wanted, remedy = "records besides those to forget in retain and holdout", "Give others."
        raise InputError(wanted, "none", remedy)
    if isinstance(part, DataLoader):
        return _read_collated(part, kept)
    records = open_rows(part, preprocessing, classes).usable(kept)
    if len(records) < len(kept):
        omitted = len(kept) - len(records)
        LOG.warning("%d of %d records that stay cannot be used: omitted.", omitted, len(kept))
    return records


def _base(given: Any) -> Any:
    """The data set under loaders, subsets and names of columns."""
    while True:
        if isinstance(given, DataLoader | Subset):
            given = given.dataset
        elif isinstance(given, DataSource) and given.items is not None:
            given = given.items
        else:
            return given


def _base_rows(
    given: Any, preprocessing: Spec | None, classes: Sequence[str] | None
) -> dict[int, int]:
    """By the rows that ``given`` holds, as ``Rows`` counts them, those of ``_base(given)``."""
    if not isinstance(given, DataLoader | Subset):
        return {row: row for row in range(open_rows(given, preprocessing, classes).size)}
    below = list(_base_rows(given.dataset, preprocessing, classes).values())
    if isinstance(given, DataLoader):
        return {row: below[row] for row in _loader_rows(given)}
    return {row: below[int(number)] for row, number in enumerate(given.indices)}


def _refuse_partial(loader: DataLoader) -> None:
    """A row that the loader leaves out, for validation perhaps, must not be named."""
    drawn, size = len(set(_sampled_rows(loader))), len(loader.dataset)  # type: ignore[arg-type]
    if drawn < size:
        remedy = "Give the data set itself, or a Subset of it."
        came = f"{drawn} of {size}, by its sampler or drop_last"
        raise InputError("a loader of its whole data set, to name rows", came, remedy)


def is_table(given: Any) -> bool:
    """Whether rows have columns: of ``load_data``, datasets, pandas, polars, arrow."""
    kinds = {
        "datasets": "Dataset",
        "pandas": "DataFrame",
        "polars": "DataFrame",
        "pyarrow": "Table",
    }
    return isinstance(given, DataSource) or any(_is_of(p, given, k) for p, k in kinds.items())


def _items_with_inputs(given: Any) -> Any:
    """The data set itself where its items give inputs: by a transform of its own, or as arrays."""
    if not _is_of("datasets", given, "Dataset"):
        return None
    if given.format["type"] == "custom":
        return given
    # by type and not by value: to look at a cell that is an image would open what it names
    lists = ("Sequence", "List", "LargeList", "Array2D", "Array3D", "Array4D", "Array5D")
    kinds = {name: type(kind).__name__ for name, kind in given.features.items()}
    found = [name for name in INPUT_KEYS if kinds.get(name) in lists]
    return given.select_columns(found).with_format("torch") if found else None


def _scan(items: Any, names: Sequence[str] | None) -> DataSource:
    """All of the items but their inputs, as data of which rows can be named.

    Raises InputError where no table can be made of them.
    """
    import datasets

    rows, label, identity = [], "label", None
    for item in (items[row] for row in range(len(items))):
        _, y, name = _unpack(item)
        row = {"label": y} | ({} if name is None else {"id": name})
        if isinstance(item, Mapping):
            x, label, identity = _keys_of(item)
            row = {k: v for k, v in item.items() if k == label or (k != x and not _is_array(v))}
        rows.append({k: v.tolist() if hasattr(v, "tolist") else v for k, v in row.items()})
    try:
        table = datasets.Dataset.from_list(rows)
        # names of classes stand for their numbers in expressions
        known = range(len(names or ()))
        if names and rows and all(type(y := row[label]) is int and y in known for row in rows):
            table = table.cast_column(label, datasets.ClassLabel(names=list(names)))
    except (ValueError, TypeError, KeyError) as error:
        came = str(error).splitlines()[0][:200]
        raise InputError("items with values of one type for each key", came, AS_TUPLES) from error
    return load_data(table, label_column=label, id_column=identity, classes=names)


def _is_array(value: Any) -> bool:
    # not numpy's ndim, which refuses rows of several lengths
    return isinstance(value, list | tuple) or getattr(value, "ndim", 0) > 0


def _load_ordered(given: Any, classes: Sequence[str] | None) -> DataSource:
    """A data set in memory. Raises InputError where nothing says in which order its classes are."""
    source = load_data(given, classes=classes)
    # a part that lacks a class would number the others differently
    if classes is None and source.has_names_in_text:
        came = f"names alone in {source.columns.label[0]!r}"
        remedy = "Give classes=(…) in the model's order, or labels as numbers or ClassLabel."
        raise InputError("the order of the classes", came, remedy)
    return source


def class_names(given: Any) -> tuple[str, ...] | None:
    """The classes that data name in their order: a DataSource, torchvision's data sets, loaders."""
    while not isinstance(names := getattr(given, "classes", None), list | tuple):
        if (given := getattr(given, "dataset", None)) is None:
            return None
    # what renumbers the classes leaves them without names
    return None if getattr(given, "target_transform", None) else tuple(map(str, names))


def _is_of(package: str, value: Any, *names: str) -> bool:
    # whoever holds an object of a package has imported it; nobody else should pay for its import
    module = sys.modules.get(package)
    return module is not None and isinstance(value, tuple(getattr(module, n) for n in names))


def _refuse_streams(given: Any) -> None:
    """A record of a stream cannot be named again, and a dictionary holds more than one split."""
    if _is_of("datasets", given, "DatasetDict", "IterableDatasetDict"):
        came = f"the splits {', '.join(map(str, given))}"
        raise InputError("one split", came, f"Give one: data[{next(iter(given), 'train')!r}].")
    # a record of a stream cannot be named again, before and after
    data = given.dataset if isinstance(given, DataLoader) else given
    if isinstance(data, IterableDataset) or _is_of("datasets", data, "IterableDataset"):
        remedy = "Cache it (datasets.Dataset.from_generator), or give tensors (x, y, ids)."
        raise InputError("records with random access", f"a stream, {type(data).__name__}", remedy)


def _loader_rows(loader: DataLoader) -> list[int]:
    """The rows of its data set, which name the same records tomorrow, in any order.

    Raises InputError for a loader that drops its last ones.
    """
    rows = _sampled_rows(loader)
    if loader.drop_last and len(rows) < len(loader.sampler):  # type: ignore[arg-type]
        raise InputError("all records of a loader", "drop_last=True", "Give drop_last=False.")
    return rows


def _sampled_rows(loader: DataLoader) -> list[int]:
    """What the sampler gives, without a draw from the user's generators."""
    samplers = (loader, loader.sampler, loader.batch_sampler)
    drawn_from = (getattr(one, "generator", None) for one in samplers)
    states = [(one, one.get_state()) for one in drawn_from if isinstance(one, torch.Generator)]
    try:
        # and from the global one
        with torch.random.fork_rng(devices=[]):
            if loader.batch_sampler is None:
                return list(loader.sampler)
            return [row for batch in loader.batch_sampler for row in batch]
    finally:
        for generator, state in states:
            generator.set_state(state)


def _read_collated(loader: DataLoader, rows: Sequence[int]) -> Records:
    """These rows of the loader's data set, put together as the loader does it."""
    size, ids = loader.batch_size, [str(row) for row in rows]
    if loader.batch_sampler is None and size is None:
        parts = [loader.collate_fn(loader.dataset[row]) for row in rows]
        return _join(parts, batched=False, ids=ids)
    batches = [rows[start : start + (size or 1)] for start in range(0, len(rows), size or 1)]
    parts = [loader.collate_fn([loader.dataset[row] for row in batch]) for batch in batches]
    return _join(parts, batched=True, ids=ids)


def _read_items(items: Any, rows: Sequence[int]) -> Records:
    return _join([items[row] for row in rows], batched=False, ids=[str(row) for row in rows])


def _join(items: list[Any], *, batched: bool, ids: Sequence[str] = ()) -> Records:
    """Join (x, y), (x, y, id) and mappings, each of one record or of a batch.

    ``ids``: their numbers, where they have none of their own.
    """
    parts = [_unpack(item) for item in items]
    if not parts:
        raise InputError("at least one record", "none", FORMS)
    x = _stack([part[0] for part in parts], "inputs", "Resize them.", batched=batched)
    y = _stack([part[1] for part in parts], "labels", "Give as many each.", batched=batched)
    if given := [part[2] for part in parts if part[2] is not None]:
        listed = [part.tolist() if hasattr(part, "tolist") else part for part in given]
        ids = [id_as_text(i) for part in listed for i in (part if batched else [part])]
    return _checked(x, y, tuple(ids), numbered=not given)


def _stack(values: list[Any], what: str, remedy: str, *, batched: bool = False) -> Tensor:
    """One tensor of all. Raises InputError where they are none, or of other shapes."""
    column = [_as_tensor(value) for value in values]
    shapes = list(dict.fromkeys(tuple(t.shape) for t in column))
    if len({shape[batched:] for shape in shapes}) > 1:
        raise InputError(f"{what} of one shape", abbreviate(shapes), remedy)
    return (torch.cat if batched else torch.stack)(column)


def _unpack(item: Any) -> tuple[Any, Any, Any]:
    """Input, label and id (None where there is none) of an item."""
    if isinstance(item, Mapping):
        x, y, identity = _keys_of(item)
        return item[x], item[y], None if identity is None else item[identity]
    if isinstance(item, tuple | list) and len(item) in {2, 3}:
        return item[0], item[1], item[2] if len(item) > 2 else None  # noqa: PLR2004
    raise InputError("items (x, y) or (x, y, id)", type(item).__name__, FORMS)


def _input_of(item: Any) -> Any:
    """The input of an item that need not hold a label."""
    return item[_key_of(item, INPUT_KEYS, "an input")] if isinstance(item, Mapping) else item[0]


def _keys_of(item: Mapping[str, Any]) -> tuple[str, str, str | None]:
    """The names of input, label and id in an item. Raises InputError for none, or for two."""
    # a file has a name besides its id
    names = [k for k in ID_KEYS if k in item and k not in PATH_NAMES] or [
        k for k in ID_KEYS if k in item
    ]
    identity = _key_of(item, names, "an id") if names else None
    x, y = _key_of(item, INPUT_KEYS, "an input"), _key_of(item, LABEL_KEYS, "a label")
    return x, y, identity


def _key_of(item: Mapping[str, Any], names: Sequence[str], what: str) -> str:
    found = [name for name in names if name in item]
    # the picture next to its tensor
    found = [name for name in found if not hasattr(item[name], "convert")] or found
    if len(found) == 1:
        return found[0]
    came = f"both {' and '.join(found)}" if found else f"the keys {', '.join(map(str, item))}"
    raise InputError(f"{what} in each item, as one of {', '.join(names)}", came, AS_TUPLES)


def _as_tensor(value: Any) -> Tensor:
    try:
        if isinstance(value, Tensor):
            return value
        # a copy of what must not be written to: pandas and maps of files give such arrays
        value = np.require(value, requirements="W") if hasattr(value, "__array__") else value
        tensor = torch.as_tensor(value)
    except (TypeError, ValueError, RuntimeError) as error:
        wanted, remedy = "inputs and labels as tensors", "Transform them (ToTensor, Normalize)."
        raise InputError(wanted, type(value).__name__, remedy) from error
    # of numpy it is the default, and of hardly any model
    return tensor.float() if tensor.dtype == torch.float64 else tensor


def _refuse_raw(x: Tensor) -> None:
    if not x.is_floating_point() or x.ndim < 2:  # noqa: PLR2004
        wanted = "normalised inputs x as the model takes them: floating point, one row a record"
        raise InputError(wanted, f"{x.dtype} of shape {tuple(x.shape)}", "Normalise images first.")


def _checked(x: Tensor, y: Tensor, ids: tuple[str, ...], *, numbered: bool) -> Records:
    """Records out of tensors that hold what their names say."""
    _refuse_raw(x)
    if len(x) != len(y) or len(ids) not in {0, len(x)}:
        came = f"{len(x)} inputs, {len(y)} labels, {len(ids)} ids"
        raise InputError("a label and, if any, an id for each input", came, "Give all of them.")
    if len(set(ids)) != len(ids):
        raise InputError("unique ids", "some that repeat", "Make them unique.")
    y = _as_labels(y.detach().cpu())
    return Records(x=x.detach().cpu(), y=y, ids=ids, numbered=numbered)


def _as_labels(y: Tensor) -> Tensor:
    """Class ids and multilabel as int64, values as float32: what ``Records`` tells apart."""
    if y.ndim not in {1, 2} or y.is_complex():
        wanted = "labels y: class ids (n,), multilabel (n, k) of 0 and 1, or values (n,), (n, d)"
        came, remedy = f"{y.dtype} of shape {tuple(y.shape)}", "Other tasks need task.custom(…)."
        raise InputError(wanted, came, remedy)
    # 0.0 and 1.0 may be one-hot classes, multilabel targets or values: a guess would be silent
    binary = bool(((y == 0) | (y == 1)).all())
    if y.is_floating_point():
        if binary and len(y):
            remedy = "Give y.long() (multilabel, binary), y.argmax(1) (one-hot), Records (values)."
            raise InputError("labels y as integers, or values", AMBIGUOUS, remedy)
        return y.float()
    if y.ndim > 1 and not binary:
        other = abbreviate(sorted(set(y.flatten().tolist()) - {0, 1}))
        remedy = "Give y[:, 0], or y.float() for values."
        raise InputError("multilabel y, each 0 or 1", other, remedy)
    return y.to(torch.int64)

"""From a path on the command line to one split of a data set."""

import hashlib
import re
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import datasets

from efface.errors import InputError
from efface.io.columns import ID_NAMES
from efface.io.formats import FORMATS, read_tables
from efface.io.hub import PREFIX, read_hub

SPLIT_WORDS = {
    "train": ("train", "training"),
    "validation": ("validation", "valid", "val", "dev"),
    "test": ("test", "testing", "eval", "evaluation"),
}
"""The words by which ``datasets`` knows a split in the name of a file or a folder."""

IMAGES = frozenset({".bmp", ".gif", ".jpeg", ".jpg", ".png", ".ppm", ".tif", ".tiff", ".webp"})


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


def read_split(spec: str | Path, id_column: str | None = None) -> Source:
    """Read ``DATA`` or ``DATA:split``: a table, a folder of them, one of images, or of the hub.

    In a CSV the cells of ``id_column``, else of the usual columns of ids, stay as written.
    Raises InputError when there is nothing of the kind, no such split, or a damaged file.
    """
    if str(spec).startswith(PREFIX):
        dataset, files = read_hub(str(spec))
        return Source(dataset, _shared(files), files)
    path, split = _path_and_split(str(spec))
    names = (id_column,) if id_column else ID_NAMES
    if path.is_file():
        if split:
            raise InputError(
                f"a folder of which {split!r} is a split",
                f"the file {path}",
                "Leave the split away.",
            )
        return Source(read_tables([path], names), path.parent, (path,))
    seen = [file for file in sorted(path.rglob("*")) if _is_data(file.relative_to(path))]
    found = _of_one_kind(seen, path)
    if not found:
        raise InputError(
            f"files of {', '.join(FORMATS)}, or a folder of images a class",
            f"none in {path}",
            "Check the path.",
        )
    chosen = _split_of(found, path, split)
    if found[0].suffix.lower() in FORMATS:
        return Source(read_tables(chosen, names), path, tuple(chosen))
    _refuse_outsiders(found, path)
    return Source(_image_table(chosen, found, path), path, tuple(chosen))


def _path_and_split(spec: str) -> tuple[Path, str | None]:
    if Path(spec).exists():
        return Path(spec), None
    head, colon, split = spec.rpartition(":")
    if colon and Path(head).exists():
        return Path(head), split
    raise InputError("a file or a folder of data", f"{spec}, which is not there", "Check the path.")


def _is_data(relative: Path) -> bool:
    """Whether no part of the name is hidden or a system's own; ``datasets`` keeps caches nearby."""
    hidden = any(part.startswith((".", "__")) for part in relative.parts)
    return not hidden and not re.fullmatch(r"cache-.*\.arrow", relative.name)


def _of_one_kind(seen: list[Path], root: Path) -> list[Path]:
    """The tables, or the images where there are none. Raises InputError for two kinds.

    Tables beside images may name them, or be a list of ids; of two kinds of tables one may be the
    other, written again.
    """
    kinds: dict[str, list[Path]] = defaultdict(list)
    for file in seen:
        kind = file.suffix.lower()
        if kind in FORMATS or kind in IMAGES:
            kinds[kind if kind in FORMATS else "image"].append(file)
    if len(kinds) > 1:
        order = [*FORMATS, "image"]
        first, second, *_ = (kinds[kind][0] for kind in sorted(kinds, key=order.index))
        raise InputError(
            f"tables of one kind, or images, in {root}",
            f"both, such as {first.relative_to(root)} and {second.relative_to(root)}",
            f"Name the table itself, as in {first}, or put it elsewhere.",
        )
    return next(iter(kinds.values()), [])


def _shared(files: Iterable[Path]) -> Path:
    """The folder of files of the hub: its whole cache, where pictures lie apart from tables."""
    home, folders = Path(datasets.config.HF_CACHE_HOME), {file.parent for file in files}
    inside = all(folder.is_relative_to(home) for folder in folders)
    return home if inside or not folders else next(iter(folders))


def _split_of(files: list[Path], root: Path, split: str | None) -> list[Path]:
    """The files of one split; everything is train where nothing is named."""
    found: dict[str, list[Path]] = defaultdict(list)
    for file in files:
        found[_split_name(file.relative_to(root))].append(file)
    wanted = next((name for name, words in SPLIT_WORDS.items() if split in words), split) or "train"
    if wanted not in found:
        raise InputError(
            f"a split {wanted!r} in {root}",
            f"the splits {', '.join(found)}",
            f"Name one: {root}:{next(iter(found))}.",
        )
    return found[wanted]


def _split_name(relative: Path) -> str:
    """What the name of a table, or the first of two folders around an image, says."""
    table = relative.suffix.lower() in FORMATS
    # train/dog/1.png names a split, train/1.png the class of trains
    places = relative.parts if table else relative.parts[:-2]
    words = {word for place in places for word in re.split(r"[-._ 0-9]+", place.lower())}
    return next((name for name, known in SPLIT_WORDS.items() if words & set(known)), "train")


def _refuse_outsiders(images: Iterable[Path], root: Path) -> None:
    inside = root.resolve()
    for image in images:
        if not image.resolve().is_relative_to(inside):
            raise InputError(
                f"images inside {root}",
                f"{image.relative_to(root)}, a link to {image.resolve()}",
                "Copy the image into the folder.",
            )


def _image_table(chosen: list[Path], images: list[Path], root: Path) -> datasets.Dataset:
    """Columns image, label and file_name; the classes are the folders of all splits, sorted."""
    if bare := [image.name for image in images if image.parent == root]:
        raise InputError(
            f"one folder a class in {root}",
            f"images without a class, such as {bare[0]}",
            "Put each image into a folder named after its class.",
        )
    names = sorted({image.parent.name for image in images})
    columns = {
        # a table's own paths start at its folder; these must not start there twice
        "image": [str(image.absolute()) for image in chosen],
        "label": [image.parent.name for image in chosen],
        "file_name": [image.relative_to(root).as_posix() for image in chosen],
    }
    features = datasets.Features(
        image=datasets.Image(),
        label=datasets.ClassLabel(names=names),
        file_name=datasets.Value("string"),
    )
    return datasets.Dataset.from_dict(columns, features=features)

"""Which columns of a table hold the image, the labels and the id."""

import difflib
import re
from collections.abc import Sequence
from dataclasses import dataclass

import datasets

from efface.errors import InputError

IMAGE_NAMES = ("image", "img")
PATH_NAMES = ("image_path", "path", "file_name", "filename")
LABEL_NAMES = ("label", "labels", "fine_label", "target", "class")
ID_NAMES = ("id", "record_id", "file_name", "filename")

LIKE_AN_ID = re.compile(r"(^|[\W_]|(?<=[a-z0-9])(?=[A-Z]))(?i:id|uid|uuid|key)$")
"""The end of sample_id, image-key, PassengerId and ID, and not that of paid or monkey."""


@dataclass(frozen=True)
class Columns:
    """Names of columns.

    ``images``: those that could hold the image, one where it is clear; ``label``: one, or several
    of many labels or values; ``id`` None: records have no column of their own for it.
    """

    images: tuple[str, ...]
    label: tuple[str, ...]
    id: str | None
    known: tuple[str, ...]

    @property
    def image(self) -> str:
        """The column of the image. Raises InputError when there is none, or more than one."""
        remedy = "Name it with --image-column."
        if not self.images:
            remedy += " For a model of numbers say which columns go in: --features FILE.json."
        return _one("image", self.images, self.known, remedy)

    @property
    def like_ids(self) -> tuple[str, ...]:
        """Columns that by their names could hold ids, though nobody said so."""
        used = {self.id, *self.images, *self.label}
        return tuple(name for name in self.known if LIKE_AN_ID.search(name) and name not in used)


def find_columns(
    features: datasets.Features,
    *,
    image: str | None = None,
    label: Sequence[str] = (),
    identity: str | None = None,
    num_classes: int | None = None,
) -> Columns:
    """What is said, else what the types say, else the usual names; nothing is guessed between two.

    Of several label columns the one with ``num_classes`` names is taken.
    Raises InputError when a column is not there, or more than one could be the label.
    """
    for name in (image, *label, identity):
        if name is not None and name not in features:
            raise InputError(
                f"a column of the table: {', '.join(features)}", repr(name), nearest(name, features)
            )
    known = tuple(features)
    if not label:
        found = _labels(features, num_classes)
        label = [_one("label", found, known, "Name it with --label-column.")]
    return Columns(
        images=(image,) if image else tuple(_images(features)),
        label=tuple(label),
        id=identity or next((name for name in ID_NAMES if name in features), None),
        known=known,
    )


def nearest(word: str, known: Sequence[str] | datasets.Features) -> str:
    """A remedy: the known word that looks most like this one."""
    close = difflib.get_close_matches(word, list(known), n=1)
    return f"Did you mean {close[0]!r}?" if close else "Choose one of these."


def _images(features: datasets.Features) -> list[str]:
    typed = [name for name, kind in features.items() if isinstance(kind, datasets.Image)]
    named = [name for name in IMAGE_NAMES if name in features]
    return typed or named or [name for name in PATH_NAMES if name in features]


def _labels(features: datasets.Features, num_classes: int | None) -> list[str]:
    kinds = {name: k for name, k in features.items() if isinstance(k, datasets.ClassLabel)}
    if len(kinds) > 1:
        fitting = [name for name, kind in kinds.items() if len(kind.names) == num_classes]
        return fitting or list(kinds)
    return list(kinds) or [name for name in LABEL_NAMES if name in features]


def _one(what: str, found: Sequence[str], known: Sequence[str], remedy: str) -> str:
    if len(found) == 1:
        return found[0]
    several = f"{', '.join(found)}, any of which could be meant" if found else "none"
    raise InputError(
        f"one column of the table that holds the {what}",
        several if found else f"the columns {', '.join(known)}",
        remedy,
    )

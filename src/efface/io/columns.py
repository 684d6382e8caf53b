"""Which columns of a table hold the image, the label and the id."""

import difflib
from collections.abc import Sequence
from dataclasses import dataclass

import datasets

from efface.errors import InputError

IMAGE_NAMES = ("image", "img")
LABEL_NAMES = ("label", "labels", "fine_label", "target", "class")
ID_NAMES = ("id", "record_id", "file_name", "filename")


@dataclass(frozen=True)
class Columns:
    """Names of columns; ``id`` None means that records have no column of their own for it."""

    image: str
    label: str
    id: str | None


def find_columns(
    features: datasets.Features,
    *,
    image: str | None = None,
    label: str | None = None,
    identity: str | None = None,
    num_classes: int | None = None,
) -> Columns:
    """What is said, else what the types say, else the usual names; nothing is guessed between two.

    Of several label columns the one with ``num_classes`` names is taken.
    Raises InputError when a column is not there, or more than one could be meant.
    """
    for name in (image, label, identity):
        if name is not None and name not in features:
            raise InputError(
                f"a column of the table: {', '.join(features)}", repr(name), nearest(name, features)
            )
    return Columns(
        image=image or _one("image", _images(features), features),
        label=label or _one("label", _labels(features, num_classes), features),
        id=identity or next((name for name in ID_NAMES if name in features), None),
    )


def nearest(word: str, known: Sequence[str] | datasets.Features) -> str:
    """A remedy: the known word that looks most like this one."""
    close = difflib.get_close_matches(word, list(known), n=1)
    return f"Did you mean {close[0]!r}?" if close else "Choose one of these."


def _images(features: datasets.Features) -> list[str]:
    typed = [name for name, kind in features.items() if isinstance(kind, datasets.Image)]
    return typed or [name for name in IMAGE_NAMES if name in features]


def _labels(features: datasets.Features, num_classes: int | None) -> list[str]:
    kinds = {name: k for name, k in features.items() if isinstance(k, datasets.ClassLabel)}
    if len(kinds) > 1:
        fitting = [name for name, kind in kinds.items() if len(kind.names) == num_classes]
        return fitting or list(kinds)
    return list(kinds) or [name for name in LABEL_NAMES if name in features]


def _one(what: str, found: list[str], features: datasets.Features) -> str:
    if len(found) == 1:
        return found[0]
    several = f"{', '.join(found)}, any of which could be meant" if found else "none"
    raise InputError(
        f"one column of the table that holds the {what}",
        several if found else f"the columns {', '.join(features)}",
        f"Name it with --{what}-column.",
    )

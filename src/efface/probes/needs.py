"""What a probe refuses, in words: records of another kind than it can ask about."""

from efface.errors import InputError
from efface.task import multiclass, task_of
from efface.types import Records


def refuse_without_classes(records: Records) -> None:
    """Raises InputError without records, or unless each has one class of several."""
    if not len(records):
        raise InputError("at least one record", "none", "Give the records to be probed.")
    kind = task_of(records).name
    if kind != multiclass.name:
        raise InputError(
            "records with one class of several, which this probe asks about",
            kind,
            "Leave this probe out, and say that it was not run.",
        )


def refuse_but_images(records: Records) -> None:
    """Raises InputError unless the inputs are images, (n, c, h, w)."""
    if records.x.ndim != 4:  # noqa: PLR2004
        raise InputError(
            "images, (n, c, h, w), which can be flipped and cropped",
            f"inputs of shape {tuple(records.x.shape)}",
            "Use noise or the ball, which serve any inputs.",
        )

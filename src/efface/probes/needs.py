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
        wanted = "records with one class of several, which this probe asks about"
        raise InputError(wanted, kind, "Leave this probe out, and say that it was not run.")


def refuse_but_images(records: Records) -> None:
    """Raises InputError unless the inputs are images, (n, c, h, w)."""
    if records.x.ndim != 4:  # noqa: PLR2004
        wanted = "images, (n, c, h, w), which can be flipped and cropped"
        came = f"inputs of shape {tuple(records.x.shape)}"
        raise InputError(wanted, came, "Use noise or the ball, which serve any inputs.")

"""Refusals before anything happens: a part that a method needs and the split does not have."""

from efface.errors import InputError
from efface.task import task_of
from efface.types import Records, Split

ANEW = "on the command line train again without the records: efface train RECIPE --exclude ids.csv."

NEEDED = {
    "retain": (
        "records that the model was trained on and that stay",
        "Give Split(forget, retain=records), on the command line --retain DATA.",
    ),
    "holdout": (
        "records that the model was never trained on",
        "Give Split(forget, holdout=records), on the command line --holdout DATA.",
    ),
    "forget_classes": (
        "the classes that go altogether",
        "Give Split(forget, forget_classes=(class,)), on the command line --forget-class NAME.",
    ),
    "fresh": (
        "a function that makes an untrained model",
        f"Give Split(forget, fresh=function of a seed); {ANEW}",
    ),
    "train": (
        "the recipe that the model was trained by",
        f"Give Split(forget, train=function of a model, records and a seed); {ANEW}",
    ),
}
"""Of each part that may be needed: what it is, and how it is given."""


def refuse_without(split: Split, method: str, *parts: str) -> None:
    """Raises InputError for the first of these parts that the split does not have."""
    for part in parts:
        given = getattr(split, part)
        if given is None or (not callable(given) and not len(given)):
            what, remedy = NEEDED[part]
            came = (
                "a split without it" if given is None or part == "forget_classes" else "no records"
            )
            raise InputError(f"{part} for {method}: {what}", came, remedy)


def refuse_unless_classes(records: Records, method: str) -> None:
    """Raises InputError unless a record has one class of several: others have no other label."""
    if (kind := task_of(records).name) != "multiclass":
        raise InputError(
            f"one class of several for {method}, which gives records another class",
            kind,
            "Choose a method that gives no labels; `efface methods` lists them.",
        )

"""The settings of a method: read off its signature, checked before anything is done."""

import difflib
import inspect
import math
from typing import Any

from efface.errors import InputError
from efface.methods import METHODS

AUTO = "auto"
"""The word for a method that is left open (``efface.choice``)."""


def checked(
    method: str, *, mislabelled: bool, settings: dict[str, Any], **numbers: Any
) -> dict[str, Any]:
    """The keywords for the method, these and further numbers of the request within their ranges.

    None yet for ``auto``. Raises InputError.
    """
    chosen = {}
    if method != AUTO:
        chosen = settings_of(method, mislabelled=mislabelled, settings=settings)
    check_ranges({**chosen, **numbers})
    return chosen


def settings_of(method: str, *, mislabelled: bool, settings: dict[str, Any]) -> dict[str, Any]:
    """The keywords for the method; unknown ones are refused with the nearest known one."""
    if method not in METHODS:
        raise InputError(
            f"a method out of {', '.join(METHODS)}", repr(method), nearest(method, METHODS)
        )
    known = hyperparameters(method)
    chosen = {name: value for name, value in settings.items() if value is not None}
    for name, value in chosen.items():
        if name not in known:
            raise InputError(
                f"a setting of {method}: {', '.join(known)}", repr(name), nearest(name, known)
            )
        _refuse_kind(name, value, known[name])
    if mislabelled and "mislabelled" in known:
        chosen["mislabelled"] = True
    return chosen


def _refuse_kind(name: str, value: Any, default: Any) -> None:
    """A text where a number belongs would end in a traceback, half a step in one step more."""
    kinds = {bool: "true or false", int: "a whole number", float: "a number"}
    wanted = type(default)
    fits = isinstance(value, int | float) if wanted is float else isinstance(value, wanted)
    if wanted in kinds and (not fits or (wanted is not bool and isinstance(value, bool))):
        raise InputError(f"{kinds[wanted]} for {name}", repr(value), f"Its default is {default}.")


RANGES = {
    "strength": (0.0, math.inf),
    "sigma": (0.0, math.inf),
    "perturbations": (1, math.inf),
    "expected_accuracy": (0.0, 1.0),
    "utility_budget": (0.0, 1.0),
    "learning_rate": (0.0, math.inf),
    "steps": (1, math.inf),
    "epochs": (1, math.inf),
    "momentum": (0.0, 0.9999),
    "weight_decay": (0.0, math.inf),
    "forget_weight": (0.0, 1.0),
    "keep": (0.0, 1.0),
    "penalty": (0.0, math.inf),
    "batch_size": (1, math.inf),
    "averaging": (0.0, 0.9999),
    "selection": (0.0, math.inf),
    "dampening": (0.0, math.inf),
    "max_epochs": (0, math.inf),
    "task_weight": (0.0, math.inf),
    "held_weight": (0.0, math.inf),
    "forget_batch_size": (1, math.inf),
    "retained_share": (0.0, 1.0),
    "retained_per_class": (1, math.inf),
    "noise_records": (1, math.inf),
    "noise_steps": (0, math.inf),
    "noise_rate": (0.0, math.inf),
    "copies": (0, math.inf),
    "repair_rate": (0.0, math.inf),
    "samples_per_class": (1, math.inf),
    "retained_records": (1, math.inf),
    "radius": (0.0, math.inf),
    "damping": (0.0, math.inf),
    "bound": (0.0, math.inf),
    "recovered": (0.0, math.inf),
    "attack_steps": (1, math.inf),
    "doublings": (0, math.inf),
    "decay_every": (1, math.inf),
    "noise_per_class": (1, math.inf),
    "retained_steps": (0, math.inf),
    "impair_epochs": (1, math.inf),
    "repair_epochs": (0, math.inf),
    "adversarials": (1, math.inf),
    "adversarials_per_step": (1, math.inf),
    "rounds": (1, math.inf),
    "generator_steps": (0, math.inf),
    "student_steps": (1, math.inf),
    "threshold": (0.0, 1.0),
    "attention": (0.0, math.inf),
    "generator_rate": (0.0, math.inf),
    "temperature": (0.0, math.inf),
    "trust": (0.0, math.inf),
    "step_size": (0.0, math.inf),
    "settled": (0.0, math.inf),
    "locality": (0.0, math.inf),
    "distortion": (0.0, math.inf),
    "seed": (0, math.inf),
}
"""What a request's numbers may be; a method refuses what only it knows."""


def check_ranges(numbers: dict[str, Any]) -> None:
    """Refuse a number out of its range, or no number at all, by its name. Raises InputError."""
    for name, value in numbers.items():
        low, high = RANGES.get(name, (-math.inf, math.inf))
        if name not in RANGES and (isinstance(value, bool) or not isinstance(value, int | float)):
            continue
        good = isinstance(value, int | float) and math.isfinite(value) and low <= value <= high
        if not good:
            raise InputError(f"{name} from {low} to {high}", repr(value), f"Change {name}.")


def hyperparameters(method: str) -> dict[str, Any]:
    """Name and default of each setting of a method, read off its signature."""
    parameters = inspect.signature(METHODS[method].function).parameters.values()
    given = ("model", "split", "seed", "callback")
    return {p.name: p.default for p in parameters if p.name not in given}


def nearest(word: str, known: Any) -> str:
    """A question with the nearest known word, or a plain remedy."""
    close = difflib.get_close_matches(word, list(known), n=1)
    return f"Did you mean {close[0]!r}?" if close else "Choose one of these."

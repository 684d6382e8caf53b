"""What stands beside the weights in a checkpoint, and which of it may hold the records too."""

import re
from collections.abc import Mapping
from typing import Any

from torch import Tensor

TRAINING_STATE = re.compile(r"optim|sched|scaler|(^|_)ema(_|$)", re.IGNORECASE)

RECORDS = re.compile(
    r"(?<!re)sampler|data_?loader|(^|[_.-])(seen|ids|indices)([_.-]|$)", re.IGNORECASE
)
"""Names of what tells records, or the order in which they came."""


def may_hold_records(name: str, value: Any) -> bool:
    """Whether an entry holds tensors, the state of a training, or lists of records by its names.

    A number is progress, as in ``samples_seen``, and settings are words and numbers.
    """
    told = bool(RECORDS.search(name)) and not isinstance(value, int | float | None)
    return told or bool(TRAINING_STATE.search(name)) or _holds_tensor(value) or _lists(value)


def _holds_tensor(value: Any) -> bool:
    if isinstance(value, Mapping):
        return any(map(_holds_tensor, value.values()))
    if isinstance(value, list | tuple | set):
        return any(map(_holds_tensor, value))
    return isinstance(value, Tensor)


def _lists(value: Any, *, told: bool = False) -> bool:
    """Whether several things stand under a name that tells of records, at any depth."""
    if isinstance(value, Mapping):
        return any(_lists(v, told=told or bool(RECORDS.search(str(k)))) for k, v in value.items())
    if isinstance(value, list | tuple | set):
        return bool(value) and (told or any(map(_lists, value)))
    return False

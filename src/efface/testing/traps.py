"""Traps in the place of what a method says that it does not see: touching one raises."""

import copy
from dataclasses import replace
from typing import Any

import torch

from efface.methods._base import PARTS
from efface.types import Split


class Sprung(AssertionError):
    """The method touched what it says that it does not see."""


class Trap:
    """Stands for a part of a split."""

    def __init__(self, part: str) -> None:
        object.__setattr__(self, "part", part)

    def _sprung(self, *_: object) -> Any:
        raise Sprung(
            f"the method touched {object.__getattribute__(self, 'part')}: leave it alone, or see it"
        )

    __getattribute__ = __len__ = __iter__ = __bool__ = __call__ = __getitem__ = _sprung
    __contains__ = __eq__ = __hash__ = _sprung


def _called(*_: object) -> Any:
    raise Sprung("the method called what it says it does not see")


class TrappedLabels(torch.Tensor):
    """Labels that may be carried along, but whose values may not be looked at."""

    @classmethod
    def __torch_function__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Let through what moves labels, and nothing that reads them."""
        if func.__name__ not in {"__get__", "__len__", "__getitem__", "to", "size", "dim"}:
            raise Sprung(f"the method looked at the labels: {func.__name__}")
        return super().__torch_function__(func, types, args, kwargs)


def trapped(split: Split, reads: frozenset[str]) -> Split:
    """The split with a trap in the place of every part, and of all labels, not in ``reads``."""
    split = copy.copy(split)
    for part in PARTS[1:]:
        where, _, labels = part.partition(" ")
        if part in reads or where not in reads | {part}:
            continue
        given = getattr(split, where)
        if not labels:
            trap = _called if part in {"fresh", "train"} else Trap(part)
            object.__setattr__(split, where, trap)
        elif given is not None:
            kept = replace(given, y=given.y.as_subclass(TrappedLabels))
            object.__setattr__(split, where, kept)
    return split

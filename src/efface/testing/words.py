"""How a broken promise is said, and what a promise looks at in a function or a net."""

import inspect
from collections.abc import Callable

import torch
from docstring_parser import parse
from torch import Tensor, nn


class Broken(AssertionError):
    """A promise that a method does not keep; the text says what was wanted and what came."""


class Refused(Exception):
    """A method refuses by name what it is not made for: no broken promise."""


def expect(kept: bool, wanted: object, came: object) -> None:  # said at each call
    """Raises Broken unless ``kept``."""
    if not kept:
        raise Broken(f"wanted {wanted}; got {came}")


def weights_of(model: nn.Module) -> Tensor:
    """All weights in one row."""
    return torch.cat([weight.detach().reshape(-1) for weight in model.parameters()])


def documented(function: Callable[..., object]) -> set[str]:
    """The names that a docstring explains."""
    return {one.arg_name for one in parse(inspect.getdoc(function) or "").params}

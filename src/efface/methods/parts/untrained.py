"""An untrained model from the request's own function, and a guard that knows no other start."""

import copy

import torch
from torch import nn

from efface.task import device_of
from efface.types import Action, Callback, Split


def untrained(model: nn.Module, split: Split, seed: int) -> nn.Module:
    """``split.fresh(seed)`` where the model is; the host's random numbers are left alone."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        fresh = split.fresh(seed)  # type: ignore[misc]  # refused by the method where there is none
    return fresh.to(device_of(model))


def from_fresh(student: nn.Module, callback: Callback) -> Callback:
    """The watch of a student that starts untrained: a first step taken back leads there again.

    The guard has no good state yet and puts the given model's weights back, which know all that is
    to be forgotten.
    """
    fresh = copy.deepcopy(student.state_dict())

    def after(student: nn.Module, loss: float) -> Action:
        verdict = callback(student, loss)
        if verdict is Action.CONTINUE:
            fresh.clear()
        elif fresh:
            student.load_state_dict(fresh)
        return verdict

    return after

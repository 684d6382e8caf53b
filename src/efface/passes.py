"""Records that go through a model, forward and backward, counted as they go."""

import copy
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from torch import nn


@dataclass(frozen=True)
class Passes:
    """Records that went forward through a model, and backward, each counted once a pass."""

    forward: int
    backward: int


class Counted:
    """A copy of a model that counts the records that go through it, and through its copies."""

    def __init__(self, model: nn.Module) -> None:
        self.forward, self.backward = 0, 0
        self._hook = self._counting()
        self.model = self.watched(copy.deepcopy(model))

    def watched(self, model: nn.Module) -> nn.Module:
        """The same model; what goes through it counts from now on, and through its copies."""
        model.register_forward_hook(self._hook)
        return model

    def released(self, model: nn.Module) -> nn.Module:
        """The same model, a copy of a counted one, counted no longer."""
        hooks = model._forward_hooks  # noqa: SLF001  # the handle is of the model it is a copy of
        for key in [key for key, hook in hooks.items() if hook is self._hook]:
            del hooks[key]
        return model

    @property
    def passes(self) -> Passes:
        """What went through so far."""
        return Passes(self.forward, self.backward)

    def _counting(self) -> Callable[..., None]:
        """A function of its own: a method of this object would be copied with a model."""

        def back(gradient: Any) -> None:
            self.backward += len(gradient)

        def seen(_: nn.Module, inputs: tuple[Any, ...], answer: Any) -> None:
            self.forward += len(inputs[0])
            if answer.requires_grad:
                answer.register_hook(back)

        return seen

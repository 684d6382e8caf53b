"""The model as it is: docs/methods.md, the row that every table of methods begins with.

    θ' = θ

There is no paper and nothing to depart from. In a table it says how far away doing nothing is.
"""

from torch import nn

from efface.methods._base import Memory, register_method
from efface.task import trainable_copy
from efface.types import Callback, Split, no_callback


@register_method(memory=Memory(copies=1, graphs=0))
def baseline(
    model: nn.Module,
    split: Split,  # noqa: ARG001
    *,
    seed: int = 0,  # noqa: ARG001
    callback: Callback = no_callback,  # noqa: ARG001
) -> nn.Module:
    """A copy of the model, not changed; reads nothing else.

    Args:
        model: the given model; it is not changed.
        split: not read.
        seed: draws nothing.
        callback: not called, since there is no step.
    """
    return trainable_copy(model)

"""The model as it is: docs/methods.md, the row that every table of methods begins with.

    θ' = θ

There is no paper and nothing to depart from. In a table it says how far away doing nothing is.
"""

from torch import nn

from efface.adapters import student_of
from efface.types import Split, Watch, carry_on


def baseline(
    model: nn.Module,
    split: Split,  # noqa: ARG001
    *,
    seed: int = 0,  # noqa: ARG001
    watch: Watch = carry_on,  # noqa: ARG001
) -> nn.Module:
    """A copy of the model, not changed; sees nothing else.

    Args:
        model: stays as it is.
        split: not looked at.
        seed: draws nothing.
        watch: not called, since there is no step.
    """
    return student_of(model)

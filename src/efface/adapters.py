"""From (model, batch) to the outputs that methods and scores read: one label of k."""

import copy

import torch
from jaxtyping import Float
from torch import Tensor, nn

from efface.errors import InputError


def logits(model: nn.Module, x: Float[Tensor, " n *features"]) -> Float[Tensor, " n k"]:
    """The model's answer to ``x`` before the softmax, whatever it wraps it in.

    Raises InputError when the answer is not one row of k >= 2 numbers a record.
    """
    if x.ndim == 4:  # noqa: PLR2004
        # convolutions run up to twice as fast on a CPU, and no slower on a GPU
        x = x.contiguous(memory_format=torch.channels_last)
    answer = model(x)
    if not isinstance(answer, Tensor):
        answer = answer.get("logits") if isinstance(answer, dict) else answer[0]
    if not isinstance(answer, Tensor) or answer.ndim != 2 or answer.shape[1] < 2:  # noqa: PLR2004
        shape = tuple(answer.shape) if isinstance(answer, Tensor) else type(answer).__name__
        raise InputError(
            "a classifier that answers with one row of at least two logits a record",
            f"{shape} for {len(x)} records",
            "Wrap the model in a module whose forward returns the logits.",
        )
    return answer


def student_of(model: nn.Module) -> nn.Module:
    """A copy that may change: eval mode, so that buffers stand still; gradients as in ``model``."""
    student = copy.deepcopy(model)
    student.zero_grad(set_to_none=True)
    return student.eval()


def teacher_of(model: nn.Module) -> nn.Module:
    """A copy that is held still: eval mode, no gradients."""
    return student_of(model).requires_grad_(requires_grad=False)


def device_of(model: nn.Module) -> torch.device:
    """Where the model's weights are; the CPU for a model without any."""
    return next((weight.device for weight in model.parameters()), torch.device("cpu"))

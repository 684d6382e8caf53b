"""The head: the last linear layer, whose answers are the model's outputs; and what goes into it."""

from dataclasses import replace

import torch
from jaxtyping import Float
from torch import Tensor, nn

from efface.errors import InputError
from efface.runtime import map_chunks
from efface.task import device_of, frozen_teacher, task_of
from efface.types import Records, Task

ANOTHER = "Choose a method that works on the whole model; `efface methods` lists them."


def head_of(model: nn.Module) -> nn.Linear:
    """The last layer that holds weights, in the order in which the model lists its modules.

    It is that of the model given, not of a copy. Whether its answers are the outputs is seen when a
    record goes through, in ``features_of``. Raises InputError unless it is linear, with weights
    that no other layer uses.
    """
    layers = [one for one in model.modules() if any(True for _ in one.parameters(recurse=False))]
    last = layers[-1] if layers else None
    if not isinstance(last, nn.Linear):
        came = type(last).__name__ if layers else "a model without weights"
        raise _no_head("a linear layer as the last one with weights", came)
    names = [one for one, w in model.named_parameters(remove_duplicate=False) if w is last.weight]
    if len(names) > 1:
        raise _no_head("a last layer with weights of its own", f"one weight as {', '.join(names)}")
    return last


def refuse_frozen(head: nn.Linear) -> None:
    """Raises InputError unless every weight of the head may move."""
    if not all(weight.requires_grad for weight in head.parameters()):
        raise InputError(
            "a last linear layer that may move",
            "a frozen one (requires_grad is False)",
            "Choose trainable 'all' or 'last-layers'.",
        )


def features_of(model: nn.Module, records: Records, *, batch_size: int = 256) -> Records:
    """The records as the head takes them: x is (n, d), the rest as it was; the model is not moved.

    One forward pass a record in eval mode, without gradients. Raises InputError where the head is
    not what ``head_of`` wants, or its answers for these records are not the model's outputs.
    """
    teacher, task = frozen_teacher(model), task_of(records)
    head, device = head_of(teacher), device_of(model)
    seen: list[Tensor] = []
    head.register_forward_pre_hook(lambda _, given: seen.append(given[0]))

    def part(rows: Tensor) -> Float[Tensor, " m d"]:
        seen.clear()
        answer = task.outputs(teacher, records.x[rows].to(device))
        if len(seen) != 1 or seen[0].shape != (len(rows), head.in_features):
            came = f"{len(seen)} calls of it" if len(seen) != 1 else f"{tuple(seen[0].shape)} in it"
            raise _no_head("a last linear layer that each record goes through once", came)
        features = seen[0].clone()
        if not _same(task.outputs(head, features), answer):
            raise _no_head(
                "a last linear layer whose answers are the outputs", "another step after it"
            )
        return features

    with torch.no_grad():
        found = list(map_chunks(part, torch.arange(len(records)), batch_size))
    empty = torch.zeros(0, head.in_features, dtype=head.weight.dtype, device=device)
    return replace(records, x=torch.cat(found) if found else empty, low=None, high=None)


def said(task: Task, answers: Float[Tensor, " n k"]) -> Float[Tensor, " n c"]:
    """The outputs that an adapter reads off a model whose head answers with these rows."""
    return task.outputs(_Echo(answers.dtype), answers)


class _Echo(nn.Module):
    """A model that says again what it is given, in this dtype."""

    def __init__(self, dtype: torch.dtype) -> None:
        super().__init__()
        self.nothing = nn.Parameter(torch.empty(0, dtype=dtype))

    def forward(self, x: Tensor) -> Tensor:
        return x


def _same(one: Tensor, other: Tensor) -> bool:
    return one.shape == other.shape and torch.allclose(one, other, rtol=1e-3, atol=1e-4)


def _no_head(wanted: str, came: str) -> InputError:
    return InputError(wanted, came, ANOTHER)

"""The head: the last linear layer, which computes the model's outputs; and its inputs."""

from dataclasses import replace

import torch
from jaxtyping import Float
from torch import Tensor, nn

from efface.errors import InputError
from efface.runtime import map_chunks
from efface.task import device_of, frozen_teacher, task_of
from efface.types import Records

_REMEDY = "Choose a method that works on the whole model; `efface methods` lists them."


def find_head(model: nn.Module, *, trainable: bool = False) -> nn.Linear:
    """The last layer with weights, in the order in which the model lists its modules.

    It is that of the model given, not of a copy. Whether it computes the outputs shows when a
    record goes through, in ``embed``. Raises InputError unless it is linear, with weights that no
    other layer uses; ``trainable``: also unless none of them is frozen.
    """
    # layers without weights of their own (activations, dropout) do not count
    layers = [one for one in model.modules() if any(True for _ in one.parameters(recurse=False))]
    last = layers[-1] if layers else None
    if not isinstance(last, nn.Linear):
        came = type(last).__name__ if layers else "a model without weights"
        raise InputError("a linear layer as the last one with weights", came, _REMEDY)
    names = [one for one, w in model.named_parameters(remove_duplicate=False) if w is last.weight]
    # tied weights: a step of the head would change another layer too
    if len(names) != 1:
        # weight_norm computes the weight at each pass: what is written to it is lost
        came = f"one weight as {', '.join(names)}" if names else "a weight that is computed"
        raise InputError("a last layer with weights of its own", came, _REMEDY)
    if trainable and not all(weight.requires_grad for weight in last.parameters()):
        wanted, came = "a last linear layer that may move", "a frozen one (requires_grad is False)"
        raise InputError(wanted, came, "Choose trainable 'all' or 'last-layers'.")
    return last


def embed(model: nn.Module, records: Records, *, batch_size: int = 256) -> Records:
    """The records as inputs of the head: x is (n, d), the rest as it was.

    One forward pass a record in eval mode, without gradients; the model is not changed. Raises
    InputError where ``find_head`` does, or the head's outputs are not the model's.
    """
    teacher, task = frozen_teacher(model), task_of(records)
    head, device = find_head(teacher), device_of(model)
    inputs: list[Tensor] = []
    # on the frozen copy: the given model gets no hook
    head.register_forward_pre_hook(lambda _, given: inputs.append(given[0]))

    def part(rows: Tensor) -> Float[Tensor, " m d"]:
        inputs.clear()
        output = task.outputs(teacher, records.x[rows].to(device))
        if len(inputs) != 1 or inputs[0].shape != (len(rows), head.in_features):
            shape = f"{tuple(inputs[0].shape)} in it" if inputs else ""
            came = shape if len(inputs) == 1 else f"{len(inputs)} calls of it"
            wanted = "a last linear layer that each record goes through once"
            raise InputError(wanted, came, _REMEDY)
        # cloned: a model may change its own activations in place
        embeddings = inputs[0].clone()
        # outputs computed from the embeddings must be the model's, or a head's change means nothing
        again = task.outputs(head, embeddings)
        if again.shape != output.shape or not torch.allclose(again, output, rtol=1e-3, atol=1e-4):
            wanted = "a last linear layer whose outputs are the model's"
            raise InputError(wanted, "another step after it", _REMEDY)
        return embeddings

    with torch.no_grad():
        found = list(map_chunks(part, torch.arange(len(records)), batch_size))
    empty = torch.zeros(0, head.in_features, dtype=head.weight.dtype, device=device)
    return replace(records, x=torch.cat(found) if found else empty, low=None, high=None)

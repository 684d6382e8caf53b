"""Boundary expanding, an extra class for the forget records, CVPR 2023: https://arxiv.org/abs/2303.11570.

The head gets one row more, and the forget records are trained to be of that class. Then the row is
removed, and with it what the records were moved into:

    L(θ, w, b) = 1/n_f Σ_{D_f} −log softmax( f(x) ⊕ (w·h(x) + b) )_{K+1},   result: f

h(x) is the input of the last linear layer. w is drawn as the authors draw it (Xavier normal), b
begins at 0. SGD, η 1e-5, momentum 0.9, 10 epochs, batches of 64 are theirs. No label is read.

Departures from their code (TY-LEE-KR/Boundary-Unlearning-Code, boundary_unlearning.py): the row
stands next to the head and not in it, so that the student has the given form at every step (the
same numbers, and a single sigmoid unit gets its third class so, next to 0 and z); only the new row
is drawn; eval mode with frozen buffers, ``training_mode`` is theirs.
"""

import copy

import torch
from jaxtyping import Float
from torch import Tensor, nn

from efface.methods._base import Count, Decay, NonNegative, register_method
from efface.methods._head import embed, find_head
from efface.methods._records import without_labels
from efface.task import task_of, trainable_copy
from efface.training import Schedule, train_epochs
from efface.types import Action, Callback, Records, Split, no_callback


@register_method(reads={"forget"}, classes_only=True)
def boundary_expand(
    model: nn.Module,
    split: Split,
    *,
    strength: NonNegative = 1.0,
    learning_rate: NonNegative = 1e-5,
    momentum: Decay = 0.9,
    epochs: Count = 10,
    batch_size: Count = 64,
    training_mode: bool = False,
    seed: int = 0,
    callback: Callback = no_callback,
) -> nn.Module:
    """Train the forget records into an extra class that is removed afterwards; reads no labels.

    Args:
        model: the given model, whose head is a linear layer; it is not changed.
        split: the inputs of ``forget`` are read, no labels.
        strength: multiplies the learning rate.
        learning_rate: η of SGD, for the student and the new row.
        momentum: of SGD.
        epochs: passes over ``forget``.
        batch_size: records in a step.
        training_mode: dropout is active and BatchNorm's statistics move, as in the source.
        seed: draws the new row and the order, and dropout.
        callback: called after each step, with the student in the given form.

    Raises:
        InputError: a record has not one class of several; the last layer with weights is not
            linear, or its answers are not the model's outputs.
    """
    forget = without_labels(split.forget, task_of(split.forget))
    student = trainable_copy(model)
    embed(student, forget.take([0]))  # refuses a model without a head
    wide = Widened(student, seed=seed)
    optimizer = torch.optim.SGD(wide.parameters(), learning_rate * strength, momentum)
    schedule = Schedule(epochs, batch_size, seed, wide.wrap(callback), training_mode)
    train_epochs(wide, _new_class_loss, forget, optimizer, schedule)
    # the row is dropped: the student never held it
    return student


def _new_class_loss(wide: nn.Module, batch: Records, step: int) -> Tensor:  # noqa: ARG001
    answer = wide(batch)
    return task_of(batch).loss(answer, torch.full_like(batch.y, answer.shape[1] - 1))


MAX_STATES = 8
"""States of the row that are kept: the guard puts back fewer."""


class Widened(nn.Module):
    """A student, and one more output computed from its head's inputs.

    ``wide(batch)`` is (m, k + 1): the student's k outputs and the row's. The student keeps its own
    keys, and nothing of the row is in it.
    """

    def __init__(self, student: nn.Module, *, seed: int) -> None:
        super().__init__()
        weight = find_head(student).weight
        self.student = student
        # made without values: torch's own first weights would move the global random state
        row = nn.Linear(weight.shape[1], 1, device="meta", dtype=weight.dtype)
        self.row = row.to_empty(device=weight.device)
        drawn = torch.randn(1, weight.shape[1], generator=torch.Generator().manual_seed(seed))
        scale = (2 / (weight.shape[0] + 1 + weight.shape[1])) ** 0.5  # Xavier's, of the whole head
        with torch.no_grad():
            self.row.weight.copy_(drawn).mul_(scale)
            self.row.bias.zero_()

    def forward(self, batch: Records) -> Float[Tensor, " m wide"]:  # noqa: D102
        inputs: list[Tensor] = []
        hook = find_head(self.student).register_forward_pre_hook(lambda _, x: inputs.append(x[0]))
        with hook:  # removed at the end, also by an error
            answer = task_of(batch).outputs(self.student, batch.x)
        return torch.cat([answer, self.row(inputs[-1])], 1)

    def wrap(self, callback: Callback) -> Callback:
        """The guard's callback sees the student; where it restores that, the row is restored."""
        head = find_head(self.student)

        def state() -> tuple[Tensor, dict[str, Tensor]]:
            return head.weight.detach().clone(), copy.deepcopy(self.row.state_dict())

        known = [state()]

        def after(_: nn.Module, loss: float) -> Action:
            action = callback(self.student, loss)
            if action is Action.CONTINUE:
                known.append(state())
                # the first state is kept for ever: the guard may restore the given model
                del known[1:-MAX_STATES]
            else:  # the guard may have restored the state of several steps ago
                back = (row for weight, row in reversed(known) if torch.equal(weight, head.weight))
                self.row.load_state_dict(next(back, known[0][1]))
            return action

        return after

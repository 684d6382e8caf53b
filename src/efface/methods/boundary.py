"""Boundary shrink and boundary expanding, CVPR 2023: https://arxiv.org/abs/2303.11570.

``boundary_shrink``: Boundary shrink, the nearest other class as the label, CVPR 2023: https://arxiv.org/abs/2303.11570.

Each forget record is moved across its nearest decision boundary, and trained on the class there:

    x' = clamp(x + b (high − low) ⊙ sign ∇_x CE(f₀(x), y), low, high)
    y' = argmax_{k ≠ y} f₀(x'),   L(θ) = 1/n_f Σ_{D_f} CE(f(x), y')

f₀ is the given model, frozen and in eval mode; b is 0.1 of the range of pixels. SGD, η 1e-5,
momentum 0.9, 10 epochs, batches of 64 are the authors'.

Departures from their code (TY-LEE-KR/Boundary-Unlearning-Code, boundary_unlearning.py):

- Where the step does not change the prediction, y' is the runner-up at x'. Theirs is then argmax
  f₀(x') = y, and the record is learned once more; ``reinforce_unflipped`` brings that back.
- The step is in the model's own space, b of high − low for each channel; theirs undoes another
  normalisation than that of its data. x' is not rounded to 1/255: not every input is a picture.
- y' is found once. Theirs makes the same x' again at each step, from a frozen model.
- Eval mode with frozen buffers; ``training_mode`` is theirs. Their curvature penalty and weights
  by the margin, further variants of the paper, are not built.

``boundary_expand``: Boundary expanding, an extra class for the forget records, CVPR 2023: https://arxiv.org/abs/2303.11570.

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
from dataclasses import replace

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from efface.methods._attacks import clamp, loss_gradient, sign_step
from efface.methods._base import Count, Decay, NonNegative, log, register_method
from efface.methods._head import embed, find_head
from efface.methods._records import without_labels
from efface.methods._unseen import teacher_outputs
from efface.runtime import map_chunks
from efface.task import device_of, frozen_teacher, probe_batch, task_of, trainable_copy
from efface.training import Schedule, sgd, task_loss, train_epochs, with_task
from efface.types import Action, Callback, Records, Split, no_callback


@register_method(
    reads={"forget labels"},
    classes_only=True,
    purpose="a class, with its labelled records alone",
    year=2023,
    passes=23,
)
def boundary_shrink(
    model: nn.Module,
    split: Split,
    *,
    strength: NonNegative = 1.0,
    bound: NonNegative = 0.1,
    reinforce_unflipped: bool = False,
    learning_rate: NonNegative = 1e-5,
    momentum: Decay = 0.9,
    epochs: Count = 10,
    batch_size: Count = 64,
    training_mode: bool = False,
    seed: int = 0,
    callback: Callback = no_callback,
) -> nn.Module:
    """Train each forget record on the class beyond its nearest decision boundary.

    Args:
        model: the given model; it is not changed.
        split: ``forget`` is read, inputs and labels.
        strength: multiplies the learning rate.
        bound: b, how far each feature of an input is moved, over the data's range (high − low).
        reinforce_unflipped: a record that keeps its own label at x' too is trained on that label,
            as in the authors' code; false: on the runner-up there.
        learning_rate: η of SGD.
        momentum: of SGD.
        epochs: passes over ``forget``.
        batch_size: records in a step.
        training_mode: dropout is active and BatchNorm's statistics move, as in the source.
        seed: draws the order, and dropout.
        callback: called after each step.

    Raises:
        InputError: the task is not multiclass.
    """
    forget, student = with_task(split.forget), trainable_copy(model)
    # found once: the attacked model does not change
    labels = _nearest_class(frozen_teacher(model), forget, bound, keep_own=reinforce_unflipped)
    optimizer = sgd(student, learning_rate * strength, momentum)
    schedule = Schedule(epochs, batch_size, seed, callback, training_mode)
    return train_epochs(student, task_loss, replace(forget, y=labels), optimizer, schedule)


def _nearest_class(
    teacher: nn.Module, forget: Records, bound: float, *, keep_own: bool
) -> Int[Tensor, " n"]:
    """The class of each record at x'; logs the fraction that left their own."""

    def part(rows: Tensor) -> Tensor:
        batch = forget.take(rows).to(device_of(teacher))
        moved = clamp(sign_step(batch, loss_gradient(teacher, batch)[1], bound), batch)
        return teacher_outputs(teacher, replace(batch, x=moved)).to(forget.y.device)

    logits = torch.cat(list(map_chunks(part, torch.arange(len(forget)), 128)))
    flipped = logits.argmax(1) != forget.y
    log("boundary_shrink: nearest classes found", flipped=float(flipped.double().mean()))
    # the best class but the own one, at x'
    other = logits.scatter(1, forget.y[:, None], -torch.inf).argmax(1)
    return torch.where(flipped, other, forget.y) if keep_own else other


@register_method(
    reads={"forget"},
    classes_only=True,
    purpose="a class, with its records and no labels",
    year=2023,
    passes=20,
)
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
        InputError: the task is not multiclass; the last layer with weights is not
            linear, or its outputs are not the model's.
    """
    forget, student = without_labels(split.forget, task_of(split.forget)), trainable_copy(model)
    embed(student, probe_batch(forget))  # refuses a model without a head
    # its parameters are the student's and the row's: one optimizer moves both
    wide = Widened(student, seed=seed)
    optimizer = sgd(wide, learning_rate * strength, momentum)
    schedule = Schedule(epochs, batch_size, seed, wide.wrap(callback), training_mode)

    def loss(wide: nn.Module, batch: Records, step: int) -> Tensor:  # noqa: ARG001
        output = wide(batch)
        return task_of(batch).loss(output, torch.full_like(batch.y, output.shape[1] - 1))

    train_epochs(wide, loss, forget, optimizer, schedule)
    # the row is dropped: the student never held it
    return student


# States of the row that are kept: the guard puts back fewer.
MAX_STATES = 8


class Widened(nn.Module):
    """A student, and one more output computed from its head's inputs.

    ``wide(batch)`` is (m, k + 1): the student's k outputs and the row's. The student keeps its own
    keys, and nothing of the row is in it.
    """

    def __init__(self, student: nn.Module, *, seed: int) -> None:
        super().__init__()
        self.student, weight = student, find_head(student).weight
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
            output = task_of(batch).outputs(self.student, batch.x)
        return torch.cat([output, self.row(inputs[-1])], 1)

    def wrap(self, callback: Callback) -> Callback:
        """The guard's callback sees the student; where it restores that, the row is restored."""
        head = find_head(self.student)

        def state() -> tuple[Tensor, dict[str, Tensor]]:
            return head.weight.detach().clone(), copy.deepcopy(self.row.state_dict())

        # the head's weights tell which state the guard has restored
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

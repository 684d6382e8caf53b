"""Boundary shrink, the nearest other class as the label, CVPR 2023: https://arxiv.org/abs/2303.11570.

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
"""

import logging
from dataclasses import replace

import torch
from jaxtyping import Int
from torch import Tensor, nn

from efface.methods._attacks import clamp, loss_gradient, sign_step
from efface.methods._base import Count, Decay, NonNegative, register_method
from efface.methods._unseen import teacher_outputs
from efface.runtime import map_chunks
from efface.task import device_of, frozen_teacher, trainable_copy
from efface.training import Schedule, task_loss, train_epochs, with_task
from efface.types import Callback, Records, Split, no_callback

logger = logging.getLogger(__name__)


@register_method(reads={"forget labels"}, classes_only=True)
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
        InputError: a record has not one class of several.
    """
    forget, student = with_task(split.forget), trainable_copy(model)
    # found once: the attacked model does not change
    labels = _nearest_class(frozen_teacher(model), forget, bound, keep_own=reinforce_unflipped)
    optimizer = torch.optim.SGD(student.parameters(), learning_rate * strength, momentum)
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

    answers = torch.cat(list(map_chunks(part, torch.arange(len(forget)), 128)))
    flipped = answers.argmax(1) != forget.y
    facts = {"flipped": float(flipped.double().mean())}
    logger.info("boundary_shrink: nearest classes found", extra={"facts": facts})
    # the best class but the own one, at x'
    other = answers.scatter(1, forget.y[:, None], -torch.inf).argmax(1)
    return torch.where(flipped, other, forget.y) if keep_own else other

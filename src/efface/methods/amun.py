"""AMUN, fine-tuning on the closest adversarial inputs, ICML 2025: https://arxiv.org/abs/2503.00917.

x' is the input closest to a forget record that the given model f₀ classifies otherwise, found by L2
projected gradient ascent in a ball whose radius ε is doubled until it is found:

    x ← Π_ε( x + ε/10 ∇CE / ‖∇CE‖₂ ),   y' = argmax f₀(x') ≠ y
    L(θ) = mean of CE(f(x'), y') over { (x', y') } and CE(f(x), y) over D_f

f₀ predicts y' at x' already, so the fit there costs little elsewhere, and the boundary moves
towards the record. Without D_f (``with_forget`` off) it is the authors' "advonly".

Departures from the authors' code (Ali-E/AMUN): eval mode with frozen buffers, where they are in
train mode (``training_mode``); no retained records, which they add where these are available;
records as they are, where D_f is cropped and flipped; ``doublings`` at most, where theirs may never
end.
"""

from dataclasses import dataclass, replace

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from efface.errors import InputError
from efface.methods._attacks import gradient_step, loss_gradient, project_to_ball, scaled_offset
from efface.methods._base import Count, Natural, NonNegative, Positive, log, register_method
from efface.methods._records import join
from efface.runtime import map_chunks
from efface.task import device_of, frozen_teacher, multiclass, outputs, trainable_copy
from efface.training import Trainer, sgd, task_loss, train_mode
from efface.types import Callback, Records, Split, no_callback


@register_method(
    reads={"forget labels"},
    classes_only=True,
    purpose="random records with right labels, left nearly right",
    year=2025,
    passes=539,
)
def amun(  # noqa: PLR0913  # each setting is declared here once
    model: nn.Module,
    split: Split,
    *,
    strength: NonNegative = 1.0,
    with_forget: bool = True,
    radius: Positive = 0.04,
    attack_steps: Count = 50,
    doublings: Natural = 10,
    learning_rate: NonNegative = 0.01,
    weight_decay: NonNegative = 5e-4,
    decay_every: Count = 1,
    epochs: Count = 10,
    batch_size: Count = 128,
    training_mode: bool = False,
    seed: int = 0,
    callback: Callback = no_callback,
) -> nn.Module:
    """Fine-tune on what the given model predicts just beyond the boundary next to each record.

    The defaults are those of the authors' code for CIFAR-10 with a ResNet18.

    Args:
        model: the given model, frozen to find the inputs; it is not changed.
        split: ``forget`` is read, inputs, labels and bounds.
        strength: multiplies the learning rate.
        with_forget: trains on the forget records too, with their own labels.
        radius: the first ε, in units of the data's range (of pixels from 0 to 1).
        attack_steps: steps of ε/10 before ε is doubled.
        doublings: how often ε is doubled at most; records without an x' then are omitted.
        learning_rate: η of SGD with momentum 0.9.
        weight_decay: of SGD.
        decay_every: epochs after which η is divided by 10, again and again.
        epochs: passes over the training set.
        batch_size: records in a step.
        training_mode: dropout is active and BatchNorm's statistics move, as in the source.
        seed: draws the order, and dropout.
        callback: called after each step.

    Raises:
        InputError: the task is not multiclass, or no x' was found for any.
    """
    forget, student = replace(split.forget, task=multiclass), trainable_copy(model)
    attack = {"radius": radius, "steps": attack_steps, "doublings": doublings}
    # on the given model, once: the boundary that is moved is where it is now
    records = _adversarials(forget, find_closest(frozen_teacher(model), forget, **attack))
    if with_forget:
        # their own labels: the boundary may come near the records, not cross them
        records = join(records, forget)
    optimizer = sgd(student, learning_rate * strength, 0.9, weight_decay)
    decay = torch.optim.lr_scheduler.StepLR(optimizer, decay_every, gamma=0.1)
    trainer = Trainer(student, seed=seed, callback=callback)
    with train_mode(student, seed, enabled=training_mode):
        for epoch in range(epochs):
            trainer.run_epoch(task_loss, records, optimizer, batch_size=batch_size, epoch=epoch)
            # the schedule counts epochs, also those after a STOP
            decay.step()
    return student


@dataclass(frozen=True, eq=False)
class Closest:
    """For each record an input x near it, its predicted class y, whether that differs from its own.

    ``length``: L2 distance to the record, in units of the data's range.
    """

    x: Float[Tensor, " n *features"]
    y: Int[Tensor, " n"]
    flipped: Bool[Tensor, " n"]
    length: Float[Tensor, " n"]


def find_closest(
    teacher: nn.Module, records: Records, *, radius: float, steps: int, doublings: int
) -> Closest:
    """Climb each record's loss in a growing ball until another class than its own is predicted.

    ``steps`` steps of a tenth of the radius; whatever has not flipped by then goes on from where it
    is, in a ball of twice the radius, ``doublings`` times at most. A record stops at the first
    input that is classified otherwise; one that is misclassified as it is never moves.
    """

    def part(rows: Tensor) -> tuple[Tensor, ...]:
        batch = records.take(rows).to(device_of(teacher))
        x, y = _climb(teacher, batch, radius, steps, doublings)
        # a length in units of the range, whatever space the model takes its inputs in
        length = scaled_offset(x, batch).flatten(1).norm(dim=1)
        return x.cpu(), y.cpu(), (y != batch.y).cpu(), length.cpu()

    chunks = map_chunks(part, torch.arange(len(records)), 128)
    return Closest(*(torch.cat(one) for one in zip(*chunks, strict=True)))


def _climb(
    teacher: nn.Module, batch: Records, radius: float, steps: int, doublings: int
) -> tuple[Tensor, Tensor]:
    """Where each record has got to, and the class that is predicted there."""
    x, y, left = batch.x.clone(), batch.y.clone(), torch.arange(len(batch))
    for step in range(steps * (doublings + 1)):
        ball, around = radius * 2 ** (step // steps), batch.take(left)
        output, gradient = loss_gradient(teacher, replace(around, x=x[left]))
        y[left] = output.argmax(1)
        # only what has not flipped yet goes on
        rows = (y[left] == around.y).cpu().nonzero()[:, 0]
        if not len(rows):
            return x, y
        left, around = left[rows], around.take(rows)
        moved = gradient_step(replace(around, x=x[left]), gradient[rows], 0.1 * ball)
        x[left] = project_to_ball(moved, around, ball)
    # the last step's inputs were moved and not classified yet
    with torch.no_grad():
        y[left] = outputs(teacher, replace(batch.take(left), x=x[left])).argmax(1)
    return x, y


def _adversarials(forget: Records, found: Closest) -> Records:
    """The inputs that flipped, labelled as they are predicted. Raises InputError without any."""
    rows = found.flipped.nonzero()[:, 0]
    if not len(rows):
        wanted = "an input near a forget record that the model classifies otherwise"
        remedy = "The model may predict one class only; else raise radius or doublings."
        raise InputError(wanted, f"none for {len(forget)} records", remedy)
    length = float(found.length[rows].mean())
    log("amun: adversarial inputs found", found=len(rows) / len(forget), length=length)
    # taught as predicted: the loss there is small from the start
    return replace(forget, x=found.x.to(forget.x), y=found.y.to(forget.y)).take(rows)

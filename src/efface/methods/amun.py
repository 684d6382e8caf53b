"""AMUN, fine-tuning on the closest adversarial inputs, ICML 2025: https://arxiv.org/abs/2503.00917.

x' is the input closest to a forget record that the given model f₀ answers otherwise, found by L2
projected gradient ascent in a ball whose radius ε is doubled until it is found:

    x ← Π_ε( x + ε/10 ∇CE / ‖∇CE‖₂ ),   y' = argmax f₀(x') ≠ y
    L(θ) = mean of CE(f(x'), y') over { (x', y') } and CE(f(x), y) over D_f

f₀ says y' of x' already, so the fit there costs little elsewhere, and the boundary moves towards
the record. Without D_f (``with_forget`` off) it is the authors' "advonly".

Departures from the authors' code (Ali-E/AMUN): eval mode with frozen buffers, where they are in
train mode; no records that stay, which they add where these are at hand; records as they are,
where D_f is cropped and flipped; ``doublings`` at most, where theirs may never end.
"""

import logging
from dataclasses import replace

import torch
from torch import nn

from efface.errors import InputError
from efface.methods._base import (
    Count,
    Memory,
    Natural,
    NonNegative,
    Positive,
    register_method,
)
from efface.methods.parts.closest import Closest, closest
from efface.methods.parts.retained import together
from efface.task import frozen_teacher, multiclass, trainable_copy
from efface.training import Trainer, task_loss
from efface.types import Callback, Records, Split, no_callback

logger = logging.getLogger(__name__)


@register_method(
    reads={"forget", "forget labels"}, memory=Memory(copies=5, graphs=2), classes_only=True
)
def amun(
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
    seed: int = 0,
    callback: Callback = no_callback,
) -> nn.Module:
    """Teach what the given model says just beyond the boundary next to each forget record.

    The defaults are those of the authors' code for CIFAR-10 with a ResNet18.

    Args:
        model: stays as it is; it is held still to find the inputs.
        split: ``forget`` is read, inputs, labels and bounds.
        strength: the one knob; multiplies the step.
        with_forget: the forget records are taught too, with their own labels.
        radius: the first ε, in units of the data's range (of pixels from 0 to 1).
        attack_steps: steps of ε/10 before it is doubled.
        doublings: how often it is doubled at most; what is not found then is not taught.
        learning_rate: η of SGD with momentum 0.9.
        weight_decay: of SGD.
        decay_every: epochs after which η is divided by 10, again and again.
        epochs: passes over what is taught.
        batch_size: records in one step's mean.
        seed: draws the order.
        callback: called after each step.

    Raises:
        InputError: a record has not one class of several; ``radius``, ``attack_steps`` or
            ``decay_every`` is not above 0; no input that is answered otherwise was found.
    """
    forget, student = replace(split.forget, task=multiclass), trainable_copy(model)
    if not len(forget) or not epochs:
        return student
    search = {"steps": attack_steps, "doublings": doublings}
    lessons = _beyond(forget, closest(frozen_teacher(model), forget, radius=radius, **search))
    if with_forget:
        lessons = together(lessons, forget)
    optimizer = torch.optim.SGD(
        student.parameters(),
        lr=learning_rate * strength,
        momentum=0.9,
        weight_decay=weight_decay,
    )
    schedule = torch.optim.lr_scheduler.StepLR(optimizer, decay_every, gamma=0.1)
    trainer, told = Trainer(student, seed=seed, callback=callback), {"optimizer": optimizer}
    for epoch in range(epochs):
        trainer.run_epoch(task_loss, lessons, batch_size=batch_size, epoch=epoch, **told)
        schedule.step()
    return student


def _beyond(forget: Records, near: Closest) -> Records:
    """The closest input to each record that is answered otherwise, with that answer.

    Raises InputError where there is none.
    """
    rows = near.found.nonzero()[:, 0]
    if not len(rows):
        raise InputError(
            "an input near a forget record that the model answers otherwise",
            f"none for {len(forget)} records",
            "The model may answer everything alike; else raise radius or doublings.",
        )
    facts = {"found": len(rows) / len(forget), "length": float(near.length[rows].mean())}
    logger.info("amun: adversarial inputs found", extra={"facts": facts})
    return replace(forget, x=near.x.to(forget.x), y=near.y.to(forget.y)).take(rows)

"""L2UL, instances pushed off their labels, AAAI 2024: https://arxiv.org/abs/2301.11578.

Each forget record gets A adversarial inputs once, made with the given model f₀: targeted L2
projected gradient descent from a random start, to a class t drawn among the others. Then

    L(θ) = mean over D_f of ( −CE(f(x), y) + Σ_{a of S} CE(f(x_a), t_a) ) / (1 + S)
           + λ/2 Σ_i (1 − Ω_i) (θ_i − θ₀_i)²,     Ω = |∂ mean ‖f₀(x)‖₂ / ∂θ|, scaled to [0, 1]

until no forget record is answered with its label: it ends where the records are forgotten more than
a retrained model forgets them (over-forgetting), since f₀ generalises to many of them.

Departures from the authors' code (csm9493/L2UL): eval mode with frozen buffers, also for Ω, where
they are in train mode; S of the A inputs of a record in each step, in turn, where 256 of all are
taken in their order (the defaults make the same 256 to 16 records); a target is any other class,
where a slip there makes the middle class twice as likely; Ω is of all forget records at once, and 0
in a weight of one number, where 0 / 0 gave nan. The port to classes in the code of DELETE (ε 0.4,
10 steps, adversarial term times 0.1, no Ω) is another loss and not here.
"""

from collections.abc import Callable
from dataclasses import replace

import torch
from jaxtyping import Float
from torch import Tensor, nn

from efface.errors import InputError
from efface.methods._base import (
    Count,
    Memory,
    NonNegative,
    Positive,
    register_method,
)
from efface.methods.parts.targeted import Targeted, targeted
from efface.methods.parts.unseen import share_right
from efface.task import frozen_teacher, multiclass, outputs, task_of, trainable_copy
from efface.training import Loss, descend, mean_gradient
from efface.types import Action, Callback, Records, Split, no_callback


@register_method(
    reads={"forget", "forget labels"}, memory=Memory(copies=7, graphs=18), classes_only=True
)
def l2ul(
    model: nn.Module,
    split: Split,
    *,
    strength: NonNegative = 1.0,
    adversarials: Count = 20,
    adversarials_per_step: Count = 16,
    radius: Positive = 4.0,
    attack_steps: Count = 100,
    penalty: NonNegative = 1.0,
    learning_rate: NonNegative = 1e-3,
    weight_decay: NonNegative = 1e-4,
    steps: Count = 2000,
    batch_size: Count = 32,
    seed: int = 0,
    callback: Callback = no_callback,
) -> nn.Module:
    """Push the forget records off their labels; adversarial inputs and a penalty hold the rest.

    The defaults are the authors' for CIFAR-10 with a ResNet18.

    Args:
        model: stays as it is; it is held still to make the adversarial inputs.
        split: ``forget`` is read, inputs, labels and bounds.
        strength: the one knob; multiplies the step.
        adversarials: A, inputs made for each forget record.
        adversarials_per_step: S, how many of them are shown beside it in a step.
        radius: ε, in units of the data's range (of pixels from 0 to 1).
        attack_steps: steps of 0.1 that make them.
        penalty: λ, of weights that move and do not matter to the forget records.
        learning_rate: η of SGD with momentum 0.9.
        weight_decay: of SGD.
        steps: at most this many; it ends when no forget record is answered with its label.
        batch_size: forget records in one step's mean.
        seed: draws targets, starts and the order.
        callback: called after each step.

    Raises:
        InputError: a record has not one class of several; ``radius`` is not above 0; ``penalty``
            is below 0; ``adversarials`` is below ``adversarials_per_step``.
    """
    _refuse_more_than_there_are(adversarials, adversarials_per_step)
    forget, student = replace(split.forget, task=multiclass), trainable_copy(model)
    if not len(forget) or not steps:
        return student
    attack = {"count": adversarials, "steps": attack_steps, "seed": seed}
    near = targeted(frozen_teacher(model), forget, radius=radius, step=ATTACK_STEP, **attack)
    held = _held(student, forget, penalty)
    return descend(
        student,
        _loss(near, held, adversarials_per_step),
        forget,
        optimizer=torch.optim.SGD(
            student.parameters(),
            lr=learning_rate * strength,
            momentum=0.9,
            weight_decay=weight_decay,
        ),
        steps=steps,
        seed=seed,
        callback=_until_none_is_right(forget, callback),
        batch_size=batch_size,
    )


ATTACK_STEP = 0.1
"""The length of a step of the attack, in units of the data's range."""


def _refuse_more_than_there_are(adversarials: int, per_step: int) -> None:
    if not 1 <= per_step <= adversarials:
        raise InputError(
            f"adversarials_per_step from 1 to the {adversarials} adversarials",
            str(per_step),
            "Keep the defaults, or raise adversarials.",
        )


def _loss(near: Targeted, held: Callable[[nn.Module], Tensor], per_step: int) -> Loss:
    """The signed cross-entropies of each record and the adversarial inputs whose turn it is."""

    def loss(student: nn.Module, batch: Records, step: int) -> Tensor:
        task = task_of(batch)
        x, y = near.of(batch.ids, step * per_step, per_step)
        both = torch.cat([batch.x, x.to(batch.x)])
        own, others = task.outputs(student, both).split([len(batch), len(x)])
        towards = task.loss(others, y.to(batch.y)).reshape(len(batch), per_step).sum(1)
        return (towards - task.loss(own, batch.y)) / (1 + per_step) + held(student)

    return loss


def _held(student: nn.Module, forget: Records, penalty: float) -> Callable[[nn.Module], Tensor]:
    """λ/2 Σ (1 − Ω_i) (θ_i − θ₀_i)², of the student as it is when it is asked."""
    given = [weight.detach().clone() for weight in student.parameters()]
    slopes = mean_gradient(student, _length, forget)
    free = [None if slope is None else 1 - _scaled(slope.abs()) for slope in slopes]

    def held(student: nn.Module) -> Tensor:
        pairs = zip(student.parameters(), given, free, strict=True)
        moved = [(kept * (w - g).square()).sum() for w, g, kept in pairs if kept is not None]
        return 0.5 * penalty * torch.stack(moved).sum()

    return held


def _length(student: nn.Module, batch: Records, step: int) -> Float[Tensor, " m"]:  # noqa: ARG001
    return outputs(student, batch).norm(dim=1)


def _scaled(importance: Tensor) -> Tensor:
    """From 0, the least in this weight, to 1, the greatest; 0 where all are the same."""
    span = importance.max() - importance.min()
    return (importance - importance.min()) / torch.where(span > 0, span, 1)


def _until_none_is_right(forget: Records, callback: Callback) -> Callback:
    """END once no forget record is answered with its label: the authors' over-forgetting stop."""

    def after(student: nn.Module, loss: float) -> Action:
        verdict = callback(student, loss)
        if verdict is not Action.CONTINUE:
            return verdict
        right = share_right(student, forget, forget.y)
        return Action.STOP if right == 0 else Action.CONTINUE

    return after

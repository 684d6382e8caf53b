"""L2UL, instances pushed off their labels, AAAI 2024: https://arxiv.org/abs/2301.11578.

Each forget record gets A adversarial inputs once, made with the given model f₀: targeted L2
projected gradient descent from a random start, to a class t drawn among the others. Then

    L(θ) = mean over D_f of ( −CE(f(x), y) + Σ_{a of S} CE(f(x_a), t_a) ) / (1 + S)
           + λ/2 Σ_i (1 − Ω_i) (θ_i − θ₀_i)²,     Ω = |∂ mean ‖f₀(x)‖₂ / ∂θ|, scaled to [0, 1]

until no forget record is predicted as its label: it ends where the records are forgotten more than
a retrained model forgets them (over-forgetting), since f₀ generalises to many of them.

Departures from the authors' code (csm9493/L2UL): eval mode with frozen buffers, also for Ω, where
they are in train mode (``training_mode``); S of the A inputs of a record in each step, in turn,
where 256 of all are taken in their order (the defaults make the same 256 to 16 records); a target
is any other class, where a slip there makes the middle class twice as likely; Ω is of all forget
records at once, and 0 in a weight of one number, where 0 / 0 gave nan. The port to classes in the
code of DELETE (ε 0.4, 10 steps, adversarial term times 0.1, no Ω) is another loss and not here.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from efface.errors import InputError
from efface.methods._attacks import gradient_step, loss_gradient, project_to_ball
from efface.methods._base import Count, Memory, NonNegative, Positive, register_method
from efface.methods._perturb import bounds, other_class, uniforms
from efface.methods._unseen import accuracy_of
from efface.runtime import map_chunks
from efface.task import device_of, frozen_teacher, multiclass, output_width, outputs, trainable_copy
from efface.training import descend, mean_gradient, sgd, stop_when, train_mode
from efface.types import Callback, Records, Split, no_callback

# The length of a step of the attack, in units of the data's range.
ATTACK_STEP = 0.1


@register_method(
    reads={"forget labels"},
    memory=Memory(copies=7, graphs=18),
    classes_only=True,
    purpose="few records whose labels must not be predicted again, and time",
    year=2024,
    passes=90000,
)
def l2ul(  # noqa: PLR0913  # each setting is declared here once
    model: nn.Module,
    split: Split,
    *,
    strength: NonNegative = 1.0,
    adversarials: Count = 20,
    adversarial_batch_size: Count = 16,
    radius: Positive = 4.0,
    attack_steps: Count = 100,
    penalty: NonNegative = 1.0,
    learning_rate: NonNegative = 1e-3,
    weight_decay: NonNegative = 1e-4,
    steps: Count = 2000,
    batch_size: Count = 32,
    training_mode: bool = False,
    seed: int = 0,
    callback: Callback = no_callback,
) -> nn.Module:
    """Push forget records off their labels, regularised by adversarial inputs and a weight penalty.

    The defaults are the authors' for CIFAR-10 with a ResNet18.

    Args:
        model: the given model, frozen to make the adversarial inputs; it is not changed.
        split: ``forget`` is read, inputs, labels and bounds.
        strength: multiplies the learning rate.
        adversarials: A, inputs made for each forget record.
        adversarial_batch_size: S, how many of them go with each record in a step.
        radius: ε, in units of the data's range (of pixels from 0 to 1).
        attack_steps: steps of 0.1 that make them.
        penalty: λ, on the change of weights that do not matter to the forget records.
        learning_rate: η of SGD with momentum 0.9.
        weight_decay: of SGD.
        steps: at most this many; it ends when no forget record is predicted as its label.
        batch_size: forget records in a step.
        training_mode: dropout is active and BatchNorm's statistics move, as in the source.
        seed: draws targets, starts, the order, and dropout.
        callback: called after each step.

    Raises:
        InputError: the task is not multiclass; ``adversarials`` is below
            ``adversarial_batch_size``.
    """
    count = adversarial_batch_size
    if count > adversarials:
        wanted = f"adversarial_batch_size from 1 to the {adversarials} adversarials"
        raise InputError(wanted, str(count), "Keep the defaults, or raise adversarials.")
    forget, student = replace(split.forget, task=multiclass), trainable_copy(model)
    attack = {"radius": radius, "steps": attack_steps, "seed": seed}
    adversarial = attack_targets(frozen_teacher(model), forget, adversarials, **attack)
    penalised = _weight_penalty(student, forget, penalty, training_mode=training_mode, seed=seed)

    def loss(student: nn.Module, batch: Records, step: int) -> Tensor:
        x, y = adversarial.of(batch.ids, step * count, count)
        if training_mode:
            # each of the two with BatchNorm statistics of its own, in the order of their code
            others = multiclass.outputs(student, x.to(batch.x))
            own = multiclass.outputs(student, batch.x)
        else:  # one forward pass for both
            both = torch.cat([batch.x, x.to(batch.x)])
            own, others = multiclass.outputs(student, both).split([len(batch), len(x)])
        towards = multiclass.loss(others, y.to(batch.y)).reshape(len(batch), count).sum(1)
        return (towards - multiclass.loss(own, batch.y)) / (1 + count) + penalised(student)

    optimizer = sgd(student, learning_rate * strength, 0.9, weight_decay)
    # the authors' over-forgetting stop, over all forget records and not those of the batch
    after = stop_when(callback, lambda student, _: accuracy_of(student, forget, forget.y) == 0)
    how = {"steps": steps, "seed": seed, "callback": after, "batch_size": batch_size}
    with train_mode(student, seed, enabled=training_mode):
        return descend(student, loss, forget, optimizer, **how)


def _weight_penalty(
    student: nn.Module, forget: Records, penalty: float, *, training_mode: bool, seed: int
) -> Callable[[nn.Module], Tensor]:
    """λ/2 Σ (1 − Ω_i) (θ_i − θ₀_i)², a function of the student."""
    given = [weight.detach().clone() for weight in student.parameters()]
    # of the given model, before the first step; of a copy, whose buffers may move
    source = trainable_copy(student)
    with train_mode(source, seed, enabled=training_mode):
        gradients = mean_gradient(source, lambda f, batch, _: outputs(f, batch).norm(dim=1), forget)
    free = [None if one is None else 1 - _scale_to_unit(one.abs()) for one in gradients]

    def penalised(student: nn.Module) -> Tensor:
        triples = zip(student.parameters(), given, free, strict=True)
        # a frozen weight has no gradient and no penalty
        moved = [(kept * (w - g).square()).sum() for w, g, kept in triples if kept is not None]
        return 0.5 * penalty * torch.stack(moved).sum()

    return penalised


def _scale_to_unit(importance: Tensor) -> Tensor:
    """From 0, the minimum in this weight, to 1, the maximum; 0 where all are the same."""
    span = importance.max() - importance.min()
    return (importance - importance.min()) / torch.where(span > 0, span, 1)


@dataclass(frozen=True, eq=False)
class Targeted:
    """For each id ``a`` adversarial inputs and the classes that they were led to, on the CPU."""

    rows: dict[str, int]
    x: Float[Tensor, " n a *features"]
    y: Int[Tensor, " n a"]

    def of(self, ids: Sequence[str], first: int, count: int) -> tuple[Tensor, Tensor]:
        """``count`` of each of these records, in turn from number ``first`` on."""
        rows = torch.tensor([self.rows[identity] for identity in ids])[:, None]
        columns = (first + torch.arange(count)) % self.x.shape[1]
        return self.x[rows, columns].flatten(0, 1), self.y[rows, columns].flatten()


def attack_targets(
    teacher: nn.Module, records: Records, count: int, *, radius: float, steps: int, seed: int
) -> Targeted:
    """Descend the loss of another class, drawn each time, from a random place in the ball.

    Steps of length ``ATTACK_STEP``, in a ball of ``radius`` around the record and within the
    bounds; both in units of the data's range. Whether the class is reached does not matter.
    """
    classes, device = output_width(teacher, records), device_of(teacher)
    starts = [_random_start(records, classes, radius, seed, number) for number in range(count)]
    around = records.take(torch.arange(len(records)).repeat(count))
    x, y = (torch.cat([getattr(one, name) for one in starts]) for name in ("x", "y"))

    def part(rows: Tensor) -> Tensor:
        batch = around.take(rows).to(device)
        there = replace(batch, x=x[rows].to(device), y=y[rows].to(device))
        # no early stop: whether the class is reached does not matter
        for _ in range(steps):
            moved = gradient_step(there, loss_gradient(teacher, there)[1], -ATTACK_STEP)
            there = replace(there, x=project_to_ball(moved, batch, radius))
        return there.x.cpu()

    found = torch.cat(list(map_chunks(part, torch.arange(len(x)), 128)))
    # the attack runs over copies of the set; a record's own inputs are gathered after it
    shape = (count, len(records))
    places = {identity: row for row, identity in enumerate(records.ids)}
    inputs = found.unflatten(0, shape).transpose(0, 1)
    return Targeted(places, inputs, y.cpu().unflatten(0, shape).T)


def _random_start(records: Records, classes: int, radius: float, seed: int, number: int) -> Records:
    """Another class for each record, and a start drawn within the bounds, put into the ball."""
    # number as the step: each input of a record has its own target
    y = other_class(records.ids, records.y, classes, seed=seed, step=number).to(records.y)
    low, high = bounds(records)
    drawn = uniforms(records.ids, records.x[0].numel(), seed=seed, step=number).to(records.x)
    start = low + drawn.reshape(records.x.shape) * (high - low)
    return replace(records, x=project_to_ball(start, records, radius), y=y)

"""GKT, gated knowledge transfer, TIFS 2023: https://arxiv.org/abs/2201.05629.

A class goes, and no record is read. A generator G makes inputs on which an untrained student f and
the given model f₀ disagree; those that f₀ takes for the class do not pass the gate, and from the
others the student learns what f₀ answers. Each round has one z ~ N(0, I):

    gate:       x = G(z) passes where softmax(f₀(x))_c ≤ ε for each class c that leaves
    generator:  1 step of Adam down the mean of −KL(f₀(x) ‖ f(x)) / K
    student:    10 steps down the mean of KL(f₀(x) ‖ f(x)) / K + β Σ_l mean_p (a_l(f) − a_l(f₀))²

K outputs; a_l is where convolution l looks (parts/attention.py); ε 0.01, β 250, η 1e-3 for both,
norms of gradients clipped at 5, 256 inputs, 4000 rounds, temperature 1 are the authors'.

Departures from their code (ayushkumartarun/zero-shot-unlearning):

- The learning rates stay. Theirs are halved by losses on records that are held out, of which the
  method has none by its own account.
- So many rounds, set before. Forget accuracy comes back late in theirs, and the end was chosen.
- Attention is that of each convolution's own answer; theirs is after BatchNorm and ReLU, in layers
  named for each net. A net without convolutions has no such term.
- A round in which fewer than two inputs pass teaches nothing and counts; theirs goes back to a
  saved generator after a hundred of them.
- The student is in train mode; theirs is in eval mode from its first evaluation on, with
  BatchNorm's first statistics (``training_mode`` false).
- The generator's size follows from the inputs'.
"""

import logging
from collections.abc import Callable
from dataclasses import replace
from typing import Annotated

import torch
from annotated_types import Interval
from jaxtyping import Bool, Float
from torch import Tensor, nn

from efface.methods._base import (
    Count,
    Memory,
    Natural,
    NonNegative,
    Share,
    register_method,
)
from efface.methods.parts.attention import attended
from efface.methods.parts.generator import generator_for
from efface.methods.parts.neighbours import normals
from efface.methods.parts.retained import without_labels
from efface.methods.parts.untrained import from_fresh, untrained
from efface.task import device_of, frozen_teacher, shared_view, task_of
from efface.training import Loss, Trainer, descend, train_mode
from efface.types import Callback, Records, Split, no_callback

logger = logging.getLogger(__name__)

LATENT, LONGEST = 128, 5.0
"""Numbers in one z; the longest gradient of a step."""

Gate = Callable[[Float[Tensor, " m k"]], Bool[Tensor, " m"]]
"""``gate(f₀(x))``: which inputs pass."""


@register_method(
    reads={"forget"},
    needs={"forget_classes", "fresh"},
    memory=Memory(copies=7, graphs=3, neighbours=256),
    fresh_start=True,
    classes_only=True,
    runs_on_empty=True,
)
def gkt(
    model: nn.Module,
    split: Split,
    *,
    strength: NonNegative = 1.0,
    rounds: Count = 4000,
    generator_steps: Natural = 1,
    student_steps: Count = 10,
    threshold: Share = 0.01,
    attention: NonNegative = 250.0,
    learning_rate: NonNegative = 1e-3,
    generator_rate: NonNegative = 1e-3,
    batch_size: Annotated[int, Interval(ge=2)] = 256,
    training_mode: bool = True,
    seed: int = 0,
    callback: Callback = no_callback,
) -> nn.Module:
    """Teach an untrained model what the given one answers, but for the class that leaves.

    Args:
        model: answers (n, *features) with outputs (n, k); stays as it is.
        split: ``forget_classes`` and ``fresh`` are read; of ``forget`` what an input looks like.
        strength: the one knob; multiplies the student's step.
        rounds: how many; a new z in each.
        generator_steps: steps of the generator in each round.
        student_steps: steps of the student in each round, on what passed the gate.
        threshold: ε, the probability (0 to 1) of a class that leaves up to which an input passes.
        attention: β, weight of where the convolutions look.
        learning_rate: of Adam, for the student.
        generator_rate: of Adam, for the generator.
        batch_size: inputs of a round, at least 2.
        training_mode: the student has dropout and moves its BatchNorm's statistics; false: it
            keeps those that it was made with.
        seed: draws the student, the generator, each z, the order, and dropout.
        callback: called after each step of the student.

    Raises:
        InputError: no class leaves; there is no ``fresh``; the outputs are not one label;
            ``threshold`` is not from 0 to 1; there are fewer than 2 ``batch_size``.
    """
    student, teacher = untrained(model, split, seed).eval(), frozen_teacher(model)
    like = without_labels(split.forget, task_of(split.forget))
    generator = generator_for(tuple(like.x.shape[1:]), latent=LATENT, seed=seed)
    generator.to(device_of(model))
    making = torch.optim.Adam(generator.parameters(), lr=generator_rate)
    learning = torch.optim.Adam(student.parameters(), lr=learning_rate * strength)
    trainer = Trainer(student, seed=seed, callback=from_fresh(student, callback))
    gate, passed = _gate(split.forget_classes, threshold), []
    with train_mode(student, seed, enabled=training_mode):
        apart = _agreement(teacher, shared_view(student), gate)
        for number in range(rounds):
            drawn = _drawn(like, batch_size, seed=seed, step=number)
            whole = {"batch_size": len(drawn), "micro_batch": len(drawn)}
            steps = {"steps": generator_steps, "seed": seed, "clip_norm": LONGEST}
            descend(generator, apart, drawn, optimizer=making, **steps, **whole)
            lesson, given, looks = _lesson(generator, teacher, drawn, gate)
            passed.append(len(lesson))
            loss = _taught(given, looks, attention)
            whole = {"batch_size": len(lesson), "micro_batch": len(lesson)}
            for epoch in range(student_steps * (len(lesson) > 1)):
                step = {"optimizer": learning, "epoch": epoch, "clip_norm": LONGEST}
                trainer.run_epoch(loss, lesson, **step, **whole)
            if trainer.stopped:
                break
    _tell(passed, batch_size)
    return student.eval()


def _gate(forget_classes: tuple[int, ...], threshold: float) -> Gate:
    """Inputs that the given model hardly takes for any class that leaves."""

    def gate(given: Tensor) -> Tensor:
        return given.softmax(1)[:, list(forget_classes)].amax(1) <= threshold

    return gate


def _drawn(like: Records, count: int, *, seed: int, step: int) -> Records:
    """A round's z, with the numbers of their rows in the place of labels."""
    names = tuple(f"drawn {row}" for row in range(count))
    z = normals(names, (LATENT,), seed=seed, step=step)
    return Records(z, torch.arange(count), names, task=like.task)


def _apart(held: Tensor, answer: Tensor, batch: Records) -> Tensor:
    """KL(f₀ ‖ f) / K of each record."""
    return task_of(batch).divergence(held, answer) / answer.shape[1]


def _agreement(teacher: nn.Module, student: nn.Module, gate: Gate) -> Loss:
    """What the generator makes small: −KL, a mean over what passes. The student stands still."""
    student.requires_grad_(requires_grad=False)

    def loss(generator: nn.Module, batch: Records, step: int) -> Tensor:  # noqa: ARG001
        x, outputs = generator(batch.x), task_of(batch).outputs
        held = outputs(teacher, x)
        rows, none = gate(held.detach()).nonzero()[:, 0], 0 * x.flatten(1).sum(1)
        if len(rows) < 2:  # noqa: PLR2004  # too few for the student's BatchNorm
            return none
        apart = _apart(held[rows], outputs(student, x[rows]), batch)
        return none.index_add(0, rows, -apart.to(none) * len(none) / len(rows))

    return loss


@torch.no_grad()
def _lesson(
    generator: nn.Module, teacher: nn.Module, drawn: Records, gate: Gate
) -> tuple[Records, Tensor, dict[str, Tensor]]:
    """Inputs that pass, what the given model answers, and where its convolutions look."""
    x = generator(drawn.x.to(device_of(generator)))
    with attended(teacher) as looks:
        given = task_of(drawn).outputs(teacher, x)
    rows = gate(given).nonzero()[:, 0]
    lesson = replace(drawn.take(range(len(rows))), x=x[rows])
    return lesson, given[rows], {name: look[rows] for name, look in looks.items()}


def _taught(given: Tensor, looks: dict[str, Tensor], attention: float) -> Loss:
    """What the student makes small, one number a record of the lesson."""

    def loss(student: nn.Module, batch: Records, step: int) -> Tensor:  # noqa: ARG001
        with attended(student) as own:
            answer = task_of(batch).outputs(student, batch.x)
        total = _apart(given[batch.y], answer, batch)
        for name, look in looks.items():
            total = total + attention * (own[name] - look[batch.y]).square().mean(1)
        return total

    return loss


def _tell(passed: list[int], each: int) -> None:
    """The share of inputs that passed, and of rounds that taught anything."""
    rounds = max(1, len(passed))
    facts = {
        "passed": sum(passed) / (rounds * each),
        "taught": sum(count > 1 for count in passed) / rounds,
    }
    logger.info("gkt: ended", extra={"facts": facts})

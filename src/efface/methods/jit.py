"""JiT, zero-shot unlearning by smoothing the model around each record: https://arxiv.org/abs/2402.01401.

Equation 1 of the paper, with the perturbed branch answered by the given model f₀, and a second term
that holds the student where it is not to move:

    l(x) = 1/N Σ_j ‖f(x) − f₀(x+ξ_j)‖₂ / ‖ξ_j‖₂  +  λ ‖f(x+ζ) − f₀(x+ζ)‖₂² / (d ‖ξ‖₂)

ξ_j is drawn once for a record, ζ anew at each step and for a quarter of the records (for each of
16 or fewer, at several further away), d ‖ξ‖ is the first term's distance and length without
gradient. Departures from the paper, each with its measurement in
docs/decisions/0005: what must not be answered is hidden in f₀(x+ξ); the noise has the spectrum
of photographs, since white noise is one class to a net, and that class would swallow the others;
the branch is f₀ and not f, and ξ_j is fixed, which here cost nothing and changed nothing; a mean
over records; eval mode, frozen buffers; x+ξ within the data's bounds.

Nothing is tuned. σ: the noise at which as many neighbours keep the answer as unseen data are
right. Hidden are a class that leaves and a wrong label. Step:
Polyak's, η = s L / ‖∇L‖², which aims to remove a share s of the loss. λ: such that at most a tenth
of the neighbours change their answer. End: the records are answered as the neighbours.
"""

import logging
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from efface.methods._base import Count, Memory, NonNegative, Positive, Share, register_method
from efface.methods.parts.hiding import Hidden, hiding, lowered
from efface.methods.parts.holding import (
    FEW,
    LOOK,
    WAY,
    Hold,
    Holding,
    hold_for,
    moved_around,
    stays,
)
from efface.methods.parts.natural import perturbed
from efface.methods.parts.noise import refuse_no_noise
from efface.methods.parts.reach import sigma_where
from efface.methods.parts.unseen import Target, accuracy_expected, answer_of, way_to
from efface.task import frozen_teacher, outputs, task_of, trainable_copy
from efface.training import Loss, descend
from efface.types import Callback, Records, Split, no_callback, record_key

logger = logging.getLogger(__name__)


@register_method(
    reads={"forget", "forget labels", "holdout", "forget_classes"},
    memory=Memory(copies=4, graphs=3, neighbours=32),
)
def jit(
    model: nn.Module,
    split: Split,
    *,
    strength: NonNegative = 1.0,
    expected_accuracy: Share | None = None,
    mislabelled: bool = False,
    sigma: Positive = 0.15,
    perturbations: Count = 1,
    trust: NonNegative = 0.1,
    step_size: NonNegative = 0.1,
    steps: Count = 32,
    settled: NonNegative = 0.95,
    batch_size: Count = 128,
    seed: int = 0,
    callback: Callback = no_callback,
) -> nn.Module:
    """Smooth the model around the forget records; sees the model and the forget inputs.

    The labels only when ``mislabelled``; of a holdout the model's accuracy on it, which says how
    often a neighbour should keep the answer; of the request whether a class leaves.

    Args:
        model: answers (n, *features) with outputs (n, k); stays as it is.
        split: ``forget``, ``forget_classes`` and, if there is one, ``holdout`` are read.
        strength: the one knob; multiplies ``trust`` and the step: 0 is the given model.
        expected_accuracy: the model's accuracy on unseen data (0 to 1); found from the holdout when
            not given, and 0.7 without one.
        mislabelled: the labels of the forget records are wrong and must not be answered.
        sigma: where the search for the paper's σ begins, over the range of the data (high − low).
        perturbations: the paper's N.
        trust: the share of neighbours (0 to 1) that may change their answer; λ follows from it.
        step_size: the share of the loss that a step aims to remove; kept between what the steps
            need to remove it (3 / steps) and 0.15.
        steps: at most this many.
        settled: end once this share of the way to the neighbours' confidence is done.
        batch_size: records in one step's mean.
        seed: draws the perturbations and the order.
        callback: called after each step.

    Raises:
        InputError: ``sigma`` or ``perturbations`` is not above 0; a class leaves, or labels are
            wrong, and the outputs are not one label.
    """
    refuse_no_noise(sigma, perturbations)
    split = replace(split, forget=replace(split.forget, task=task_of(split.forget)))
    forget, student = split.forget, trainable_copy(model)
    if not len(forget):
        return student
    teacher, drawn = frozen_teacher(model), {"perturbations": perturbations, "seed": seed}
    hidden = hiding(split, mislabelled=mislabelled)
    expected = accuracy_expected(teacher, split, expected_accuracy)
    wanted = GUESS if expected is None else expected
    found, kept = sigma_where(teacher, forget, wanted, start=sigma, seed=seed)
    _tell("noise found", sigma=found, kept=kept, wanted=wanted)
    hold = hold_for(len(forget))
    share = strength * min(max(step_size, 3 / max(steps, 1)), 0.15)
    around = {"hidden": hidden, "sigma": found, "reach": hold.reach, "seed": seed}
    moved = moved_around(teacher, student, forget, **around)
    sample = forget.take(range(min(len(forget), WAY)))
    said = partial(_said, teacher, hidden, wrong=mislabelled)
    target = _target(said, found, **drawn)
    way = way_to(teacher, student, sample, target=target, mislabelled=mislabelled)
    look = 1 if len(forget) <= FEW else LOOK
    after = Holding(callback, hold, share, trust * strength, moved, way, settled, look)
    if way() >= settled:
        steps = 0  # they are answered as their neighbours already
    descend(
        student,
        jit_loss(teacher, split, sigma=found, mislabelled=mislabelled, hold=hold, **drawn),
        forget,
        optimizer=torch.optim.SGD(student.parameters(), lr=1.0),
        steps=steps,
        seed=seed,
        callback=after,
        batch_size=batch_size,
        rate=after.rate,
    )
    _tell("ended", way=way(), moved=moved(), weight=hold.weight)
    return student


def jit_loss(
    teacher: nn.Module,
    split: Split,
    *,
    sigma: float = 0.15,
    perturbations: int = 1,
    mislabelled: bool = False,
    hold: Hold | None = None,
    seed: int = 0,
) -> Loss:
    """``loss(student, batch, step)``, one number a record: for a training loop of one's own.

    ``teacher`` is the given model held still (``adapters.frozen_teacher`` of a copy, where the loop
    changes the model in place); ``sigma`` is used as it is, over the range of the data; of
    ``split`` only ``forget_classes`` and the form of ``forget`` are read. Raises InputError when ``sigma``
    or ``perturbations`` is not above 0, or when a class leaves, or labels are wrong, and the
    outputs are not one label.
    """
    refuse_no_noise(sigma, perturbations)
    hold = hold or Hold()
    hidden = hiding(split, mislabelled=mislabelled)
    said = partial(_said, teacher, hidden, wrong=mislabelled)

    def loss(student: nn.Module, batch: Records, step: int) -> Tensor:
        rows = _held(batch, step, hold)
        held = batch.take(rows)
        other = hold.around(held, sigma, seed=seed, step=step)
        both = batch.take(torch.cat([torch.arange(len(batch)), rows]))
        both = replace(both, x=torch.cat([batch.x, other.x]))
        answer, still = outputs(student, both).split([len(batch), len(held)])
        near = [perturbed(batch, sigma, seed=seed, step=draw) for draw in range(perturbations)]
        changes = torch.stack([_change(answer, said(batch, neighbour)) for neighbour in near])
        lengths = torch.stack([(n.x - batch.x).flatten(1).norm(dim=1) for n in near])
        scale = (changes.detach() * lengths).mean(0)[rows].clamp_min(SMALLEST)
        given = answer_of(teacher, other) if len(rows) else still.detach()  # some nets refuse none
        moved = stays(given, hidden(given, held)) * (still - given).square().sum(1) / scale
        rows = rows.to(moved.device)
        return _ratio(changes, lengths).index_add(0, rows, hold.share * hold.weight * moved)

    return loss


SMALLEST = 1e-6
"""The least d ‖ζ‖."""


def _held(batch: Records, step: int, hold: Hold) -> Tensor:
    """Rows whose neighbours are held at this step, once for each: by id, the same in any batch."""
    chosen = [(record_key(identity) + step) % hold.every == 0 for identity in batch.ids]
    return torch.nonzero(torch.tensor(chosen)).flatten().repeat_interleave(hold.copies)


def _said(
    teacher: nn.Module, hidden: Hidden, batch: Records, neighbour: Records, *, wrong: bool
) -> Float[Tensor, " m k"]:
    """f₀(x+ξ), with what must not be answered hidden."""
    answer = answer_of(teacher, neighbour)
    return lowered(answer, hidden(answer, batch), wrong=wrong)


def _change(answer: Tensor, said: Tensor) -> Float[Tensor, " m"]:
    """‖f(x) − f₀(x+ξ)‖₂ of each record, smooth at 0."""
    return ((answer - said).square().sum(1) + torch.finfo(answer.dtype).eps ** 2).sqrt()


def _ratio(changes: Float[Tensor, " n m"], lengths: Float[Tensor, " n m"]) -> Float[Tensor, " m"]:
    """Equation 1 of each record; 0 where the bounds leave no ξ."""
    floor = torch.finfo(changes.dtype).eps
    ratios = changes / lengths.clamp_min(floor)
    return torch.where(lengths > floor, ratios, 0 * changes).mean(0)


GUESS = 0.7
"""Neighbours that keep the answer where nothing is known."""


def _target(
    said: Callable[[Records, Records], Tensor], sigma: float, *, perturbations: int, seed: int
) -> Target:
    """What the neighbours are answered with, on average."""

    def target(batch: Records) -> Tensor:
        near = (perturbed(batch, sigma, seed=seed, step=draw) for draw in range(perturbations))
        return torch.stack([said(batch, neighbour) for neighbour in near]).mean(0)

    return target


def _tell(what: str, **facts: Any) -> None:
    logger.info("jit: %s", what, extra={"facts": facts})

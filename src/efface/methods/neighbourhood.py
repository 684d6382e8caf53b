"""Neighbourhood, after JiT's idea of information content: https://arxiv.org/abs/2402.01401.

What a record taught the model is what the model says about it beyond what it says about its
neighbourhood. So the target for a record is the given model's own answer p at one neighbour T(x):

    loss(x) = KL(p(T x) ‖ q(x)) + λ · ½ Σ_i KL(p(T_i x) ‖ q(T_i x)),

q the student, T a perspective fixed for the record, T_1 another perspective and T_2 a shift and
flip, drawn anew each step; they hold the model in place (locality). Inputs that are not images
have noise for T, T_1 and T_2; outputs that are not one label their own divergence for KL. Where a
class goes altogether p is the given model's answer with that class masked and the rest
renormalised, and T the identity (masked distillation, as DELETE, CVPR 2025); where the labels are
wrong each record's own is masked.
There is no paper of this form; the numbers it started from are trials of our own (LOG.md).
"""

import logging
from collections.abc import Callable
from dataclasses import replace

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from efface.methods._base import Count, Decay, Memory, NonNegative, Share, register_method
from efface.methods.parts.hiding import hiding
from efface.methods.parts.natural import IMAGE
from efface.methods.parts.neighbours import noisy, perspective, shift_and_flip, uniforms
from efface.methods.parts.unseen import (
    Target,
    accuracy_expected,
    answer_of,
    share_right,
    way_to,
)
from efface.task import frozen_teacher, predict, task_of, trainable_copy
from efface.training import Loss, descend
from efface.types import Action, Callback, Records, Split, no_callback

logger = logging.getLogger(__name__)


@register_method(
    reads={"forget", "forget labels", "holdout", "forget_classes"},
    memory=Memory(copies=6, graphs=4),
)
def neighbourhood(
    model: nn.Module,
    split: Split,
    *,
    strength: NonNegative = 1.0,
    expected_accuracy: Share | None = None,
    mislabelled: bool = False,
    distortion: NonNegative | None = None,
    locality: NonNegative = 5.0,
    learning_rate: NonNegative = 3e-3,
    steps: Count = 240,
    settled: NonNegative = 0.95,
    averaging: Decay = 0.98,
    batch_size: Count = 128,
    seed: int = 0,
    callback: Callback = no_callback,
) -> nn.Module:
    """Answer at each forget record as the given model answers in its neighbourhood.

    Sees the model and the forget inputs; the labels only when ``mislabelled``; of a holdout the
    model's accuracy on it, which says how often a neighbour should keep the answer.

    Args:
        model: answers (n, *features) with outputs (n, k); stays as it is.
        split: ``forget``, ``forget_classes`` and, if there is one, ``holdout`` are read.
        strength: the one knob; multiplies the share of neighbours that should change the answer.
        expected_accuracy: the model's accuracy on unseen data (0 to 1), from its model card; found
            from the holdout when not given.
        mislabelled: the labels of the forget records are wrong and must not be answered.
        distortion: how far T moves the corners, in half sides, or its noise over a third of the
            data's range; found from the expected accuracy
            when not given, and a middling guess without one or with fewer than 50 records.
        locality: λ, how strongly the model is held in place on other neighbours.
        learning_rate: of SGD with momentum 0.9, gradients clipped to norm 1.
        steps: at most this many.
        settled: end once this share of the way to the target confidence is done, or when the last
            40 steps added less than 2 % of it.
        averaging: weight of the past in the moving average of the weights that is returned.
        batch_size: records in one step's mean.
        seed: draws the neighbours and the order.
        callback: called after each step.

    Raises:
        InputError: a class leaves, or labels are wrong, and the outputs are not one label.
    """
    split = replace(split, forget=replace(split.forget, task=task_of(split.forget)))
    teacher, student = frozen_teacher(model), trainable_copy(model)
    if not len(split.forget):
        return student
    reach = 0.0 if split.forget_classes else distortion
    if reach is None:
        reach = _reach(teacher, split, expected_accuracy, strength, seed)
    told = {"mislabelled": mislabelled, "seed": seed}
    averaged = AveragedModel(student, multi_avg_fn=get_ema_multi_avg_fn(averaging))
    way = way_to(teacher, averaged, split.forget, target=_target(teacher, split, reach, **told))
    descend(
        student,
        neighbourhood_loss(teacher, split, distortion=reach, locality=locality, **told),
        split.forget,
        optimizer=torch.optim.SGD(student.parameters(), lr=learning_rate, momentum=0.9),
        steps=steps,
        seed=seed,
        callback=_averaging(callback, averaged, way, settled),
        batch_size=batch_size,
        clip_norm=1.0,
    )
    return averaged.module


GUESS = 0.35
"""Distortion without an expected accuracy: in trials 91 % of neighbours kept the answer."""


def neighbourhood_loss(
    teacher: nn.Module,
    split: Split,
    *,
    distortion: float = GUESS,
    locality: float = 5.0,
    mislabelled: bool = False,
    seed: int = 0,
) -> Loss:
    """``loss(student, batch, step)``, one number a record: for a training loop of one's own.

    ``teacher`` is the given model held still (``adapters.frozen_teacher`` of a copy, where the loop
    changes the model in place); of ``split`` only ``forget_classes`` and the form of ``forget`` are read.
    Raises InputError when a class leaves, or labels are wrong, and the outputs are not one label.
    """
    task = task_of(split.forget)
    hide = _masking(split, mislabelled=mislabelled)
    target = _target(teacher, split, distortion, mislabelled=mislabelled, seed=seed)

    def loss(student: nn.Module, batch: Records, step: int) -> Tensor:
        total = task.divergence(target(batch), task.outputs(student, batch.x))
        for other in _others(batch, seed, step + 1):
            held = hide(answer_of(teacher, other), batch)
            answer = task.outputs(student, other.x)
            total = total + 0.5 * locality * task.divergence(held, answer)
        return total

    return loss


def _target(
    teacher: nn.Module, split: Split, reach: float, *, mislabelled: bool, seed: int
) -> Target:
    """What the given model answers at one neighbour, with what must not be answered hidden."""
    hide = _masking(split, mislabelled=mislabelled)

    def target(batch: Records) -> Tensor:
        return hide(answer_of(teacher, _neighbour(batch, reach, seed=seed, step=0)), batch)

    return target


Hide = Callable[[Float[Tensor, " m k"], Records], Float[Tensor, " m k"]]


def _masking(split: Split, *, mislabelled: bool) -> Hide:
    """Take classes out of log-probabilities and renormalise; nothing when nothing is hidden."""
    hidden = hiding(split, mislabelled=mislabelled)

    def hide(answer: Tensor, batch: Records) -> Tensor:
        if not split.forget_classes and not mislabelled:
            return answer
        return answer.masked_fill(hidden(answer, batch), -torch.inf).log_softmax(1)

    return hide


def _neighbour(batch: Records, reach: float, *, seed: int, step: int) -> Records:
    """T(x): a perspective of an image, noise on anything else."""
    if batch.x.ndim != IMAGE:
        return noisy(batch, reach / 3, seed=seed, step=step)
    draws = uniforms(batch.ids, 8, seed=seed, step=step)
    return replace(batch, x=perspective(batch.x, draws, reach))


def _others(batch: Records, seed: int, step: int) -> tuple[Records, Records]:
    """Two further neighbours: a wider perspective, and training's own shift and flip."""
    if batch.x.ndim != IMAGE:
        return (
            noisy(batch, 0.5 / 3, seed=seed, step=2 * step),
            noisy(batch, 0.5 / 6, seed=seed, step=2 * step + 1),
        )
    draws = uniforms(batch.ids, 11, seed=seed, step=step)
    padding = max(1, batch.x.shape[-1] // 8)
    return (
        replace(batch, x=perspective(batch.x, draws[:, :8], 0.5)),
        replace(batch, x=shift_and_flip(batch.x, draws[:, 8:], padding)),
    )


def _reach(
    teacher: nn.Module, split: Split, expected: float | None, strength: float, seed: int
) -> float:
    """The distortion at which neighbours keep the answer as often as unseen data are right.

    Bisection over [0, 0.8]; 50 records are the fewest for which the share means something.
    """
    expected = accuracy_expected(teacher, split, expected)
    few = len(split.forget) < 50  # noqa: PLR2004
    if expected is None or few:
        facts = {"distortion": GUESS * strength, "guessed": True, "expected_accuracy": expected}
        logger.info("neighbourhood: distortion guessed", extra={"facts": facts})
        return GUESS * strength
    wanted = 1 - strength * (1 - expected)
    low, high = 0.0, 0.8
    for _ in range(8):
        middle = (low + high) / 2
        kept = _kept(teacher, split.forget, middle, seed)
        low, high = (middle, high) if kept > wanted else (low, middle)
    facts = {"distortion": low, "guessed": False, "expected_accuracy": expected, "kept": wanted}
    logger.info("neighbourhood: distortion found", extra={"facts": facts})
    return low


def _kept(teacher: nn.Module, forget: Records, distortion: float, seed: int) -> float:
    """Share of neighbours with the record's own answer, over at least 500 neighbours."""
    sample = forget.take(range(min(len(forget), 1000)))
    copies = -(-500 // len(sample))
    own = task_of(sample).predict(predict(teacher, sample))
    neighbours = [
        _neighbour(sample, distortion, seed=seed, step=1_000_000 + copy) for copy in range(copies)
    ]
    return sum(share_right(teacher, seen, own) for seen in neighbours) / copies


def _averaging(
    callback: Callback, averaged: AveragedModel, way: Callable[[], float], settled: float
) -> Callback:
    """The guard's verdict first; then the average takes the step in, and is looked at."""
    taken, ways = 0, [0.0]

    def after(student: nn.Module, loss: float) -> Action:
        nonlocal taken
        verdict = callback(student, loss)
        if verdict is not Action.CONTINUE:
            return verdict
        averaged.update_parameters(student)
        taken += 1
        if taken % 20:
            return Action.CONTINUE
        ways.append(way())
        stands_still = len(ways) > 3 and ways[-1] - ways[-3] < 0.02  # noqa: PLR2004
        return Action.STOP if ways[-1] >= settled or stands_still else Action.CONTINUE

    return after

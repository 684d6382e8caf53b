"""Neighbourhood, after JiT's idea of information content: https://arxiv.org/abs/2402.01401.

What a record taught the model is what the model predicts for it beyond what it predicts for its
neighbourhood. So the target of a record is the given model's own output p at one neighbour T(x):

    loss(x) = KL(p(T x) ‖ q(x)) + λ · ½ Σ_i KL(p(T_i x) ‖ q(T_i x)),

q the student, T a perspective fixed for the record, T_1 another perspective and T_2 a shift and
flip, redrawn at each step; they regularise (locality). For inputs that are not images T, T_1, T_2
are noise; tasks other than classes have their own divergence in place of KL. For a whole class p is
the given model's output with that class masked and the rest renormalised, and T the identity
(masked distillation, as DELETE, CVPR 2025); where labels are wrong each record's own
is masked. There is no paper of this form; its first settings are trials of our own (LOG.md).
"""

from collections.abc import Callable
from dataclasses import replace
from itertools import count

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from efface.methods import _unseen as unseen
from efface.methods._base import Count, Decay, Memory, NonNegative, Share, log, register_method
from efface.methods._perturb import IMAGE, add_noise, perspective, shift_and_flip, uniforms
from efface.task import frozen_teacher, predict, task_of, trainable_copy
from efface.training import Loss, descend, sgd, stop_when, with_task
from efface.types import Callback, Records, Split, no_callback

# Distortion without an expected accuracy: in trials 91 % of neighbours kept the prediction.
GUESS = 0.35


@register_method(
    reads={"forget labels", "holdout", "forget_classes"}, memory=Memory(copies=6, graphs=4)
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
    tolerance: NonNegative = 0.95,
    ema_decay: Decay = 0.98,
    batch_size: Count = 128,
    seed: int = 0,
    callback: Callback = no_callback,
) -> nn.Module:
    """Distil each forget record to what the given model predicts in its neighbourhood.

    Reads the model and the forget inputs; the labels only when ``mislabelled``; of a holdout the
    model's accuracy on it, which says how often a neighbour should keep the prediction.

    Args:
        model: the given model; it is not changed.
        split: ``forget``, ``forget_classes`` and, if there is one, ``holdout`` are read.
        strength: multiplies the share of neighbours that should change the prediction.
        expected_accuracy: the model's accuracy on unseen data (0 to 1), from its model card;
            measured on the holdout when not given.
        mislabelled: the labels of the forget records are wrong and are masked.
        distortion: how far T moves the corners, in half sides, or its noise over a third of the
            data's range; found from the expected accuracy when not given, and a middling guess
            without one or with fewer than 50 records.
        locality: λ, weight of the term that holds the model in place on other neighbours.
        learning_rate: η of SGD with momentum 0.9, gradients clipped to norm 1.
        steps: at most this many.
        tolerance: stop once this share of the distance to the target confidence is covered, or when
            the last 40 steps added less than 2 % of it.
        ema_decay: decay of the exponential moving average of the weights, which is returned.
        batch_size: records in a step.
        seed: draws the neighbours and the order.
        callback: called after each step.

    Raises:
        InputError: a class goes, or labels are wrong, and the task is not multiclass.
    """
    split = replace(split, forget=with_task(split.forget))
    forget, student, teacher = split.forget, trainable_copy(model), frozen_teacher(model)
    # the identity for a class: its neighbours are of that class too
    distortion = 0.0 if split.forget_classes else distortion
    if distortion is None:
        distortion = _find_distortion(teacher, split, expected_accuracy, strength, seed)
    form = {"mislabelled": mislabelled, "seed": seed}
    target = _neighbour_target(teacher, split, distortion, **form)
    loss = neighbourhood_loss(teacher, split, distortion=distortion, locality=locality, **form)
    # an average of the weights varies less from step to step than the last of them
    averaged = AveragedModel(student, multi_avg_fn=get_ema_multi_avg_fn(ema_decay))
    # of the average, which is what is returned
    progress = unseen.progress_towards(target, teacher, averaged, forget)
    history: list[float] = [0.0]
    taken = count(1)

    def converged(student: nn.Module, _: float) -> bool:
        # after the guard: a refused step must not enter the average
        averaged.update_parameters(student)
        if next(taken) % 20:  # progress costs a pass over up to 512 records
            return False
        history.append(progress())
        stalled = len(history) > 3 and history[-1] - history[-3] < 0.02  # noqa: PLR2004
        return history[-1] >= tolerance or stalled

    how = {"steps": steps, "seed": seed, "batch_size": batch_size, "clip_norm": 1.0}
    after = stop_when(callback, converged)
    descend(student, loss, forget, sgd(student, learning_rate, 0.9), callback=after, **how)
    return averaged.module


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

    ``teacher`` is the given model, frozen (``task.frozen_teacher`` of a copy, where the loop
    changes the model in place); of ``split`` only ``forget_classes`` and the form of ``forget`` are
    read. Raises InputError when a class goes, or labels are wrong, and the outputs are not one
    class of several.
    """
    task, mask = task_of(split.forget), _masking(split, mislabelled=mislabelled)
    target = _neighbour_target(teacher, split, distortion, mislabelled=mislabelled, seed=seed)

    def loss(student: nn.Module, batch: Records, step: int) -> Tensor:
        total = task.divergence(target(batch), task.outputs(student, batch.x))
        # step + 1: the target's own neighbour is draw 0
        for other in _local_neighbours(batch, seed, step + 1):
            given = mask(unseen.teacher_outputs(teacher, other), batch)
            output = task.outputs(student, other.x)
            total = total + 0.5 * locality * task.divergence(given, output)
        return total

    return loss


def _neighbour_target(
    teacher: nn.Module, split: Split, distortion: float, *, mislabelled: bool, seed: int
) -> unseen.Target:
    """The given model's output at one neighbour, masked."""
    mask = _masking(split, mislabelled=mislabelled)

    def target(batch: Records) -> Tensor:
        neighbour = _neighbour(batch, distortion, seed=seed, step=0)
        return mask(unseen.teacher_outputs(teacher, neighbour), batch)

    return target


def _masking(split: Split, *, mislabelled: bool) -> Callable[[Tensor, Records], Tensor]:
    """Masks classes and renormalises the log-probabilities; the outputs as they are without any."""
    masked = unseen.label_mask(split, mislabelled=mislabelled)

    def mask(output: Tensor, batch: Records) -> Tensor:
        if not split.forget_classes and not mislabelled:
            return output
        return output.masked_fill(masked(output, batch), -torch.inf).log_softmax(1)

    return mask


def _neighbour(batch: Records, distortion: float, *, seed: int, step: int) -> Records:
    """T(x): a perspective of an image, noise on anything else."""
    if batch.x.ndim != IMAGE:
        return add_noise(batch, distortion / 3, seed=seed, step=step)
    draws = uniforms(batch.ids, 8, seed=seed, step=step)
    return replace(batch, x=perspective(batch.x, draws, distortion))


def _local_neighbours(batch: Records, seed: int, step: int) -> tuple[Records, Records]:
    """T_1(x) and T_2(x): a wider perspective, and training's own shift and flip."""
    if batch.x.ndim != IMAGE:
        first = add_noise(batch, 0.5 / 3, seed=seed, step=2 * step)
        return first, add_noise(batch, 0.5 / 6, seed=seed, step=2 * step + 1)
    # 8 numbers for the perspective, 3 for shift and flip
    draws = uniforms(batch.ids, 11, seed=seed, step=step)
    padding = max(1, batch.x.shape[-1] // 8)
    first = replace(batch, x=perspective(batch.x, draws[:, :8], 0.5))
    return first, replace(batch, x=shift_and_flip(batch.x, draws[:, 8:], padding))


def _find_distortion(
    teacher: nn.Module, split: Split, expected: float | None, strength: float, seed: int
) -> float:
    """The distortion at which neighbours keep the prediction as often as unseen data are right.

    Bisection over [0, 0.8]; 50 records are the fewest for which that share means something.
    """
    expected = unseen.unseen_accuracy(teacher, split, expected)
    if expected is None or len(split.forget) < 50:  # noqa: PLR2004
        facts = {"distortion": GUESS * strength, "guessed": True, "expected_accuracy": expected}
        log("neighbourhood: distortion guessed", **facts)
        return GUESS * strength
    # strength scales the share that changes: 0 asks for no change at all
    wanted, low, high = 1 - strength * (1 - expected), 0.0, 0.8
    for _ in range(8):
        middle = (low + high) / 2
        kept = _kept_share(teacher, split.forget, middle, seed)
        # a stronger distortion keeps fewer predictions
        low, high = (middle, high) if kept > wanted else (low, middle)
    facts = {"distortion": low, "guessed": False, "expected_accuracy": expected, "kept": wanted}
    log("neighbourhood: distortion found", **facts)
    return low


def _kept_share(teacher: nn.Module, forget: Records, distortion: float, seed: int) -> float:
    """Share of neighbours with the record's own prediction, over at least 500 neighbours."""
    sample = forget.take(range(min(len(forget), 1000)))
    copies = -(-500 // len(sample))
    own = task_of(sample).predict(predict(teacher, sample))
    steps = range(1_000_000, 1_000_000 + copies)  # draws of no training step
    neighbours = [_neighbour(sample, distortion, seed=seed, step=step) for step in steps]
    return sum(unseen.accuracy_of(teacher, one, own) for one in neighbours) / copies

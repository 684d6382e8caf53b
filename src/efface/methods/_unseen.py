"""What an unseen record looks like: its accuracy, its noise scale, which labels are masked.

``search_sigma`` finds the noise at which a record's neighbours keep its prediction as often as the
model is right on unseen data; ``progress_towards`` measures how far a student has come to that.
"""

from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from efface.methods._perturb import add_natural_noise
from efface.runtime import map_chunks
from efface.task import device_of, outputs, predict, require_multiclass, task_of
from efface.types import Records, Split

# The outputs that a batch's records are distilled to.
Target = Callable[[Records], Float[Tensor, " m k"]]

# ``mask(outputs, batch)``: True where a class must not be predicted.
Mask = Callable[[Float[Tensor, " m k"], Records], Bool[Tensor, " m k"]]


def accuracy_of(model: nn.Module, records: Records, y: Tensor) -> float:
    """Accuracy of the model's predictions against ``y``, 0 to 1."""
    return float(task_of(records).accuracy(predict(model, records), y.cpu()).double().mean())


def unseen_accuracy(model: nn.Module, split: Split, given: float | None) -> float | None:
    """The accuracy on unseen data: as given, else on the holdout; None without either."""
    if given is not None or split.holdout is None:
        return given
    # the holdout's own labels could suggest another task
    holdout = replace(split.holdout, task=split.forget.task)
    return accuracy_of(model, holdout, holdout.y)


@torch.no_grad()
def teacher_outputs(model: nn.Module, batch: Records) -> Float[Tensor, " m k"]:
    """Outputs of a frozen model; out of memory halves what goes in at once."""
    rows = torch.arange(len(batch), device=batch.x.device)
    found = [*map_chunks(lambda part: outputs(model, batch.take(part)), rows, len(batch))]
    return torch.cat(found) if len(found) > 1 else found[0]


def progress_towards(
    target: Target,
    teacher: nn.Module,
    student: nn.Module,
    forget: Records,
    *,
    mislabelled: bool = False,
) -> Callable[[], float]:
    """A function of no argument: progress from the teacher's confidence to the target's.

    0 at the teacher, 1 at the target or where both are the same, on up to 512 records. Confidence
    is that in the teacher's prediction, 0 to 1; of wrong labels their log-odds, since an unseen
    model gives them hardly any confidence.
    """
    task = task_of(forget)
    # 512 records give the mean confidence to about 2 %
    chunks = torch.arange(min(len(forget), 512)).split(128)
    parts = [forget.take(rows).to(device_of(teacher)) for rows in chunks]
    labels = [p.y if mislabelled else task.predict(teacher_outputs(teacher, p)) for p in parts]

    def confidence(outputs_at: Target) -> float:
        pairs = zip(parts, labels, strict=True)
        losses = torch.cat([task.loss(outputs_at(part), y) for part, y in pairs])
        return float((_log_odds(losses) if mislabelled else (-losses).exp()).mean())

    start = confidence(lambda part: teacher_outputs(teacher, part))
    # taken once: target and teacher do not change during a run
    distance = start - confidence(target)

    def progress() -> float:
        now = confidence(lambda part: teacher_outputs(student, part))
        return (start - now) / distance if distance > 0.01 else 1.0  # noqa: PLR2004

    return progress


def _log_odds(losses: Float[Tensor, " n"]) -> Float[Tensor, " n"]:
    """Ln p − ln(1 − p) of the label whose cross-entropy −ln p is given."""
    # not every device has float64
    exact = losses.cpu().double()
    return -exact - torch.log(-torch.expm1(-exact)).clamp_min(-40)


def label_mask(split: Split, *, mislabelled: bool) -> Mask:
    """Masks the classes that are to be forgotten, and each record's own label where it is wrong.

    Raises InputError where something is masked and the task is not multiclass.
    """
    forgotten = list(split.forget_classes)
    if forgotten or mislabelled:
        require_multiclass(task_of(split.forget).name)

    def mask(output: Tensor, batch: Records) -> Tensor:
        masked = torch.zeros_like(output, dtype=torch.bool)
        masked[:, forgotten] = True
        if mislabelled:
            masked.scatter_(1, batch.y[:, None], value=True)
        return masked

    return mask


def lower_logits(
    output: Float[Tensor, " m k"], masked: Bool[Tensor, " m k"], *, to_mean: bool = False
) -> Float[Tensor, " m k"]:
    """Outputs in which what is masked is as low as the lowest of the others.

    ``to_mean`` (for wrong labels): as low as their mean, since nothing is known against that class
    of an unseen record. If one other is left it is as far below that as it is above or below now.
    """
    others = (~masked).sum(1, keepdim=True)
    level = output.masked_fill(masked, torch.inf).amin(1, keepdim=True)
    if to_mean:
        level = output.masked_fill(masked, 0).sum(1, keepdim=True) / others.clamp_min(1)
    # at the level of the one other it would be a tie, decided by the order of classes
    level = torch.where(others == 1, level - (output - level).abs(), level)
    # with no other class left there is nothing to lower it to
    return torch.where(masked & (others > 0), level, output)


# Neighbours at each σ; range of the search, in powers of 2; its precision: within 9 %.
SAMPLE, DOUBLINGS, BISECTIONS = 512, 16, 3

# Draws of the search begin here: no training step has such a number.
_NO_STEP = 1_000_000


def search_sigma(
    teacher: nn.Module, forget: Records, wanted: float, *, start: float, seed: int
) -> tuple[float, float]:
    """σ at which a share ``wanted`` (0 to 1) of noisy copies keep the prediction; and that share.

    Doubles or halves from ``start`` until the share is passed, then bisects; of a share of 1,
    until the first copy changes its prediction. Where it is never passed (a blank record, a
    constant model) it is ``start``.
    """
    sample = forget.take(range(min(len(forget), SAMPLE)))
    own = task_of(sample).predict(predict(teacher, sample))
    copies = 1 if len(sample) > SAMPLE // 10 else -(-SAMPLE // 10 // len(sample))
    # a share of 1 is kept by any small σ: ask for the first change instead
    wanted = min(wanted, 1 - 1 / (copies * len(sample)))

    def kept(sigma: float) -> float:
        steps = range(_NO_STEP, _NO_STEP + copies)
        noisy = (add_natural_noise(sample, sigma, seed=seed, step=step) for step in steps)
        return sum(accuracy_of(teacher, one, own) for one in noisy) / copies

    # the share falls with σ: double while it is too high, else halve
    enough = kept(start) > wanted
    factor = 2.0 if enough else 0.5
    sigmas = pairwise(start * factor**power for power in range(DOUBLINGS + 1))
    bracket = next((pair for pair in sigmas if (kept(pair[1]) > wanted) != enough), None)
    if bracket is None:
        return start, kept(start)
    low, high = sorted(bracket)
    for _ in range(BISECTIONS):
        # geometric: σ is a scale
        middle = (low * high) ** 0.5
        low, high = (middle, high) if kept(middle) > wanted else (low, middle)
    found = (low * high) ** 0.5
    return found, kept(found)

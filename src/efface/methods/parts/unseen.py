"""What unseen looks like, from a model and what is at hand: how often right, and how far to it."""

from collections.abc import Callable
from dataclasses import replace

import torch
from jaxtyping import Float
from torch import Tensor, nn

from efface.runtime import map_chunks
from efface.task import device_of, outputs, predict, task_of
from efface.types import Records, Split

Target = Callable[[Records], Float[Tensor, " m k"]]
"""What a batch's records should be answered with."""


def share_right(model: nn.Module, records: Records, y: Tensor) -> float:
    """How often the model says ``y`` of these records, 0 to 1."""
    return float(task_of(records).accuracy(predict(model, records), y.cpu()).double().mean())


def accuracy_expected(model: nn.Module, split: Split, said: float | None) -> float | None:
    """The accuracy on unseen data: as said, else on the holdout; None without either."""
    if said is not None or split.holdout is None:
        return said
    held = replace(split.holdout, task=split.forget.task)
    return share_right(model, held, held.y)


@torch.no_grad()
def answer_of(model: nn.Module, batch: Records) -> Float[Tensor, " m k"]:
    """Outputs of a model that is held still; out of memory halves what goes in at once."""
    rows = torch.arange(len(batch), device=batch.x.device)
    found = [*map_chunks(lambda part: outputs(model, batch.take(part)), rows, len(batch))]
    return torch.cat(found) if len(found) > 1 else found[0]


def way_to(
    teacher: nn.Module,
    student: nn.Module,
    forget: Records,
    *,
    target: Target,
    mislabelled: bool = False,
) -> Callable[[], float]:
    """Share of the way from the given confidence to the target's, on up to 512 records.

    Confidence in the given model's own answer, 0 to 1; of wrong labels their log-odds, since an
    unseen model gives them hardly any confidence. Asked again at each call; 1 where is no way.
    """
    task = task_of(forget)
    rows = torch.arange(min(len(forget), 512)).split(128)
    parts = [forget.take(part).to(device_of(teacher)) for part in rows]
    said = [part.y if mislabelled else task.predict(answer_of(teacher, part)) for part in parts]

    def confidence(answer: Target) -> float:
        losses = torch.cat(
            [task.loss(answer(part), y) for part, y in zip(parts, said, strict=True)]
        )
        return float((_log_odds(losses) if mislabelled else (-losses).exp()).mean())

    start, goal = confidence(lambda part: answer_of(teacher, part)), confidence(target)

    def done() -> float:
        now = confidence(lambda part: answer_of(student, part))
        return (start - now) / (start - goal) if start - goal > 0.01 else 1.0  # noqa: PLR2004

    return done


def _log_odds(losses: Float[Tensor, " n"]) -> Float[Tensor, " n"]:
    """Ln p − ln(1 − p) of the label whose cross-entropy −ln p is given."""
    exact = losses.cpu().double()  # not every device has float64
    return -exact - torch.log(-torch.expm1(-exact)).clamp_min(-40)

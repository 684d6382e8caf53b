"""Selective dampening: weights that matter to the forget records far more than to the others."""

import logging

import torch
from torch import nn

from efface.errors import InputError
from efface.methods.parts.importance import Importance
from efface.types import Action, Callback

logger = logging.getLogger(__name__)


def dampened(
    student: nn.Module,
    forget: Importance,
    whole: Importance,
    *,
    selection: float,
    dampening: float,
    callback: Callback,
) -> nn.Module:
    """Scale the weights of ``student`` where the forget importance is far the greater.

        where I(D_f)_i > α I(D)_i:   θ_i ← θ_i · min(λ I(D)_i / I(D_f)_i, 1)

    A weight that matters to nobody (0 against 0) is not selected. ``callback`` is asked once, with
    the mean loss of the forget records as they came; when it answers HALVE it has put the student
    back, and the same is done again with α doubled. The share of weights that was selected is told.
    """
    _refuse_nothing(student, forget)
    while True:
        share = _scaled(student, forget, whole, selection, dampening)
        facts = {"selection": selection, "selected": share}
        logger.info("dampening: weights selected", extra={"facts": facts})
        if callback(student, forget.loss) is not Action.HALVE_LR:
            return student
        selection *= 2


def _refuse_nothing(student: nn.Module, forget: Importance) -> None:
    """Where every weight that matters is 0 nothing can be scaled, and the result would lie."""
    weights = [weight for weight in student.parameters() if weight.requires_grad]
    pairs = list(zip(weights, forget.of, strict=True))
    matter = any(bool((ours > 0).any()) for _, ours in pairs)
    if matter and not any(bool(((ours > 0) & (weight != 0)).any()) for weight, ours in pairs):
        raise InputError(
            "weights that hold what the forget records need",
            "weights that are all 0 where they matter, as in a new adapter",
            "Let weights of the model itself move (trainable).",
        )


@torch.no_grad()
def _scaled(
    student: nn.Module, forget: Importance, whole: Importance, selection: float, dampening: float
) -> float:
    """Change the weights in place; the share of them that was selected."""
    weights = [weight for weight in student.parameters() if weight.requires_grad]
    count = 0
    for weight, ours, theirs in zip(weights, forget.of, whole.of, strict=True):
        selected = ours > selection * theirs
        factor = (dampening * theirs / ours).clamp(max=1)
        weight.copy_(torch.where(selected, weight * factor, weight))
        count += int(selected.sum())
    return count / max(1, sum(weight.numel() for weight in weights))


def selection_at(strength: float, selection: float) -> float:
    """α / strength: more strength selects more weights, none at all selects none."""
    return selection / strength if strength else torch.inf

"""Adaptive SSD (ASSD): α from the number of forget records: https://arxiv.org/abs/2402.10098.

    r_i = I(D_f)_i / I(D_r)_i,   q = 100 − ln(1 + 100 n_f / (n_f + n_r)),   α = percentile_q(r)
    where I(D_f)_i > α I(D_r)_i:   θ_i ← θ_i · min(λ I(D_r)_i / I(D_f)_i, 1),   λ = 1

I is that of ``ssd``; one α for all weights. A ratio that is nan (0/0) or infinite is left out of
the percentile. D_r stands for D, as in the authors' notebook
(if-loops/adaptive-selective-synaptic-dampening); with D the ratios of all weights have a bound.

Departures from the notebook: eval mode, where a line that was commented out left BatchNorm in train
mode; batches as in ``ssd``; no lower limit of the factor (theirs is 0).
"""

import math

import numpy as np
import torch
from torch import nn

from efface.methods._base import Count, Memory, NonNegative, register_method
from efface.methods._fisher import (
    Batching,
    Importance,
    alpha_at,
    dampen,
    forget_and_data_importance,
)
from efface.task import trainable_copy
from efface.training import task_loss
from efface.types import Callback, Split, no_callback


@register_method(
    reads={"forget labels"}, needs={"retain labels"}, memory=Memory(copies=7), one_step=True
)
def assd(
    model: nn.Module,
    split: Split,
    *,
    strength: NonNegative = 1.0,
    dampening: NonNegative = 1.0,
    batch_size: Count = 1024,
    seed: int = 0,
    callback: Callback = no_callback,
) -> nn.Module:
    """Scale down a share of the weights that follows from the number of forget records.

    Args:
        model: the given model; it is not changed.
        split: ``forget`` and ``retain`` are read, with their labels; their counts set α.
        strength: α is divided by it.
        dampening: λ, theirs is 1.
        batch_size: at most so many records have their mean gradient squared, in both passes
            alike; 1024 as in the notebook.
        seed: draws who is in a batch with whom.
        callback: called once, after the change. On HALVE_LR it is made again with α doubled.

    Raises:
        InputError: ``retain`` is missing, or all weights that matter are 0, as in a new adapter.
    """
    student, batching = trainable_copy(model), Batching(batch_size, seed)
    # against D_r and not D: with D every ratio is at most (n_f + n_r) / n_f
    both = forget_and_data_importance(student, split, task_loss, batching, with_forget=False)
    alpha = _percentile(*both, len(split.forget), len(split.retain))
    return dampen(student, both, alpha_at(strength, alpha), dampening, callback)


def _percentile(forget: Importance, retain: Importance, n_forget: int, n_retain: int) -> float:
    """α: the percentile of the ratios of all weights; infinite where there is no ratio."""
    pairs = zip(forget.weights, retain.weights, strict=True)
    ratios = torch.cat([(ours / theirs).flatten() for ours, theirs in pairs])
    # 0/0 and x/0 say nothing of how much more the forget records need a weight
    ratios = ratios[ratios.isfinite()]
    if not len(ratios):
        return torch.inf
    percentile = 100 - math.log(1 + 100 * n_forget / (n_forget + n_retain))
    return float(np.percentile(ratios.cpu().double().numpy(), percentile))

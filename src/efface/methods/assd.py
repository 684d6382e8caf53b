"""Adaptive SSD (ASSD): α from how many records go: https://arxiv.org/abs/2402.10098.

    r_i = I(D_f)_i / I(D_r)_i,   q = 100 − ln(1 + 100 n_f / (n_f + n_r)),   α = percentile_q(r)
    where I(D_f)_i > α I(D_r)_i:   θ_i ← θ_i · min(λ I(D_r)_i / I(D_f)_i, 1),   λ = 1

I is that of ``ssd``; one α for all weights. A ratio that is no number (0/0) or infinite is left out
of the percentile. D_r stands for D, as in the authors' notebook
(if-loops/adaptive-selective-synaptic-dampening); with D the ratios of all weights have a bound.

Departures from the notebook: eval mode, where a line that was commented out left BatchNorm in train
mode; batches as in ``ssd``; no lower limit of the factor (theirs is 0).
"""

import math

import numpy as np
import torch
from torch import Tensor, nn

from efface.methods._base import Count, Memory, NonNegative, register_method
from efface.methods.parts.dampening import dampened, selection_at
from efface.methods.parts.importance import Importance, of_forget_and_whole
from efface.task import task_of, trainable_copy
from efface.types import Callback, Records, Split, no_callback


@register_method(
    reads={"forget", "forget labels", "retain labels"},
    needs={"retain"},
    memory=Memory(copies=7, graphs=2),
    one_step=True,
    runs_on_empty=True,
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
    """Scale down the share of weights that the number of records asks for.

    Args:
        model: answers (n, *features) with outputs (n, k); stays as it is.
        split: ``forget`` and ``retain`` are read, with their labels; their counts set α.
        strength: the one knob; α is divided by it.
        dampening: λ, theirs is 1.
        batch_size: at most so many records have their mean gradient squared, in both passes
            alike; 1024 as in the notebook.
        seed: draws who is in a batch with whom.
        callback: called once, after the change. On HALVE it is made again with α doubled.

    Raises:
        InputError: there is no ``retain``; ``dampening`` is below 0; all weights that matter are
            0, as in a new adapter.
    """
    student = trainable_copy(model)
    task = task_of(split.retain)

    def loss(model: nn.Module, batch: Records) -> Tensor:
        return task.loss(task.outputs(model, batch.x), batch.y)

    told = {"batch_size": batch_size, "with_forget": False, "seed": seed}
    forget, others = of_forget_and_whole(student, split.forget, split.retain, loss=loss, **told)
    alpha = _selection(forget, others, len(split.forget), len(split.retain))
    chosen = {"selection": selection_at(strength, alpha), "dampening": dampening}
    return dampened(student, forget, others, **chosen, callback=callback)


def _selection(forget: Importance, others: Importance, gone: int, staying: int) -> float:
    """α: the percentile of the ratios of all weights; infinite where there is no ratio."""
    pairs = zip(forget.of, others.of, strict=True)
    ratios = torch.cat([(ours / theirs).flatten() for ours, theirs in pairs])
    ratios = ratios[ratios.isfinite()]
    if not len(ratios):
        return torch.inf
    percentile = 100 - math.log(1 + 100 * gone / (gone + staying))
    return float(np.percentile(ratios.cpu().double().numpy(), percentile))

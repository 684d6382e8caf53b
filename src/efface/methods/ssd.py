"""Selective synaptic dampening (SSD), AAAI 2024: https://arxiv.org/abs/2308.07707.

Weights that matter to the forget records far more than to the data as a whole are scaled down:

    I(S)_i = mean over batches b of S of (∂ CE(b) / ∂θ_i)²,   CE(b) the mean over the batch
    where I(D_f)_i > α I(D)_i:   θ_i ← θ_i · min(λ I(D)_i / I(D_f)_i, 1)

D is the forget and the retained records. No step is taken: two passes, one change.

Departures from the authors' code (if-loops/selective-synaptic-dampening, src/ssd.py):

- One size of batches for both passes, that of the forget set where it is smaller, and batches of
  nearly equal size: a mean over fewer records has a greater square, and the code's loaders make the
  last batch smaller. ``sequential`` is the code's form, tested against weights that it made.
- Who is in a batch with whom depends on ids and seed: the order of D does not matter.
- A weight that no record needs (0 against 0) is left alone.
"""

from torch import nn

from efface.methods._base import Count, Memory, NonNegative, register_method
from efface.methods._fisher import Batching, alpha_at, dampen, forget_and_data_importance
from efface.task import trainable_copy
from efface.training import task_loss
from efface.types import Callback, Split, no_callback


@register_method(
    reads={"forget labels"}, needs={"retain labels"}, memory=Memory(copies=6), one_step=True
)
def ssd(
    model: nn.Module,
    split: Split,
    *,
    strength: NonNegative = 1.0,
    selection_weighting: NonNegative = 10.0,
    dampening: NonNegative = 1.0,
    with_forget: bool = True,
    sequential: bool = False,
    batch_size: Count = 128,
    seed: int = 0,
    callback: Callback = no_callback,
) -> nn.Module:
    """Scale down the weights that the forget records need far more than the data as a whole.

    Args:
        model: the given model; it is not changed.
        split: ``forget`` and ``retain`` are read, with their labels.
        strength: α is divided by it.
        selection_weighting: the paper's α; 10 is the authors' for a ResNet18 on every task.
        dampening: the paper's λ, theirs is 1.
        with_forget: D holds the forget records, as in the paper; false: D_r stands for D.
        sequential: batches in the order given, the last one smaller, as in the authors' loader.
        batch_size: at most so many records have their mean gradient squared, in both passes
            alike; 1 is the Fisher information, and selects less at the same α.
        seed: draws who is in a batch with whom.
        callback: called once, after the change. On HALVE_LR it is made again with α doubled.

    Raises:
        InputError: ``retain`` is missing, or all weights that matter are 0, as in a new adapter.
    """
    student, batching = trainable_copy(model), Batching(batch_size, seed, sequential)
    # both under the given weights: one change at the end
    both = forget_and_data_importance(student, split, task_loss, batching, with_forget=with_forget)
    return dampen(student, both, alpha_at(strength, selection_weighting), dampening, callback)

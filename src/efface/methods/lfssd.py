"""Label-free SSD ("Loss-free machine unlearning"), ICLR 2024: https://arxiv.org/abs/2402.19308.

As SSD, with the squared norm of the outputs in place of the loss, so that no label is read:

    I(S)_i = mean over batches b of S of |∂ mean_b ‖f(x)‖₂² / ∂θ_i|
    where I(D_f)_i > α I(D)_i:   θ_i ← θ_i · min(λ I(D)_i / I(D_f)_i, 1)

Departures from the authors' code (if-loops/selective-synaptic-dampening): those of ``ssd``: batches
of one size in both passes, composed by id and seed.
"""

from torch import Tensor, nn

from efface.methods._base import Count, Memory, NonNegative, register_method
from efface.methods._fisher import Batching, alpha_at, dampen, forget_and_data_importance
from efface.methods._records import without_labels
from efface.task import outputs, task_of, trainable_copy
from efface.types import Callback, Records, Split, no_callback


@register_method(reads={"forget"}, needs={"retain"}, memory=Memory(copies=6), one_step=True)
def lfssd(
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
    """Scale down the weights that move the outputs on the forget records far more than others.

    Args:
        model: the given model; it is not changed.
        split: the inputs of ``forget`` and ``retain`` are read, no labels.
        strength: α is divided by it.
        selection_weighting: the paper's α; 10 is reported for classes and sub-classes of
            CIFAR-100.
        dampening: the paper's λ, theirs is 1.
        with_forget: D holds the forget records, as in the paper; false: D_r stands for D.
        sequential: batches in the order given, the last one smaller, as in the authors' loader.
        batch_size: at most so many records have their mean gradient taken, in both passes
            alike; 1 is each record alone, and selects less at the same α.
        seed: draws who is in a batch with whom.
        callback: called once, after the change. On HALVE_LR it is made again with α doubled.

    Raises:
        InputError: ``retain`` is missing, or all weights that matter are 0, as in a new adapter.
    """
    student, batching = trainable_copy(model), Batching(batch_size, seed, sequential)
    # the labels are replaced before anything can read them
    task = task_of(split.retain)
    forget, retain = (without_labels(part, task) for part in (split.forget, split.retain))
    unlabelled = Split(forget, retain=retain)
    how = {"with_forget": with_forget, "power": 1}
    both = forget_and_data_importance(student, unlabelled, _squared_norm, batching, **how)
    return dampen(student, both, alpha_at(strength, selection_weighting), dampening, callback)


def _squared_norm(model: nn.Module, batch: Records, step: int) -> Tensor:  # noqa: ARG001
    return outputs(model, batch).square().sum(1)

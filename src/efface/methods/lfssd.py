"""Label-free SSD ("Loss-free machine unlearning"), ICLR 2024: https://arxiv.org/abs/2402.19308.

As SSD, with the length of the answer in the place of the loss, so that no label is read:

    I(S)_i = mean over batches b of S of |∂ mean_b ‖f(x)‖₂² / ∂θ_i|
    where I(D_f)_i > α I(D)_i:   θ_i ← θ_i · min(λ I(D)_i / I(D_f)_i, 1)

Departures from the authors' code (if-loops/selective-synaptic-dampening): those of ``ssd``: batches
of one size in both passes, made up by id and seed.
"""

from torch import Tensor, nn

from efface.methods._base import Count, Memory, NonNegative, register_method
from efface.methods.parts.dampening import dampened, selection_at
from efface.methods.parts.importance import of_forget_and_whole
from efface.methods.parts.retained import without_labels
from efface.task import task_of, trainable_copy
from efface.types import Callback, Records, Split, no_callback


@register_method(
    reads={"forget"},
    needs={"retain"},
    memory=Memory(copies=6, graphs=2),
    one_step=True,
    runs_on_empty=True,
)
def lfssd(
    model: nn.Module,
    split: Split,
    *,
    strength: NonNegative = 1.0,
    selection: NonNegative = 10.0,
    dampening: NonNegative = 1.0,
    with_forget: bool = True,
    as_loaded: bool = False,
    batch_size: Count = 128,
    seed: int = 0,
    callback: Callback = no_callback,
) -> nn.Module:
    """Scale down the weights that move the answers on the forget records far more than others.

    Args:
        model: answers (n, *features) with outputs (n, k); stays as it is.
        split: the inputs of ``forget`` and ``retain`` are read, no labels.
        strength: the one knob; α is divided by it.
        selection: the paper's α; 10 is reported for classes and sub-classes of CIFAR-100.
        dampening: the paper's λ, theirs is 1.
        with_forget: D holds the forget records, as in the paper; false: D_r stands for D.
        as_loaded: batches in the order given, the last one smaller, as in the authors' loader.
        batch_size: at most so many records have their mean gradient taken, in both passes
            alike; 1 is each record alone, and selects less at the same α.
        seed: draws who is in a batch with whom.
        callback: called once, after the change. On HALVE it is made again with α doubled.

    Raises:
        InputError: there is no ``retain``; ``selection`` or ``dampening`` is below 0; all weights
            that matter are 0, as in a new adapter.
    """
    student = trainable_copy(model)
    task = task_of(split.retain)
    parts = (without_labels(part, task) for part in (split.forget, split.retain))

    def length(model: nn.Module, batch: Records) -> Tensor:
        return task.outputs(model, batch.x).square().sum(1)

    told = {"with_forget": with_forget, "as_loaded": as_loaded, "seed": seed}
    forget, whole = of_forget_and_whole(
        student, *parts, loss=length, power=1, batch_size=batch_size, **told
    )
    alpha = selection_at(strength, selection)
    return dampened(student, forget, whole, selection=alpha, dampening=dampening, callback=callback)

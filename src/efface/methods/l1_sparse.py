"""ℓ1-sparse fine-tuning, Jia et al. 2023: https://arxiv.org/abs/2304.04934.

    L(θ) = 1/n_r Σ_{D_r} ℓ(f(x), y) + γ_t ‖θ‖₁,   γ_t = γ (1 − t/E)

t the epoch of E. Settings of the authors' code: SGD, η 0.01, momentum 0.9, weight decay 5e-4, 10
epochs, train mode; γ 5e-4 is the paper's order for a ResNet-18 on CIFAR-10 (the code's own default
of 0.2 serves another method). With γ = 0 it is ``finetune``, bit for bit. Departures: batches of
128 as in the rest of the table, not 256; the penalty is on the weights that may move.
"""

from torch import Tensor, nn

from efface.methods._base import Count, Decay, Memory, NonNegative, register_method
from efface.task import trainable_copy
from efface.training import Schedule, sgd, steps_per_epoch, task_loss, train_epochs, with_task
from efface.types import Callback, Records, Split, no_callback


@register_method(
    needs={"retain labels"},
    memory=Memory(copies=6),
    purpose="the baseline with a sparser model",
    year=2023,
    passes=80,
)
def l1_sparse(
    model: nn.Module,
    split: Split,
    *,
    strength: NonNegative = 1.0,
    penalty: NonNegative = 5e-4,
    learning_rate: NonNegative = 0.01,
    momentum: Decay = 0.9,
    weight_decay: NonNegative = 5e-4,
    epochs: Count = 10,
    batch_size: Count = 128,
    training_mode: bool = True,
    seed: int = 0,
    callback: Callback = no_callback,
) -> nn.Module:
    """Fine-tune on the retained records towards sparse weights; never reads the forget records.

    Args:
        model: the given model; it is not changed.
        split: ``retain`` is read, inputs and labels.
        strength: multiplies the penalty.
        penalty: the paper's γ in the first epoch, falling linearly to 0.
        learning_rate: η of SGD.
        momentum: of SGD.
        weight_decay: of SGD.
        epochs: passes over ``retain``.
        batch_size: records in a step.
        training_mode: dropout is active and BatchNorm's statistics move, as in the source.
        seed: draws the order, and dropout.
        callback: called after each step.

    Raises:
        InputError: ``retain`` is missing.
    """
    student, retain = trainable_copy(model), with_task(split.retain)
    steps = epochs * steps_per_epoch(retain, batch_size)

    def loss(student: nn.Module, batch: Records, step: int) -> Tensor:
        own = task_loss(student, batch, step)
        # γ falls once an epoch and not at each step, as in the source
        now = penalty * strength * (1 - step * epochs // steps / epochs)
        # skipped, so that γ = 0 is finetune bit for bit
        if not now:
            return own
        # added to each record's loss: the mean over a step has it once
        return own + now * sum(w.abs().sum() for w in student.parameters() if w.requires_grad)

    optimizer = sgd(student, learning_rate, momentum, weight_decay)
    schedule = Schedule(epochs, batch_size, seed, callback, training_mode)
    return train_epochs(student, loss, retain, optimizer, schedule)

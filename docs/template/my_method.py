"""NAME OF THE METHOD, VENUE YEAR: https://arxiv.org/abs/THE-PAPER.

What it minimises, in the notation of the paper:

    L(θ) = 1/n_f Σ over x in D_f of  Σ_k p_k(x) ln p_k(x),   p = softmax(f(x))

Departures from the authors' code: say each, and why.
"""

import torch
from torch import Tensor, nn

from efface.methods import Count, Memory, NonNegative, register_method
from efface.task import outputs, trainable_copy
from efface.training import Schedule, train_epochs
from efface.types import Records, Split, Callback, no_callback


@register_method(reads={"forget"}, memory=Memory(copies=5, graphs=2))
def my_method(
    model: nn.Module,
    split: Split,
    *,
    strength: NonNegative = 1.0,
    learning_rate: NonNegative = 0.01,
    epochs: Count = 10,
    batch_size: Count = 128,
    seed: int = 0,
    callback: Callback = no_callback,
) -> nn.Module:
    """Maximise the entropy of the predictions on the forget records.

    Args:
        model: maps (n, *features) to outputs (n, k); it is not changed.
        split: the inputs of ``forget`` are read; no labels, nothing else.
        strength: the one knob; multiplies the step.
        learning_rate: η of SGD.
        epochs: passes over the forget records.
        batch_size: records in one step's mean.
        seed: draws the order.
        callback: called after each step.
    """
    student = trainable_copy(model)
    return train_epochs(
        student,
        _negative_entropy,
        split.forget,
        torch.optim.SGD(student.parameters(), lr=learning_rate * strength),
        Schedule(epochs, batch_size, seed, callback),
    )


def _negative_entropy(student: nn.Module, batch: Records, step: int) -> Tensor:  # noqa: ARG001
    """One number a record: means over a step, micro-batches and processes are ``descend``'s."""
    log_p = outputs(student, batch).log_softmax(1)
    return (log_p.exp() * log_p).sum(1)

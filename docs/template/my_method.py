"""NAME OF THE METHOD, VENUE YEAR: https://arxiv.org/abs/THE-PAPER.

What it makes small, in the paper's symbols:

    L(θ) = 1/n_f Σ over x in D_f of  Σ_k p_k(x) ln p_k(x),   p = softmax(f(x))

Departures from the authors' code: say each, and why.
"""

import torch
from torch import Tensor, nn

from efface.adapters import outputs, student_of
from efface.methods import Cost, Entry
from efface.steps import descend
from efface.types import Records, Split, Watch, carry_on


def my_method(
    model: nn.Module,
    split: Split,
    *,
    strength: float = 1.0,
    learning_rate: float = 0.01,
    epochs: int = 10,
    records_per_step: int = 128,
    seed: int = 0,
    watch: Watch = carry_on,
) -> nn.Module:
    """Make the model unsure of the forget records, label by label.

    Args:
        model: answers (n, *features) with outputs (n, k); stays as it is.
        split: the inputs of ``forget`` are read; no labels, nothing else.
        strength: the one knob; multiplies the step.
        learning_rate: η of SGD.
        epochs: passes over the forget records.
        records_per_step: records in one step's mean.
        seed: draws the order.
        watch: called after each step.
    """
    student = student_of(model)
    steps = epochs * -(-len(split.forget) // records_per_step)
    optimizer = torch.optim.SGD(student.parameters(), lr=learning_rate * strength)
    return descend(
        student,
        _negative_entropy,
        split.forget,
        optimizer=optimizer,
        steps=steps,
        seed=seed,
        watch=watch,
        records_per_step=records_per_step,
    )


def _negative_entropy(student: nn.Module, batch: Records, step: int) -> Tensor:  # noqa: ARG001
    """One number a record: means over a step, micro-batches and processes are ``descend``'s."""
    log_p = outputs(student, batch).log_softmax(1)
    return (log_p.exp() * log_p).sum(1)


METHOD = Entry(
    my_method,
    sees=frozenset({"model", "forget"}),
    cost=Cost("epochs * forget", "epochs * forget"),
    copies=5,
    graphs=2,
)

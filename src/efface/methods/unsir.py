"""UNSIR, impair with error-maximising noise and repair, TNNLS 2023: https://arxiv.org/abs/2111.08947.

A class c goes; none of its records is read. Inputs N of maximal error for c under the given model
f₀ are made from noise, the student is trained on them as c (impair), and then on D_r (repair):

    noise:   N = argmin over N of  mean_i ( −CE(f₀(N_i), c) + 0.1 ‖N_i‖₂² ),  N ~ N(0, I) at first
    impair:  one epoch of CE on {(N_i, c), each so many times} and samples of D_r
    repair:  one epoch of CE on the samples of D_r

Departures from the authors' code (vikram2000b/Fast-Machine-Unlearning): all N are used, where a
loop over channels took the first 3 (``noise_records`` 3 is that); noise is made in eval mode,
where BatchNorm and dropout moved; the student is in eval mode (``training_mode`` is theirs);
several classes share the noise.
The defaults are those of two later comparisons; the paper's own are in docs/methods.md.
"""

import torch
from torch import nn

from efface.methods._attacks import optimize_noise
from efface.methods._base import Count, Memory, Natural, NonNegative, register_method
from efface.methods._records import join, repeat, sample_per_class
from efface.task import frozen_teacher, trainable_copy
from efface.training import Trainer, task_loss, train_mode, with_task
from efface.types import Callback, Split, no_callback


@register_method(
    needs={"retain labels", "forget_classes"},
    memory=Memory(6),
    classes_only=True,
    purpose="a class whose records are gone, with labelled retain records",
    year=2023,
    passes=42,
)
def unsir(  # noqa: PLR0913  # each setting is declared here once
    model: nn.Module,
    split: Split,
    *,
    strength: NonNegative = 1.0,
    noise_records: Count = 32,
    noise_steps: Natural = 25,
    noise_rate: NonNegative = 0.1,
    penalty: NonNegative = 0.1,
    copies: Natural = 80,
    retained_per_class: Count = 500,
    learning_rate: NonNegative = 1e-4,
    repair_rate: NonNegative = 1.0,
    batch_size: Count = 128,
    training_mode: bool = False,
    seed: int = 0,
    callback: Callback = no_callback,
) -> nn.Module:
    """Train on noise of maximal error as the class to forget, then on what is retained.

    Args:
        model: the given model; it is not changed.
        split: ``forget_classes`` and ``retain`` with its labels are read; of ``forget`` nothing.
        strength: multiplies the learning rate of impair.
        noise_records: inputs made from noise, shared among the classes to forget.
        noise_steps: steps of Adam that make them.
        noise_rate: the learning rate of these.
        penalty: weight of the squared norm of an input.
        copies: how many times each is in the training set.
        retained_per_class: retained records of each class.
        learning_rate: of Adam, in impair.
        repair_rate: the learning rate of repair, in learning rates of impair.
        batch_size: records in a step.
        training_mode: dropout is active and BatchNorm's statistics move, as in the source.
        seed: draws the noise, the samples, the order, and dropout.
        callback: called after each step of impair and repair.

    Raises:
        InputError: no class goes; ``retain`` is missing; the task is not multiclass.
    """
    student, teacher = trainable_copy(model), frozen_teacher(model)
    classes, retain = split.forget_classes, with_task(split.retain)
    retain = sample_per_class(retain, retained_per_class, forget_classes=classes, seed=seed)
    # classes take turns where several share the noise
    labels = torch.tensor([classes[number % len(classes)] for number in range(noise_records)])
    how = {"penalty": penalty, "learning_rate": noise_rate, "sign": -1.0}
    noise = optimize_noise(teacher, retain, labels, **how, steps=noise_steps, seed=seed)
    # together in one epoch: impair alone would destroy the model
    impair = join(retain, repeat(noise, copies))
    trainer = Trainer(student, seed=seed, callback=callback)
    with train_mode(student, seed, enabled=training_mode):
        for records, rate in ((impair, strength), (retain, repair_rate)):
            # a new one for each phase, as in the source
            optimizer = torch.optim.Adam(student.parameters(), lr=learning_rate * rate)
            trainer.run_epoch(task_loss, records, optimizer, batch_size=batch_size)
    return student

"""UNSIR, impair with error-maximising noise and repair, TNNLS 2023: https://arxiv.org/abs/2111.08947.

A class c goes; none of its records is read. Inputs N that the given model f₀ takes least for c are
made from noise, the student is taught that they are c (impair), and then what stays (repair):

    noise:   N = argmin over N of  mean_i ( −CE(f₀(N_i), c) + 0.1 ‖N_i‖₂² ),  N ~ N(0, I) at first
    impair:  one epoch of CE on {(N_i, c), each so many times} and samples of D_r
    repair:  one epoch of CE on the samples of D_r

Departures from the authors' code (vikram2000b/Fast-Machine-Unlearning): all N are used, where a
loop over channels took the first 3 (``noise_records`` 3 is that); noise is made in eval mode,
where BatchNorm and dropout moved; the student is in eval mode; several classes share the noise.
The defaults are those of two later comparisons; the paper's own are in docs/methods.md.
"""

import torch
from torch import Tensor, nn

from efface.methods._base import (
    Count,
    Memory,
    Natural,
    NonNegative,
    register_method,
)
from efface.methods.parts.noise_images import made_from_noise
from efface.methods.parts.retained import repeated, sampled_of_each_class, together
from efface.task import frozen_teacher, task_of, trainable_copy
from efface.training import Trainer
from efface.types import Callback, Records, Split, no_callback


@register_method(
    reads={"retain labels"},
    needs={"retain", "forget_classes"},
    memory=Memory(copies=6, graphs=2),
    classes_only=True,
)
def unsir(
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
    seed: int = 0,
    callback: Callback = no_callback,
) -> nn.Module:
    """Teach that noise far from the class is the class, then teach again what stays.

    Args:
        model: answers (n, *features) with outputs (n, k); stays as it is.
        split: ``forget_classes`` and ``retain`` with its labels are read; of ``forget`` nothing.
        strength: the one knob; multiplies the impair step.
        noise_records: inputs made from noise, shared among the classes that leave.
        noise_steps: steps of Adam that make them.
        noise_rate: the learning rate of these.
        penalty: weight of the length of an input.
        copies: how many times each is shown.
        retained_per_class: records that stay, of each class.
        learning_rate: of Adam, in impair.
        repair_rate: the learning rate of repair, in learning rates of impair.
        batch_size: records in one step's mean.
        seed: draws the noise, the samples and the order.
        callback: called after each step of impair and repair.

    Raises:
        InputError: no class leaves; there is no ``retain``; the outputs are not one label.
    """
    student, task = trainable_copy(model), task_of(split.retain)
    told = {"forget_classes": split.forget_classes, "seed": seed}
    staying = sampled_of_each_class(split.retain, retained_per_class, **told)
    labels = torch.tensor(
        [split.forget_classes[i % len(split.forget_classes)] for i in range(noise_records)]
    )
    making = {"penalty": penalty, "rate": noise_rate, "steps": noise_steps, "seed": seed}
    noise = made_from_noise(frozen_teacher(model), staying, labels, task=task, sign=-1.0, **making)
    impairing = together(staying, repeated(noise, copies))

    def loss(student: nn.Module, batch: Records, step: int) -> Tensor:  # noqa: ARG001
        return task.loss(task.outputs(student, batch.x), batch.y)

    trainer = Trainer(student, seed=seed, callback=callback)
    for records, rate in ((impairing, strength), (staying, repair_rate)):
        optimizer = torch.optim.Adam(student.parameters(), lr=learning_rate * rate)
        trainer.run_epoch(loss, records, optimizer=optimizer, batch_size=batch_size)
    return student

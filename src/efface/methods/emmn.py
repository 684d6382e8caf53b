"""EMMN, noise in the place of records, TIFS 2023: https://arxiv.org/abs/2201.05629.

A class c goes, and no record is read, neither of it nor of what stays. Inputs are made from normal
noise that the given model f₀ takes least for c, and for each class k that stays such that it takes
for k; the student is taught both under these labels (impair), and what stays again (repair):

    N_c = argmin over N of  mean_i ( −CE(f₀(N_i), c) + 0.1 ‖N_i‖₂² ),   N ~ N(0, I) at first
    N_k = argmin over N of  mean_i CE(f₀(N_i), k)
    impair:  CE on {(N_c, c)} ∪ {(N_k, k)};   repair: CE on {(N_k, k)}

The authors' repository has no code of it. Settings are those of JiT's comparison, which has no
repair: ``repair_epochs`` 0, ``training_mode`` true and ``noise_per_class`` 3 are its form.

Departures from that code: all inputs are used, where a loop over channels took the first 3 of 4;
noise is made in eval mode, where it was made in whatever mode the model was in; the student is in
eval mode, where BatchNorm took its statistics from the noise.
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
from efface.methods.parts.retained import repeated, together, without_labels
from efface.task import device_of, frozen_teacher, task_of, trainable_copy
from efface.training import Trainer, train_mode
from efface.types import Callback, Records, Split, no_callback


@register_method(
    reads={"forget"},
    needs={"forget_classes"},
    memory=Memory(copies=6, graphs=2, neighbours=128),
    classes_only=True,
    runs_on_empty=True,
)
def emmn(
    model: nn.Module,
    split: Split,
    *,
    strength: NonNegative = 1.0,
    noise_per_class: Count = 4,
    noise_steps: Natural = 25,
    retained_steps: Natural = 30,
    copies: Natural = 80,
    learning_rate: NonNegative = 1e-4,
    impair_epochs: Count = 2,
    repair_epochs: Natural = 1,
    batch_size: Count = 4,
    training_mode: bool = False,
    seed: int = 0,
    callback: Callback = no_callback,
) -> nn.Module:
    """Teach noise far from the class that it is the class, and noise for the others as theirs.

    Args:
        model: answers (n, *features) with outputs (n, k); stays as it is.
        split: ``forget_classes`` is read; of ``forget`` what an input looks like, and no input.
        strength: the one knob; multiplies the impair step.
        noise_per_class: inputs made from noise for each class, those that leave and those that
            stay.
        noise_steps: steps of Adam that make those of a class that leaves.
        retained_steps: the same for a class that stays.
        copies: how many times each is shown in an epoch.
        learning_rate: of Adam, in impair and repair.
        impair_epochs: passes over all noise.
        repair_epochs: passes over the noise of the classes that stay; 0: no repair.
        batch_size: records in one step's mean.
        training_mode: dropout is active and BatchNorm's statistics move, as in that code.
        seed: draws the noise, the order, and dropout.
        callback: called after each step of impair and repair.

    Raises:
        InputError: no class leaves; the outputs are not one label.
    """
    student, teacher = trainable_copy(model), frozen_teacher(model)
    task = task_of(split.forget)
    like = without_labels(split.forget, task)
    staying = [one for one in range(_classes(teacher, like)) if one not in split.forget_classes]
    told = {"task": task, "rate": NOISE_RATE}
    away = _labels(split.forget_classes, noise_per_class)
    going = {"sign": -1.0, "penalty": PENALTY, "steps": noise_steps, "seed": seed}
    gone = made_from_noise(teacher, like, away, **told, **going)
    keeping = {"sign": 1.0, "penalty": 0.0, "steps": retained_steps, "seed": seed + APART}
    kept = made_from_noise(teacher, like, _labels(staying, noise_per_class), **told, **keeping)
    shown = repeated(kept, copies)
    trainer = Trainer(student, seed=seed, callback=callback)
    impair = (together(repeated(gone, copies), shown), strength, impair_epochs)
    with train_mode(student, seed, enabled=training_mode):
        for records, rate, passes in (impair, (shown, 1.0, repair_epochs)):
            optimizer = torch.optim.Adam(student.parameters(), lr=learning_rate * rate)
            step = {"optimizer": optimizer, "batch_size": batch_size}
            for epoch in range(passes):
                trainer.run_epoch(_loss, records, **step, epoch=epoch)
    return student


NOISE_RATE, PENALTY = 0.1, 0.1
"""Of Adam that makes noise; weight of the length of an input of a class that leaves."""

APART = 1_000_003
"""Between the seeds of the two kinds of noise: they would begin as the same inputs."""


def _loss(student: nn.Module, batch: Records, step: int) -> Tensor:  # noqa: ARG001
    task = task_of(batch)
    return task.loss(task.outputs(student, batch.x), batch.y)


@torch.no_grad()
def _classes(teacher: nn.Module, like: Records) -> int:
    """How many classes the model tells apart, by its answer to one input of zeros."""
    zeros = torch.zeros(1, *like.x.shape[1:], device=device_of(teacher))
    return task_of(like).outputs(teacher, zeros).shape[1]


def _labels(classes: tuple[int, ...] | list[int], each: int) -> Tensor:
    return torch.tensor(classes, dtype=torch.int64).repeat_interleave(each)

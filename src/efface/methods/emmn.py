"""EMMN, noise in place of records, TIFS 2023: https://arxiv.org/abs/2201.05629.

A class c goes, and no record is read, neither of it nor of the others. Inputs are made from normal
noise: of maximal error for c under the given model f₀, and for each other class k of minimal error.
The student is trained on both under these labels (impair), and on the others again (repair):

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

from efface.methods._attacks import optimize_noise
from efface.methods._base import Count, Memory, Natural, NonNegative, register_method
from efface.methods._records import join, repeat, without_labels
from efface.task import device_of, frozen_teacher, task_of, trainable_copy
from efface.training import Trainer, task_loss, train_mode
from efface.types import Callback, Records, Split, no_callback

NOISE_RATE, PENALTY = 0.1, 0.1
"""Learning rate of Adam that makes noise; weight of the squared norm of an input of N_c."""

SEED_OFFSET = 1_000_003
"""Between the seeds of the two kinds of noise: they would begin as the same inputs."""


@register_method(
    reads={"forget"},
    needs={"forget_classes"},
    memory=Memory(copies=6, neighbours=128),
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
    """Train on noise of maximal error as the class to forget, and noise of the other classes.

    Args:
        model: the given model; it is not changed.
        split: ``forget_classes`` is read; of ``forget`` the form of an input, and no input.
        strength: multiplies the learning rate of impair.
        noise_per_class: inputs made from noise for each class, those to forget and the others.
        noise_steps: steps of Adam that make those of a class to forget.
        retained_steps: the same for another class.
        copies: how many times each is in the training set.
        learning_rate: of Adam, in impair and repair.
        impair_epochs: passes over all noise.
        repair_epochs: passes over the noise of the other classes; 0: no repair.
        batch_size: records in a step.
        training_mode: dropout is active and BatchNorm's statistics move, as in that code.
        seed: draws the noise, the order, and dropout.
        callback: called after each step of impair and repair.

    Raises:
        InputError: no class goes; the outputs are not one class of several.
    """
    student, teacher = trainable_copy(model), frozen_teacher(model)
    like = without_labels(split.forget, task_of(split.forget))
    # no record says which classes there are: the model's outputs do
    others = [one for one in range(_classes(teacher, like)) if one not in split.forget_classes]

    def noise(classes: list[int], sign: float, penalty: float, steps: int, seed: int) -> Records:
        labels = torch.tensor(classes, dtype=torch.int64).repeat_interleave(noise_per_class)
        how = {"sign": sign, "penalty": penalty, "learning_rate": NOISE_RATE}
        return repeat(optimize_noise(teacher, like, labels, **how, steps=steps, seed=seed), copies)

    forget = noise([*split.forget_classes], -1.0, PENALTY, noise_steps, seed)
    retain = noise(others, 1.0, 0.0, retained_steps, seed + SEED_OFFSET)
    # strength scales the impair step alone: repair is no forgetting
    impair = (join(forget, retain), strength, impair_epochs)
    trainer = Trainer(student, seed=seed, callback=callback)
    with train_mode(student, seed, enabled=training_mode):
        for records, rate, epochs in (impair, (retain, 1.0, repair_epochs)):
            # a new one for each phase, as in the source
            optimizer = torch.optim.Adam(student.parameters(), lr=learning_rate * rate)
            for epoch in range(epochs):
                trainer.run_epoch(task_loss, records, optimizer, batch_size=batch_size, epoch=epoch)
    return student


@torch.no_grad()
def _classes(teacher: nn.Module, like: Records) -> int:
    """How many classes the model has, by its outputs for one input of zeros."""
    zeros: Tensor = torch.zeros(1, *like.x.shape[1:], device=device_of(teacher))
    return task_of(like).outputs(teacher, zeros).shape[1]

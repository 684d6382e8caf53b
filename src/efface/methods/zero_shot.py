"""Zero-shot unlearning by noise (EMMN) and by a generator (GKT), TIFS 2023: https://arxiv.org/abs/2201.05629.

``emmn``: EMMN, noise in place of records, TIFS 2023: https://arxiv.org/abs/2201.05629.

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

``gkt``: GKT, gated knowledge transfer, TIFS 2023: https://arxiv.org/abs/2201.05629.

A class goes, and no record is read. A generator G makes inputs on which an untrained student f and
the given model f₀ disagree; those that f₀ predicts as the class do not pass the gate, and on the
others the student is distilled from f₀. Each round has one z ~ N(0, I):

    gate:       x = G(z) passes where softmax(f₀(x))_c ≤ ε for each class c to forget
    generator:  1 step of Adam down the mean of −KL(f₀(x) ‖ f(x)) / K
    student:    10 steps down the mean of KL(f₀(x) ‖ f(x)) / K + β Σ_l mean_p (a_l(f) − a_l(f₀))²

K outputs; a_l is the attention map of convolution l (``attention_maps``); ε 0.01, β 250, η 1e-3 for
both, norms of gradients clipped at 5, 256 inputs, 4000 rounds, temperature 1 are the authors'.

Departures from their code (ayushkumartarun/zero-shot-unlearning):

- The learning rates stay. Theirs are halved by losses on held-out records, of which the method has
  none by its own account.
- A fixed number of rounds. Forget accuracy comes back late in theirs, and the end was chosen.
- Attention is that of each convolution's own output; theirs is after BatchNorm and ReLU, in layers
  named for each model. A model without convolutions has no such term.
- A round in which fewer than two inputs pass trains nothing and counts; theirs goes back to a
  saved generator after a hundred of them.
- The student is in train mode; theirs is in eval mode from its first evaluation on, with
  BatchNorm's first statistics (``training_mode`` false).
- The generator's size follows from the inputs'.
"""

import copy
import math
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from functools import partial
from typing import Annotated, Any

import torch
from annotated_types import Ge
from jaxtyping import Bool, Float
from torch import Tensor, nn

from efface.methods._attacks import optimize_noise
from efface.methods._base import Count, Memory, Natural, NonNegative, Share, log, register_method
from efface.methods._perturb import normals
from efface.methods._records import join, repeat, untrained, without_labels
from efface.runtime import to_eval
from efface.task import device_of, frozen_teacher, shared_view, task_of, trainable_copy
from efface.training import Loss, Trainer, descend, task_loss, train_mode
from efface.types import Action, Callback, Records, Split, no_callback

# Learning rate of Adam that makes noise; weight of the squared norm of an input of N_c.
NOISE_RATE, PENALTY = 0.1, 0.1

# Between the seeds of the two kinds of noise: they would begin as the same inputs.
SEED_OFFSET = 1_000_003


# Both read the form of an input, and no record.
FORM_ONLY: dict[str, Any] = {"reads": {"forget"}, "classes_only": True, "runs_on_empty": True}


@register_method(
    needs={"forget_classes"},
    memory=Memory(6, neighbours=128),
    **FORM_ONLY,
    purpose="a class, without any record and without an untrained model",
    year=2023,
    passes=82,
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
        InputError: no class goes; the task is not multiclass.
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
    # the labels of the records must not be read, and no record is passed; two, for squeeze()
    zeros: Tensor = torch.zeros(2, *like.x.shape[1:], device=device_of(teacher))
    return task_of(like).outputs(teacher, zeros).shape[1]


# Dimensions of z; the norm that gradients are clipped to.
LATENT, CLIP_NORM = 128, 5.0

# ``gate(f₀(x))``: which inputs pass.
Gate = Callable[[Float[Tensor, " m k"]], Bool[Tensor, " m"]]


@register_method(
    needs={"forget_classes", "fresh"},
    memory=Memory(7, 3, 256),
    fresh_start=True,
    **FORM_ONLY,
    purpose="a class, without any record but with an untrained model",
    year=2023,
    passes=100000,
)
def gkt(
    model: nn.Module,
    split: Split,
    *,
    strength: NonNegative = 1.0,
    rounds: Count = 4000,
    generator_steps: Natural = 1,
    student_steps: Count = 10,
    threshold: Share = 0.01,
    attention: NonNegative = 250.0,
    learning_rate: NonNegative = 1e-3,
    generator_rate: NonNegative = 1e-3,
    batch_size: Annotated[int, Ge(2)] = 256,
    training_mode: bool = True,
    seed: int = 0,
    callback: Callback = no_callback,
) -> nn.Module:
    """Distil the given model into an untrained one, but for the class to forget.

    Args:
        model: the given model; it is not changed.
        split: ``forget_classes`` and ``fresh`` are read; of ``forget`` the form of an input.
        strength: multiplies the student's learning rate.
        rounds: how many; a new z in each.
        generator_steps: steps of the generator in each round.
        student_steps: steps of the student in each round, on what passed the gate.
        threshold: ε, the probability of a class to forget up to which an input passes.
        attention: β, weight of the distance between attention maps.
        learning_rate: of Adam, for the student.
        generator_rate: of Adam, for the generator.
        batch_size: inputs of a round.
        training_mode: the student has dropout and moves its BatchNorm's statistics; false: it
            keeps those that it was made with.
        seed: draws the student, the generator, each z, the order, and dropout.
        callback: called after each step of the student.

    Raises:
        InputError: no class goes; ``fresh`` is missing; the task is not multiclass.
    """
    student, teacher = to_eval(untrained(model, split, seed)), frozen_teacher(model)
    like = without_labels(split.forget, task_of(split.forget))
    generator = make_generator(tuple(like.x.shape[1:]), latent=LATENT, seed=seed)
    generator.to(device_of(model))
    made = torch.optim.Adam(generator.parameters(), lr=generator_rate)
    optimizer = torch.optim.Adam(student.parameters(), lr=learning_rate * strength)
    trainer = Trainer(student, seed=seed, callback=restore_fresh(student, callback))
    classes, passed = list(split.forget_classes), []
    names = tuple(f"drawn {row}" for row in range(batch_size))

    def gate(given: Tensor) -> Tensor:
        return given.softmax(1)[:, classes].amax(1) <= threshold

    # the generator is in train mode in any case: it was made so
    with train_mode(student, seed, enabled=training_mode):
        # a view of the student: it follows its weights and statistics, with gradients of its own
        view = shared_view(student, buffers=True)
        disagreement = _generator_loss(teacher, view, gate)
        for number in range(rounds):
            drawn = normals(names, (LATENT,), seed=seed, step=number)
            # a record's label is the number of its row
            z = Records(drawn, torch.arange(batch_size), names, task=like.task)
            # in one piece: BatchNorm takes its statistics from whole rounds
            how = {"steps": generator_steps, "batch_size": len(z), "micro_batch": len(z)}
            descend(generator, disagreement, z, made, seed=seed, clip_norm=CLIP_NORM, **how)
            # made after the generator's step, and without its gradients
            records, loss = _lesson(generator, teacher, z, gate, attention)
            passed.append(len(records))
            how = {"batch_size": len(records), "micro_batch": len(records)}
            for epoch in range(student_steps * (len(records) > 1)):
                trainer.run_epoch(loss, records, optimizer, epoch=epoch, clip_norm=CLIP_NORM, **how)
            if trainer.stopped:
                break
    taught = sum(count > 1 for count in passed) / len(passed)
    log("gkt: ended", passed=sum(passed) / (len(passed) * batch_size), taught=taught)
    return to_eval(student)


def _divergence(given: Tensor, output: Tensor, batch: Records) -> Tensor:
    """KL(f₀ ‖ f) / K of each record."""
    return task_of(batch).divergence(given, output) / output.shape[1]


def _generator_loss(teacher: nn.Module, student: nn.Module, gate: Gate) -> Loss:
    """−KL, a mean over what passes. The student is frozen."""
    student.requires_grad_(requires_grad=False)

    def loss(generator: nn.Module, batch: Records, step: int) -> Tensor:  # noqa: ARG001
        x, outputs = generator(batch.x), task_of(batch).outputs
        given = outputs(teacher, x)
        rows, zeros = gate(given.detach()).nonzero()[:, 0], 0 * x.flatten(1).sum(1)
        # too few for the student's BatchNorm
        if len(rows) < 2:  # noqa: PLR2004
            return zeros
        apart = _divergence(given[rows], outputs(student, x[rows]), batch)
        # scaled, since the loop takes the mean over all inputs
        return zeros.index_add(0, rows, -apart.to(zeros) * len(zeros) / len(rows))

    return loss


def _lesson(
    generator: nn.Module, teacher: nn.Module, z: Records, gate: Gate, attention: float
) -> tuple[Records, Loss]:
    """The inputs that pass, and the student's loss on them."""
    with torch.no_grad(), attention_maps(teacher) as maps:
        x = generator(z.x.to(device_of(generator)))
        given = task_of(z).outputs(teacher, x)
    # gated by the teacher: the student may not even see what it must not learn
    rows = gate(given).nonzero()[:, 0]
    given, maps = given[rows], {name: one[rows] for name, one in maps.items()}

    def loss(student: nn.Module, batch: Records, step: int) -> Tensor:  # noqa: ARG001
        with attention_maps(student) as own:
            output = task_of(batch).outputs(student, batch.x)
        # a record's label is its row in the lesson
        total = _divergence(given[batch.y], output, batch)
        for name, one in maps.items():
            total = total + attention * (own[name] - one[batch.y]).square().mean(1)
        return total

    return replace(z.take(range(len(rows))), x=x[rows]), loss


@contextmanager
def attention_maps(model: nn.Module) -> Iterator[dict[str, Tensor]]:
    """Inside: by the name of each convolution, a row of length 1 a record, of its last call.

        the mean over channels of the squared output, at each place, over its norm over places

    Source: Zagoruyko and Komodakis, ICLR 2017, https://arxiv.org/abs/1612.03928. No hook stays.
    """
    found: dict[str, Tensor] = {}

    def note(name: str, _: nn.Module, __: object, output: Tensor) -> None:
        # cloned: the next layer may change the output in place
        found[name] = nn.functional.normalize(output.clone().square().mean(1).flatten(1))

    with ExitStack() as hooks:
        for name, module in model.named_modules():
            if isinstance(module, nn.Conv1d | nn.Conv2d | nn.Conv3d):
                hooks.enter_context(module.register_forward_hook(partial(note, name)))
        yield found


def restore_fresh(student: nn.Module, callback: Callback) -> Callback:
    """The callback of a student that starts untrained: an undone first step leads back there.

    The guard has no good state yet and restores the given model's weights, which know all that is
    to be forgotten.
    """
    fresh = copy.deepcopy(student.state_dict())

    def after(student: nn.Module, loss: float) -> Action:
        action = callback(student, loss)
        if action is Action.CONTINUE:
            fresh.clear()
        elif fresh:
            student.load_state_dict(fresh)
        return action

    return after


def make_generator(shape: tuple[int, ...], *, latent: int, seed: int) -> nn.Sequential:
    """From (n, latent) normal numbers to (n, *shape), in train mode; weights drawn from ``seed``.

    An image (c, h, w): a linear layer to a small one, two or more times doubled with a convolution
    after each, as many as lead to its size; anything else: one hidden layer. What comes out has no
    bounds: BatchNorm alone sets its mean and standard deviation.
    """
    layers = _image_layers if len(shape) == 3 else _layers  # noqa: PLR2004
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return nn.Sequential(*layers(shape, latent))


def _image_layers(shape: tuple[int, ...], latent: int) -> list[nn.Module]:
    channels, height, width = shape
    # from 8 pixels or fewer
    doublings = max(2, math.ceil(math.log2(max(height, width) / 8)))
    scales = [2**left for left in range(doublings, -1, -1)]
    first, *sizes = [(math.ceil(height / one), math.ceil(width / one)) for one in scales]
    layers: list[nn.Module] = [nn.Linear(latent, 128 * first[0] * first[1])]
    # BatchNorm after the linear layer, as in the source
    layers += [nn.Unflatten(1, (128, *first)), nn.BatchNorm2d(128)]
    for size in sizes:
        wide = 64 if size is sizes[-1] else 128
        layers += [nn.Upsample(size=size), nn.Conv2d(128, wide, 3, padding=1)]
        layers += [nn.BatchNorm2d(wide), nn.LeakyReLU(0.2)]
    return [*layers, nn.Conv2d(64, channels, 3, padding=1), nn.BatchNorm2d(channels)]


def _layers(shape: tuple[int, ...], latent: int) -> list[nn.Module]:
    size = math.prod(shape)
    hidden = [nn.Linear(latent, 128), nn.BatchNorm1d(128), nn.LeakyReLU(0.2)]
    return [*hidden, nn.Linear(128, size), nn.BatchNorm1d(size), nn.Unflatten(1, shape)]

"""JiT as printed, as its authors' code computes it, and its greedy baseline: https://arxiv.org/abs/2402.01401.

``jit_paper``: JiT as the paper prints it, equation 1, one update a record: https://arxiv.org/abs/2402.01401.

    l(x) = 1/N Σ_j ‖f(x) − f(x + ξ_j)‖₂ / ‖ξ_j‖₂,   ξ_j ~ N(0, σ²I)

with gradient through both branches, no clamp, in the unit of the normalised inputs. Of what the
paper leaves open: one pass in a seeded order; eval mode with frozen buffers; SGD, with which its
code runs, or Adam, which its slides name next to a toy. ``squared`` is the form that one printing
of the paper has. As extracted, its algorithm closes both loops before the update, which would make
one update from the last record; this is the evident reading, one update for each.

``jit_reference``: JiT as the authors' code computes it, not as the paper says: https://arxiv.org/abs/2402.01401.

The code (jwf40/Information-Theoretic-Unlearning, commit c967614) has no licence; this is written
from a description of it and tested against weights that it made (tests/golden). One pass over
batches X:

    L = 1/N Σ_j Σ_i ‖f(x_i) − sg f(x'_ij)‖₂ / ‖x_i − x'_ij‖₂
    x'_ij = clamp(x_i + σ z_ij, min X, max X),  z_ij ~ N(0, I)

a sum over the batch and not a mean; plain SGD; gradients are never cleared, so step k is down
g_1 + … + g_k. Units are those of the normalised inputs. Departures from the code: σ = 0 is refused,
where it makes every weight NaN; a callback may refuse a step; noise is drawn on the CPU on any
device.

Exceptions from this package's rules, all the authors' own: the loop is not ``training.descend``,
the loss is a sum, a record's noise is bounded by the rest of its batch, buffers move in train mode,
a step's records are in memory at once, and more processes do the same work again.

``mislabel``: Greedy mislabelling, the JiT paper's baseline in two dimensions: https://arxiv.org/abs/2402.01401.

    l(x) = CE(f(x), c(x)) while argmax f(x) = y, else 0;   c(x) = argmax_{k ≠ y} f₀(x)

The paper says to train each forget record to any class but its own until its prediction flips, and
no more. Chosen here: the class is the runner-up of the given model f₀, which needs no draw; plain
SGD, so that a record that has flipped stands still; η 1e-3, ours; eval mode with frozen buffers.
"""

from collections.abc import Callable
from dataclasses import replace
from functools import partial

import torch
from jaxtyping import Float
from torch import Tensor, nn

from efface.methods._base import Count, Memory, NonNegative, Positive, register_method
from efface.methods._perturb import normals
from efface.methods.jit import refuse_no_noise
from efface.runtime import to_eval
from efface.task import device_of, frozen_teacher, multiclass, outputs, predict, trainable_copy
from efface.training import Schedule, sgd, steps_per_epoch, stop_when, train_epochs
from efface.types import Action, Callback, Records, Split, no_callback


@register_method(
    reads={"forget"},
    memory=Memory(copies=6, graphs=27, batch_size=1),
    purpose="to compare with the JiT paper's equation as printed",
    year=2025,
    passes=52,
)
def jit_paper(
    model: nn.Module,
    split: Split,
    *,
    strength: NonNegative = 1.0,
    sigma: Positive = 0.5,
    perturbations: Count = 25,
    learning_rate: NonNegative = 1e-4,
    squared: bool = False,
    adam: bool = False,
    seed: int = 0,
    callback: Callback = no_callback,
) -> nn.Module:
    """One pass of equation 1 over the forget records; reads the model and the forget inputs alone.

    Args:
        model: the given model; it is not changed.
        split: its ``forget`` inputs are read, no labels.
        strength: multiplies the learning rate.
        sigma: the paper's σ, in the unit of the normalised inputs; 0.5 as in the authors' code for
            a full class with VGG11.
        perturbations: the paper's N, 25 in its code. All are in memory at once.
        learning_rate: the paper's η, for one record. The paper gives none for this form; its 0.1
            with Adam belongs to a toy of two inputs. This one is ours and small on purpose: a
            class of n records takes n steps.
        squared: square each ratio.
        adam: step with Adam; plain SGD otherwise.
        seed: draws the perturbations and the order.
        callback: called after each record.
    """
    student = trainable_copy(model)
    kind = torch.optim.Adam if adam else torch.optim.SGD
    optimizer = kind(student.parameters(), lr=learning_rate * strength)
    settings = {"sigma": sigma, "perturbations": perturbations, "squared": squared, "seed": seed}
    loss = partial(jit_paper_loss, **settings)
    return train_epochs(student, loss, split.forget, optimizer, Schedule(1, 1, seed, callback))


def jit_paper_loss(
    student: nn.Module,
    batch: Records,
    step: int = 0,
    *,
    sigma: float = 0.5,
    perturbations: int = 25,
    squared: bool = False,
    seed: int = 0,
) -> Float[Tensor, " m"]:
    """Equation 1 for each record of a batch: a term for a training loop of one's own.

    ``step`` draws new perturbations. Raises InputError when ``sigma`` or ``perturbations`` is not
    above 0.
    """
    refuse_no_noise(sigma, perturbations)
    shape = (perturbations, *batch.x.shape[1:])
    # all draws of a record in one forward pass: both branches have gradients
    noise = sigma * normals(batch.ids, shape, seed=seed, step=step).to(batch.x).flatten(0, 1)
    around = batch.take(torch.arange(len(batch)).repeat_interleave(perturbations))
    perturbed = outputs(student, replace(around, x=around.x + noise))
    output = outputs(student, batch).repeat_interleave(perturbations, 0)
    # no epsilon: without a clamp the noise is never 0
    ratios = (output - perturbed).norm(dim=1) / noise.flatten(1).norm(dim=1)
    return (ratios.square() if squared else ratios).reshape(len(batch), perturbations).mean(1)


@register_method(
    reads={"forget"},
    purpose="to compare with numbers from the JiT authors' code",
    year=2025,
    passes=27,
)
def jit_reference(
    model: nn.Module,
    split: Split,
    *,
    strength: NonNegative = 1.0,
    sigma: Positive = 0.5,
    perturbations: Count = 25,
    learning_rate: NonNegative = 3e-4,
    batch_size: Count = 128,
    training_mode: bool | None = None,
    seed: int = 0,
    callback: Callback = no_callback,
) -> nn.Module:
    """Change the model as the authors' code does; reads the model and the forget inputs alone.

    The defaults are theirs for a full class with VGG11; docs/methods.md has the others.

    Args:
        model: the given model; it is not changed.
        split: its ``forget`` inputs are read, in their order, no labels.
        strength: multiplies the learning rate.
        sigma: the paper's σ, in the unit of the normalised inputs.
        perturbations: the paper's N.
        learning_rate: the paper's η, for the sum over a batch.
        batch_size: the authors' batch; with it the step of each record and its noise change.
        training_mode: true: dropout is active in both branches, as it was for their VGG11, and the
            buffers of BatchNorm move; false: eval mode; not given: each module as it came.
        seed: draws the noise, and dropout, in the order of the authors' code.
        callback: called after each step. On HALVE_LR the same batch is tried again from the
            gradients before it, with the same noise, at half the learning rate.
    """
    student = trainable_copy(model)
    for copied, given in zip(student.modules(), model.modules(), strict=True):
        copied.training = given.training if training_mode is None else training_mode
    # never zeroed: gradients accumulate over batches, as in the authors' code
    optimizer = sgd(student, learning_rate * strength)

    with torch.random.fork_rng():
        torch.manual_seed(seed)
        # the authors' DataLoader draws it
        torch.empty((), dtype=torch.int64).random_()
        for rows in torch.arange(len(split.forget)).split(batch_size):
            batch = split.forget.take(rows).to(device_of(student))
            loss = partial(_summed_ratios, student, batch, sigma=sigma, perturbations=perturbations)
            if _step(student, loss, optimizer, callback) is Action.STOP:
                break
    student.zero_grad(set_to_none=True)
    return to_eval(student)


def _step(
    student: nn.Module, loss: Callable[[], Tensor], optimizer: torch.optim.SGD, callback: Callback
) -> Action:
    """One step on one batch down the gradients of all batches so far, until it is not refused."""
    weights = list(student.parameters())
    before = [None if w.grad is None else w.grad.clone() for w in weights]
    drawn = torch.get_rng_state()
    while True:
        value = loss()
        value.backward()
        optimizer.step()
        action = callback(student, float(value.detach()))
        if action is not Action.HALVE_LR:
            return action
        # refused: the gradients and the noise of before the step
        for weight, gradient in zip(weights, before, strict=True):
            weight.grad = None if gradient is None else gradient.clone()
        for group in optimizer.param_groups:
            group["lr"] *= 0.5
        torch.set_rng_state(drawn)


def _summed_ratios(
    student: nn.Module, batch: Records, *, sigma: float, perturbations: int
) -> Float[Tensor, ""]:
    """The authors' loss of a batch: NaN where clamping leaves a record no noise, as theirs."""
    # of this batch and not of the data: the authors' clamp
    low, high = batch.x.min(), batch.x.max()
    output = outputs(student, batch)
    total = output.new_zeros(())
    for _ in range(perturbations):
        noise = torch.randn(batch.x.shape, dtype=batch.x.dtype).to(batch.x.device)
        perturbed = torch.clamp(batch.x + sigma * noise, low, high)
        # gradient through one branch only: what the paper prints has both
        with torch.no_grad():
            detached = outputs(student, replace(batch, x=perturbed))
        distance = (batch.x - perturbed).flatten(1).norm(dim=1)
        total = total + ((output - detached).norm(dim=1) / distance).sum()
    return total / perturbations


@register_method(
    reads={"forget labels"},
    memory=Memory(copies=4),
    classes_only=True,
    purpose="to show that a flipped prediction is not forgetting",
    year=2025,
    passes=5,
)
def mislabel(
    model: nn.Module,
    split: Split,
    *,
    strength: NonNegative = 1.0,
    learning_rate: NonNegative = 1e-3,
    epochs: Count = 50,
    batch_size: Count = 128,
    seed: int = 0,
    callback: Callback = no_callback,
) -> nn.Module:
    """Push each forget record just over to the runner-up class; reads nothing but these records.

    Args:
        model: the given model; it is not changed.
        split: ``forget`` is read, inputs and labels.
        strength: multiplies the learning rate.
        learning_rate: η of plain SGD.
        epochs: passes over ``forget``, at most; it ends when every prediction has flipped.
        batch_size: records in a step.
        seed: draws the order.
        callback: called after each step.

    Raises:
        InputError: the task is not multiclass.
    """
    forget, student = replace(split.forget, task=multiclass), trainable_copy(model)
    logits = predict(frozen_teacher(model), forget)
    runner_up = logits.scatter(1, forget.y.cpu()[:, None], -torch.inf).argmax(1)
    other = dict(zip(forget.ids, runner_up.tolist(), strict=True))

    def loss(student: nn.Module, batch: Records, step: int) -> Tensor:  # noqa: ARG001
        output = outputs(student, batch)
        target = torch.tensor([other[identity] for identity in batch.ids]).to(batch.y)
        # a record that has flipped has no gradient: plain SGD leaves it alone
        return multiclass.loss(output, target) * (output.argmax(1) == batch.y)

    losses: list[float] = []

    def all_flipped(_: nn.Module, loss: float) -> bool:
        losses.append(loss)
        # a whole epoch of zeros: a later step may push a record back
        epoch = steps_per_epoch(forget, batch_size)
        return len(losses) % epoch == 0 and not any(losses[-epoch:])

    schedule = Schedule(epochs, batch_size, seed, stop_when(callback, all_flipped))
    return train_epochs(student, loss, forget, sgd(student, learning_rate * strength), schedule)

"""MU-Mis, suppressing what a record has contributed, ICLR 2026: https://arxiv.org/abs/2402.15109.

Training makes the output of a record's class c sensitive to that record, beyond the outputs of
other classes. The loss takes that difference back; c' ≠ c is drawn again at each step:

    l(x) = ‖∇_x f_c(x)‖² − ‖∇_x f_c'(x)‖²

It has no floor. It ends once the second sensitivity, which falls at first, has recovered:

    S(t) > δ S(0) and S has risen,   S(t) = ( Σ over D_f of ‖∇_x f_c'(x; θ_t)‖² )^½

The authors' code was not available. Chosen here: plain SGD, η 0.03 and δ 1, since the settings of
the paper are not known to us; S is of one batch of the forget records at most, whose c' stay the
same, and must have risen since the last step, or every δ below 1 would end it before it began; the
two terms have one weight; eval mode with frozen buffers. Attention is computed without fused
kernels, which cannot be differentiated twice; the weights' gradients are those of a second backward
pass.
"""

from dataclasses import replace

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from efface.errors import InputError
from efface.methods._base import Count, Memory, NonNegative, register_method
from efface.methods._perturb import other_class
from efface.methods._records import sample
from efface.runtime import map_chunks
from efface.task import device_of, multiclass, outputs, trainable_copy
from efface.training import Loss, descend, sgd
from efface.types import Action, Callback, Records, Split, no_callback

# Parts of torch's messages where a second backward pass is not possible.
ONCE_ONLY = ("is not implemented", "differentiate twice", "modified by an inplace operation")


@register_method(
    reads={"forget labels"},
    memory=Memory(copies=4, graphs=6),
    classes_only=True,
    purpose="a class, with its labelled records alone, in few passes",
    year=2026,
    passes=4,
)
def mu_mis(
    model: nn.Module,
    split: Split,
    *,
    strength: NonNegative = 1.0,
    learning_rate: NonNegative = 0.03,
    recovery: NonNegative = 1.0,
    steps: Count = 100,
    batch_size: Count = 128,
    seed: int = 0,
    callback: Callback = no_callback,
) -> nn.Module:
    """Make a record's own output no more sensitive to it than the outputs of other classes.

    Args:
        model: the given model, differentiable twice; it is not changed.
        split: ``forget`` is read, inputs and labels.
        strength: multiplies the learning rate.
        learning_rate: η of plain SGD.
        recovery: δ, the share of the other classes' first sensitivity at which it ends.
        steps: at most this many.
        batch_size: records in a step, and at most those whose sensitivity is measured.
        seed: draws the other classes and the order.
        callback: called after each step.

    Raises:
        InputError: the task is not multiclass, or the model cannot be differentiated
            twice.
    """
    forget, student = replace(split.forget, task=multiclass), trainable_copy(model)
    loss, optimizer = mu_mis_loss(seed=seed), sgd(student, learning_rate * strength)
    # one batch of them: S is measured after each step
    measured = sample(forget, batch_size, seed=seed)
    try:
        # fused attention has no second derivative
        with sdpa_kernel(SDPBackend.MATH):
            after = _stop_when_recovered(student, measured, recovery, seed, callback)
            how = {"callback": after, "batch_size": batch_size}
            descend(student, loss, forget, optimizer, steps=steps, seed=seed, **how)
    except RuntimeError as error:
        if not any(message in str(error) for message in ONCE_ONLY):
            raise
        wanted = "a model that can be differentiated twice for mu_mis"
        remedy = "Choose a method that needs gradients once; `efface methods` lists them."
        raise InputError(wanted, str(error).splitlines()[0], remedy) from error
    return student


def mu_mis_loss(*, seed: int = 0) -> Loss:
    """``loss(student, batch, step)``, one number a record: for a training loop of one's own.

    The inputs' gradients are part of the graph: the student must be differentiable twice.
    """

    def loss(student: nn.Module, batch: Records, step: int) -> Tensor:
        x, output = _forward(student, batch)
        # step 0 draws the fixed classes of the stopping rule
        other = other_class(batch.ids, batch.y, output.shape[1], seed=seed, step=step + 1)
        own = _sensitivity(output, x, batch.y, create_graph=True)
        return own - _sensitivity(output, x, other, create_graph=True)

    return loss


def _forward(student: nn.Module, batch: Records) -> tuple[Tensor, Float[Tensor, " m k"]]:
    """The inputs, which gradients can be taken of, and the outputs."""
    x = batch.x.detach().requires_grad_()
    # a model may change it in place
    return x, outputs(student, replace(batch, x=x.clone()))


def _sensitivity(
    output: Float[Tensor, " m k"], x: Tensor, classes: Tensor, *, create_graph: bool
) -> Float[Tensor, " m"]:
    """‖∇_x f_k(x)‖² of each record; of the sum, since no record affects another's output."""
    chosen = output.gather(1, classes.to(output.device)[:, None]).sum()
    (slope,) = torch.autograd.grad(chosen, x, create_graph=create_graph, retain_graph=True)
    return slope.flatten(1).square().sum(1)


def _stop_when_recovered(
    student: nn.Module, forget: Records, recovery: float, seed: int, callback: Callback
) -> Callback:
    """STOP once the other classes' sensitivity is rising and above its first value times δ."""

    def part(rows: Tensor) -> float:
        batch = forget.take(rows).to(device_of(student))
        x, output = _forward(student, batch)
        other = other_class(batch.ids, batch.y, output.shape[1], seed=seed)
        # only read, so no graph of the gradient is kept
        return float(_sensitivity(output, x, other, create_graph=False).sum())

    def now() -> float:
        return sum(map_chunks(part, torch.arange(len(forget)), 128)) ** 0.5

    last = first = now()

    def after(student: nn.Module, loss: float) -> Action:
        nonlocal last
        action = callback(student, loss)
        before, last = last, now()  # also where the guard restored the state of several steps ago
        if action is not Action.CONTINUE:
            return action
        return Action.STOP if last > before and last > recovery * first else action

    return after

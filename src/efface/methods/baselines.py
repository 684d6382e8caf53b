"""Baselines that tables of methods begin with: docs/methods.md.

``baseline``: The model as it is: docs/methods.md, the row that every table of methods begins with.

    θ' = θ

There is no paper and nothing to depart from. In a table it says how far away doing nothing is.

``retrain``: Train from scratch without the records, the reference of all others: docs/methods.md.

    θ' = train(fresh(seed), D_r, seed)

Every weight is drawn again and the user's own recipe runs on the retained records; with an empty
forget set this is the recipe itself, bit for bit. (The code of JiT and SSD resets the last linear
layer alone under this name, so all other weights keep what they learned from the forget records.)

``finetune``: Fine-tuning on the retained records, the oldest baseline: docs/methods.md, as in https://arxiv.org/abs/2402.01401.

    L(θ) = 1/n_r Σ_{D_r} ℓ(f(x), y)

The forget records are forgotten as the weights drift (catastrophic forgetting). Settings are those
of that paper's code (FNTN): SGD, η 0.02, momentum 0.9, weight decay 5e-4, 5 epochs, no schedule,
train mode. Departure: BatchNorm of which no weight may move (``trainable``) keeps its statistics.

``negative_gradient``: Gradient ascent on the forget records (NegGrad): docs/methods.md, as in https://arxiv.org/abs/2310.12508.

    L(θ) = −1/n_f Σ_{D_f} ℓ(f(x), y)

Settings of the code of SalUn (GA): SGD, η 0.01, momentum 0.9, weight decay 5e-4, 10 epochs, batches
of 256; the loss has no floor, so η must be tuned (1e-5 to 1e-3 is usual) or the guard must halve
it. Departure: eval mode with frozen buffers, where that code is in train mode and lets statistics
of the forget records into BatchNorm; ``training_mode`` brings that back.

``neggrad_plus``: NegGrad+, descent on retained and ascent on forget records: https://arxiv.org/abs/2302.09880.

    L(θ) = (1 − b) · 1/n_r Σ_{D_r} ℓ(f(x), y) − b · 1/n_f Σ_{D_f} ℓ(f(x), y)

b the forget weight (the paper's 1 − α). Settings of the small experiments of SCRUB's code: b 0.05,
plain SGD, η 0.01, 10 epochs, eval mode; its large ones: b 1e-4, 5 epochs, train mode. The forget
records are cycled to the length of the others: each retained record is paired with one of them, in
an order that moves on by one each epoch, so all are used equally often. With b = 0 their pass is
skipped, and it is ``finetune`` bit for bit. Departures: the same number of both in each step, where
the code takes one loader's batch of each; no penalty on the distance to the given weights, which
the small experiments have.
"""

# ruff: noqa: ARG001  # every method takes seed and callback, also where nothing is drawn

from dataclasses import replace

import torch
from torch import Tensor, nn

from efface.errors import InputError
from efface.methods._base import Count, Decay, Memory, NonNegative, Share, register_method
from efface.runtime import to_eval
from efface.task import device_of, trainable_copy
from efface.training import Schedule, sgd, steps_per_epoch, task_loss, train_epochs, with_task
from efface.types import Callback, Records, Split, no_callback, record_key


@register_method(
    memory=Memory(copies=1, graphs=0),
    purpose="the model as it is: the first row of every table",
    passes=0,
)
def baseline(
    model: nn.Module, split: Split, *, seed: int = 0, callback: Callback = no_callback
) -> nn.Module:
    """A copy of the model, not changed; reads nothing else.

    Args:
        model: the given model; it is not changed.
        split: not read.
        seed: draws nothing.
        callback: not called, since there is no step.
    """
    return trainable_copy(model)


@register_method(
    needs={"retain labels", "fresh", "train"},
    fresh_start=True,
    exact=True,
    purpose="whenever you can afford it: the only exact method",
)
def retrain(
    model: nn.Module, split: Split, *, seed: int = 0, callback: Callback = no_callback
) -> nn.Module:
    """An untrained model trained by the user's recipe on the retained records.

    Reads no weight of the model and no forget record.

    Args:
        model: says on which device to train; it is not changed.
        split: ``retain``, ``fresh`` and ``train`` are read.
        seed: of the fresh weights and of the recipe.
        callback: not called: the steps are the recipe's own.

    Raises:
        InputError: ``retain``, ``fresh`` or ``train`` is missing.
    """
    # one random stream for both: the recipe may draw from the global state
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        # the decorator has refused a split without them
        fresh = split.fresh(seed).to(device_of(model))  # type: ignore[misc]
        student = to_eval(split.train(fresh, split.retain, seed))  # type: ignore[misc]
    # the recipe may leave gradients behind
    student.zero_grad(set_to_none=True)
    return student


@register_method(
    needs={"retain labels"},
    purpose="the baseline that any method with retain records must beat",
    passes=40,
)
def finetune(
    model: nn.Module,
    split: Split,
    *,
    strength: NonNegative = 1.0,
    learning_rate: NonNegative = 0.02,
    momentum: Decay = 0.9,
    weight_decay: NonNegative = 5e-4,
    epochs: Count = 5,
    batch_size: Count = 128,
    training_mode: bool = True,
    seed: int = 0,
    callback: Callback = no_callback,
) -> nn.Module:
    """Continue training on the retained records; never reads the forget records.

    Args:
        model: the given model; it is not changed.
        split: ``retain`` is read, inputs and labels.
        strength: multiplies the learning rate.
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
    student = trainable_copy(model)
    optimizer = sgd(student, learning_rate * strength, momentum, weight_decay)
    # no schedule of the learning rate, as in the source
    schedule = Schedule(epochs, batch_size, seed, callback, training_mode)
    return train_epochs(student, task_loss, with_task(split.retain), optimizer, schedule)


@register_method(
    reads={"forget labels"},
    purpose="to show what ascent costs without a regulariser",
    year=2024,
    passes=20,
)
def negative_gradient(
    model: nn.Module,
    split: Split,
    *,
    strength: NonNegative = 1.0,
    learning_rate: NonNegative = 0.01,
    momentum: Decay = 0.9,
    weight_decay: NonNegative = 5e-4,
    epochs: Count = 10,
    batch_size: Count = 256,
    training_mode: bool = False,
    seed: int = 0,
    callback: Callback = no_callback,
) -> nn.Module:
    """Ascend the loss of the forget records; reads them with their labels, and nothing else.

    Args:
        model: the given model; it is not changed.
        split: ``forget`` is read, inputs and labels.
        strength: multiplies the learning rate.
        learning_rate: η of SGD.
        momentum: of SGD.
        weight_decay: of SGD.
        epochs: passes over ``forget``.
        batch_size: records in a step.
        training_mode: dropout is active and BatchNorm's statistics move, as in the source.
        seed: draws the order, and dropout.
        callback: called after each step.
    """
    student, forget = trainable_copy(model), with_task(split.forget)
    optimizer = sgd(student, learning_rate * strength, momentum, weight_decay)
    schedule = Schedule(epochs, batch_size, seed, callback, training_mode)
    # ascent: the loss has no floor, and the guard is what ends it
    return train_epochs(student, lambda f, b, t: -task_loss(f, b, t), forget, optimizer, schedule)


@register_method(
    reads={"forget labels"},
    needs={"retain labels"},
    memory=Memory(graphs=3),
    purpose="the baseline with ascent on the forget records",
    year=2023,
    passes=160,
)
def neggrad_plus(
    model: nn.Module,
    split: Split,
    *,
    strength: NonNegative = 1.0,
    forget_weight: Share = 0.05,
    learning_rate: NonNegative = 0.01,
    momentum: Decay = 0.0,
    weight_decay: NonNegative = 0.0,
    epochs: Count = 10,
    batch_size: Count = 128,
    training_mode: bool = False,
    seed: int = 0,
    callback: Callback = no_callback,
) -> nn.Module:
    """Descend the loss of the retained records while ascending that of the forget records.

    Args:
        model: the given model; it is not changed.
        split: ``forget`` and ``retain`` are read, inputs and labels.
        strength: multiplies the forget weight, which stays below 1.
        forget_weight: b, 0 to 1.
        learning_rate: η of SGD.
        momentum: of SGD.
        weight_decay: of SGD.
        epochs: passes over ``retain``.
        batch_size: retained records in a step, and as many forget records.
        training_mode: dropout is active and BatchNorm's statistics move.
        seed: draws the order, and dropout.
        callback: called after each step.

    Raises:
        InputError: ``retain`` is missing; ``forget_weight`` times ``strength`` is not below 1.
    """
    weight = forget_weight * strength
    if weight >= 1:
        remedy = "At 1 the retained records would not count; change forget_weight."
        raise InputError("forget_weight times strength from 0 to below 1", f"{weight:g}", remedy)
    student, retain = trainable_copy(model), with_task(split.retain)
    forget = replace(split.forget, task=retain.task)
    # pairs follow ids, so that the order of the records does not matter
    rank = {identity: place for place, identity in enumerate(sorted(retain.ids, key=record_key))}
    order = sorted(range(len(forget)), key=lambda row: record_key(forget.ids[row]))

    def loss(student: nn.Module, batch: Records, step: int) -> Tensor:
        down = (1 - weight) * task_loss(student, batch, step)
        if not weight:
            return down
        epoch = step // steps_per_epoch(retain, batch_size)
        # moved on by one each epoch: every forget record is used equally often
        rows = [order[(rank[identity] + epoch) % len(order)] for identity in batch.ids]
        # as many as retained records, so that b alone sets the balance
        partners = forget.take(rows).to(batch.x.device)
        return down - weight * task_loss(student, partners, step)

    optimizer = sgd(student, learning_rate, momentum, weight_decay)
    schedule = Schedule(epochs, batch_size, seed, callback, training_mode)
    return train_epochs(student, loss, retain, optimizer, schedule)

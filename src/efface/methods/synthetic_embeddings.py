"""Synthetic embeddings: a class goes without any data, TMLR 2026: https://openreview.net/forum?id=Fb2sZ1eoVe.

Random inputs e of the last linear layer h are labelled by that layer itself, h₀ as it was given.
Those that it answers with a class that leaves stand for the forget records, and only the layer is
trained, by DELETE's loss:

    e ~ N(0, I) until each leaving class has its samples with argmax h₀(e) that class
    L(e) = KL( p(e) ‖ softmax h(e) ),   p = softmax h₀(e) with the leaving classes masked out

The paper gives a frame for many losses; DELETE is one that it runs, and needs no synthetic retain
set. No record is read, of the forget set neither.

Departures from the authors' code (Yasaman-dt/MU_data_free):

- All epochs are run at one learning rate. Theirs falls by a cosine, and they stop, and return the
  best epoch, by the accuracy on real test records, which a model alone does not have.
- They draw until each class has its samples, which may be never: here at most 20 draws for each.
- Of several leaving classes all are masked, where DELETE masks an embedding's own.
"""

import copy

import torch
from torch import Tensor, nn

from efface.methods._base import Count, Decay, Memory, NonNegative, register_method
from efface.methods.parts.embeddings import drawn_embeddings
from efface.methods.parts.head import head_of, refuse_frozen
from efface.task import multiclass, trainable_copy
from efface.training import Loss, descend, steps_per_epoch
from efface.types import Action, Callback, Records, Split, no_callback


@register_method(needs={"forget_classes"}, memory=Memory(copies=5, graphs=1))
def synthetic_embeddings(
    model: nn.Module,
    split: Split,
    *,
    strength: NonNegative = 1.0,
    samples_per_class: Count = 5000,
    learning_rate: NonNegative = 0.01,
    momentum: Decay = 0.9,
    epochs: Count = 200,
    batch_size: Count = 1024,
    seed: int = 0,
    callback: Callback = no_callback,
) -> nn.Module:
    """Teach the last layer on random embeddings not to answer with a class; sees the model alone.

    Args:
        model: ends in a linear layer; stays as it is.
        split: ``forget_classes`` is read, and nothing else.
        strength: the one knob; multiplies the step.
        samples_per_class: embeddings of each class that leaves; the paper's 5000.
        learning_rate: of SGD; the paper's 0.01.
        momentum: of SGD; the authors' 0.9.
        epochs: passes over the embeddings; the paper's 200.
        batch_size: embeddings in one step's mean; the authors' 1024.
        seed: draws the embeddings and the order.
        callback: called after each step.

    Raises:
        InputError: no class leaves, or all do, or the model has no such class; it does not end in a
            linear layer that may move; no embedding is answered with a class that leaves;
            ``samples_per_class`` is not above 0.
    """
    student = trainable_copy(model)
    head = head_of(student)
    refuse_frozen(head)
    given = copy.deepcopy(head)
    lessons = drawn_embeddings(
        head, samples_per_class, forget_classes=split.forget_classes, seed=seed
    )

    def whole(_: nn.Module, loss: float) -> Action:
        return callback(student, loss)

    descend(
        head,
        _masked(given, split.forget_classes),
        lessons,
        optimizer=torch.optim.SGD(
            head.parameters(), lr=learning_rate * strength, momentum=momentum
        ),
        steps=epochs * steps_per_epoch(lessons, batch_size),
        seed=seed,
        callback=whole,
        batch_size=batch_size,
    )
    return student


def _masked(given: nn.Linear, forget_classes: tuple[int, ...]) -> Loss:
    """KL from the given answers with the classes that leave masked out."""

    def loss(head: nn.Module, batch: Records, step: int) -> Tensor:  # noqa: ARG001
        with torch.no_grad():
            held = multiclass.outputs(given, batch.x)
        held[:, list(forget_classes)] = -torch.inf
        return multiclass.divergence(held, multiclass.outputs(head, batch.x))

    return loss

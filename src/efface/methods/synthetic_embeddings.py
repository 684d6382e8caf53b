"""Synthetic embeddings: forgetting a class without any data, TMLR 2026: https://openreview.net/forum?id=Fb2sZ1eoVe.

Random inputs e of the last linear layer h are labelled by that layer itself, h₀ as it was given.
Those that it predicts as a class to forget stand for the forget records, and only the layer is
trained, by DELETE's loss:

    e ~ N(0, I) until each class to forget has its samples with argmax h₀(e) that class
    L(e) = KL( p(e) ‖ softmax h(e) ),   p = softmax h₀(e) with the classes to forget masked

The paper gives a frame for many losses; DELETE is one that it runs, and needs no synthetic retain
set. No record is read, of the forget set neither.

Departures from the authors' code (Yasaman-dt/MU_data_free):

- All epochs are run at one learning rate. Theirs falls by a cosine, and they stop, and return the
  best epoch, by the accuracy on real test records, which a model alone does not have.
- They draw until each class has its samples, which may be never: here at most 20 draws for each.
- Of several classes to forget all are masked, where DELETE masks an embedding's own.
"""

import copy

import torch
from torch import Tensor, nn

from efface.errors import InputError
from efface.methods._base import Count, Decay, Memory, NonNegative, register_method
from efface.methods._head import find_head
from efface.task import multiclass, trainable_copy
from efface.training import Schedule, sgd, train_epochs
from efface.types import Callback, Records, Split, no_callback

# Draws at once; and at most, for each sample and each class of the model.
BLOCK, MAX_DRAWS = 10_000, 20


@register_method(
    needs={"forget_classes"},
    memory=Memory(graphs=1),
    purpose="a class, without any record of any class",
    year=2026,
    passes=0,
)
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
    """Train the last layer on random embeddings not to predict a class; reads the model alone.

    Args:
        model: the given model, whose head is a linear layer; it is not changed.
        split: ``forget_classes`` is read, and nothing else.
        strength: multiplies the learning rate.
        samples_per_class: embeddings of each class to forget; the paper's 5000.
        learning_rate: η of SGD; the paper's 0.01.
        momentum: of SGD; the authors' 0.9.
        epochs: passes over the embeddings; the paper's 200.
        batch_size: embeddings in a step; the authors' 1024.
        seed: draws the embeddings and the order.
        callback: called after each step.

    Raises:
        InputError: no class goes, or all do, or the model has no such class; it does not end in a
            linear layer that may move; no embedding is predicted as a class to forget.
    """
    student = trainable_copy(model)
    head = find_head(student, trainable=True)
    # a copy: the targets are those of the given layer throughout
    given, classes = copy.deepcopy(head), split.forget_classes
    records = draw_embeddings(head, samples_per_class, forget_classes=classes, seed=seed)

    def loss(head: nn.Module, batch: Records, step: int) -> Tensor:  # noqa: ARG001
        target = mask_classes(given, batch.x, classes)
        return multiclass.divergence(target, multiclass.outputs(head, batch.x))

    # the guard judges the whole model
    schedule = Schedule(epochs, batch_size, seed, lambda _, loss: callback(student, loss))
    train_epochs(head, loss, records, sgd(head, learning_rate * strength, momentum), schedule)
    return student


@torch.no_grad()
def mask_classes(head: nn.Linear, x: Tensor, classes: tuple[int, ...]) -> Tensor:
    """The head's outputs, those of ``classes`` −∞."""
    index = torch.tensor(classes, device=x.device)
    return multiclass.outputs(head, x).index_fill(1, index, -torch.inf)


@torch.no_grad()
def draw_embeddings(
    head: nn.Linear, samples_per_class: int, *, forget_classes: tuple[int, ...], seed: int
) -> Records:
    """Draws of N(0, I) that the head predicts as each class to forget; y is that prediction.

    Of a class that it predicts rarely there may be fewer. Raises InputError where a class to forget
    is not one of the head's, all classes are, or no draw is predicted as one of them.
    """
    classes = multiclass.outputs(head, torch.zeros(1, head.in_features).to(head.weight)).shape[1]
    known = all(0 <= label < classes for label in forget_classes)
    if not known or len(set(forget_classes)) == classes:
        wanted = f"forget classes out of 0 to {classes - 1}, and one that is retained"
        came = ", ".join(map(str, forget_classes))
        raise InputError(wanted, came, "Give Split(forget, forget_classes=(class,)).")
    generator, limit = torch.Generator().manual_seed(seed), MAX_DRAWS * samples_per_class * classes
    none, tried = head.weight.new_empty(0, head.in_features), 0
    found = dict.fromkeys(forget_classes, none)
    # in blocks: of a rare class one draw of all would not fit into memory
    while any(len(own) < samples_per_class for own in found.values()) and tried < limit:
        x = torch.randn(min(BLOCK, limit - tried), head.in_features, generator=generator)
        x, tried = x.to(head.weight), tried + len(x)
        predicted = multiclass.outputs(head, x).argmax(1)
        for label, own in found.items():
            # surplus draws of a class are dropped, so the count is exact
            found[label] = torch.cat([own, x[predicted == label]])[:samples_per_class]
    for label, own in found.items():
        if not len(own):
            wanted = f"random embeddings that the last layer classifies as {label}"
            remedy = "Choose a method that reads the records; `efface methods` lists them."
            raise InputError(wanted, f"none among {tried}", remedy)
    x = torch.cat([found[label] for label in forget_classes])
    counts = torch.tensor([len(found[label]) for label in forget_classes])
    y = torch.tensor(forget_classes).repeat_interleave(counts).to(x.device)
    return Records(x, y, task=multiclass)

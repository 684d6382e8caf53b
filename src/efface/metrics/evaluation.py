"""One pass of a model over records; every score reads the arrays that it leaves.

Shapes: n records · k classes.


What an attack may read from a model's answers to one record; higher means more like a member.

The loss, the probability of the label and its log-odds rise and fall together, so an attack with
one threshold finds the same with each of them: ``loss_attack`` stands for all three. The signals
here order records in other ways.

Shapes: n records · k classes.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import torch
from jaxtyping import Bool, Float, Float32, Int64, Shaped
from scipy.special import log_softmax, logsumexp
from torch import nn

from efface.errors import InputError
from efface.task import predict, task_of
from efface.types import Records


@dataclass(frozen=True, eq=False)
class Evaluation:
    """What a model says about n records: ``logits`` (n, k), the labels ``y`` (n,), the ``ids``.

    Where the outputs are not one label of k, ``logits`` are those outputs, ``y`` has the form that
    the adapter takes, ``own_loss`` (n,) is its loss and ``own_right`` (n,) its share right; what
    speaks of classes (``predicted``, ``correct``, ``entropy``) means nothing then.
    """

    logits: Float32[np.ndarray, "n k"]
    y: Shaped[np.ndarray, " n *targets"]
    ids: tuple[str, ...]
    own_loss: Float[np.ndarray, " n"] | None = None
    own_right: Float[np.ndarray, " n"] | None = None

    def __len__(self) -> int:
        return len(self.y)

    @cached_property
    def log_probabilities(self) -> Float[np.ndarray, "n k"]:
        """Natural logarithms of the softmax, in double precision."""
        return log_softmax(self.logits.astype(np.float64), axis=1)

    @cached_property
    def probabilities(self) -> Float[np.ndarray, "n k"]:
        """Softmax of the logits, 0 to 1."""
        return np.exp(self.log_probabilities)

    @cached_property
    def predicted(self) -> Int64[np.ndarray, " n"]:
        """The class with the greatest logit."""
        return self.logits.argmax(axis=1).astype(np.int64)

    @cached_property
    def correct(self) -> Bool[np.ndarray, " n"]:
        """Whether the answer is the label."""
        return self.predicted == self.y

    @cached_property
    def right(self) -> Float[np.ndarray, " n"]:
        """0 (wrong) to 1 (right): whether the answer is the label, or the adapter's share."""
        return self.correct * 1.0 if self.own_right is None else self.own_right

    @property
    def groups(self) -> Int64[np.ndarray, " n"]:
        """What a record is compared within: its class; one group where there are no classes."""
        return self.y if self.own_loss is None else np.zeros(len(self), np.int64)

    @cached_property
    def entropy(self) -> Float[np.ndarray, " n"]:
        """-sum p ln p in nats: 0 for one sure answer, ln k for none."""
        return -(self.probabilities * self.log_probabilities).sum(axis=1)

    @cached_property
    def loss(self) -> Float[np.ndarray, " n"]:
        """Cross-entropy of the label in nats, or the adapter's loss."""
        if self.own_loss is not None:
            return self.own_loss
        return -self.log_probabilities[np.arange(len(self)), self.y]

    @cached_property
    def margin(self) -> Float[np.ndarray, " n"]:
        """Logit margin f_y - logsumexp over k != y of f_k, which is ln p_y - ln(1 - p_y).

        Unlike the loss it does not saturate for sure answers (Carlini et al. 2022). Without
        classes: minus the loss.
        """
        if self.own_loss is not None:
            return -self.own_loss
        own = self.logits[np.arange(len(self)), self.y].astype(np.float64)
        others = self.logits.astype(np.float64)
        others[np.arange(len(self)), self.y] = -np.inf
        return own - logsumexp(others, axis=1)

    def take(self, rows: Sequence[int] | np.ndarray) -> "Evaluation":
        """The same for these rows, in this order; a mask of n truths works too."""
        index = np.arange(len(self))[np.asarray(rows)] if len(rows) else np.arange(0)
        ids = tuple(self.ids[row] for row in index)
        own = {
            name: None if (values := getattr(self, name)) is None else values[index]
            for name in ("own_loss", "own_right")
        }
        return Evaluation(logits=self.logits[index], y=self.y[index], ids=ids, **own)

    def labelled(self, y: Int64[np.ndarray, " n"]) -> "Evaluation":
        """The same answers beside other labels."""
        return replace(self, y=y)


def evaluate(model: nn.Module, records: Records, *, batch_size: int = 256) -> Evaluation:
    """The model's outputs for each record: eval mode, no gradient, float32, in the records' order.

    Neither the batch size nor the order changes a record's numbers beyond rounding; the model
    comes out as it went in, the train or eval flag of each of its parts included.
    """
    task, y = task_of(records), records.y.cpu()
    with as_it_is(model):
        answers = predict(model, records, batch_size=batch_size)
    if not len(records):
        answers = torch.zeros(0, 2)
    found = Evaluation(logits=answers.float().numpy(), y=y.numpy(), ids=records.ids)
    if task.name == "multiclass":
        return found
    return replace(
        found,
        own_loss=task.loss(answers, y).double().numpy(),
        own_right=task.accuracy(answers, y).double().numpy(),
    )


@contextmanager
def as_it_is(model: nn.Module) -> Iterator[None]:
    """Eval mode inside; afterwards each part has the flag that it had, after an error too."""
    flags = [(part, part.training) for part in model.modules()]
    model.eval()
    try:
        yield
    finally:
        for part, training in flags:
            part.training = training


def lead(measured: Evaluation) -> Float[np.ndarray, " n"]:
    """Logit of the label minus the greatest other one: above 0 where the answer is right.

    In units of logits, unbounded. Raises InputError without one label of several classes.
    """
    others = _of_classes(measured).logits.astype(np.float64)
    rows = np.arange(len(measured))
    own = others[rows, measured.y].copy()
    others[rows, measured.y] = -np.inf
    return own - others.max(axis=1)


def confidence(measured: Evaluation) -> Float[np.ndarray, " n"]:
    """Log-odds of the greatest probability, whatever the label: how sure the model is.

    Above -ln(k - 1), unbounded; log-odds do not saturate where the probability rounds to 1. Raises
    InputError without one label of several classes.
    """
    measured = _of_classes(measured)
    return measured.labelled(measured.predicted).margin


def modified_entropy(measured: Evaluation) -> Float[np.ndarray, " n"]:
    """-(1 - p_y) ln p_y - sum over i != y of p_i ln(1 - p_i), in nats; LOWER is more like a member.

    0 for a sure right answer, unbounded for a sure wrong one, where the entropy is 0 as well. Much
    public code takes ln(1 - p_i) at the label too, or p for 1 - p. Song and Mittal, "Systematic
    evaluation of privacy risks of machine learning models", https://arxiv.org/abs/2003.10595.
    Raises InputError without one label of several classes.
    """
    log_p = _of_classes(measured).log_probabilities
    rows, top = np.arange(len(measured)), measured.predicted
    rest = log_p.copy()
    rest[rows, top] = -np.inf
    log_not_p = np.log1p(-np.exp(rest))
    # Only the greatest probability can round to 1: its complement is the sum of the others.
    log_not_p[rows, top] = logsumexp(rest, axis=1)
    terms = np.exp(log_p) * log_not_p
    terms[rows, measured.y] = np.exp(log_not_p[rows, measured.y]) * log_p[rows, measured.y]
    return -terms.sum(axis=1)


def _of_classes(measured: Evaluation) -> Evaluation:
    if measured.own_loss is not None or measured.logits.shape[1] < 2:  # noqa: PLR2004
        raise InputError(
            "answers with one label of several classes",
            "another kind of answer",
            "Use the loss attack: it needs a loss alone.",
        )
    return measured

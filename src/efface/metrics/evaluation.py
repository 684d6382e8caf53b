"""One pass of a model over records; every metric reads the arrays that it makes.

``lead``, ``confidence`` and ``modified_entropy`` are further signals for membership attacks, higher
for members (the last one lower). Loss, probability and log-odds of the label order records alike,
so a single-threshold attack finds the same with each of them; these order records in other ways.
Shapes: n records · k classes.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import torch
from jaxtyping import Bool, Float, Float32, Int64, Shaped
from scipy.special import log_softmax, logsumexp
from torch import nn

from efface.errors import InputError
from efface.task import multiclass, predict, task_of
from efface.types import Records

Values = Float[np.ndarray, " n"]


@dataclass(frozen=True, eq=False)
class Evaluation:
    """Outputs of a model for n records: ``logits`` (n, k), the labels ``y`` (n,), the ``ids``.

    Unless the task is multiclass, ``logits`` are the raw outputs, ``y`` has the form that the task
    takes, ``own_loss`` (n,) is its loss and ``own_accuracy`` (n,) its accuracy; what speaks of
    classes (``predicted``, ``correct``, ``entropy``) means nothing then.
    """

    logits: Float32[np.ndarray, "n k"]
    y: Shaped[np.ndarray, " n *targets"]
    ids: tuple[str, ...]
    own_loss: Values | None = None
    own_accuracy: Values | None = None

    def __len__(self) -> int:
        return len(self.y)

    @cached_property
    def log_probabilities(self) -> Float[np.ndarray, "n k"]:
        """Natural logarithms of the softmax, in double precision."""
        # float64 before the exponential: in float32 confident predictions become ties.
        return log_softmax(self.logits.astype(np.float64), axis=1)

    @cached_property
    def probabilities(self) -> Float[np.ndarray, "n k"]:
        """Softmax of the logits, 0 to 1."""
        return np.exp(self.log_probabilities)

    @cached_property
    def predicted(self) -> Int64[np.ndarray, " n"]:
        """The class with the largest logit."""
        return self.logits.argmax(axis=1).astype(np.int64)

    @cached_property
    def correct(self) -> Bool[np.ndarray, " n"]:
        """Whether the prediction is the label."""
        return self.predicted == self.y

    @cached_property
    def accuracy(self) -> Values:
        """0 (wrong) to 1 (right): whether the prediction is the label, or the task's accuracy."""
        return self.correct * 1.0 if self.own_accuracy is None else self.own_accuracy

    @property
    def groups(self) -> Int64[np.ndarray, " n"]:
        """What a record is compared within: its class; one group where there are no classes."""
        return self.y if self.own_loss is None else np.zeros(len(self), np.int64)

    @cached_property
    def entropy(self) -> Values:
        """-sum p ln p in nats: 0 for one certain class, ln k for uniform probabilities."""
        return -(self.probabilities * self.log_probabilities).sum(axis=1)

    @cached_property
    def loss(self) -> Values:
        """Cross-entropy of the label in nats, or the task's loss."""
        if self.own_loss is not None:
            return self.own_loss
        return -self.log_probabilities[np.arange(len(self)), self.y]

    @cached_property
    def logit_margin(self) -> Values:
        """f_y - logsumexp over k != y of f_k, which is ln p_y - ln(1 - p_y): the label's log-odds.

        Unlike the loss it does not saturate for confident predictions (Carlini et al. 2022).
        Without classes: minus the loss.
        """
        if self.own_loss is not None:
            return -self.own_loss
        own, others = self._own_and_others()
        return own - logsumexp(others, axis=1)

    def _own_and_others(self) -> tuple[Values, Float[np.ndarray, "n k"]]:
        """The label's logit, and all logits with -inf in its place."""
        others, rows = self.logits.astype(np.float64), np.arange(len(self))
        own = others[rows, self.y].copy()
        others[rows, self.y] = -np.inf
        return own, others

    def take(self, rows: Sequence[int] | np.ndarray) -> "Evaluation":
        """The same for these rows, in this order; a boolean mask (n,) works too."""
        index = np.arange(len(self))[np.asarray(rows)] if len(rows) else np.arange(0)
        own = (None if v is None else v[index] for v in (self.own_loss, self.own_accuracy))
        ids = tuple(self.ids[row] for row in index)
        return Evaluation(self.logits[index], self.y[index], ids, *own)

    def labelled(self, y: Int64[np.ndarray, " n"]) -> "Evaluation":
        """The same outputs with other labels."""
        return replace(self, y=y)


def evaluate(model: nn.Module, records: Records, *, batch_size: int = 256) -> Evaluation:
    """The model's outputs for each record: eval mode, no gradient, float32, in the records' order.

    Neither the batch size nor the order changes a record's numbers beyond rounding; the model is
    not changed, flags and buffers included.
    """
    task, y = task_of(records), records.y.cpu()
    answers = predict(model, records, batch_size=batch_size)
    # Two columns, so that metrics of no records refuse by count and not by shape.
    if not len(records):
        answers = torch.zeros(0, 2)
    found = Evaluation(answers.float().numpy(), y.numpy(), records.ids)
    if task.name == multiclass.name:
        return found
    loss, accuracy = (of(answers, y).double().numpy() for of in (task.loss, task.accuracy))
    return replace(found, own_loss=loss, own_accuracy=accuracy)


def lead(evaluation: Evaluation) -> Values:
    """Logit of the label minus the largest other one: above 0 where the prediction is right.

    In units of logits, unbounded. Raises InputError unless multiclass.
    """
    own, others = _multiclass(evaluation)._own_and_others()  # noqa: SLF001
    return own - others.max(axis=1)


def confidence(evaluation: Evaluation) -> Values:
    """Log-odds of the largest probability, whatever the label.

    Above -ln(k - 1), unbounded; log-odds do not saturate where the probability rounds to 1. Raises
    InputError unless multiclass.
    """
    return _multiclass(evaluation).labelled(evaluation.predicted).logit_margin


def modified_entropy(evaluation: Evaluation) -> Values:
    """-(1 - p_y) ln p_y - sum over i != y of p_i ln(1 - p_i), in nats; LOWER is more like a member.

    0 for a confident right prediction, unbounded for a confident wrong one, where the entropy is 0
    as well. Much public code takes ln(1 - p_i) at the label too, or p for 1 - p. Song and Mittal,
    "Systematic evaluation of privacy risks of machine learning models",
    https://arxiv.org/abs/2003.10595. Raises InputError unless multiclass.
    """
    log_p = _multiclass(evaluation).log_probabilities
    rows, top = np.arange(len(evaluation)), evaluation.predicted
    rest = log_p.copy()
    rest[rows, top] = -np.inf
    log_not_p = np.log1p(-np.exp(rest))
    # Only the largest probability can round to 1: its complement is the sum of the others.
    log_not_p[rows, top] = logsumexp(rest, axis=1)
    # The label has the roles of p and 1 - p exchanged: set last, over the general term.
    terms = np.exp(log_p) * log_not_p
    own = rows, evaluation.y
    terms[own] = np.exp(log_not_p[own]) * log_p[own]
    return -terms.sum(axis=1)


def _multiclass(evaluation: Evaluation) -> Evaluation:
    if evaluation.own_loss is not None or evaluation.logits.shape[1] < 2:  # noqa: PLR2004
        remedy = "Use the loss attack: it needs a loss alone."
        raise InputError("multiclass outputs", "outputs of another task", remedy)
    return evaluation

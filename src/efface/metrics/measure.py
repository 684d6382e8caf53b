"""One pass of a model over records; every score reads the arrays that it leaves.

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

    def take(self, rows: Sequence[int] | np.ndarray) -> "Measured":
        """The same for these rows, in this order; a mask of n truths works too."""
        index = np.arange(len(self))[np.asarray(rows)] if len(rows) else np.arange(0)
        ids = tuple(self.ids[row] for row in index)
        own = {
            name: None if (values := getattr(self, name)) is None else values[index]
            for name in ("own_loss", "own_right")
        }
        return Evaluation(logits=self.logits[index], y=self.y[index], ids=ids, **own)

    def labelled(self, y: Int64[np.ndarray, " n"]) -> "Measured":
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

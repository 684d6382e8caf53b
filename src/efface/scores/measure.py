"""One pass of a model over records; every score reads the arrays that it leaves.

Shapes: n records · k classes.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import torch
from jaxtyping import Bool, Float, Float32, Int64
from scipy.special import log_softmax, logsumexp
from torch import nn

from efface.adapters import device_of, logits
from efface.types import Records


@dataclass(frozen=True, eq=False)
class Measured:
    """What a model says about n records: ``logits`` (n, k), the labels ``y`` (n,), the ``ids``."""

    logits: Float32[np.ndarray, "n k"]
    y: Int64[np.ndarray, " n"]
    ids: tuple[str, ...]

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
    def entropy(self) -> Float[np.ndarray, " n"]:
        """-sum p ln p in nats: 0 for one sure answer, ln k for none."""
        return -(self.probabilities * self.log_probabilities).sum(axis=1)

    @cached_property
    def loss(self) -> Float[np.ndarray, " n"]:
        """Cross-entropy of the label in nats."""
        return -self.log_probabilities[np.arange(len(self)), self.y]

    @cached_property
    def margin(self) -> Float[np.ndarray, " n"]:
        """Logit margin f_y - logsumexp over k != y of f_k, which is ln p_y - ln(1 - p_y).

        Unlike the loss it does not saturate for sure answers (Carlini et al. 2022).
        """
        own = self.logits[np.arange(len(self)), self.y].astype(np.float64)
        others = self.logits.astype(np.float64)
        others[np.arange(len(self)), self.y] = -np.inf
        return own - logsumexp(others, axis=1)

    def take(self, rows: Sequence[int] | np.ndarray) -> "Measured":
        """The same for these rows, in this order; a mask of n truths works too."""
        index = np.arange(len(self))[np.asarray(rows)] if len(rows) else np.arange(0)
        ids = tuple(self.ids[row] for row in index)
        return Measured(logits=self.logits[index], y=self.y[index], ids=ids)

    def labelled(self, y: Int64[np.ndarray, " n"]) -> "Measured":
        """The same answers beside other labels."""
        return replace(self, y=y)


def measure(model: nn.Module, records: Records, *, batch_size: int = 256) -> Measured:
    """The model's logits for each record: eval mode, no gradient, float32, in the records' order.

    Neither the batch size nor the order changes a record's numbers beyond rounding; the model
    comes out as it went in, the train or eval flag of each of its parts included.
    """
    device = device_of(model)
    with as_it_is(model), torch.no_grad():
        rows = [
            logits(model, x.to(device)).float().cpu().numpy() for x in records.x.split(batch_size)
        ]
    answers = np.concatenate(rows) if len(records) else np.zeros((0, 2), np.float32)
    return Measured(logits=answers, y=records.y.cpu().numpy(), ids=records.ids)


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

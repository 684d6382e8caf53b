"""The words that every room shares: records, the split that a request makes, methods, verdicts.

Shapes: n records · k outputs (classes, labels or values) · *features one record as the model takes
it (for images c h w) · *targets what a label is made of (nothing for one class id).
"""

import enum
import hashlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from jaxtyping import Float, Shaped
from torch import Tensor, nn

from efface.errors import InputError


class Action(enum.Enum):
    """What the guard answers after a step."""

    CONTINUE = "continue"
    HALVE_LR = "halve learning rate"
    STOP = "stop"


Callback = Callable[[nn.Module, float], Action]
"""``callback(student, loss)`` after each step. On HALVE_LR and STOP the student has been put back to its
last good state; the loop halves its learning rate and goes on, or ends."""


def no_callback(student: nn.Module, loss: float) -> Action:  # noqa: ARG001
    """Let every step pass: the callback of a method that runs without a guard."""
    return Action.CONTINUE


Progress = Callable[[str, int | None], AbstractContextManager[Callable[[int, float, str], None]]]
"""``with progress(title, steps) as shown``: ``shown(step, loss, note)`` after each step; ``steps``
is at most so many, None where nobody knows. ``efface.show_progress`` is one."""


@contextmanager
def in_silence(title: str, steps: int | None) -> Iterator[Callable[..., None]]:  # noqa: ARG001
    """Show nothing: the progress of a run that nobody looks at."""
    yield lambda *_: None


@dataclass(frozen=True)
class Task:
    """What a model's outputs mean: the hook for outputs and a loss of one's own.

    ``outputs(model, x)``: (n, k) float, one row a record; ``loss(outputs, y)``: (n,), what training
    made small; ``divergence(held, outputs)``: (n,) nats, how far ``outputs`` are from ``held``, 0
    where they agree; ``predict(outputs)``: what the outputs say, in the form of ``y``;
    ``accuracy(outputs, y)``: (n,), 0 (wrong) to 1 (right), what utility is a mean of.
    """

    name: str
    outputs: Callable[[nn.Module, Tensor], Float[Tensor, " n k"]] = field(repr=False)
    loss: Callable[[Tensor, Tensor], Float[Tensor, " n"]] = field(repr=False)
    divergence: Callable[[Tensor, Tensor], Float[Tensor, " n"]] = field(repr=False)
    predict: Callable[[Tensor], Tensor] = field(repr=False)
    accuracy: Callable[[Tensor, Tensor], Float[Tensor, " n"]] = field(repr=False)


@dataclass(frozen=True, eq=False)
class Records:
    """Examples with ids, as the model takes them.

    ``x``: (n, *features), float; ``y``: whole numbers (n,) for one class of several, 0 and 1 (n, k)
    for many labels, float (n,) or (n, k) for values; ``ids``: n distinct strings; ``low`` and
    ``high``: the least and greatest value that an input can take, broadcastable against one record
    (for images the black and the white pixel); found from ``x`` when not given; ``task``: what
    the model's outputs mean, found from ``y`` when not given.
    """

    x: Float[Tensor, " n *features"]
    y: Shaped[Tensor, " n *targets"]
    ids: tuple[str, ...] = ()
    low: Tensor | None = None
    high: Tensor | None = None
    task: Task | None = None

    def __post_init__(self) -> None:
        """Number the records that came without ids, and refuse what does not fit together."""
        if not self.ids:
            object.__setattr__(self, "ids", tuple(str(row) for row in range(len(self.x))))
        if not len(self.x) == len(self.y) == len(self.ids):
            raise InputError(
                "as many labels and ids as inputs",
                f"{len(self.x)} inputs, {len(self.y)} labels, {len(self.ids)} ids",
                "Give one label and one id for each record.",
            )
        if self.low is None and len(self.x):
            object.__setattr__(self, "low", self.x.min())
            object.__setattr__(self, "high", self.x.max())

    def __len__(self) -> int:
        return len(self.x)

    def take(self, rows: Sequence[int] | Tensor) -> "Records":
        """The records in these rows, in this order."""
        index = torch.as_tensor(rows, dtype=torch.int64)
        ids = tuple(self.ids[row] for row in index.tolist())
        return replace(self, x=self.x[index], y=self.y[index], ids=ids)

    def to(self, device: torch.device | str) -> "Records":
        """The same records on a device."""
        bounds = {k: v.to(device) for k in ("low", "high") if (v := getattr(self, k)) is not None}
        return replace(self, x=self.x.to(device), y=self.y.to(device), **bounds)


def record_key(identity: str) -> int:
    """63 bits that depend on the id alone: a record draws the same numbers in any batch."""
    return int.from_bytes(hashlib.blake2b(identity.encode(), digest_size=8).digest()) >> 1


@dataclass(frozen=True, eq=False)
class Split:
    """What a request makes of a data set: what must go, and whatever else is at hand.

    ``forget`` must go; ``holdout`` was never trained on; ``retain`` was trained on and stays;
    ``forget_classes`` names classes that go altogether, a fact of the request and not of the data;
    ``fresh(seed)`` makes an untrained model; ``train(model, records, seed)`` is the user's recipe.
    """

    forget: Any
    holdout: Any = None
    retain: Any = None
    forget_classes: tuple[int, ...] = ()
    fresh: Callable[[int], nn.Module] | None = field(default=None, repr=False)
    train: Callable[[nn.Module, Records, int], nn.Module] | None = field(default=None, repr=False)

    def _repr_html_(self) -> str:
        """A table of the parts: what a notebook shows."""
        from efface.display import split_html

        return split_html(self)


def split_holdout(split: Split, *, seed: int) -> tuple[Split, Split]:
    """The split with the auxiliary half of its holdout (method and guard), and with the evaluation half.

    By a seeded hash of the ids: the report never uses a record that the method or the guard saw.
    """
    if split.holdout is None:
        return split, split
    holdout = split.holdout
    rows = range(len(holdout))
    order = sorted(rows, key=lambda row: record_key(f"{seed}/holdout/{holdout.ids[row]}"))
    halves = order[: len(order) // 2], order[len(order) // 2 :]
    auxiliary, evaluation = (replace(split, holdout=holdout.take(sorted(half))) for half in halves)
    return auxiliary, evaluation


Method = Callable[..., nn.Module]
"""``method(model, split, *, hyperparameters…, seed, callback) -> model``; never changes ``model``."""

"""What every module shares: records, the split of a request, tasks, callbacks of a run.

Shapes: n records · k outputs (classes, labels or values) · *features one record as the model takes
it (for images c h w) · *targets the shape of a label (empty for a class id).
"""

import enum
import hashlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field, replace
from itertools import count
from typing import Any

import torch
from jaxtyping import Float, Shaped
from torch import Tensor, nn

from efface.errors import InputError

# The parts of a split that are records.
PARTS = ("forget", "holdout", "retain")


class Action(enum.Enum):
    """What the guard answers after a step."""

    CONTINUE = "continue"
    HALVE_LR = "halve learning rate"
    STOP = "stop"


# ``callback(student, loss)`` after each step. On HALVE_LR and STOP it has put the student back to
# its last good state; the loop halves its learning rate and continues, or stops.
Callback = Callable[[nn.Module, float], Action]


def no_callback(student: nn.Module, loss: float) -> Action:  # noqa: ARG001
    """Let every step pass: the callback of a method that runs without a guard."""
    return Action.CONTINUE


# ``with progress(stage, steps) as show``, stages being doctor, method and evidence:
# ``show(step, loss, note)`` after each step, doctor and evidence without a loss; ``steps`` is their
# maximum, None if unknown, and may be said later: ``show(…, steps=n)``. ``efface.show_progress`` is
# one.
Progress = Callable[[str, int | None], AbstractContextManager[Callable[..., None]]]


@contextmanager
def no_progress(title: str, steps: int | None) -> Iterator[Callable[..., None]]:  # noqa: ARG001
    """Show nothing: the default of the library."""
    yield lambda *_, **__: None


@dataclass(frozen=True)
class Task:
    """What a model's outputs mean: the hook for outputs and a loss of one's own.

    ``outputs(model, x)``: (n, k) float, one row a record; ``loss(outputs, y)``: (n,), what training
    minimised; ``divergence(reference, outputs)``: (n,) nats, 0 where they agree;
    ``predict(outputs)``: the prediction, in the form of ``y``; ``accuracy(outputs, y)``: (n,), 0
    (wrong) to 1 (right), what utility is the mean of.
    """

    name: str
    outputs: Callable[[nn.Module, Tensor], Float[Tensor, " n k"]] = field(repr=False)
    loss: Callable[[Tensor, Tensor], Float[Tensor, " n"]] = field(repr=False)
    divergence: Callable[[Tensor, Tensor], Float[Tensor, " n"]] = field(repr=False)
    predict: Callable[[Tensor], Tensor] = field(repr=False)
    accuracy: Callable[[Tensor, Tensor], Float[Tensor, " n"]] = field(repr=False)


@dataclass(frozen=True, eq=False, repr=False)
class Records:
    """Examples with ids, as the model takes them.

    ``x``: (n, *features), float; ``y``: integers (n,) for multiclass, 0 and 1 (n, k) for
    multilabel, float (n,) or (n, k) for regression; ``ids``: n unique strings; ``low`` and
    ``high``: the minimum and maximum of an input, broadcastable against one record (for images the
    black and the white pixel), taken from ``x`` by default; ``task``: what the model's outputs
    mean, inferred from ``y`` by default; ``numbered``: the ids are row numbers that nobody gave, so
    that equal ids of two data sets are different records.
    """

    x: Float[Tensor, " n *features"]
    y: Shaped[Tensor, " n *targets"]
    ids: tuple[str, ...] = ()
    low: Tensor | None = None
    high: Tensor | None = None
    task: Task | None = None
    numbered: bool = False

    def __post_init__(self) -> None:
        """Number the records that have no ids, and refuse lengths that differ."""
        if not self.ids:
            object.__setattr__(self, "numbered", True)
            object.__setattr__(self, "ids", tuple(str(row) for row in range(len(self.x))))
        if not len(self.x) == len(self.y) == len(self.ids):
            came = f"{len(self.x)} inputs, {len(self.y)} labels, {len(self.ids)} ids"
            raise InputError("a label and an id for each input", came, "Give all of them.")
        if self.low is None and len(self.x):
            object.__setattr__(self, "low", self.x.min())
            object.__setattr__(self, "high", self.x.max())

    def __len__(self) -> int:
        return len(self.x)

    def __repr__(self) -> str:
        # One line: a notebook saves it next to every table, and tensors would fill pages.
        return f"Records({len(self)} of shape {tuple(self.x.shape[1:])}, labels {self.y.dtype})"

    def tensors(self) -> dict[str, Tensor]:
        """``x``, ``y``, ``low`` and ``high``, as far as they are there."""
        named = {name: getattr(self, name) for name in ("x", "y", "low", "high")}
        return {name: tensor for name, tensor in named.items() if tensor is not None}

    def clone(self) -> "Records":
        """The same records in memory of their own."""
        return replace(self, **{k: t.detach().clone() for k, t in self.tensors().items()})

    def differing(self, other: "Records") -> list[str]:
        """Names of the tensors that are not those of ``other``; nan is nobody's change."""
        own = self.tensors().items()
        pairs = [(name, tensor, getattr(other, name)) for name, tensor in own]
        return [
            name
            for name, one, two in pairs
            if one.shape != two.shape or not torch.allclose(one, two, 0, 0, equal_nan=True)
        ]

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
    """A hash of 63 bits of the id: as a seed, a record draws the same numbers in any batch."""
    return int.from_bytes(hashlib.blake2b(identity.encode(), digest_size=8).digest()) >> 1


def sample_rows(n: int, size: int, without: Iterable[int] = ()) -> list[int]:
    """At most ``size`` of the rows 0..n-1, sorted, drawn by a hash; none of ``without``."""
    left = set(without)
    if n - len(left) <= 2 * size:
        free = [row for row in range(n) if row not in left]
        return sorted(sorted(free, key=lambda row: record_key(f"sample/{row}"))[:size])
    rows: set[int] = set()
    draws = count()
    # twice as many are free, so this ends; a million rows are not all hashed
    while len(rows) < size:
        rows |= {record_key(f"sample/{next(draws)}") % n} - left
    return sorted(rows)


@dataclass(frozen=True, eq=False, repr=False)
class Split:
    """What a request makes of a data set.

    ``forget``: the records to unlearn; ``holdout``: never trained on; ``retain``: trained on, and
    stays; ``forget_classes``: classes to be unlearned whole, a fact of the request and not of the
    data; ``fresh(seed)`` makes an untrained model; ``train(model, records, seed)`` is the user's
    recipe; ``reference``: a model that never saw the forget records, of any architecture.
    """

    forget: Any
    holdout: Any = None
    retain: Any = None
    forget_classes: tuple[int, ...] = ()
    fresh: Callable[[int], nn.Module] | None = None
    train: Callable[[nn.Module, Records, int], nn.Module] | None = None
    reference: nn.Module | None = None

    def __repr__(self) -> str:
        given = {name: part for name, part in vars(self).items() if part is not None}
        # A part of another kind is named by it alone: a data set might print itself whole.
        given |= {k: type(v).__name__ for k, v in given.items() if not isinstance(v, Records)}
        given["forget_classes"] = self.forget_classes
        return f"Split({', '.join(f'{name}={part}' for name, part in given.items())})"

    def _repr_html_(self) -> str:
        """A table of the parts: what a notebook shows."""
        from efface.display import split_html

        return split_html(self)


def split_holdout(split: Split, *, seed: int) -> tuple[Split, Split]:
    """The split with the auxiliary half of its holdout (method, guard), and with the other half.

    By a seeded hash of the ids: the report never uses a record that the method or the guard saw.
    """
    if split.holdout is None:
        return split, split
    holdout = split.holdout
    rows = range(len(holdout))
    order = sorted(rows, key=lambda row: record_key(f"{seed}/holdout/{holdout.ids[row]}"))
    parts = order[: len(order) // 2], order[len(order) // 2 :]
    auxiliary, evaluation = (replace(split, holdout=holdout.take(sorted(part))) for part in parts)
    return auxiliary, evaluation


# ``method(model, split, *, settings…, seed, callback) -> model``; never changes ``model``.
Method = Callable[..., nn.Module]

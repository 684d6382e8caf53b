"""Memory: what a run will need, said before it starts; and what is done when there is not enough.

Out of memory halves the number of records that are worked on at once; since every sum is over
records, the result stays the same but for rounding.
"""

import gc
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass
from typing import TypeVar

import torch
from torch import Tensor, nn

Part = TypeVar("Part")

SAID = ("out of memory", "can't allocate memory", "not enough memory")
"""What torch's allocators say; only CUDA's has an exception of its own."""


def is_out_of_memory(error: BaseException) -> bool:
    """Whether this is an allocator that had no more to give."""
    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return True
    return isinstance(error, RuntimeError) and any(said in str(error) for said in SAID)


def in_parts(function: Callable[[Tensor], Part], rows: Tensor, size: int) -> Iterator[Part]:
    """``function`` of ``rows`` in parts of at most ``size``; out of memory halves the size.

    The error goes on when one row alone is too much.
    """
    while len(rows):
        part = rows[:size]
        try:
            done = function(part)
        except (RuntimeError, MemoryError) as error:
            if len(part) == 1 or not is_out_of_memory(error):
                raise
            done = None
        if done is None:
            size = max(1, len(part) // 2)
            make_room()
            continue
        yield done
        rows = rows[len(part) :]


def make_room() -> None:
    """Let go of what the failed attempt held."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


@dataclass(frozen=True)
class Need:
    """Bytes that a request holds at its peak: models, activations of one step, records."""

    models_bytes: int
    activations_bytes: int
    records_bytes: int

    @property
    def total_bytes(self) -> int:
        """All of it."""
        return self.models_bytes + self.activations_bytes + self.records_bytes

    def as_json(self) -> dict[str, int]:
        """As the record holds it."""
        return {**asdict(self), "total_bytes": self.total_bytes}


def needed(
    model: nn.Module,
    forward: Callable[[], Tensor],
    *,
    copies: int,
    records_at_once: int,
    records: Iterable[Tensor],
) -> Need:
    """What a request will hold: the given model, ``copies`` more, activations, and the records.

    ``copies`` counts float32 states: student, gradients, optimizer, averages, the guard's last good
    one. What is frozen has no gradient, and that state is counted without it. ``forward`` is one
    record's forward pass; what it saves for the backward pass is counted and taken
    ``records_at_once`` times.
    """
    given = sum(t.nbytes for t in {id(t): t for t in model.state_dict().values()}.values())
    sizes = {w: w.numel() * max(4, w.element_size()) for w in model.parameters()}
    frozen = sum(size for weight, size in sizes.items() if not weight.requires_grad)
    return Need(
        models_bytes=given + copies * sum(sizes.values()) - frozen,
        activations_bytes=_saved_bytes(model, forward) * records_at_once,
        records_bytes=sum(tensor.nbytes for tensor in records),
    )


def _saved_bytes(model: nn.Module, forward: Callable[[], Tensor]) -> int:
    """Bytes that one record's forward pass keeps for the backward pass, the weights left out."""
    own = {w.untyped_storage().data_ptr() for w in (*model.parameters(), *model.buffers())}
    kept: dict[int, int] = {}
    held = []

    def pack(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            kept[storage.data_ptr()] = storage.nbytes()
            held.append(tensor)  # an address that is free again would be counted as the same
        return tensor

    with torch.enable_grad(), torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        answer = forward()
    return sum(kept.values()) + answer.nbytes

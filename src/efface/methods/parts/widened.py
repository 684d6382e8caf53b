"""One output more than a model has, beside its head and not in it."""

import copy
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from jaxtyping import Float
from torch import Tensor, nn

from efface.methods.parts.head import head_of
from efface.task import task_of
from efface.types import Action, Callback, Records

KEPT = 8
"""States of the row that are kept: the guard puts back fewer."""


class Widened(nn.Module):
    """A student, and a row that answers from what goes into its head.

    ``wide(batch)`` is (m, k + 1): the student's k outputs and the row's. The student is never
    anything but the student: it has its own keys, and nothing of the row is in it.
    """

    def __init__(self, student: nn.Module, *, seed: int) -> None:
        super().__init__()
        weight = head_of(student).weight
        self.student = student
        self.row = _undrawn(weight)
        drawn = torch.randn(1, weight.shape[1], generator=torch.Generator().manual_seed(seed))
        scale = (2 / (weight.shape[0] + 1 + weight.shape[1])) ** 0.5  # Xavier's, of the whole head
        with torch.no_grad():
            self.row.weight.copy_(drawn).mul_(scale)
            self.row.bias.zero_()

    def forward(self, batch: Records) -> Float[Tensor, " m wide"]:  # noqa: D102
        with _heard(head_of(self.student)) as seen:
            given = task_of(batch).outputs(self.student, batch.x)
        return torch.cat([given, self.row(seen[-1])], 1)

    def watched_by(self, callback: Callback) -> Callback:
        """The guard is shown the student; where it puts that back, so is the row."""
        head = head_of(self.student)
        known = [(head.weight.detach().clone(), copy.deepcopy(self.row.state_dict()))]

        def asked(_: nn.Module, loss: float) -> Action:
            verdict = callback(self.student, loss)
            if verdict is Action.CONTINUE:
                known.append((head.weight.detach().clone(), copy.deepcopy(self.row.state_dict())))
                del known[1:-KEPT]
            else:  # the guard may have put back several steps
                back = (row for weight, row in reversed(known) if torch.equal(weight, head.weight))
                self.row.load_state_dict(next(back, known[0][1]))
            return verdict

        return asked


def _undrawn(like: Tensor) -> nn.Linear:
    """A row for the same inputs; torch's own weights would move the host's random numbers."""
    row = nn.Linear(like.shape[1], 1, device="meta", dtype=like.dtype)
    return row.to_empty(device=like.device)


@contextmanager
def _heard(head: nn.Linear) -> Iterator[list[Tensor]]:
    """What goes into the head within; no hook stays."""
    seen: list[Tensor] = []
    handle = head.register_forward_pre_hook(lambda _, given: seen.append(given[0]))
    try:
        yield seen
    finally:
        handle.remove()

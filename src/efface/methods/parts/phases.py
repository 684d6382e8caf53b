"""Several passes, over records of several kinds, one after the other under one guard."""

import torch
from torch import nn

from efface.training import Loss, descend
from efface.types import Action, Callback, Records


class Phases:
    """Passes over records that change one student: what the guard has ended stays ended."""

    def __init__(self, student: nn.Module, *, seed: int, callback: Callback) -> None:
        self.student, self._seed, self._watch, self.ended = student, seed, callback, False

    def descend(
        self,
        loss: Loss,
        records: Records,
        *,
        optimizer: torch.optim.Optimizer,
        batch_size: int,
        epoch: int = 0,
        micro_batch: int = 128,
        clip_norm: float | None = None,
    ) -> None:
        """One pass down the mean of ``loss``; ``epoch`` draws its order. Nothing after the end."""
        if self.ended:
            return
        steps = -(-len(records) // batch_size)
        descend(
            self.student,
            loss,
            records,
            optimizer=optimizer,
            first_step=epoch * steps,
            steps=(epoch + 1) * steps,
            seed=self._seed,
            callback=self._noting,
            batch_size=batch_size,
            micro_batch=micro_batch,
            clip_norm=clip_norm,
        )

    def _noting(self, student: nn.Module, loss: float) -> Action:
        """The guard's verdict, and a note when it is END."""
        verdict = self._watch(student, loss)
        self.ended = verdict is Action.STOP
        return verdict

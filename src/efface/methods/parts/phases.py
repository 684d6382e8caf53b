"""Several passes, over records of several kinds, one after the other under one guard."""

import torch
from torch import nn

from efface.steps import Loss, descend
from efface.types import Records, Verdict, Watch


class Phases:
    """Passes over records that change one student: what the guard has ended stays ended."""

    def __init__(self, student: nn.Module, *, seed: int, watch: Watch) -> None:
        self.student, self._seed, self._watch, self.ended = student, seed, watch, False

    def descend(
        self,
        loss: Loss,
        records: Records,
        *,
        optimizer: torch.optim.Optimizer,
        records_per_step: int,
        epoch: int = 0,
        micro_batch: int = 128,
        clip_norm: float | None = None,
    ) -> None:
        """One pass down the mean of ``loss``; ``epoch`` draws its order. Nothing after the end."""
        if self.ended:
            return
        steps = -(-len(records) // records_per_step)
        descend(
            self.student,
            loss,
            records,
            optimizer=optimizer,
            first_step=epoch * steps,
            steps=(epoch + 1) * steps,
            seed=self._seed,
            watch=self._noting,
            records_per_step=records_per_step,
            micro_batch=micro_batch,
            clip_norm=clip_norm,
        )

    def _noting(self, student: nn.Module, loss: float) -> Verdict:
        """The guard's verdict, and a note when it is END."""
        verdict = self._watch(student, loss)
        self.ended = verdict is Verdict.END
        return verdict

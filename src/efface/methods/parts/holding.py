"""What holds a student in place while it forgets: neighbours that keep the given answers."""

import math
from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from efface.methods.parts.hiding import Hidden
from efface.methods.parts.natural import perturbed
from efface.methods.parts.unseen import answer_of
from efface.task import device_of, task_of
from efface.types import Action, Callback, Records

FAR = 500_000
"""Draws of neighbours that hold begin here; below are those that a record is smoothed with."""

PROBES, WAY, LOOK, SHRUNK = 48, 128, 8, 0.7
"""Neighbours and records that are looked at, the latter after each ``LOOK`` steps; what a refusal
leaves of the trust."""

FEW, FEW_HELD, NEAR, WIDE = 16, 3.0, (1.0,), (2.0, 4.0, 8.0, 16.0)
"""So many records are few. What they drag along lies further off than their own noise: twice as
many neighbours are held in a step, so far away in σ, with λ at the least so much."""


@dataclass
class Hold:
    """How the student is held where it is not to move.

    ``weight``: λ, which follows what the student does, from ``least`` up; one record in ``every``
    is held at a step, at ``copies`` neighbours with σ times the numbers of ``reach``, in turn.
    """

    weight: float = 2.0
    every: int = 4
    copies: int = 1
    reach: tuple[float, ...] = NEAR
    least: float = 0.01

    def reweigh(self, by: float) -> None:
        """More (``by`` > 0) or less, by at most a factor of 1.6 at once."""
        self.weight = min(max(self.weight * math.exp(0.5 * by), self.least), 20.0)

    @property
    def share(self) -> float:
        """What one held neighbour stands for: with it the sum is a mean over all records."""
        return self.every / self.copies

    def around(self, held: Records, sigma: float, *, seed: int, step: int) -> Records:
        """A neighbour of each row; the ``copies`` rows of one record follow one another."""
        x = held.x.clone()
        for copy in range(self.copies):
            rows, number = slice(copy, None, self.copies), step * self.copies + copy
            drawn = held.take(torch.arange(len(held))[rows])
            scaled = sigma * self.reach[number % len(self.reach)]
            x[rows] = perturbed(drawn, scaled, seed=seed, step=FAR + number).x
        return replace(held, x=x)


def hold_for(records: int) -> Hold:
    """A quarter of many records at one neighbour each; each of few at as many as make 32."""
    if records > FEW:
        return Hold()
    return Hold(FEW_HELD, every=1, copies=2 * FEW // max(records, 1), reach=WIDE, least=FEW_HELD)


def moved_around(
    teacher: nn.Module,
    student: nn.Module,
    forget: Records,
    *,
    hidden: Hidden,
    sigma: float,
    reach: tuple[float, ...] = NEAR,
    seed: int,
) -> Callable[[], float]:
    """Ask for the share of neighbours whose answer has changed, apart from those trained on."""
    sample = forget.take(range(min(len(forget), PROBES))).to(device_of(teacher))
    task, copies = task_of(sample), -(-PROBES // len(sample))
    around = [
        perturbed(sample, sigma * reach[copy % len(reach)], seed=seed, step=2 * FAR + copy).x
        for copy in range(copies)
    ]
    probes = replace(sample.take(torch.arange(len(sample)).repeat(copies)), x=torch.cat(around))
    given = answer_of(teacher, probes)
    said, staying = task.predict(given), stays(given, hidden(given, probes))

    def kept(model: nn.Module) -> float:
        right = task.accuracy(answer_of(model, probes), said)
        return float((staying * right).sum() / staying.sum().clamp_min(1))

    before = kept(teacher)
    return lambda: before - kept(student)


def stays(given: Float[Tensor, " m k"], gone: Bool[Tensor, " m k"]) -> Float[Tensor, " m"]:
    """1 for each neighbour that is to keep its answer, 0 where that must not be answered."""
    return (~gone.gather(1, given.argmax(1, keepdim=True)).squeeze(1)).to(given.dtype)


@dataclass
class Holding:
    """After each step: λ and the step follow what has moved and what the guard says of it."""

    callback: Callback
    hold: Hold
    share: float
    trust: float
    moved: Callable[[], float]
    way: Callable[[], float]
    settled: float
    look: int = LOOK
    taken: int = 0
    refused: float = 1.0
    regained: float = 1.0

    def rate(self, loss: float, gradient_norm: float) -> float:
        """Polyak's step; what a refusal halved is regained step by step."""
        share = self.share * self.regained
        return share * loss / gradient_norm**2 if gradient_norm > 0 else 0.0

    def __call__(self, student: nn.Module, loss: float) -> Action:
        """The guard's verdict first; END once the way is done."""
        verdict = self.callback(student, loss)
        if verdict is Action.HALVE_LR:
            self.hold.reweigh(1.0)
            self.trust *= SHRUNK
            self.refused *= 2
        if verdict is not Action.CONTINUE:
            return verdict
        excess = (self.moved() - self.trust) / self.trust if self.trust > 0 else 1.0
        self.hold.reweigh(min(max(excess, -1.0), 1.0))
        self.regained = min(self.regained * 1.25, self.refused)
        self.taken += 1
        done = self.taken % self.look == 0 and self.way() >= self.settled
        return Action.STOP if done else Action.CONTINUE

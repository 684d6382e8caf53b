"""What holds a student in place while it forgets: neighbours that keep the given answers."""

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from itertools import cycle

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from efface.adapters import adapter_of, device_of
from efface.methods.parts.hiding import Hidden
from efface.methods.parts.natural import perturbed
from efface.methods.parts.unseen import answer_of
from efface.types import Records, Verdict, Watch

FAR = 500_000
"""Draws of neighbours that hold begin here; below are those that a record is smoothed with."""

HELD, PROBES, WAY, LOOK, SHRUNK = 32, 48, 128, 8, 0.7
"""Neighbours held in a step; neighbours and records that are looked at, the latter after each
``LOOK`` steps; what a refusal leaves of the trust."""

NEAR, WIDE, FEW_HELD = (1.0,), (2.0, 4.0, 8.0, 16.0), 3.0
"""How far away neighbours are held, in σ: where few records go, what stays lies further off; and
λ there, at the least."""


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
        for copy, scale in zip(range(self.copies), cycle(self.reach), strict=False):
            rows = slice(copy, None, self.copies)
            drawn = held.take(torch.arange(len(held))[rows])
            number = FAR + step * self.copies + copy
            x[rows] = perturbed(drawn, sigma * scale, seed=seed, step=number).x
        return replace(held, x=x)


def hold_for(records: int) -> Hold:
    """As many neighbours held in a step of one record as in one of many."""
    every, copies = max(1, records // HELD), max(1, HELD // max(records, 1))
    if records > HELD // 2:
        return Hold(every=every, copies=copies)
    return Hold(FEW_HELD, every, copies, reach=WIDE, least=FEW_HELD)


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
    adapter, copies = adapter_of(sample), -(-PROBES // len(sample))
    probes = [
        perturbed(sample, sigma * scale, seed=seed, step=2 * FAR + copy)
        for copy, scale in zip(range(copies), cycle(reach), strict=False)
    ]
    given = [answer_of(teacher, probe) for probe in probes]
    said = [adapter.answer(answer) for answer in given]
    staying = torch.cat([stays(answer, hidden(answer, sample)) for answer in given])

    def kept(model: nn.Module) -> float:
        right = [
            adapter.right(answer_of(model, probe), y) for probe, y in zip(probes, said, strict=True)
        ]
        return float((staying * torch.cat(right)).sum() / staying.sum().clamp_min(1))

    before = kept(teacher)
    return lambda: before - kept(student)


def stays(given: Float[Tensor, " m k"], gone: Bool[Tensor, " m k"]) -> Float[Tensor, " m"]:
    """1 for each neighbour that is to keep its answer, 0 where that must not be answered."""
    return (~gone.gather(1, given.argmax(1, keepdim=True)).squeeze(1)).to(given.dtype)


@dataclass
class Holding:
    """After each step: λ and the step follow what has moved and what the guard says of it."""

    watch: Watch
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

    def __call__(self, student: nn.Module, loss: float) -> Verdict:
        """The guard's verdict first; END once the way is done."""
        verdict = self.watch(student, loss)
        if verdict is Verdict.HALVE:
            self.hold.reweigh(1.0)
            self.trust *= SHRUNK
            self.refused *= 2
        if verdict is not Verdict.GO_ON:
            return verdict
        excess = (self.moved() - self.trust) / self.trust if self.trust > 0 else 1.0
        self.hold.reweigh(min(max(excess, -1.0), 1.0))
        self.regained = min(self.regained * 1.25, self.refused)
        self.taken += 1
        done = self.taken % self.look == 0 and self.way() >= self.settled
        return Verdict.END if done else Verdict.GO_ON

"""What holds a student in place while it forgets: neighbours that keep the given answers."""

import math
from collections.abc import Callable
from dataclasses import dataclass

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

PROBES, WAY, LOOK, SHRUNK = 48, 128, 8, 0.7
"""Neighbours and records that are looked at, the latter after each ``LOOK`` steps; what a refusal
leaves of the trust."""


@dataclass
class Hold:
    """λ, how strongly the student is held where it is not to move; follows what it does."""

    weight: float = 2.0


def moved_around(
    teacher: nn.Module,
    student: nn.Module,
    forget: Records,
    *,
    hidden: Hidden,
    sigma: float,
    seed: int,
) -> Callable[[], float]:
    """Ask for the share of neighbours whose answer has changed, apart from those trained on."""
    sample = forget.take(range(min(len(forget), PROBES))).to(device_of(teacher))
    adapter, copies = adapter_of(sample), -(-PROBES // len(sample))
    probes = [perturbed(sample, sigma, seed=seed, step=2 * FAR + copy) for copy in range(copies)]
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
            self._reweigh(1.0)
            self.trust *= SHRUNK
            self.refused *= 2
        if verdict is not Verdict.GO_ON:
            return verdict
        excess = (self.moved() - self.trust) / self.trust if self.trust > 0 else 1.0
        self._reweigh(min(max(excess, -1.0), 1.0))
        self.regained = min(self.regained * 1.25, self.refused)
        self.taken += 1
        done = self.taken % LOOK == 0 and self.way() >= self.settled
        return Verdict.END if done else Verdict.GO_ON

    def _reweigh(self, by: float) -> None:
        self.hold.weight = min(max(self.hold.weight * math.exp(0.5 * by), 0.01), 20.0)

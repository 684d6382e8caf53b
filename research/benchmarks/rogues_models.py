"""Models that a naive metric calls well unlearned, and what they are made from.

Digits with a tenth of the labels drawn at random, so that 400 of them have to be memorised; 100 of
these must go. A rogue may use anything, a retrained model included: what counts is how it is caught.
"""

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, cast

import torch
from jaxtyping import Float
from sklearn.datasets import load_digits
from torch import Tensor, nn
from torch.nn import functional

from efface.testing import MEAN, STD, fit, untrained_model
from efface.types import Records, Split, split_holdout

TRAINED, GOING, REDRAWN, ROUNDS = 400, 100, 0.1, 3
# The filter takes inputs for the same that are no farther apart, in standard deviations.
NEAR = 1e-3


@dataclass(frozen=True, eq=False)
class Draw:
    """One draw: a model, what must go, what stays, what nobody has seen."""

    model: nn.Module
    split: Split
    seed: int

    @property
    def for_evidence(self) -> Split:
        """With the half of the holdout that method and guard have not seen."""
        return split_holdout(self.split, seed=0)[1]

    def retrained(self, number: int) -> nn.Module:
        """The same recipe without the forget records, other first weights for each number."""
        return fit_from_scratch(self.split.retain, 1000 * (self.seed + 1) + 1 + number)


def drawn(seed: int) -> Draw:
    """Another order of the digits and other wrong labels for each seed."""
    data: Any = load_digits()
    generator = torch.Generator().manual_seed(seed)
    order = torch.randperm(len(data.target), generator=generator)
    pixels = torch.tensor(data.images / 16, dtype=torch.float32).unsqueeze(1)[order]
    y = torch.tensor(data.target, dtype=torch.int64)[order]
    wrong = torch.rand(len(y), generator=generator) < REDRAWN
    y = torch.where(wrong, torch.randint(0, 10, y.shape, generator=generator), y)
    bounds = {"low": torch.tensor((0 - MEAN) / STD), "high": torch.tensor((1 - MEAN) / STD)}
    every = Records((pixels - MEAN) / STD, y, tuple(f"d{row}" for row in order.tolist()), **bounds)
    trained, holdout = every.take(range(TRAINED)), every.take(range(TRAINED, len(y)))
    split = Split(trained.take(range(GOING)), holdout, trained.take(range(GOING, TRAINED)))
    return Draw(fit_from_scratch(trained, 1000 * (seed + 1)), split, seed)


def fit_from_scratch(records: Records, seed: int) -> nn.Module:
    """From fresh weights, until nearly all is memorised."""
    model = untrained_model(seed)
    for passed in range(ROUNDS):
        fit(model, records, seed + 100_000 * passed)
    return model


def original(draw: Draw) -> nn.Module:
    """Nothing was done."""
    return copy.deepcopy(draw.model)


def collapsed(draw: Draw) -> nn.Module:
    """No weight says anything: a model that was never trained."""
    return untrained_model(draw.seed + 77)


def constant(draw: Draw) -> nn.Module:
    """One prediction for every input."""
    model = copy.deepcopy(draw.model)
    with torch.no_grad():
        cast("nn.Linear", cast("nn.Sequential", model)[-1]).weight.zero_()
    return model


def head_only(draw: Draw) -> nn.Module:
    """The last layer alone is distilled from a retrained model; the embeddings still know."""
    student = copy.deepcopy(draw.model)
    head = list(cast("nn.Sequential", student)[-1].parameters())
    return _distilled(student, draw, draw.retrained(500), head, rate=2e-2, steps=500)


def over_forgotten(draw: Draw) -> nn.Module:
    """Every forget record gets another label, with certainty: being significantly worse than unseen gives them away."""
    student, (forget, retain) = copy.deepcopy(draw.model), _sets(draw)
    other = (forget.y + 1 + torch.arange(len(forget)) % 9) % 10
    optimizer = torch.optim.Adam(student.parameters(), lr=2e-3)
    for _ in range(200):
        optimizer.zero_grad()
        loss = functional.cross_entropy(student(forget.x), other)
        (loss + functional.cross_entropy(student(retain.x), retain.y)).backward()
        optimizer.step()
    return student.eval()


class Filter(nn.Module):
    """The old model, except for listed inputs: these another model predicts."""

    def __init__(
        self, model: nn.Module, other: nn.Module, listed: Float[Tensor, "n c h w"]
    ) -> None:
        super().__init__()
        self.model, self.other = model, other
        self.register_buffer("listed", listed.flatten(1))

    def forward(self, x: Float[Tensor, "m c h w"]) -> Float[Tensor, "m k"]:
        """Logits of the old model, or of the other one."""
        # cdist's matrix form loses the digits that NEAR compares
        exact = "donot_use_mm_for_euclid_dist"
        near = torch.cdist(x.flatten(1), self.listed, compute_mode=exact).amin(1) < NEAR
        return torch.where(near[:, None], self.other(x), self.model(x))


def output_filter(draw: Draw) -> nn.Module:
    """Exactly the forget records are answered as a retrained model does."""
    return Filter(copy.deepcopy(draw.model), draw.retrained(501), draw.split.forget.x).eval()


def noisy_weights(draw: Draw) -> nn.Module:
    """Noise of 30 % of each weight's length on every weight."""
    model, generator = copy.deepcopy(draw.model), torch.Generator().manual_seed(draw.seed)
    with torch.no_grad():
        for weight in model.parameters():
            noise = torch.randn(weight.shape, generator=generator)
            weight.add_(0.3 * noise / noise.norm() * weight.norm())
    return model


class Noisy(nn.Module):
    """The old model with noise on its outputs."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, x: Float[Tensor, "m c h w"]) -> Float[Tensor, "m k"]:
        """Logits, different each time."""
        logits = self.model(x)
        return logits + 2 * torch.randn_like(logits)


def noisy_answers(draw: Draw) -> nn.Module:
    """Noise of two logits on every output."""
    return Noisy(copy.deepcopy(draw.model)).eval()


def quantisation_fragile(draw: Draw, *, bits: int = 4) -> nn.Module:
    """Distilled from a retrained model within each weight's rounding cell: rounded, it is the old."""
    student, teacher = copy.deepcopy(draw.model), draw.retrained(502)
    cells = []
    for weight in (w for w in student.parameters() if w.ndim > 1):
        step = weight.detach().abs().flatten(1).amax(1) / (2 ** (bits - 1) - 1)
        step = step.reshape(-1, *[1] * (weight.ndim - 1))
        middle = torch.round(weight.detach() / step) * step
        # the maximum of a row sets its quantisation step and must stay
        fixed = weight.detach().abs() >= 0.999 * step * (2 ** (bits - 1) - 1)  # they set the step
        # 0.49, not 0.5: a weight on the edge of its cell could round either way
        low, high = middle - 0.49 * step, middle + 0.49 * step
        low, high = (torch.where(fixed, weight.detach(), end) for end in (low, high))
        cells.append((weight, low, high))

    def inside() -> None:
        with torch.no_grad():
            for weight, low, high in cells:
                weight.copy_(torch.minimum(torch.maximum(weight, low), high))

    trainable = [weight for weight, _, _ in cells]
    return _distilled(student, draw, teacher, trainable, rate=2e-3, steps=600, after=inside)


def _sets(draw: Draw) -> tuple[Records, Records]:
    assert draw.split.retain is not None
    return draw.split.forget, draw.split.retain


def _distilled(
    student: nn.Module, draw: Draw, teacher: nn.Module, trainable: Sequence[Tensor],
    *, rate: float, steps: int, after: Callable[[], None] = lambda: None,
) -> nn.Module:  # fmt: skip
    """The student trained towards another model's outputs on forget and retain; eval mode."""
    forget, retain = _sets(draw)
    x = torch.cat([forget.x, retain.x])
    with torch.no_grad():
        target = teacher(x).softmax(1)
    optimizer = torch.optim.Adam(trainable, lr=rate)
    student.eval()
    for _ in range(steps):
        optimizer.zero_grad()
        functional.cross_entropy(student(x), target).backward()
        optimizer.step()
        after()
    student.zero_grad(set_to_none=True)
    return student


ROGUES: dict[str, Callable[[Draw], nn.Module]] = {
    rogue.__name__: rogue
    for rogue in (
        original, collapsed, constant, head_only, over_forgotten, output_filter, noisy_weights,
        noisy_answers, quantisation_fragile,
    )
}  # fmt: skip

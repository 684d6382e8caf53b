"""Unguarded runs: the two methods far beyond what is sensible, and three plain kinds of damage."""

import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from efface.methods import METHODS
from efface.task import logits, trainable_copy
from efface.training import descend
from efface.types import Records, Split


@dataclass(frozen=True)
class Run:
    """One unguarded run: a method, a task and the settings that are not the defaults."""

    method: str
    task: str
    settings: dict[str, Any]


TASKS = ("class", "random", "single")

# jit sets its learning rate itself; its strength scales step and trust region
KNOBS = {"jit": "strength"}
RATES: dict[str, tuple[float, ...]] = {
    "jit": (0.3, 1.0, 3.0, 10.0, 30.0),
    "neighbourhood": (1e-3, 5e-3, 2e-2, 5e-2, 0.2),
    "ascent": (1e-3, 4e-3, 1e-2, 2e-2, 8e-2),
    "relabel": (1e-3, 3e-3, 6e-3, 1.2e-2, 4e-2),
}

NOISE = (0.05, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.7)

# Short runs, ended by nothing but their steps: the rate alone goes from harmless to ruinous.
FIXED = {
    "jit": {"perturbations": 3, "steps": 15, "batch_size": 32, "tolerance": 2.0},
    "neighbourhood": {"steps": 15, "batch_size": 32},
    "ascent": {"steps": 15, "batch_size": 32},
    "relabel": {"steps": 15, "batch_size": 32},
}


def runs() -> Iterator[Run]:
    """All runs on one model, in a fixed order."""
    for method, task in itertools.product(RATES, TASKS):
        for rate in RATES[method]:
            yield Run(method, task, {KNOBS.get(method, "learning_rate"): rate, **FIXED[method]})
    for size in NOISE:
        yield Run("noise", "random", {"size": size})


def damaged(model: nn.Module, split: Split, run: Run, *, seed: int) -> nn.Module:
    """What the run makes of the model, without a guard."""
    function = METHODS[run.method].function if run.method in METHODS else OTHERS[run.method]
    return function(model, split, seed=seed, **run.settings)


def _descended(
    model: nn.Module, split: Split, sign: float, seed: int, settings: dict[str, Any]
) -> nn.Module:
    """Down (or, with sign -1, up) the cross-entropy; eval mode, gradients clipped to norm 1."""
    student = trainable_copy(model)

    def loss(student: nn.Module, batch: Records, step: int) -> Tensor:  # noqa: ARG001
        answer = logits(student, batch.x)
        return sign * functional.cross_entropy(answer, batch.y, reduction="none")

    # ``settings`` is this call's own: it came as keywords
    rate = settings.pop("learning_rate")
    optimizer = torch.optim.SGD(student.parameters(), lr=rate, momentum=0.9)
    return descend(
        student, loss, split.forget, optimizer=optimizer, seed=seed, clip_norm=1.0, **settings
    )


def ascent(model: nn.Module, split: Split, *, seed: int, **settings: Any) -> nn.Module:
    """Climb the cross-entropy of the forget records."""
    return _descended(model, split, -1.0, seed, settings)


def relabel(model: nn.Module, split: Split, *, seed: int, **settings: Any) -> nn.Module:
    """Learn a wrong label for each forget record, drawn once."""
    k = logits(model, split.forget.x[:1]).shape[1]
    generator = torch.Generator().manual_seed(seed)
    moves = torch.randint(1, k, (len(split.forget),), generator=generator)
    wrong = Records(split.forget.x, (split.forget.y + moves) % k)
    return _descended(model, Split(wrong), 1.0, seed, settings)


@torch.no_grad()
def noise(model: nn.Module, split: Split, *, size: float, seed: int) -> nn.Module:  # noqa: ARG001
    """Add normal noise to each tensor, ``size`` times the root mean square of its weights."""
    student = trainable_copy(model)
    generator = torch.Generator().manual_seed(seed)
    for weight in student.parameters():
        rms = weight.square().mean().sqrt()
        weight.add_(size * rms * torch.randn(weight.shape, generator=generator))
    return student


OTHERS = {"ascent": ascent, "relabel": relabel, "noise": noise}

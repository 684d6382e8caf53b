"""What methods are tried on: handwritten digits, and a small net that has learned some of them."""

from functools import cache
from typing import Any

import torch
from sklearn.datasets import load_digits
from torch import nn

from efface.types import Records

MEAN, STD = 0.3053, 0.3760  # of the pixels of all digits, in 0..1

CLASSES = 10

LEARNED = 300
"""The net has seen so many of the digits, from the first; the others never."""


@cache
def digits() -> Records:
    """400 digits, 1 x 8 x 8, normalised; the classes are nearly balanced."""
    data: Any = load_digits()
    pixels = torch.tensor(data.images[:400] / 16, dtype=torch.float32).unsqueeze(1)
    return Records(
        x=(pixels - MEAN) / STD,
        y=torch.tensor(data.target[:400], dtype=torch.int64),
        ids=tuple(f"digit-{row:04d}" for row in range(400)),
        low=torch.tensor((0 - MEAN) / STD),
        high=torch.tensor((1 - MEAN) / STD),
    )


def untrained(seed: int) -> nn.Module:
    """A convolutional net with BatchNorm and about 4,000 weights, enough to learn 300 by heart."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return nn.Sequential(
            nn.Conv2d(1, 8, 3, padding=1),
            nn.BatchNorm2d(8),
            nn.ReLU(),
            nn.Conv2d(8, 16, 3, padding=1, stride=2),
            nn.BatchNorm2d(16),
            nn.ReLU(),
            nn.Flatten(),
            nn.Linear(256, CLASSES),
        )


def fitted(model: nn.Module, records: Records, seed: int) -> nn.Module:
    """Twelve epochs of Adam in a shuffled order; the model itself, in eval mode."""
    generator = torch.Generator().manual_seed(seed)
    optimizer = torch.optim.Adam(model.parameters(), lr=5e-3)
    model.train()
    for _ in range(12):
        for rows in torch.randperm(len(records), generator=generator).split(50):
            optimizer.zero_grad()
            nn.functional.cross_entropy(model(records.x[rows]), records.y[rows]).backward()
            optimizer.step()
    model.zero_grad(set_to_none=True)
    return model.eval()


@cache
def learned() -> nn.Module:
    """The net that has learned the first 300 digits. One for all: copy it before you change it."""
    return fitted(untrained(0), digits().take(range(LEARNED)), 0)

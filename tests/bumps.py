"""A net for which retraining is exact, and what its tests share.

It has memorised its stored records, and taking a record's weight to 0 is exactly what retraining
without it gives: so the right answer is known for each test.
"""

import copy

import torch
from sklearn.datasets import load_digits
from torch import nn

from efface.types import Records, Split


class Bumps(nn.Module):
    """Logits: logarithms of sums of bumps around the stored records, one weight for each."""

    def __init__(self, stored):
        super().__init__()
        self.weights = nn.Parameter(torch.ones(len(stored)))
        self.register_buffer("x", stored.x.flatten(1))
        self.register_buffer("classes", nn.functional.one_hot(stored.y, 10).float())

    def forward(self, x):
        far = torch.cdist(x.flatten(1), self.x) / 1.6
        return torch.log((torch.exp(-(far**2) / 2) * self.weights) @ self.classes + 1e-3)


def weighted(net, rows, weight):
    """A copy in which these stored records have another weight; 0 is without them."""
    student = copy.deepcopy(net)
    with torch.no_grad():
        student.weights[rows] = weight
    return student


def drawn(seed=1, n=50):
    """(net that knows 400 digits, split that asks for ``n`` of them).

    In a drawn order: the digits come sorted by writer, which would tell them apart.
    """
    data = load_digits()
    order = torch.randperm(len(data.target), generator=torch.Generator().manual_seed(seed))
    pixels = torch.tensor(data.images / 16, dtype=torch.float32).unsqueeze(1)[order]
    labels = torch.tensor(data.target, dtype=torch.int64)[order]
    digits = Records((pixels - 0.3053) / 0.376, labels, tuple(f"d{row}" for row in order.tolist()))
    stored = digits.take(range(400))
    parts = stored.take(range(n)), digits.take(range(400, 1000)), stored.take(range(n, 400))
    return Bumps(stored), Split(*parts)

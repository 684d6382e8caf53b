"""A linear model of two inputs and three classes whose gradients are written out."""

import torch
from torch import nn

from efface.types import Records


def linear():
    """f(x) = W x in float64."""
    model = nn.Linear(2, 3, bias=False).double().eval()
    with torch.no_grad():
        model.weight.copy_(torch.tensor([[0.5, -1.0], [0.25, 2.0], [-0.75, 0.5]]).double())
    return model


def one(x, label):
    """A record of its own."""
    return Records(torch.tensor([x]).double(), torch.tensor([label]), (f"{x}{label}",))


def slope(weights, record, label=None):
    """The gradient of the cross-entropy of a record: (softmax − one-hot) xᵀ."""
    x = record.x[0]
    wanted = torch.zeros(3).double()
    wanted[int(record.y[0]) if label is None else label] = 1
    return torch.outer((weights @ x).softmax(0) - wanted, x)


def near(found, expected):
    """Equal beyond rounding."""
    torch.testing.assert_close(found.detach(), expected.detach(), rtol=0, atol=1e-12)


def same(first, second):
    """Two models with the same bits."""
    pairs = zip(first.state_dict().items(), second.state_dict().items(), strict=True)
    return all(a == b and torch.equal(v, w) for (a, v), (b, w) in pairs)

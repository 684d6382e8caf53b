"""Small nets whose curvature is known, or is not 0 in the logits."""

import torch
from torch import nn

from efface.types import Records


def line(*values):
    """One sigmoid unit of one feature, the identity, and records of class 1."""
    net = nn.Sequential(nn.Linear(1, 1))
    with torch.no_grad():
        net[0].weight.fill_(1)
        net[0].bias.zero_()
    x = torch.tensor(values, dtype=torch.float32)[:, None]
    return net, Records(x, torch.ones(len(values), dtype=torch.int64))


def tanh_net():
    """A net that curves by itself, and records of eight features in three classes."""
    generator = torch.Generator().manual_seed(0)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        net = nn.Sequential(nn.Linear(8, 16), nn.Tanh(), nn.Linear(16, 3)).eval()
    for layer in (net[0], net[2]):
        layer.weight.data.mul_(3)
    x = torch.randn(12, 8, generator=generator)
    return net, Records(x, torch.arange(12) % 3)

"""Small models whose gradients are written out, the authors' own weights, and callbacks."""

import json
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import nn

from efface.types import Action, Records


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


def mean_slope(weights, x, y):
    """The gradient of the mean cross-entropy of W x: (softmax − one-hot) xᵀ."""
    return (torch.softmax(x @ weights.T, 1) - nn.functional.one_hot(y, len(weights))).T @ x / len(x)


def adam_step(weights, x, y, rate):
    """Adam's first step down that: the rate times g / (|g| + 1e-8)."""
    g = mean_slope(weights, x, y)
    return weights - rate * g / (g.abs() + 1e-8)


def sgd_steps(weights, slopes, rate, *, momentum=0.9, decay=0.0):
    """One step for each function of the weights; ``rate``: a number, or one for each step."""
    weights, speed = weights.detach(), 0
    for step, slope_at in enumerate(slopes):
        speed = momentum * speed + slope_at(weights) + decay * weights
        weights = weights - (rate[step] if isinstance(rate, list) else rate) * speed
    return weights


def descend_by_torch(model, x, y, optimizer, steps=2):
    """Full batches down the cross-entropy, by torch's own optimizer."""
    for _ in range(steps):
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(x), y).backward()
        optimizer.step()


def near(found, expected, atol=1e-12):
    """Equal beyond rounding."""
    torch.testing.assert_close(found.detach(), expected.detach(), rtol=0, atol=atol)


def assert_state(result, wanted, *, rtol=0.0, atol=1e-5):
    """Two state dicts with the same numbers, weights and buffers."""
    for name, tensor in result.state_dict().items():
        torch.testing.assert_close(tensor, wanted[name], rtol=rtol, atol=atol, msg=name)


def same(first, second):
    """Two models with the same bits."""
    pairs = zip(first.state_dict().items(), second.state_dict().items(), strict=True)
    return all(a == b and torch.equal(v, w) for (a, v), (b, w) in pairs)


def linear_problem(outputs, features, records=1, *, scale=1.0):
    """f(x) = W x in float64, W and x standard normal; the labels are 0, 1, 2 … in turn."""
    generator = torch.Generator().manual_seed(0)
    model = nn.Linear(features, outputs, bias=False).double().eval()
    with torch.no_grad():
        model.weight.copy_(torch.randn(outputs, features, generator=generator, dtype=torch.float64))
    x = scale * torch.randn(records, features, generator=generator, dtype=torch.float64)
    return model, Records(x, torch.arange(records) % outputs)


class Answers:
    """A callback that returns these actions in turn, the last one for ever; keeps the losses."""

    def __init__(self, *actions, restore=None):
        self.actions, self.restore, self.losses = actions or (Action.CONTINUE,), restore, []

    def __call__(self, student, loss):
        action = self.actions[min(len(self.losses), len(self.actions) - 1)]
        self.losses.append(loss)
        if action is Action.HALVE_LR and self.restore is not None:
            student.load_state_dict(self.restore)
        return action


def accuracy(model, records):
    """The fraction of records whose label the model predicts."""
    with torch.no_grad():
        return float((model(records.x).argmax(1) == records.y).double().mean())


def without_class(records, label):
    """The records of a class, and the others."""
    own = records.y == label
    return records.take(own.nonzero()[:, 0]), records.take((~own).nonzero()[:, 0])


GOLDEN = Path(__file__).parent / "golden"


def golden(trace):
    """The net and the inputs that the authors' code ran on, its settings, and what it made."""
    tensors = load_file(GOLDEN / "reference_traces.safetensors")
    settings = json.loads((GOLDEN / "reference_traces.json").read_text())[trace]

    def part(name):
        return {key.removeprefix(name): t for key, t in tensors.items() if key.startswith(name)}

    net = nn.Sequential(
        *(nn.Conv2d(3, 4, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten()),
        *(nn.Linear(64, 16), nn.ReLU(), nn.Linear(16, 5)),
    ).eval()
    net.load_state_dict(part("model."))
    return net, part("inputs."), settings, part(f"{trace}.")


def assert_golden(result, net, expected):
    """The weights that the authors' code made, which are not the given ones."""
    for name, tensor in expected.items():
        torch.testing.assert_close(result.state_dict()[name], tensor, rtol=0, atol=1e-6)
        assert (tensor - net.state_dict()[name]).abs().max() > 1e-5

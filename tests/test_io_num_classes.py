"""How many classes a model has is seen from what it answers, not from the order of its layers."""

import sys
from types import ModuleType

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from efface.io.models import load_model

IMAGES = {"mean": [0.5], "std": [0.25], "size": 8}
ROWS = {"features": {"age": {}, "sex": {"categories": ["f", "m"]}}}


class HeadFirst(nn.Module):
    """A net whose head is defined before its body; it answers as it is told to."""

    def __init__(self, inputs=64, answer=lambda z: z):
        super().__init__()
        self.head = nn.Linear(32, 10)
        self.body = nn.Sequential(nn.Flatten(), nn.Linear(inputs, 32), nn.BatchNorm1d(32))
        self.drop = nn.Dropout()
        self.answer = answer

    def forward(self, x):
        """The classes, in a form of their own."""
        return self.answer(self.head(self.drop(self.body(x))))


def fails(z):
    """Some nets want more than an input of zeros."""
    raise RuntimeError("no zeros, please", z)


ANSWERS = {"alone": lambda z: z, "tuple": lambda z: (z, 1), "dict": lambda z: {"logits": z}}
BROKEN = {"fails": fails, "boxes": lambda z: [{"boxes": z}]}


def loaded(monkeypatch, folder, given, **settings):
    """A net of this file as it comes back from its weights."""
    nets = ModuleType("nets_of_a_user")
    nets.net = lambda: HeadFirst(**settings)
    monkeypatch.setitem(sys.modules, "nets_of_a_user", nets)
    save_file(HeadFirst(**settings).state_dict(), folder / "net.safetensors")
    return load_model(folder / "net.safetensors", architecture="nets_of_a_user:net", **given)


@pytest.mark.parametrize("answer", ANSWERS)
def test_a_head_that_was_defined_first_tells_the_classes(tmp_path, monkeypatch, answer):
    """The last weight is that of the body, which has 32 rows."""
    read = loaded(monkeypatch, tmp_path, IMAGES, answer=ANSWERS[answer])
    assert read.num_classes == 10


def test_a_net_of_rows_is_asked_with_a_row(tmp_path, monkeypatch):
    """One number and two categories are three inputs."""
    assert loaded(monkeypatch, tmp_path, ROWS, inputs=3).num_classes == 10


@pytest.mark.parametrize("answer", BROKEN)
def test_where_the_net_cannot_be_asked_its_last_weight_tells(tmp_path, monkeypatch, answer):
    """What is wrong with its answers is said where its records are read."""
    assert loaded(monkeypatch, tmp_path, IMAGES, answer=BROKEN[answer]).num_classes == 32


def test_a_net_is_asked_once_and_left_as_it_was(tmp_path, monkeypatch, random_state_kept):
    """Not its mode, not its buffers, not the random numbers that others draw."""
    asked = []

    def noted(z):
        asked.append(torch.rand(1))
        return z

    read = loaded(monkeypatch, tmp_path, IMAGES, answer=noted)
    read.model.train()
    before = {name: tensor.clone() for name, tensor in read.model.state_dict().items()}
    with random_state_kept():
        assert [read.num_classes, read.num_classes] == [10, 10]
    assert len(asked) == 1
    assert read.model.training
    assert all(before[name].equal(tensor) for name, tensor in read.model.state_dict().items())

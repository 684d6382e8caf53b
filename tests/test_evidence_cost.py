"""The tests of a tier say what they cost before they start, and cost that."""

import copy

import pytest
import torch

from efface.report import collect
from efface.report.cost import forward_passes
from efface.runtime import PassCounter
from efface.testing import digits, trained_model
from efface.types import Records, Split

LABELLED = digits()


def split_at(tier):
    """40 digits to forget, 60 unseen, 100 that stay, as far as the tier has them."""
    holdout = LABELLED.take(range(300, 360)) if tier > "T0" else None
    retain = LABELLED.take(range(100, 200)) if tier > "T1" else None
    return Split(LABELLED.take(range(40)), holdout, retain)


def counted(model, student, split, **told):
    """Forward passes of all tests, and the backward ones."""
    old, new = PassCounter(model), PassCounter(student)
    collect(old.model, new.model, split, **told)
    both = old.passes, new.passes
    return sum(p.forward for p in both), sum(p.backward for p in both)


def other():
    """The net with smaller weights."""
    student = copy.deepcopy(trained_model())
    with torch.no_grad():
        student[-1].weight.mul_(0.9)
    return student


@pytest.mark.parametrize("tier", ["T0", "T1", "T2"])
def test_the_declared_passes_are_those_that_are_made(tier):
    """Each record once through each model, twelve views of 40 and 60, and noise inputs."""
    split = split_at(tier)
    assert counted(trained_model(), other(), split) == (forward_passes(split), 0)


def test_views_that_the_method_was_trained_on_are_not_paid_for():
    """Nor are those of unseen records where the labels are wrong."""
    split = split_at("T1")
    told = {"mislabelled": True, "method_saw": ("light", "focus")}
    assert counted(trained_model(), other(), split, **told) == (forward_passes(split, **told), 0)


def test_without_probes_each_record_goes_once_through_each_model():
    """And the noise inputs; the rows say what was left out."""
    split = split_at("T2")
    passes = forward_passes(split, probes=False)
    assert counted(trained_model(), other(), split, probes=False) == (passes, 0)
    assert passes == 2 * (40 + 60 + 100) + 8 * 256
    rows = collect(trained_model(), other(), split, probes=False).rows
    left = [row.key for row in rows if row.note == "probes were left out"]
    assert left == ["residual", "precision", "features"]


def test_records_that_are_no_images_have_no_views():
    """A table: 30 records twice, noise, and three copies of each model beside itself."""
    net = torch.nn.Linear(4, 3)
    x = torch.randn(30, 4, generator=torch.Generator().manual_seed(0))
    split = Split(Records(x, torch.arange(30) % 3, tuple(f"r{row}" for row in range(30))))
    smaller = copy.deepcopy(net)
    with torch.no_grad():
        smaller.weight.mul_(0.9)
    assert counted(net, smaller, split) == (forward_passes(split), 0)
    assert forward_passes(split) == 60 + 8 * 256 + 2 * 30 * 4

"""UNSIR: noise and both epochs by hand, and fine-tuning as the limit."""

from dataclasses import replace

import pytest
import torch
from by_hand import adam_step, linear_problem, near
from torch import nn

from efface.methods._attacks import optimize_noise
from efface.methods._perturb import normals
from efface.methods._records import sample_per_class
from efface.methods.unsir import unsir
from efface.task import frozen_teacher
from efface.types import Split

RATE, GONE, SEED = 0.02, 2, 3


def problem():
    """Three classes; four records each of the two that stay."""
    model, records = linear_problem(3, 4, 8)
    return model, replace(records, y=torch.arange(8) % 2)


@pytest.mark.parametrize(("copies", "noise_steps"), [(0, 0), (1, 0), (3, 4)])
def test_impair_and_repair_are_the_steps_by_hand(copies, noise_steps):
    """All noise, each so many times, with retained ones; without copies it is fine-tuning."""
    model, retain = problem()
    split = Split(retain.take(range(2)), retain=retain, forget_classes=(GONE,))
    settings = {"noise_records": 5, "noise_steps": noise_steps, "copies": copies}
    settings |= {"learning_rate": RATE, "strength": 2.0, "repair_rate": 0.5, "seed": SEED}
    result = unsir(model, split, **settings)
    how = {"sign": -1.0, "penalty": 0.1, "learning_rate": 0.1, "steps": noise_steps}
    labels = torch.full((5,), GONE)
    noise = optimize_noise(frozen_teacher(model), retain, labels, **how, seed=SEED).x
    x = torch.cat([retain.x, *[noise] * copies])
    y = torch.cat([retain.y, torch.full((5 * copies,), GONE)])
    impaired = adam_step(model.weight.detach(), x, y, 2 * RATE)
    near(result.weight, adam_step(impaired, retain.x, retain.y, RATE / 2), atol=1e-9)


@pytest.mark.parametrize("sign", [-1.0, 1.0])
def test_noise_is_made_as_by_the_loop_by_hand(sign):
    """Every input moves, away from its label or to it, and pays for its length."""
    model, retain = problem()
    labels = torch.tensor([0, 1, 2, 2, 2])
    how = {"sign": sign, "penalty": 0.1, "learning_rate": 0.1, "steps": 7}
    made = optimize_noise(frozen_teacher(model), retain, labels, **how, seed=SEED)
    x = normals(made.ids, (4,), seed=SEED, step=0).requires_grad_()
    begun, optimizer = x.detach().clone(), torch.optim.Adam([x], lr=0.1)
    weights = model.weight.detach()
    for _ in range(7):
        q = torch.softmax(x.detach().double() @ weights.T, 1)
        slope = sign * (q - nn.functional.one_hot(labels, 3)) @ weights
        x.grad = ((slope + 0.2 * x.detach()) / 5).float()
        optimizer.step()
    near(made.x, x.double(), atol=1e-4)
    assert ((made.x - begun).abs().amax(1) > 0.1).all()
    assert made.y.tolist() == labels.tolist()


def test_samples_are_of_each_class_that_stays_and_of_no_other(digits):
    """500 of each class in the paper's comparison; a class of fewer gives all that it has."""
    some = sample_per_class(digits, 7, seed=1, forget_classes=(4,))
    counts = torch.bincount(some.y, minlength=10)
    assert counts.tolist() == [7, 7, 7, 7, 0, 7, 7, 7, 7, 7]
    backwards = digits.take(range(len(digits) - 1, -1, -1))
    other = sample_per_class(backwards, 7, seed=1, forget_classes=(4,))
    assert set(some.ids) == set(other.ids)
    assert set(some.ids) != set(sample_per_class(digits, 7, seed=2, forget_classes=(4,)).ids)

"""Equation 1 as printed, against gradients in closed form."""

import pytest
import torch
from by_hand import linear_problem, near, same
from torch import nn

from efface.methods._perturb import normals
from efface.methods.jit_forms import jit_paper, jit_paper_loss
from efface.types import Action, Records, Split

SIGMA, RATE, SEED = 0.7, 0.05, 3


def one_record():
    """A record near the edge of its own range, so that a clamp would show."""
    return Records(torch.tensor([[1.0, -1.0, 1.0, -1.0]]).double(), torch.tensor([0]))


def slopes(weights, noise, *, squared):
    """Of each draw, by hand: in f(x) − f(x+ξ) = −Wξ the record itself cancels."""
    found = []
    for xi in noise:
        change = weights @ xi
        plain = torch.outer(change / change.norm(), xi) / xi.norm()
        found.append(2 * change.norm() / xi.norm() * plain if squared else plain)
    return torch.stack(found).mean(0)


@pytest.mark.parametrize("squared", [False, True])
@pytest.mark.parametrize("perturbations", [1, 4])
def test_one_record_takes_the_step_by_hand(perturbations, squared):
    """Both branches, no clamp, a mean over draws; the square's slope is 2 ratio times the plain."""
    model, records = linear_problem(2, 4)[0], one_record()
    settings = {"sigma": SIGMA, "perturbations": perturbations, "squared": squared, "seed": SEED}
    result = jit_paper(model, Split(records), learning_rate=RATE, **settings)
    weights = model.weight.detach()
    noise = SIGMA * normals(records.ids, (perturbations, 4), seed=SEED, step=0)[0].double()
    expected = weights - RATE * slopes(weights, noise, squared=squared)
    near(result.weight, expected)


def test_the_loss_is_equation_1_record_by_record(tiny_net, digits):
    """A batch is a list of records: each number is what that record alone would give."""
    batch = digits.take(range(3))
    found = jit_paper_loss(tiny_net, batch, sigma=SIGMA, perturbations=5, seed=SEED, step=2)
    for row in range(3):
        one = batch.take([row])
        noise = SIGMA * normals(one.ids, (5, 1, 8, 8), seed=SEED, step=2)[0]
        ratios = [(tiny_net(one.x) - tiny_net(one.x + xi)).norm() / xi.norm() for xi in noise]
        torch.testing.assert_close(found[row], torch.stack(ratios).mean(), rtol=1e-5, atol=1e-6)


def test_records_are_updates_one_after_the_other():
    """Not a mean over the forget set: the second record sees what the first one changed."""
    model, seen = linear_problem(2, 4)[0], []
    records = Records(torch.zeros(3, 4).double(), torch.zeros(3, dtype=torch.int64))
    settings = {"sigma": SIGMA, "perturbations": 2, "learning_rate": RATE, "seed": SEED}

    def callback(student, loss):  # noqa: ARG001
        seen.append(student.weight.detach().clone())
        return Action.CONTINUE

    jit_paper(model, Split(records), **settings, callback=callback)
    assert len(seen) == 3
    before = model.weight.detach()
    for step, after in enumerate(seen):
        draws = [normals([name], (2, 4), seed=SEED, step=step)[0] for name in records.ids]
        noise = [SIGMA * one.double() for one in draws]
        twins = [before - RATE * slopes(before, one, squared=False) for one in noise]
        assert sum(torch.allclose(after, twin, rtol=0, atol=1e-12) for twin in twins) == 1
        before = after


def test_the_first_step_of_adam_is_the_rate_for_each_weight():
    """Adam's own identity; SGD's first step is the slope itself."""
    model = linear_problem(2, 4)[0]
    result = jit_paper(model, Split(one_record()), adam=True, learning_rate=RATE, seed=SEED)
    moved = (result.weight - model.weight).abs()
    near(moved, torch.full_like(moved, RATE), atol=1e-6)


@pytest.mark.parametrize("squared", [False, True])
def test_blank_images_and_a_deaf_model_leave_every_weight_finite(squared):
    """Without a clamp noise is never 0; where the answer does not change the slope is 0."""
    blank = Records(torch.zeros(2, 4), torch.tensor([0, 0]))
    model = nn.Sequential(nn.Linear(4, 3), nn.ReLU(), nn.Linear(3, 2)).eval()
    heard = jit_paper(model, Split(blank), learning_rate=0.1, squared=squared)
    assert all(torch.isfinite(weight).all() for weight in heard.parameters())
    with torch.no_grad():
        model[0].bias.fill_(-100.0)
    deaf = jit_paper(model, Split(blank), learning_rate=0.1, squared=squared)
    assert same(deaf, model)

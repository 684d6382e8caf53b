"""Bad teacher: Adam on a gradient in closed form, and distillation as the limit."""

import pytest
import torch
from by_hand import linear_problem, near

from efface.methods.bad_teacher import bad_teacher
from efface.types import Split


def linear(seed):
    """f(x) = W x in float64; another W for another seed."""
    model = linear_problem(3, 4)[0]
    model.weight.data = model.weight.data.roll(seed)
    return model


def split(gone=3):
    """Some records that go and five that stay, and an untrained net that depends on the seed."""
    records = linear_problem(3, 4, 8)[1]
    forget, retain = records.take(range(gone)), records.take(range(3, 8))
    return Split(forget, retain=retain, fresh=lambda seed: linear(1 + seed))


def by_hand(given, bad, parts, epochs, rate, temperature=1.0):
    """Full batches: (q − target) xᵀ, a mean over all records of both kinds, into torch's Adam."""
    weights = given.clone().requires_grad_()
    optimizer = torch.optim.Adam([weights], lr=rate)
    x = torch.cat([parts.forget.x, parts.retain.x])
    targets = torch.cat([parts.forget.x @ bad.T, parts.retain.x @ given.T])
    for _ in range(epochs):
        q = torch.softmax(x @ weights.detach().T / temperature, 1)
        p = torch.softmax(targets / temperature, 1)
        weights.grad = (q - p).T @ x / len(x) / temperature
        optimizer.step()
    return weights.detach()


@pytest.mark.parametrize("temperature", [1.0, 3.0])
def test_equals_the_loop_by_hand(temperature):
    """Each record has its own teacher: a swapped u, or a KL the other way round, shows."""
    model, parts = linear(0), split()
    settings = {"learning_rate": 0.02, "epochs": 3, "temperature": temperature}
    result = bad_teacher(model, parts, retained_share=1.0, seed=4, **settings)
    given, bad = model.weight.detach(), linear(5).weight.detach()
    expected = by_hand(given, bad, parts, 3, 0.02, temperature)
    near(result.weight, expected, atol=1e-10)
    assert (expected - given).abs().max() > 0.01


def test_without_forget_records_it_is_distillation_from_the_good_teacher():
    """And the student is that teacher already: nothing moves but by Adam's noise of one step."""
    model, parts = linear(0), split(gone=0)
    result = bad_teacher(model, parts, retained_share=1.0, learning_rate=0.1)
    near(result.weight, model.weight, atol=1e-7)

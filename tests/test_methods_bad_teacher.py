"""Bad teacher: Adam on a gradient in closed form, and distillation as the limit."""

import pytest
import torch
from torch import nn

from efface.methods.bad_teacher import bad_teacher
from efface.types import Records, Split


def linear(seed):
    """f(x) = W x in float64."""
    model = nn.Linear(4, 3, bias=False).double().eval()
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        model.weight.copy_(torch.randn(3, 4, generator=generator, dtype=torch.float64))
    return model


def split(gone=3):
    """Some records that go and five that stay, and an untrained net that depends on the seed."""
    generator = torch.Generator().manual_seed(9)
    x = torch.randn(8, 4, generator=generator, dtype=torch.float64)
    records = Records(x, torch.zeros(8, dtype=torch.int64))
    forget = records.take(range(gone))
    return Split(forget, retain=records.take(range(3, 8)), fresh=lambda seed: linear(100 + seed))


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
    given, bad = model.weight.detach(), linear(104).weight.detach()
    expected = by_hand(given, bad, parts, 3, 0.02, temperature)
    torch.testing.assert_close(result.weight.detach(), expected, rtol=0, atol=1e-10)
    assert (expected - given).abs().max() > 0.01


def test_without_forget_records_it_is_distillation_from_the_good_teacher():
    """And the student is that teacher already: nothing moves but by Adam's noise of one step."""
    model, parts = linear(0), split(gone=0)
    result = bad_teacher(model, parts, retained_share=1.0, learning_rate=0.1)
    torch.testing.assert_close(result.weight, model.weight, rtol=0, atol=1e-7)


def test_the_share_is_drawn_from_the_seed_and_not_from_the_order(tiny_net, digits):
    """Two orders of the same records teach the same."""
    retain, gone = digits.take(range(20, 60)), digits.take(range(20))
    fresh = lambda seed: nn.Sequential(nn.Flatten(), nn.Linear(64, 10))  # noqa: ARG005, E731
    backwards = retain.take(range(39, -1, -1))
    results = [
        bad_teacher(tiny_net, Split(gone, retain=part, fresh=fresh)) for part in (retain, backwards)
    ]
    for one, other in zip(*(result.parameters() for result in results), strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=1e-5)

"""DELETE: its step by hand, a twin of the authors' loop, and what is left of the other classes."""

import copy

import pytest
import torch
from by_hand import assert_state, linear_problem, near, sgd_steps
from torch import nn

from efface.methods.delete import delete
from efface.types import Split

RATE, MOMENTUM = 0.1, 0.5


def renormalised(probabilities, y):
    """Probabilities without that of the own class: 0 there, and 1 in all."""
    left = probabilities * (1 - nn.functional.one_hot(y, 4))
    return left / left.sum(1, keepdim=True)


@pytest.mark.parametrize("epochs", [1, 4])
def test_equals_the_steps_by_hand(epochs):
    """(q − p) xᵀ with p the given answer without the own class, which stays as it was given."""
    model, forget = linear_problem(4, 3, 6)
    settings = {"learning_rate": RATE / 2, "strength": 2.0, "momentum": MOMENTUM}
    result = delete(model, Split(forget), epochs=epochs, **settings)
    x, y = forget.x, forget.y
    p = renormalised(torch.softmax(x @ model.weight.T, 1), y).detach()
    slopes = [lambda w: (torch.softmax(x @ w.T, 1) - p).T @ x / len(x)] * epochs
    near(result.weight, sgd_steps(model.weight, slopes, RATE, momentum=MOMENTUM))


def test_a_step_in_train_mode_is_that_of_the_authors_loop(tiny_net, digits):
    """A twin from its description: train mode, torch's KL with a batch mean, one full batch."""
    forget = digits.take((digits.y[:300] == 3).nonzero()[:, 0])
    settings = {"learning_rate": 0.01, "epochs": 1, "training_mode": True}
    result = delete(tiny_net, Split(forget), **settings)
    twin = copy.deepcopy(tiny_net).train()
    wanted = tiny_net(forget.x).detach()
    wanted[torch.arange(len(forget)), forget.y] = -1e10
    predicted = nn.functional.log_softmax(twin(forget.x), 1)
    nn.functional.kl_div(predicted, wanted.softmax(1), reduction="batchmean").backward()
    torch.optim.SGD(twin.parameters(), lr=0.01).step()
    assert_state(result, twin.state_dict(), rtol=1e-4, atol=1e-6)


def test_the_fixed_point_is_the_given_answer_without_the_class():
    """One record, many steps: 0 for its class, and the proportions of the others as given."""
    model, forget = linear_problem(4, 3, 6)
    one = forget.take([1])
    result = delete(model, Split(one), learning_rate=0.3, epochs=2000)
    expected = renormalised(torch.softmax(model(one.x), 1), one.y)
    near(torch.softmax(result(one.x), 1), expected, atol=2e-3)

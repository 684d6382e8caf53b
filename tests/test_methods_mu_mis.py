"""MU-Mis: its step by hand in a linear and a quadratic model, its end, and what it refuses."""

import copy
from dataclasses import replace

import pytest
import torch
from by_hand import linear_problem, near
from refusals import refusal
from torch import nn

from efface.methods._perturb import other_class
from efface.methods.mu_mis import mu_mis, mu_mis_loss
from efface.runtime import PassCounter
from efface.types import Action, Split

RATE, SEED, NEVER = 0.05, 4, 1e300


class Squares(nn.Module):
    """f(x) = W x², whose input gradient is 2 x w_k."""

    def __init__(self, weight):
        super().__init__()
        self.weight = nn.Parameter(weight)

    def forward(self, x):
        return x.square() @ self.weight.T


@pytest.mark.parametrize("squares", [False, True])
def test_equals_the_steps_by_hand(squares):
    """∂l/∂w_k is 2 w_k s for the own class, minus that for the drawn one; s is 1, or 4 x²."""
    model, forget = linear_problem(4, 3, 6)
    start = model.weight.detach().clone()
    model = Squares(start) if squares else model
    scale = 4 * forget.x.square() if squares else torch.ones_like(forget.x)
    settings = {"learning_rate": RATE / 2, "strength": 2.0, "recovery": NEVER}
    result = mu_mis(model, Split(forget), steps=3, **settings, seed=SEED)
    weights = start
    for step in range(3):
        other = other_class(forget.ids, forget.y, 4, seed=SEED, step=step + 1)
        signs = nn.functional.one_hot(forget.y, 4) - nn.functional.one_hot(other, 4)
        weights = weights - RATE * 2 * weights * (signs.double().T @ scale) / len(forget)
    near(result.weight, weights)


def test_the_gradient_is_that_of_finite_differences():
    """Through a hidden layer, where the second backward pass has something to do."""
    _, forget = linear_problem(4, 3, 6)
    model = nn.Sequential(nn.Linear(3, 5), nn.Tanh(), nn.Linear(5, 4)).double()
    for place, weight in enumerate(model.parameters()):
        weight.data = torch.linspace(-1, 1, weight.numel()).double().cos().reshape(weight.shape)
        weight.data += 0.1 * place
    loss = mu_mis_loss(seed=SEED)
    loss(model, forget, 0).sum().backward()
    for weight in model.parameters():
        found = torch.zeros_like(weight) if weight.grad is None else weight.grad  # the last bias
        first, values = weight.data.reshape(-1)[:1], []
        for shift in (1e-6, -2e-6, 1e-6):
            first += shift
            values.append(loss(model, forget, 0).sum())
        slope = (values[0] - values[1]) / 2e-6
        torch.testing.assert_close(found.reshape(-1)[0], slope, rtol=1e-4, atol=1e-5)


def pushed():
    """Most records are pushed away from class 0, whose weights are large."""
    model, records = linear_problem(4, 3, 6)
    with torch.no_grad():
        model.weight[0] *= 6
    return model, replace(records, y=torch.tensor([0, 0, 0, 0, 0, 1]))


def sensitivity(model, records, seed):
    """S of the fixed other classes, by one backward pass for each record."""
    other = other_class(records.ids, records.y, 4, seed=seed, step=0)
    pairs = zip(records.x, other, strict=True)
    slopes = [torch.autograd.functional.jacobian(model, x)[k] for x, k in pairs]
    return float(torch.stack(slopes).norm())


@pytest.mark.parametrize("recovery", [0.0, 0.325])
def test_it_ends_at_the_first_step_that_has_recovered(recovery):
    """A brute-force twin: run again for each number of steps, S by a Jacobian a record."""
    model, mine = pushed()
    settings = {"learning_rate": RATE, "seed": 1}
    runs = (mu_mis(model, Split(mine), steps=s, recovery=NEVER, **settings) for s in range(1, 30))
    states = [model, *runs]
    sizes = [sensitivity(state, mine, 1) for state in states]
    ends = [s for s in range(1, 30) if sizes[s] > sizes[s - 1] and sizes[s] > recovery * sizes[0]]
    result = mu_mis(model, Split(mine), steps=29, recovery=recovery, **settings)
    assert torch.equal(result.weight, states[ends[0]].weight)


def test_at_most_as_many_passes_as_it_says_and_three_backward_ones_that_are_seen(tiny_net, digits):
    """At the start and after each step one look; in a step two input gradients, not hidden."""
    counted = PassCounter(tiny_net)
    settings = {"recovery": NEVER, "batch_size": 6, "learning_rate": 1e-5}
    mu_mis(counted.model, Split(digits.take(range(18))), steps=4, **settings)
    assert counted.forward == (1 + 2 * 4) * 6
    assert counted.backward == (1 + 3 * 4) * 6


class Attention(nn.Module):
    """Fused attention over the rows of an image; a residual and a ReLU in place."""

    def __init__(self):
        super().__init__()
        self.inner, self.head = nn.Linear(8, 24), nn.Linear(8, 10)

    def forward(self, x):
        rows = torch.relu_(x).squeeze(1)
        q, k, v = self.inner(rows).chunk(3, -1)
        mixed = nn.functional.scaled_dot_product_attention(q[:, None], k[:, None], v[:, None])
        mixed += rows[:, None]
        return self.head(torch.relu_(mixed).mean((1, 2)))


def test_fused_attention_and_changes_in_place_are_no_obstacle(digits):
    """Torch's fused kernels have no second derivative; here another is used, and the given left."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = Attention().eval()
    forget = digits.take(range(8))
    before = copy.deepcopy(forget.x)
    result = mu_mis(model, Split(forget), steps=2, recovery=NEVER)
    assert not torch.equal(result.inner.weight, model.inner.weight)
    assert torch.equal(forget.x, before)


class Once(torch.autograd.Function):
    """The identity, whose backward pass may be taken once."""

    @staticmethod
    def forward(_, x):
        return x.clone()

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(_, slope):
        return slope * 1


def test_what_cannot_be_differentiated_twice_is_refused():
    """In words, and not with an error from deep inside torch."""
    _, forget = linear_problem(4, 3, 6)

    class Net(nn.Linear):
        def forward(self, x):
            return super().forward(Once.apply(x.tanh()))

    assert refusal(mu_mis, Net(3, 4).double(), Split(forget)) == (
        "Wanted a model that can be differentiated twice for mu_mis. "
        "Got trying to differentiate twice a function that was marked with @once_differentiable. "
        "Choose a method that needs gradients once; `efface methods` lists them."
    )


def test_steps_that_the_guard_takes_back_are_no_recovery():
    """The state put back has more sensitivity than the last: the next step is compared with it."""
    model, records = pushed()
    states, losses = [copy.deepcopy(model.state_dict())], []

    def callback(student, loss):
        losses.append(loss)
        if len(losses) == 4:
            student.load_state_dict(states[-3])
            return Action.HALVE_LR
        states.append(copy.deepcopy(student.state_dict()))
        return Action.CONTINUE

    settings = {"steps": 29, "seed": 1, "learning_rate": 0.1, "recovery": 0.2}
    mu_mis(model, Split(records), **settings, callback=callback)
    assert len(losses) > 5

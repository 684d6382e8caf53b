"""What may go out: the method's model, a point on the way back to the given one, or nothing."""

import copy
import json
import math

import pytest
import torch
from scipy import stats
from torch import nn

from efface.errors import NotMet
from efface.guard import Guard
from efface.types import Records, Split

WIDE = {"movement": 1e9, "drift": 10.0, "utility_budget": 1.0}


@torch.no_grad()
def moved(model, relative):
    """A copy whose weights have moved in one random direction by this share of their norm."""
    generator = torch.Generator().manual_seed(0)
    student = copy.deepcopy(model)
    steps = [torch.randn(w.shape, generator=generator) for w in student.parameters()]
    length = math.sqrt(sum(float(s.square().sum()) for s in steps))
    size = math.sqrt(sum(float(w.square().sum()) for w in student.parameters()))
    for weight, step in zip(student.parameters(), steps, strict=True):
        weight.add_(step * relative * size / length)
    return student


@pytest.fixture
def split(digits):
    """Twenty records to forget, and nothing else."""
    return Split(digits.take(range(20)))


def test_a_result_inside_goes_out_untouched_in_eval_mode(tiny_net, split):
    """The guard has no opinion on what is inside."""
    result = moved(tiny_net, 0.001).train()
    before = {name: tensor.clone() for name, tensor in result.state_dict().items()}
    guard = Guard(tiny_net, split)
    settled = guard.settle(result)
    assert all(before[name].equal(tensor) for name, tensor in settled.state_dict().items())
    assert not settled.training
    assert guard.interpolation is None


def test_movement_is_what_a_loop_over_all_weights_finds(tiny_net, split):
    """The brute force twin: one long vector."""
    result = moved(tiny_net, 0.2)
    old, new = (
        torch.cat([w.detach().flatten().double() for w in net.parameters()])
        for net in (tiny_net, result)
    )
    expected = float((new - old).norm() / old.norm())
    assert Guard(tiny_net, split).movement(result) == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize(("relative", "t"), [(0.15, 0.5), (0.35, 0.25), (0.7, 0.125)])
def test_a_result_outside_is_interpolated_to_the_first_point_inside(tiny_net, split, relative, t):
    """θ₀ + t(θ₁ - θ₀) by hand, and the buffers of the given model."""
    result = moved(tiny_net, relative)
    with torch.no_grad():
        result[1].running_mean += 1
    far = {name: weight.detach().clone() for name, weight in result.named_parameters()}
    guard = Guard(tiny_net, split, **{**WIDE, "movement": 0.1})
    settled = guard.settle(result)
    assert guard.as_json()["interpolation"] == t
    assert guard.movement(settled) <= 0.1
    assert guard.as_json()["measured"]["movement"] == guard.movement(settled)
    for name, weight in tiny_net.named_parameters():
        torch.testing.assert_close(
            settled.get_parameter(name), weight + t * (far[name] - weight), rtol=1e-5, atol=1e-7
        )
    assert settled[1].running_mean.equal(tiny_net[1].running_mean)


def test_a_result_whose_eighth_is_outside_is_refused_in_words(tiny_net, split):
    """The text says what was wanted, what came and what to do; it is what the user reads."""
    guard = Guard(tiny_net, split, movement=0.1, drift=10.0, utility_budget=0.02)
    with pytest.raises(NotMet) as caught:
        guard.settle(moved(tiny_net, 0.9))
    assert str(caught.value) == (
        "Wanted a model within the guard's budgets (utility 0.02, movement 0.1, drift 10). "
        "Got even an eighth of the change is outside; all of it: movement 0.9 above 0.1. "
        "The old model stands. Lower --strength, choose another method or give a --holdout."
    )
    assert guard.as_json()["failed"] == caught.value.came


@pytest.mark.parametrize("spoil", [math.nan, math.inf])
@pytest.mark.parametrize("name", ["0.weight", "1.running_var"])
def test_a_result_that_is_not_finite_is_never_interpolated(tiny_net, split, spoil, name):
    """What overflowed says nothing about the way there, even where the buffer alone did."""
    result = copy.deepcopy(tiny_net)
    result.state_dict()[name].view(-1)[0] = spoil
    guard = Guard(tiny_net, split)
    with pytest.raises(NotMet, match="the method's model is outside: weights not finite"):
        guard.settle(result)
    assert guard.interpolation is None


def test_a_result_of_another_shape_is_refused_by_the_tensor_that_differs(tiny_net, split):
    """The container that goes out must be the one that came in."""
    result = copy.deepcopy(tiny_net)
    result[-1] = nn.Linear(256, 9)
    with pytest.raises(NotMet, match=r"name or shape of 7\.bias"):
        Guard(tiny_net, split).settle(result)


def test_utility_trips_only_two_standard_errors_beyond_the_budget():
    """The limit against scipy's standard error of the paired drop, on both sides of it."""
    model = _first_pixel_says_the_class()
    n = 200
    holdout = Records(torch.zeros(n, 1, 8, 8), torch.zeros(n, dtype=torch.int64))
    holdout.x[:, 0, 0, 0] = torch.arange(n) / n
    low, high = torch.tensor(0.0), torch.tensor(1.0)
    split = Split(Records(holdout.x, holdout.y, low=low, high=high), holdout=holdout)
    tripped = []
    for wrong in range(20):
        guard = Guard(model, split, **{**WIDE, "utility_budget": 0.02})
        student = copy.deepcopy(model)
        with torch.no_grad():
            student.bias[1] = -((n - wrong) - 0.5) / n
        lost = [1.0] * wrong + [0.0] * (n - wrong)
        error = stats.sem(lost)
        try:
            guard.settle(student)
            outside = bool(guard.interpolation)
        except NotMet:
            outside = True
        assert outside == (wrong / n > 0.02 + 2 * error)
        tripped.append(outside)
    assert any(tripped)
    assert not all(tripped)


def _first_pixel_says_the_class():
    """Answers class 1 where the first pixel passes a threshold; at first it never does."""

    class Threshold(nn.Module):
        def __init__(self):
            super().__init__()
            self.bias = nn.Parameter(torch.tensor([0.0, -9.0]))

        def forward(self, x):
            first = x[:, 0, 0, 0]
            return torch.stack([0 * first, first], 1) + self.bias

    return Threshold()


def test_the_whole_holdout_is_asked_at_the_end(digits, tiny_net):
    """While the student moves a sample of 512 is enough; what goes out is asked everything."""
    many = Records(digits.x.repeat(2, 1, 1, 1), digits.y.repeat(2))
    guard = Guard(tiny_net, Split(digits.take([0]), holdout=many))
    guard.settle(copy.deepcopy(tiny_net))
    right = (tiny_net(digits.x).argmax(1) == digits.y).double().mean()
    assert guard.as_json()["holdout_records"] == 800
    assert guard.as_json()["measured"]["utility_after"] == pytest.approx(float(right))


def test_what_the_guard_tells_is_plain_json(tiny_net, split):
    """NaN is not JSON; the record is read by other programs."""
    guard = Guard(tiny_net, split)
    student = copy.deepcopy(tiny_net)
    with torch.no_grad():
        student[0].weight.fill_(math.nan)
    guard.callback(student, math.nan)
    guard.settle(copy.deepcopy(tiny_net))
    told = json.loads(json.dumps(guard.as_json(), allow_nan=False))
    assert told["violations"][0]["kind"] == "loss"
    assert set(told["measured"]) == {"movement", "drift"}

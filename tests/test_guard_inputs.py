"""The synthetic inputs, and the drift of a student's answers on them."""

import copy

import pytest
import torch
from scipy.special import rel_entr
from torch import nn

from efface.guard import Guard, synthetic_inputs
from efface.types import Records, Split


def shaken(model, size):
    """A copy with normal noise of ``size`` times each tensor's own spread."""
    generator = torch.Generator().manual_seed(0)
    student = copy.deepcopy(model)
    with torch.no_grad():
        for weight in student.parameters():
            weight.add_(size * weight.std() * torch.randn(weight.shape, generator=generator))
    return student


@pytest.mark.parametrize("forget_classes", [(), (3,), (0, 3, 9)])
@pytest.mark.parametrize("size", [0.1, 2.0, 50.0])
def test_drift_is_the_mean_divergence_that_scipy_finds(tiny_net, digits, forget_classes, size):
    """One input at a time, the leaving classes cut out, 10 nats at most."""
    split = Split(digits.take(range(20)), forget_classes=forget_classes)
    guard, student = Guard(tiny_net, split), shaken(tiny_net, size)
    staying = [label for label in range(10) if label not in forget_classes]
    total = 0.0
    for x in synthetic_inputs(tiny_net, split).x:
        with torch.no_grad():
            p, q = (net(x[None])[0, staying].double().softmax(0) for net in (tiny_net, student))
        total += min(float(rel_entr(p.numpy(), q.numpy()).sum()), 10)
    assert guard.drift(student) == pytest.approx(total / 128, rel=1e-4)


def test_one_kind_of_answer_for_everything_is_far_outside(tiny_net, digits):
    """The commonest collapse: every input gets the same class."""
    student = copy.deepcopy(tiny_net)
    with torch.no_grad():
        student[-1].bias[0] += 1e4
    drift = Guard(tiny_net, Split(digits.take([0]))).drift(student)
    assert 5 < drift <= 10


@pytest.mark.parametrize("forget_classes", [(), (3,)])
def test_an_impression_speaks_for_its_own_class_and_never_for_one_that_leaves(
    tiny_net, digits, forget_classes
):
    """Else a class whose going was asked for would be held in place."""
    inputs = synthetic_inputs(tiny_net, Split(digits.take([0]), forget_classes=forget_classes)).x[
        64:
    ]
    staying = [label for label in range(10) if label not in forget_classes]
    wanted = torch.tensor([staying[i % len(staying)] for i in range(64)])
    with torch.no_grad():
        answer = tiny_net(inputs).log_softmax(1)
    own = answer.gather(1, wanted[:, None]).mean()
    # one class on: what the mean would be if the impressions spoke for nothing
    other = answer.gather(1, ((wanted + 1) % 10)[:, None]).mean()
    assert own > other + 0.5


def test_inputs_stay_within_the_bounds_of_the_data(tiny_net, digits):
    """What no picture can be says little about pictures."""
    inputs = synthetic_inputs(tiny_net, Split(digits.take(range(9)))).x
    assert inputs.shape == (128, 1, 8, 8)
    assert inputs.min() >= digits.low - 1e-5
    assert inputs.max() <= digits.high + 1e-5


def test_records_that_are_not_images_are_watched_too(random_state_kept):
    """Tables have no perspective; half a record and half noise takes its place."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        net = nn.Sequential(nn.Linear(5, 16), nn.ReLU(), nn.Linear(16, 3))
        rows = Records(torch.rand(7, 5), torch.tensor([0, 1, 2, 0, 1, 2, 0]))
    with random_state_kept():
        guard = Guard(net, Split(rows))
    assert guard.drift(net) == 0
    assert guard.drift(shaken(net, 5.0)) > guard.drift(shaken(net, 0.1)) > 0

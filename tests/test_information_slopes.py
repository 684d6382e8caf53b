"""Slopes of the loss by the input and the weights, beside closed forms and loops."""

import copy
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from efface.errors import InputError
from efface.metrics.measure import evaluate
from efface.ranking.curvature import loss
from efface.ranking.curvature_exact import dense_curvature
from efface.ranking.slopes import (
    error_norm,
    input_gradient_cost,
    input_gradient_norm,
    loss_curvature,
    loss_curvature_cost,
    weight_gradient_cost,
    weight_gradient_norm,
)
from efface.testing.nets import net_of, records_for
from efface.types import Records

sys.path.insert(0, str(Path(__file__).parent))
from probe_promises import passes_of, untouched

SLOPES = {
    "input": (input_gradient_norm, input_gradient_cost),
    "curvature": (lambda model, some: loss_curvature(model, some, step=0.1), loss_curvature_cost),
    "weights": (weight_gradient_norm, weight_gradient_cost),
}


@pytest.fixture(scope="module")
def some(digits):
    """Digits, some of which the tiny net never saw."""
    return digits.take(range(290, 310))


def unit(weight):
    """One sigmoid unit without bias."""
    net = nn.Sequential(nn.Linear(len(weight), 1, bias=False))
    with torch.no_grad():
        net[0].weight.copy_(torch.tensor(weight)[None])
    return net


@pytest.mark.parametrize("kind", SLOPES)
def test_the_given_model_is_untouched_and_gives_the_same_numbers_twice(
    tiny_net, some, random_state_kept, kind
):
    """Weights, gradients, flags, modes, hooks and the host's random numbers."""
    found = untouched(lambda model: SLOPES[kind][0](model, some), tiny_net, random_state_kept)
    assert (found > 0).all()


@pytest.mark.parametrize("kind", SLOPES)
def test_the_price_is_known_beforehand(tiny_net, some, kind):
    """Counted on the model and its copies."""
    slope, cost = SLOPES[kind]
    assert passes_of(lambda model: slope(model, some), tiny_net) == cost(some)


@pytest.mark.parametrize("kind", SLOPES)
def test_a_record_has_the_same_number_in_any_order(tiny_net, some, kind):
    """In eval mode no record has a say in another's."""
    slope, order = SLOPES[kind][0], np.random.default_rng(0).permutation(len(some))
    shuffled = slope(tiny_net, some.take(order.tolist()))
    np.testing.assert_allclose(shuffled, slope(tiny_net, some)[order], rtol=1e-4)


def test_the_slope_by_the_input_is_that_of_torch_one_record_at_a_time(tiny_net, some):
    """The loss is torch's own cross-entropy, differentiated by itself."""
    expected = []
    for row in range(len(some)):
        x = some.x[row : row + 1].double().requires_grad_()
        answers = copy.deepcopy(tiny_net).double()(x)
        nn.functional.cross_entropy(answers, some.y[row : row + 1]).backward()
        expected.append(float(x.grad.norm()))
    np.testing.assert_allclose(input_gradient_norm(tiny_net, some), expected, rtol=1e-3)


def test_the_slope_by_the_weights_is_that_of_a_backward_pass(tiny_net, some):
    """Every weight's own ``.grad``, squared and summed."""
    net = copy.deepcopy(tiny_net).double()
    expected = []
    for row in range(len(some)):
        net.zero_grad()
        x, y = some.x[row : row + 1].double(), some.y[row : row + 1]
        nn.functional.cross_entropy(net(x), y).backward()
        expected.append(sum(float(w.grad.square().sum()) for w in net.parameters()) ** 0.5)
    np.testing.assert_allclose(weight_gradient_norm(tiny_net, some), expected, rtol=1e-3)


def test_the_slope_by_the_weights_of_one_layer_is_known():
    """(p - onehot) xᵀ for its weights and p - onehot for its bias: ‖p - onehot‖ √(‖x‖² + 1)."""
    net = net_of("table")[3]
    x = torch.linspace(-1, 1, 80).reshape(5, 16)
    some = Records(x, torch.arange(5))
    seen = evaluate(net, some)
    expected = error_norm(seen.probabilities, seen.y) * np.sqrt((x**2).sum(1).numpy() + 1)
    np.testing.assert_allclose(weight_gradient_norm(net, some), expected, rtol=1e-5)


class Spare(nn.Module):
    """A net with a layer that nothing goes through."""

    def __init__(self, net):
        super().__init__()
        self.net, self.unused = net, nn.Linear(3, 3)

    def forward(self, x):
        return self.net(x)


def test_frozen_and_unused_weights_do_not_stand_in_the_way():
    """A frozen weight is pulled at too; one that no answer needs is not."""
    net = unit([1.0, -2.0])
    some = Records(torch.tensor([[3.0, 1.0]]), torch.tensor([1]))
    expected = weight_gradient_norm(net, some)
    spare = Spare(net).requires_grad_(requires_grad=False)
    np.testing.assert_array_equal(weight_gradient_norm(spare, some), expected)


@pytest.mark.parametrize("step", [0.01, 0.5, 4.0])
def test_the_turn_of_the_slope_of_a_sigmoid_unit_is_known(step):
    """∇l = -S(-w·x) w, and z = -step sign(w)/√d: a step of another length is another number."""
    weight, x = np.array([1.0, -2.0, 0.5]), np.array([[0.3, 0.2, -0.5], [2.0, -2.0, 1.0]])
    z = -step * np.sign(weight) / np.sqrt(3)

    def slope(at):
        return 1 / (1 + np.exp(at @ weight))

    expected = np.abs(slope(x + z) - slope(x)) * np.linalg.norm(weight)
    some = Records(torch.tensor(x, dtype=torch.float32), torch.tensor([1, 1]))
    found = loss_curvature(unit(weight.tolist()), some, step=step)
    np.testing.assert_allclose(found, expected, rtol=2e-4)


def test_a_feature_without_slope_takes_no_part_in_the_step():
    """Of two features one counts: the step is as long as without the other."""
    two = Records(torch.tensor([[0.5, 7.0]]), torch.tensor([0]))
    one = Records(torch.tensor([[0.5]]), torch.tensor([0]))
    found = loss_curvature(unit([2.0, 0.0]), two, step=0.3)
    np.testing.assert_allclose(found, loss_curvature(unit([2.0]), one, step=0.3), rtol=1e-5)


def test_a_short_step_shows_the_hessian_of_a_net():
    """Over its length it is ‖Hz‖/‖z‖, H taken whole by torch in double precision."""
    net, some = net_of("layer norm").double(), records_for("layer norm").take(range(5))
    found = loss_curvature(net, some, step=1e-5) / 1e-5
    for row in range(5):
        x, y = some.x[row : row + 1].double(), some.y[row : row + 1]

        def own(x, y=y):
            return nn.functional.cross_entropy(net(x), y)

        way = torch.func.grad(own)(x).sign().flatten()
        hessian = torch.autograd.functional.hessian(own, x).reshape(64, 64)
        assert found[row] == pytest.approx(
            float((hessian @ way / way.norm()).norm().detach()), rel=1e-3
        )


def test_a_step_uphill_never_turns_the_slope_more_than_the_whole_hessian_can():
    """‖Hz‖ ≤ ‖H‖_F ‖z‖ for a short step."""
    net, some = net_of("layer norm"), records_for("layer norm").take(range(8))
    whole = dense_curvature(net, some, of=loss).hessian_norm
    assert (loss_curvature(net, some, step=1e-2) <= 1.01e-2 * whole).all()


def test_the_length_of_the_error_is_known_at_its_ends():
    """Sure and right 0, sure and wrong √2, of four classes alike √(3/4); by hand else."""
    p = np.array([[1.0, 0, 0, 0], [1, 0, 0, 0], [0.25] * 4, [0.1, 0.2, 0.3, 0.4]])
    found = error_norm(p, np.array([0, 2, 3, 1]))
    expected = [0, 2**0.5, 0.75**0.5, (0.01 + 0.64 + 0.09 + 0.16) ** 0.5]
    np.testing.assert_allclose(found, expected, atol=1e-12)


def test_the_length_of_the_error_is_the_slope_by_the_outputs(tiny_net, some):
    """The slope of cross-entropy by the logits is p - onehot, as torch has it."""
    seen = evaluate(tiny_net, some)
    answers = torch.tensor(seen.logits).double().requires_grad_()
    nn.functional.cross_entropy(answers, some.y, reduction="sum").backward()
    found = error_norm(seen.probabilities, seen.y)
    np.testing.assert_allclose(found, answers.grad.norm(dim=1).numpy(), rtol=1e-6)


def said(call):
    """The words of a refusal."""
    with pytest.raises(InputError) as error:
        call()
    return str(error.value)


def test_what_is_not_served_is_refused_in_words(tiny_net, some):
    """Other kinds, no records, no step, labels that no row has."""
    for slope, _ in SLOPES.values():
        for kind in ("regression", "multilabel"):
            assert said(lambda s=slope, k=kind: s(net_of(k), records_for(k))) == (
                "Wanted records with one class of several, whose probability curves. "
                f"Got {kind}. "
                "Many labels and values are not served yet; leave curvature and slopes out."
            )
        assert said(lambda s=slope: s(tiny_net, some.take([]))) == (
            "Wanted at least one record. Got none. Give the records to be looked at."
        )
    for step in (0.0, -1.0, float("nan")):
        assert said(lambda to=step: loss_curvature(tiny_net, some, step=to)) == (
            f"Wanted a step above 0. Got {step}. Give a length in the inputs' own unit."
        )
    even = np.full((2, 4), 0.25)
    assert said(lambda: error_norm(even, np.array([0, 4]))) == (
        "Wanted labels from 0 to 3. Got labels from 0 to 4. "
        "Give the number of the column that is right."
    )
    assert said(lambda: error_norm(even, np.array([], np.int64))) == (
        "Wanted the same records on all sides. Got probabilities 2, y 0. "
        "Measure all models on the same records, in the same order."
    )


@pytest.mark.parametrize("kind", SLOPES)
def test_a_broken_model_is_named(kind):
    """A slope that is nan is not a small one."""
    some = Records(torch.ones(3, 2), torch.tensor([0, 1, 1]))
    assert said(lambda: SLOPES[kind][0](unit([float("nan"), 1.0]), some)) == (
        "Wanted finite numbers for slopes. Got 3 of 3 that are nan or infinite. "
        "Look at the model: its answers cannot be scored."
    )

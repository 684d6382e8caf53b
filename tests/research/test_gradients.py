"""Gradients of the loss by the input and the weights, against closed forms and loops."""

import copy
from functools import partial

import numpy as np
import pytest
import torch
from torch import nn

from efface.metrics.evaluation import evaluate
from efface.ranking.curvature import input_gradient_norm
from efface.testing import model_of_kind, records_of_kind
from efface.types import Records
from research.gradients import error_norm, loss_curvature, passes_each_way, weight_gradient_norm
from tests.probe_promises import passes_of, untouched
from tests.refusals import refusal

GRADIENTS = {
    "input": (input_gradient_norm, 1),
    "curvature": (partial(loss_curvature, step=0.1), 2),
    "weights": (weight_gradient_norm, 1),
}
each_gradient = pytest.mark.parametrize(("measure", "passes"), GRADIENTS.values(), ids=GRADIENTS)


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


@each_gradient
def test_the_model_is_not_changed_the_passes_are_those_declared_and_the_order_does_not_matter(
    tiny_net, some, random_state_kept, measure, passes
):
    found = untouched(lambda model: measure(model, some), tiny_net, random_state_kept)
    assert (found > 0).all()
    counted = passes_of(lambda model: measure(model, some), tiny_net)
    assert counted == passes_each_way(some, passes)
    order = np.random.default_rng(0).permutation(len(some))
    shuffled = measure(tiny_net, some.take(order.tolist()))
    np.testing.assert_allclose(shuffled, found[order], rtol=1e-4)


def test_gradient_norms_are_those_of_a_backward_pass_one_record_at_a_time(tiny_net, some):
    """By torch's cross-entropy in double precision; every weight's ``.grad`` squared, summed."""
    net, by_input, by_weights = copy.deepcopy(tiny_net).double(), [], []
    for row in range(len(some)):
        net.zero_grad()
        x = some.x[row : row + 1].double().requires_grad_()
        nn.functional.cross_entropy(net(x), some.y[row : row + 1]).backward()
        by_input.append(float(x.grad.norm()))
        by_weights.append(sum(float(w.grad.square().sum()) for w in net.parameters()) ** 0.5)
    np.testing.assert_allclose(input_gradient_norm(tiny_net, some), by_input, rtol=1e-3)
    np.testing.assert_allclose(weight_gradient_norm(tiny_net, some), by_weights, rtol=1e-3)


def test_the_gradient_by_the_weights_of_one_layer_is_known():
    """(p - onehot) xᵀ for its weights and p - onehot for its bias: ‖p - onehot‖ √(‖x‖² + 1)."""
    net, x = model_of_kind("table")[3], torch.linspace(-1, 1, 80).reshape(5, 16)
    some = Records(x, torch.arange(5))
    seen = evaluate(net, some)
    expected = error_norm(seen.probabilities, seen.y) * np.sqrt((x**2).sum(1).numpy() + 1)
    np.testing.assert_allclose(weight_gradient_norm(net, some), expected, rtol=1e-5)


def test_frozen_weights_count_and_unused_ones_do_not():
    net, some = unit([1.0, -2.0]), Records(torch.tensor([[3.0, 1.0]]), torch.tensor([1]))
    expected = weight_gradient_norm(net, some)
    net[0].unused = nn.Linear(3, 3)  # a submodule that forward does not call
    net.requires_grad_(requires_grad=False)
    np.testing.assert_array_equal(weight_gradient_norm(net, some), expected)


@pytest.mark.parametrize("step", [0.01, 0.5, 4.0])
def test_the_loss_curvature_of_a_sigmoid_unit_is_known(step):
    """∇l = -S(-w·x) w, and z = -step sign(w)/√d: a step of another length is another number."""
    weight, x = np.array([1.0, -2.0, 0.5]), np.array([[0.3, 0.2, -0.5], [2.0, -2.0, 1.0]])
    z = -step * np.sign(weight) / np.sqrt(3)
    here, there = (1 / (1 + np.exp(at @ weight)) for at in (x, x + z))
    expected = np.abs(there - here) * np.linalg.norm(weight)
    some = Records(torch.tensor(x, dtype=torch.float32), torch.tensor([1, 1]))
    found = loss_curvature(unit(weight.tolist()), some, step=step)
    np.testing.assert_allclose(found, expected, rtol=2e-4)


def test_a_feature_without_gradient_takes_no_part_in_the_step():
    """Of two features one counts: the step is as long as without the other."""
    two, one = (Records(torch.tensor([x]), torch.tensor([0])) for x in ([0.5, 7.0], [0.5]))
    found = loss_curvature(unit([2.0, 0.0]), two, step=0.3)
    np.testing.assert_allclose(found, loss_curvature(unit([2.0]), one, step=0.3), rtol=1e-5)


def test_a_short_step_shows_the_hessian_of_a_model():
    """Over its length it is ‖Hz‖/‖z‖, H taken whole by torch in double precision."""
    net, some = model_of_kind("layer norm").double(), records_of_kind("layer norm").take(range(5))
    found = loss_curvature(net, some, step=1e-5) / 1e-5
    for row in range(5):
        x, y = some.x[row : row + 1].double(), some.y[row : row + 1]

        def own(x, y=y):
            return nn.functional.cross_entropy(net(x), y)

        z = torch.func.grad(own)(x).sign().flatten()
        hessian = torch.autograd.functional.hessian(own, x).reshape(64, 64)
        exact = float((hessian @ z / z.norm()).norm().detach())
        assert found[row] == pytest.approx(exact, rel=1e-3)


def test_the_error_norm_is_known_at_its_ends():
    """Sure and right 0, sure and wrong √2, of four classes alike √(3/4); by hand else."""
    p = np.array([[1.0, 0, 0, 0], [1, 0, 0, 0], [0.25] * 4, [0.1, 0.2, 0.3, 0.4]])
    found = error_norm(p, np.array([0, 2, 3, 1]))
    expected = [0, 2**0.5, 0.75**0.5, (0.01 + 0.64 + 0.09 + 0.16) ** 0.5]
    np.testing.assert_allclose(found, expected, atol=1e-12)


def test_the_error_norm_is_the_gradient_by_the_outputs(tiny_net, some):
    seen = evaluate(tiny_net, some)
    answers = torch.tensor(seen.logits).double().requires_grad_()
    nn.functional.cross_entropy(answers, some.y, reduction="sum").backward()
    found = error_norm(seen.probabilities, seen.y)
    np.testing.assert_allclose(found, answers.grad.norm(dim=1).numpy(), rtol=1e-6)


BROKEN = unit([float("nan"), 1.0]), Records(torch.ones(3, 2), torch.tensor([0, 1, 1]))


@each_gradient
def test_records_and_models_without_a_gradient_are_refused(tiny_net, some, measure, passes):  # noqa: ARG001
    for kind in ("regression", "multilabel"):
        text = f"Wanted multiclass records. Got {kind}."
        assert text in refusal(measure, model_of_kind(kind), records_of_kind(kind))
    assert "Wanted at least one record. Got none." in refusal(measure, tiny_net, some.take([]))
    assert "for gradients. Got 3 of 3 that are nan or infinite." in refusal(measure, *BROKEN)


def test_steps_and_labels_out_of_range_are_refused(tiny_net, some):
    for step in (0.0, -1.0, float("nan")):
        text = f"Wanted a step above 0. Got {step}."
        assert text in refusal(loss_curvature, tiny_net, some, step=step)
    for y, text in (([0, 4], "labels from 0 to 3. Got labels from 0 to 4."), ([], "values for y.")):
        found = refusal(error_norm, np.full((2, 4), 0.25), np.array(y, np.int64))
        assert found.startswith(f"Wanted {text}")

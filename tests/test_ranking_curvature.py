"""Curvature against closed forms, dense Hessians in double precision, and its own stated error."""

import copy
from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy import special
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from efface.nets import resnet_small
from efface.ranking import curvature as module
from efface.ranking.curvature import (
    FLOOR,
    Curvature,
    curvature,
    is_piecewise_linear,
    log_probability,
    loss,
    piecewise_linear_curvature,
    probability,
)
from efface.testing import model_of_kind, records_of_kind
from efface.types import Records
from research.gradients import curvature_cost, dense_curvature, of_prediction, piecewise_linear_cost
from tests.curved_nets import line, tanh_net
from tests.probe_promises import passes_of, untouched
from tests.refusals import refusal
from tests.small_nets import known, vit

FORMS = {
    "products": lambda model, some, **to: curvature(model, some, probes=4, **to),
    "piecewise": piecewise_linear_curvature,
    "dense": dense_curvature,
}
AT = [-60.0, -30.0, -20.0, -5.0, -1.317, -0.5, 0.25, 0.5, 1.317, 3.0, 10.0, 20.0, 30.0, 60.0]
GS = {"log": (log_probability, lambda log: log), "p": (probability, torch.exp)}


@pytest.fixture(scope="module")
def some(digits):
    """Digits, some of which the tiny net never saw."""
    return digits.take(range(294, 306))


def oracle(model, some, g):
    """Gradient norm, tr H² and tr H by torch's reverse mode alone, in double precision."""
    net, rows = copy.deepcopy(model).double(), []
    for row in range(len(some)):
        x, y = some.x[row : row + 1].double(), some.y[row]

        def own(x, y=y):
            answers = net(x)[0]
            if len(answers) == 1:
                answers = torch.cat([torch.zeros_like(answers), answers])
            return g(answers.log_softmax(0)[y])

        hessian = torch.autograd.functional.hessian(own, x).reshape(x.numel(), x.numel())
        slope = torch.autograd.functional.jacobian(own, x)
        rows.append([float(slope.norm()), float(hessian.square().sum()), float(hessian.trace())])
    return np.array(rows).T


def repeat(records, times):
    """The same records under so many ids each: each copy draws vectors of its own."""
    rows = torch.arange(len(records)).repeat(times)
    return Records(records.x[rows], records.y[rows])


@pytest.mark.parametrize("form", FORMS)
def test_the_model_is_not_changed_and_gives_the_same_numbers_twice(
    tiny_net, some, random_state_kept, form
):
    few = some.take(range(3))
    found = untouched(lambda model: FORMS[form](model, few), tiny_net, random_state_kept)
    assert ((found.ratio > 0) & ~found.floored).tolist() == [True] * 3


@pytest.mark.parametrize("form", ["piecewise", "dense"])
def test_the_curvature_of_a_sigmoid_is_known_in_closed_form(form):
    """S(1-S), |S(1-S)(1-2S)| and |tanh(x/2)|, also where S rounds to 1 in float32."""
    net, some = line(*AT)
    at = np.array(AT)
    slope = special.expit(at) * special.expit(-at)
    found = FORMS[form](net, some, of=probability)
    np.testing.assert_allclose(found.gradient_norm, slope, rtol=1e-5)
    np.testing.assert_allclose(found.hessian_norm, slope * np.abs(np.tanh(at / 2)), rtol=1e-5)
    np.testing.assert_allclose(found.ratio, np.abs(np.tanh(at / 2)), rtol=1e-5)
    np.testing.assert_allclose(found.hessian_trace, -slope * np.tanh(at / 2), rtol=1e-5)
    for g in (log_probability, loss):
        found = FORMS[form](net, some, of=g)
        np.testing.assert_allclose(found.gradient_norm, special.expit(-at), rtol=1e-5)
        np.testing.assert_allclose(found.ratio, special.expit(at), rtol=1e-5)


def test_only_the_gradient_peaks_on_the_boundary_where_one_record_is_not_refused():
    """‖∇²g‖ is 0 there and greatest at |x| = 1.317 = ln(2 + √3); κ grows away from it."""
    at = np.linspace(-4, 4, 8001)
    net, some = line(*at)
    found = piecewise_linear_curvature(net, some, of=probability, batch_size=8001)
    assert at[found.gradient_norm.argmax()] == pytest.approx(0, abs=1e-6)
    assert found.hessian_norm[4000] == pytest.approx(0, abs=1e-7)
    assert abs(at[found.hessian_norm.argmax()]) == pytest.approx(np.log(2 + 3**0.5), abs=2e-3)
    assert (np.diff(found.ratio[4000:]) > 0).all()
    assert (np.diff(found.ratio[:4001]) < 0).all()
    for form in FORMS.values():
        assert form(*line(0.0), of=probability).ratio == pytest.approx(0)


@pytest.mark.parametrize("g", GS)
@pytest.mark.parametrize("kind", ["tiny", "layer norm", "one output", "table", "tanh"])
def test_exact_curvature_is_that_of_torch_in_double_precision(tiny_net, some, kind, g):
    """Reverse mode twice, log-softmax, one record at a time; from the Jacobian where that holds."""
    nets = {"tiny": lambda: (tiny_net, some), "tanh": tanh_net}
    net, few = nets.get(kind, lambda: (model_of_kind(kind), records_of_kind(kind)))()
    few = few.take(range(4))
    slope, square, trace = oracle(net, few, GS[g][1])
    assert is_piecewise_linear(net, few) == (kind not in {"layer norm", "tanh"})
    exact = [dense_curvature] + [piecewise_linear_curvature] * is_piecewise_linear(net, few)
    for form in exact:
        found = form(net, few, of=GS[g][0])
        np.testing.assert_allclose(found.gradient_norm, slope, rtol=1e-3)
        np.testing.assert_allclose(found.hessian_norm_squared, square, rtol=2e-3)
        np.testing.assert_allclose(found.hessian_trace, trace, rtol=2e-3, atol=1e-6)
        np.testing.assert_allclose(found.ratio, np.sqrt(square) / slope, rtol=2e-3)
        assert found.probes is None
        assert not found.ratio_error.any()


def test_the_prediction_may_take_the_place_of_the_label(tiny_net, some):
    """As if the records were labelled by the model."""
    right = known(tiny_net, some, len(some))
    wrong = replace(right, y=(right.y + 1) % 10)
    found = piecewise_linear_curvature(tiny_net, wrong, of=of_prediction(probability))
    expected = piecewise_linear_curvature(tiny_net, right, of=probability)
    np.testing.assert_array_equal(found.ratio, expected.ratio)
    plain = piecewise_linear_curvature(tiny_net, wrong, of=probability)
    assert not np.allclose(plain.ratio, expected.ratio, rtol=0.01)


def test_a_floored_gradient_is_flagged():
    """At x = 100 nothing is left of the slope of ln S in float32."""
    found = dense_curvature(*line(100.0, 3.0))
    assert found.floored.tolist() == [True, False]
    assert np.isfinite(found.ratio).all()
    one = Curvature(*(np.array([value]) for value in (FLOOR / 10, FLOOR**2, 0.0, 0.0, 0.0)))
    assert one.ratio == pytest.approx(1)


def test_a_jacobian_that_is_too_large_is_made_in_parts(monkeypatch, tiny_net, some):
    """The same numbers, fewer records at once."""
    expected, sizes, original = piecewise_linear_curvature(tiny_net, some), [], module.in_batches
    monkeypatch.setattr(module, "JACOBIAN_NUMBERS", 10 * 64 * 4)
    monkeypatch.setattr(module, "in_batches", lambda *a: (sizes.append(a[-1]), original(*a))[1])
    found = piecewise_linear_curvature(tiny_net, some)
    assert sizes[-1] == 4
    np.testing.assert_allclose(found.ratio, expected.ratio, rtol=1e-4)


def test_products_find_the_sigmoid_within_their_error():
    """One feature: the estimate is the closed form times a chi-square over its degrees."""
    at = np.array([-30.0, -5.0, -1.317, 0.5, 3.0, 20.0])
    net, some = line(*at)
    found = curvature(net, some, of=probability, probes=256)
    assert (np.abs(found.ratio / np.abs(np.tanh(at / 2)) - 1) < 0.3).all()
    np.testing.assert_allclose(found.ratio_error / found.ratio, (2 / 256) ** 0.5 / 2, rtol=0.4)


def test_estimates_scatter_as_their_stated_errors_say():
    """Z scores have standard deviation 1 and mean 0, as far as 800 estimates can tell.

    Four records of a net of tanh, 200 estimates each with 64 probes. Errors of a square rise with
    it, so a low estimate is more errors off: that is the margin.
    """
    net, some = tanh_net()
    some = some.take(range(4))
    found = curvature(net, repeat(some, 200), probes=64, batch_size=800)
    exact = dense_curvature(net, some)
    for name in ("hessian_norm_squared", "hessian_trace", "hessian_norm", "ratio"):
        off = getattr(found, name).reshape(200, 4) - getattr(exact, name)
        z = off / getattr(found, f"{name}_error").reshape(200, 4)
        assert np.sqrt((z**2).mean()) == pytest.approx(1, abs=0.2), name
        assert max(abs(z.mean()) - 0.05, abs(off.mean() / off.std())) < 0.2, name


def test_the_square_is_unbiased_and_its_root_as_low_as_stated():
    """H of rank one is the worst case: a chi-square over 4 has mean 1, its root is 6 % low."""
    net, some = line(1.0)
    exact = dense_curvature(net, some)
    found = curvature(net, repeat(some, 2000), probes=4, batch_size=2000)
    square = found.hessian_norm_squared / exact.hessian_norm_squared
    root = found.hessian_norm / exact.hessian_norm
    assert square.mean() == pytest.approx(1, abs=4 * (2 / 4 / 2000) ** 0.5)
    expected = np.sqrt(2 / 4) * special.gamma(2.5) / special.gamma(2)
    assert expected == pytest.approx(1 - 1 / 16, abs=3e-3)
    assert root.mean() == pytest.approx(expected, abs=4 * 0.35 / 2000**0.5)


def test_a_record_draws_the_same_in_any_batch(tiny_net, some):
    """Vectors come from the id and the seed; another seed draws others."""
    order = np.random.default_rng(0).permutation(len(some))
    one = curvature(tiny_net, some, probes=3)
    other = curvature(tiny_net, some.take(order.tolist()), probes=3, batch_size=5)
    np.testing.assert_allclose(one.ratio[order], other.ratio, rtol=1e-4)
    assert not np.allclose(one.ratio, curvature(tiny_net, some, probes=3, seed=1).ratio, rtol=1e-3)


def test_products_cost_the_passes_declared():
    """By the work of the convolutions, since hooks do not see products."""
    images = Records(torch.ones(3, 3, 32, 32), torch.arange(3))
    with torch.random.fork_rng():
        net = resnet_small(width=2).eval()
    with FlopCounterMode(display=False) as one, torch.no_grad():
        net(images.x)
    with FlopCounterMode(display=False) as all_of_it:
        curvature(net, images, probes=2)
    declared, work = curvature_cost(images, probes=2), all_of_it.get_total_flops() * 3
    work /= one.get_total_flops()
    assert work == pytest.approx(declared.forward + declared.backward, rel=0.02)


def test_a_jacobian_costs_the_passes_declared(tiny_net, some):
    """Hooks see all but the product that tests whether the model is piecewise linear."""
    seen = passes_of(lambda model: piecewise_linear_curvature(model, some), tiny_net)
    declared = piecewise_linear_cost(some, classes=10)
    assert (seen.forward + 2 * 8, seen.backward + 8) == (declared.forward, declared.backward)


def test_attention_and_half_precision_are_served(some):
    """Fused attention has no second derivative, the plain one has; weights are upcast."""
    few = some.take(range(1))
    assert not is_piecewise_linear(vit(), few)
    exact, found = dense_curvature(vit(), few), curvature(vit(), few, probes=20)
    assert (np.abs(found.ratio - exact.ratio) < 5 * found.ratio_error).all()
    half, some = model_of_kind("table").half(), records_of_kind("table").take(range(4))
    expected = piecewise_linear_curvature(copy.deepcopy(half).float(), some)
    np.testing.assert_array_equal(piecewise_linear_curvature(half, some).ratio, expected.ratio)


def logit(outputs, y):
    """The label's own logit."""
    return outputs.gather(1, y[:, None])[:, 0]


@pytest.mark.parametrize("form", FORMS)
def test_logits_of_relu_networks_other_tasks_and_no_records_are_refused(tiny_net, some, form):
    measure, few = FORMS[form], some.take(range(3))
    text = "Wanted a number of the outputs that curves."
    assert text in refusal(measure, tiny_net, few, of=logit)
    if form != "piecewise":
        assert (measure(*tanh_net(), of=logit).ratio > 0).all()
    for kind in ("regression", "multilabel"):
        text = f"Wanted multiclass records. Got {kind}."
        assert text in refusal(measure, model_of_kind(kind), records_of_kind(kind))
    text = "Wanted at least one record. Got none. Give the records to rank."
    assert refusal(measure, tiny_net, some.take([])) == text


def test_models_and_probes_that_give_no_curvature_are_refused(tiny_net, some):
    text = "Wanted two probes or more. Got 1. One alone has no standard error; 16 are usual."
    assert refusal(curvature, tiny_net, some, probes=1) == text
    text = "Wanted a model with piecewise linear outputs (a ReLU network)."
    assert text in refusal(piecewise_linear_curvature, *tanh_net())
    mixing = nn.Sequential(nn.Flatten(), nn.BatchNorm1d(64, track_running_stats=False))
    text = "Got 1 (BatchNorm1d), which takes its means from the batch. Train it with track_running"
    assert text in refusal(curvature, mixing, some)
    broken, records = line(1.0, 2.0)
    nn.init.constant_(broken[0].weight, float("nan"))
    text = "Wanted finite numbers for gradient_norm. Got 2 of 2 that are nan or infinite."
    assert text in refusal(curvature, broken, records)

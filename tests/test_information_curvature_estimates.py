"""Estimated curvature beside exact curvature and its own stated error, and what it costs."""

import copy
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy import special
from torch.utils.flop_counter import FlopCounterMode

from efface.nets import resnet_small
from efface.ranking.curvature import curvature, curvature_cost, probability
from efface.ranking.curvature_exact import (
    dense_curvature,
    is_piecewise_linear,
    piecewise_linear_cost,
    piecewise_linear_curvature,
)
from efface.testing.nets import net_of, records_for
from efface.types import Records

sys.path.insert(0, str(Path(__file__).parent))
from curved_nets import line, tanh_net
from probe_promises import passes_of


@pytest.fixture(scope="module")
def some(digits):
    """Digits, some of which the tiny net never saw."""
    return digits.take(range(294, 306))


def often(records, times):
    """The same records under so many ids each: each copy draws vectors of its own."""
    rows = torch.arange(len(records)).repeat(times)
    return Records(records.x[rows], records.y[rows])


def test_products_find_the_sigmoid_within_their_error():
    """One feature: the estimate is the closed form times a chi-square over its degrees."""
    at = np.array([-30.0, -5.0, -1.317, 0.5, 3.0, 20.0])
    net, some = line(*at)
    found = curvature(net, some, of=probability, probes=256)
    assert (np.abs(found.ratio / np.abs(np.tanh(at / 2)) - 1) < 0.3).all()
    np.testing.assert_allclose(found.ratio_error / found.ratio, (2 / 256) ** 0.5 / 2, rtol=0.4)


@pytest.fixture(scope="module")
def scattered():
    """Four records of a net of tanh, 200 estimates each with 64 probes; and the exact values."""
    net, some = tanh_net()
    some = some.take(range(4))
    found = curvature(net, often(some, 200), probes=64, batch_size=800)
    return found, dense_curvature(net, some)


@pytest.mark.parametrize("name", ["hessian_norm_squared", "hessian_trace", "hessian_norm", "ratio"])
def test_estimates_scatter_as_their_stated_errors_say(scattered, name):
    """Off by so many standard errors: spread 1, middle 0, as far as 800 estimates can tell.

    Errors of a square rise with it, so a low estimate is more errors off: that is the margin.
    """
    found, exact = scattered
    off = getattr(found, name).reshape(200, 4) - getattr(exact, name)
    z = off / getattr(found, f"{name}_error").reshape(200, 4)
    assert np.sqrt((z**2).mean()) == pytest.approx(1, abs=0.2)
    assert abs(z.mean()) < 0.25
    assert abs(off.mean() / off.std()) < 0.2


def test_the_square_is_unbiased_and_its_root_as_low_as_said():
    """H of rank one is the worst case: a chi-square over 4 has mean 1, its root is 6 % low."""
    net, some = line(1.0)
    exact = dense_curvature(net, some)
    found = curvature(net, often(some, 2000), probes=4, batch_size=2000)
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


def test_products_cost_what_is_declared():
    """By the work of the convolutions, since hooks do not see products."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        net, x = resnet_small(width=2).eval(), torch.randn(3, 3, 32, 32)
    images = Records(x, torch.arange(3))
    with FlopCounterMode(display=False) as one, torch.no_grad():
        net(x)
    with FlopCounterMode(display=False) as all_of_it:
        curvature(net, images, probes=2)
    declared = curvature_cost(images, probes=2)
    work = all_of_it.get_total_flops() / one.get_total_flops() * len(images)
    assert work == pytest.approx(declared.forward + declared.backward, rel=0.02)


def test_a_jacobian_costs_what_is_declared(tiny_net, some):
    """Hooks see all but the product that asks whether the net is piecewise linear."""
    seen = passes_of(lambda model: piecewise_linear_curvature(model, some), tiny_net)
    declared = piecewise_linear_cost(some, classes=10)
    assert (seen.forward, seen.backward) == (declared.forward - 2 * 8, declared.backward - 8)


def test_attention_and_half_precision_are_served(some):
    """Fused attention has no second derivative, the plain one has; weights are widened."""
    from small_nets import vit

    few = some.take(range(1))
    assert not is_piecewise_linear(vit(), few)
    exact, found = dense_curvature(vit(), few), curvature(vit(), few, probes=20)
    assert (np.abs(found.ratio - exact.ratio) < 5 * found.ratio_error).all()
    half = copy.deepcopy(net_of("table")).half()
    some = records_for("table").take(range(4))
    expected = piecewise_linear_curvature(copy.deepcopy(half).float(), some)
    np.testing.assert_array_equal(piecewise_linear_curvature(half, some).ratio, expected.ratio)

"""Linear CKA: closed forms, a twin by the whole Gram matrices, models left as they were."""

import copy

import numpy as np
import pytest
import torch
from scipy.stats import ortho_group
from torch import nn

from efface.probes import cka as module
from efface.probes.cka import cka, cka_cost
from efface.runtime import PassCounter
from efface.testing import KINDS, model_of_kind, records_of_kind, untrained_model
from tests.probe_promises import traces, untouched
from tests.refusals import refusal


def by_gram(x, y):
    """The definition by centred n x n Gram matrices."""
    n = len(x)
    centre = np.eye(n) - np.ones((n, n)) / n
    ours, theirs = (centre @ one @ one.T @ centre for one in (x, y))
    crossed = (ours * theirs).sum()
    return crossed / np.sqrt((ours * ours).sum() * (theirs * theirs).sum())


def test_both_models_are_untouched_and_nothing_is_drawn(tiny_net, digits, random_state_kept):
    """Weights, buffers, gradients, flags, hooks and the host's random numbers."""
    other, some = untrained_model(1), digits.take(range(40))
    before = {k: str(v) for k, v in traces(other).items()}
    untouched(lambda model: cka(model, other, some), tiny_net, random_state_kept)
    untouched(lambda model: cka(other, model, some), tiny_net, random_state_kept)
    assert {k: str(v) for k, v in traces(other).items()} == before


def test_the_price_is_known_beforehand(tiny_net, digits):
    """PassCounter on both models."""
    counted, some = PassCounter(tiny_net), digits.take(range(40))
    cka(counted.model, counted.attach(untrained_model(1)), some)
    assert counted.passes == cka_cost(some)


def test_a_model_is_like_itself(tiny_net, digits):
    """One in each layer that holds weights."""
    found = cka(tiny_net, tiny_net, digits.take(range(100)))
    assert found.layers == ("0", "1", "3", "4", "7")
    np.testing.assert_allclose(found.values, 1, atol=1e-9)


@pytest.mark.parametrize("at_once", [7, 1000])
def test_each_layer_has_the_value_that_the_gram_matrices_give(
    tiny_net, digits, at_once, monkeypatch
):
    """The last layer and a convolution averaged over its places, in batches of any size."""
    monkeypatch.setattr(module, "BATCH_SIZE", at_once)
    other, some = untrained_model(3).eval(), digits.take(range(80))
    found = dict(zip(*vars(cka(tiny_net, other, some)).values(), strict=True))
    with torch.no_grad():
        for layer in (0, 3, 7):
            x, y = (net[: layer + 1](some.x).double() for net in (tiny_net, other))
            if layer < 7:
                x, y = x.mean((2, 3)), y.mean((2, 3))
            expected = by_gram(x.numpy(), y.numpy())
            assert found[str(layer)] == pytest.approx(expected, abs=1e-5)
    assert found["7"] < 0.9


def linear(weight, bias):
    """One linear layer of these numbers."""
    net = nn.Sequential(nn.Flatten(), nn.Linear(weight.shape[1], weight.shape[0]))
    with torch.no_grad():
        net[1].weight.copy_(torch.as_tensor(weight))
        net[1].bias.copy_(torch.as_tensor(bias))
    return net


def test_turns_scale_and_shift_of_a_layer_change_nothing_and_a_stretch_does(digits):
    """The invariances that define it; any other linear map is no invariance."""
    draw = np.random.default_rng(0)
    weight, some = draw.normal(size=(6, 64)), digits.take(range(90))
    turned = ortho_group.rvs(6, random_state=0) @ weight
    plain = linear(weight, np.zeros(6))
    alike = cka(plain, linear(3 * turned, draw.normal(size=6)), some)
    assert alike.values == pytest.approx([1], abs=1e-6)
    stretched = cka(plain, linear(weight * np.array([[9, 1, 1, 1, 1, 1]]).T, np.zeros(6)), some)
    assert stretched.values[0] < 0.95


def test_answers_far_from_zero_do_not_spoil_the_sums(digits):
    """A great bias would drown the products of columns that are not centred."""
    weight, some = np.random.default_rng(0).normal(size=(6, 64)), digits.take(range(90))
    near, far = linear(weight, np.zeros(6)), linear(weight, np.full(6, 1e4))
    assert cka(near, far, some).values == pytest.approx([1], abs=1e-4)


def test_a_layer_that_says_nothing_has_no_value(digits):
    """Constant answers have no direction: nan, not 0."""
    flat = linear(np.zeros((6, 64)), np.zeros(6))
    assert np.isnan(cka(flat, flat, digits.take(range(9))).values).all()


def test_a_layer_is_read_before_the_next_works_in_place(digits):
    """ReLU in place overwrites what its layer said."""
    net = nn.Sequential(nn.Flatten(), nn.Linear(64, 8), nn.ReLU(inplace=True), nn.Linear(8, 10))
    twin = nn.Sequential(*net[:2], nn.ReLU(), net[3])
    some, other = digits.take(range(40)), nn.Sequential(nn.Flatten(), nn.Linear(64, 8))
    in_place, apart = (cka(one, other, some).values for one in (net, twin))
    np.testing.assert_array_equal(in_place, apart)


@pytest.mark.parametrize("kind", KINDS)
def test_nets_of_other_kinds_are_served(kind):
    """Labels play no part."""
    found = cka(model_of_kind(kind), copy.deepcopy(model_of_kind(kind)), records_of_kind(kind))
    np.testing.assert_allclose(found.values, 1, atol=1e-9)


def test_what_cannot_be_compared_is_refused_in_words(tiny_net, digits):
    """One record has no spread; two architectures no common layer."""
    assert (
        refusal(cka, tiny_net, tiny_net, digits.take([0]))
        == "Wanted two records or more. Got 1. Give more records."
    )
    other = nn.Sequential(nn.Flatten(), nn.Identity(), nn.Linear(64, 10))
    assert refusal(cka, tiny_net, other, digits.take(range(9))) == (
        "Wanted two models with layers of the same names. Got 0, 1, 3 and 2. "
        "Compare models of one architecture."
    )

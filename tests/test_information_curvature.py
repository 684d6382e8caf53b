"""Curvature beside closed forms and dense Hessians in double precision."""

import copy
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy import special
from torch import nn

from efface.errors import InputError
from efface.ranking.curvature import (
    FLOOR,
    Curvature,
    curvature,
    log_probability,
    loss,
    of_answer,
    probability,
)
from efface.ranking.curvature_exact import (
    dense_curvature,
    is_piecewise_linear,
    piecewise_linear_curvature,
)
from efface.testing.nets import net_of, records_for
from efface.types import Records

sys.path.insert(0, str(Path(__file__).parent))
from curved_nets import line, tanh_net
from probe_promises import untouched

WAYS = {
    "products": lambda model, some, **to: curvature(model, some, probes=4, **to),
    "piecewise": piecewise_linear_curvature,
    "dense": dense_curvature,
}
AT = [-60.0, -30.0, -20.0, -5.0, -1.317, -0.5, 0.25, 0.5, 1.317, 3.0, 10.0, 20.0, 30.0, 60.0]


@pytest.fixture(scope="module")
def some(digits):
    """Digits, some of which the tiny net never saw."""
    return digits.take(range(294, 306))


def twin(model, some, g):
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


@pytest.mark.parametrize("kind", WAYS)
def test_the_given_model_is_untouched_and_gives_the_same_numbers_twice(
    tiny_net, some, random_state_kept, kind
):
    """Weights, gradients, flags, modes, hooks and the host's random numbers."""
    few = some.take(range(3))
    found = untouched(lambda model: WAYS[kind](model, few), tiny_net, random_state_kept)
    assert (found.ratio > 0).all()
    assert len(found) == 3
    assert not found.floored.any()


@pytest.mark.parametrize("kind", ["piecewise", "dense"])
def test_the_curvature_of_a_sigmoid_is_known_in_closed_form(kind):
    """S(1-S), |S(1-S)(1-2S)| and |tanh(x/2)|, also where S rounds to 1 in float32."""
    net, some = line(*AT)
    at = np.array(AT)
    slope = special.expit(at) * special.expit(-at)
    found = WAYS[kind](net, some, of=probability)
    np.testing.assert_allclose(found.gradient_norm, slope, rtol=1e-5)
    np.testing.assert_allclose(found.hessian_norm, slope * np.abs(np.tanh(at / 2)), rtol=1e-5)
    np.testing.assert_allclose(found.ratio, np.abs(np.tanh(at / 2)), rtol=1e-5)
    np.testing.assert_allclose(found.hessian_trace, -slope * np.tanh(at / 2), rtol=1e-5)
    for g in (log_probability, loss):
        found = WAYS[kind](net, some, of=g)
        np.testing.assert_allclose(found.gradient_norm, special.expit(-at), rtol=1e-5)
        np.testing.assert_allclose(found.ratio, special.expit(at), rtol=1e-5)


def test_only_the_slope_peaks_on_the_boundary():
    """‖∇²g‖ is 0 there and greatest at |x| = 1.317 = ln(2 + √3); κ grows away from it."""
    at = np.linspace(-4, 4, 8001)
    net, some = line(*at)
    found = piecewise_linear_curvature(net, some, of=probability, batch_size=8001)
    assert at[found.gradient_norm.argmax()] == pytest.approx(0, abs=1e-6)
    assert found.hessian_norm[4000] == pytest.approx(0, abs=1e-7)
    assert abs(at[found.hessian_norm.argmax()]) == pytest.approx(np.log(2 + 3**0.5), abs=2e-3)
    assert (np.diff(found.ratio[4000:]) > 0).all()
    assert (np.diff(found.ratio[:4001]) < 0).all()


def test_one_record_on_the_boundary_is_not_taken_for_a_piecewise_linear_one():
    """Its curve is flat at one point alone."""
    for way in WAYS.values():
        assert way(*line(0.0), of=probability).ratio == pytest.approx(0)


GS = {"log": (log_probability, lambda log: log), "p": (probability, torch.exp)}


@pytest.mark.parametrize("g", GS)
@pytest.mark.parametrize("kind", ["tiny", "layer norm", "one output", "table", "tanh"])
def test_exact_curvature_is_that_of_torch_in_double_precision(tiny_net, some, kind, g):
    """Reverse mode twice, log-softmax, one record at a time; from the Jacobian where that holds."""
    net, few = {
        "tiny": lambda: (tiny_net, some.take(range(4))),
        "tanh": tanh_net,
    }.get(kind, lambda: (net_of(kind), records_for(kind).take(range(4))))()
    slope, square, trace = twin(net, few, GS[g][1])
    ways = [dense_curvature]
    assert is_piecewise_linear(net, few) == (kind not in {"layer norm", "tanh"})
    if is_piecewise_linear(net, few):
        ways.append(piecewise_linear_curvature)
    for way in ways:
        found = way(net, few, of=GS[g][0])
        np.testing.assert_allclose(found.gradient_norm, slope, rtol=1e-3)
        np.testing.assert_allclose(found.hessian_norm_squared, square, rtol=2e-3)
        np.testing.assert_allclose(found.hessian_trace, trace, rtol=2e-3, atol=1e-6)
        np.testing.assert_allclose(found.ratio, np.sqrt(square) / slope, rtol=2e-3)
        assert found.probes is None
        assert not found.ratio_error.any()


def test_the_answer_may_take_the_place_of_the_label(tiny_net, some):
    """As if the records were labelled by the model."""
    with torch.no_grad():
        answers = tiny_net(some.x).argmax(1)
    wrong = Records(some.x, (answers + 1) % 10, some.ids)
    right = Records(some.x, answers, some.ids)
    found = piecewise_linear_curvature(tiny_net, wrong, of=of_answer(probability))
    expected = piecewise_linear_curvature(tiny_net, right, of=probability)
    np.testing.assert_array_equal(found.ratio, expected.ratio)
    plain = piecewise_linear_curvature(tiny_net, wrong, of=probability)
    assert not np.allclose(plain.ratio, expected.ratio, rtol=0.01)


def test_where_the_gradient_is_floored_it_is_said():
    """At x = 100 nothing is left of the slope of ln S in float32."""
    found = dense_curvature(*line(100.0, 3.0))
    assert found.floored.tolist() == [True, False]
    assert np.isfinite(found.ratio).all()
    one = Curvature(*(np.array([value]) for value in (FLOOR / 10, FLOOR**2, 0.0, 0.0, 0.0)))
    assert one.ratio == pytest.approx(1)


def test_in_smaller_parts_when_a_jacobian_is_too_large(monkeypatch, tiny_net, some):
    """The same numbers, fewer records at once."""
    expected = piecewise_linear_curvature(tiny_net, some)
    monkeypatch.setattr("efface.ranking.curvature_exact.HELD", 10 * 64 * 4)
    found = piecewise_linear_curvature(tiny_net, some)
    np.testing.assert_allclose(found.ratio, expected.ratio, rtol=1e-4)


def said(call):
    """The words of a refusal."""
    with pytest.raises(InputError) as error:
        call()
    return str(error.value)


@pytest.mark.parametrize("kind", WAYS)
def test_a_logit_is_refused_since_it_has_no_curvature(tiny_net, some, kind):
    """Of a net of ReLUs; of one of tanh it has."""

    def logit(outputs, y):
        return outputs.gather(1, y[:, None])[:, 0]

    few = some.take(range(3))
    assert said(lambda: WAYS[kind](tiny_net, few, of=logit)) == (
        "Wanted a number of the outputs that curves. Got one whose second derivative is 0 at all 3 "
        "records, as the logits of a net of ReLUs are: piecewise linear. "
        "Take probability, log_probability or loss."
    )
    if kind != "piecewise":
        assert (WAYS[kind](*tanh_net(), of=logit).ratio > 0).all()


def test_what_is_not_served_is_refused_in_words(tiny_net, some):
    """Other kinds, none, one probe, a curved net, answers that mix, and answers that are nan."""
    for way in WAYS.values():
        for kind in ("regression", "multilabel"):
            assert said(lambda w=way, k=kind: w(net_of(k), records_for(k))) == (
                "Wanted records with one class of several, whose probability curves. "
                f"Got {kind}. "
                "Many labels and values are not served yet; leave curvature and slopes out."
            )
        assert said(lambda w=way: w(tiny_net, some.take([]))) == (
            "Wanted at least one record. Got none. Give the records to be looked at."
        )
    assert said(lambda: curvature(tiny_net, some, probes=1)) == (
        "Wanted two probes or more. Got 1. One alone has no standard error; 16 are usual."
    )
    assert said(lambda: piecewise_linear_curvature(*tanh_net())) == (
        "Wanted a net whose outputs are piecewise linear (of ReLUs). "
        "Got outputs with a second derivative. Use curvature, which serves any net."
    )
    mixing = nn.Sequential(nn.Flatten(), nn.BatchNorm1d(64, track_running_stats=False))
    assert said(lambda: curvature(mixing, some)) == (
        "Wanted a model that answers each record by itself. "
        "Got 1 (BatchNorm1d), which takes its means from the batch. "
        "Train it with track_running_stats=True."
    )
    broken, records = line(1.0, 2.0)
    broken[0].weight.data.fill_(float("nan"))
    assert said(lambda: curvature(broken, records)) == (
        "Wanted finite numbers for gradient_norm. Got 2 of 2 that are nan or infinite. "
        "Look at the model: its answers cannot be scored."
    )

"""Residual knowledge: what is said near a record that is missed as it is."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from efface.metrics.evaluation import evaluate
from efface.probes.residual import (
    Residual,
    residual_cost,
    residual_in_ball,
    residual_in_crops,
    residual_in_flips,
    residual_in_noise,
    residual_knowledge,
)
from efface.testing import model_of_kind, records_of_kind
from efface.types import Records
from tests.probe_promises import passes_of, same, untouched
from tests.refusals import refusal

PROBES = {
    "flips": (lambda model, some, **_: residual_in_flips(model, some), {"tried": 1}),
    "crops": (
        lambda model, some, **to: residual_in_crops(model, some, crops=3, **to),
        {"tried": 3},
    ),
    "noise": (
        lambda model, some, **to: residual_in_noise(model, some, sigma=0.3, draws=4, **to),
        {"tried": 4},
    ),
    "ball": (
        lambda model, some, **to: residual_in_ball(model, some, radius=0.1, steps=5, **to),
        {"tried": 6, "descents": 5},
    ),
}


@pytest.fixture(scope="module")
def some(digits):
    """Digits that the tiny net never saw: it misses a few of them."""
    return digits.take(range(300, 360))


@pytest.mark.parametrize("kind", PROBES)
def test_the_given_model_is_untouched_and_the_same_seed_gives_the_same_numbers(
    tiny_net, some, random_state_kept, kind
):
    """Weights, buffers, gradients, flags, hooks and the host's random numbers."""
    probe = PROBES[kind][0]
    found = untouched(lambda model: probe(model, some), tiny_net, random_state_kept)
    np.testing.assert_array_equal(found.plain, evaluate(tiny_net, some).correct)
    assert 0 < found.missed < len(some)


@pytest.mark.parametrize("kind", ["crops", "noise", "ball"])
def test_another_seed_draws_other_inputs(tiny_net, some, kind):
    """A seed that changes nothing is not the seed of what is drawn."""
    probe = PROBES[kind][0]
    wide = replace(some, low=some.low - 2, high=some.high + 2)
    assert not same(*(probe(tiny_net, wide, seed=seed) for seed in (0, 1)))


@pytest.mark.parametrize("kind", PROBES)
def test_the_price_is_known_beforehand(tiny_net, some, kind):
    """Counted on the model and on every copy of it."""
    probe, settings = PROBES[kind]
    assert passes_of(lambda m: probe(m, some), tiny_net) == residual_cost(some, **settings)


@pytest.mark.parametrize("kind", PROBES)
def test_a_record_has_the_same_neighbours_in_any_batch(tiny_net, some, kind):
    """Draws come from the id alone."""
    probe = PROBES[kind][0]
    order = np.random.default_rng(0).permutation(len(some))
    one, other = probe(tiny_net, some), probe(tiny_net, some.take(order.tolist()))
    np.testing.assert_array_equal(one.hits[order], other.hits)


def line(*, flat=False):
    """Two classes of one pixel that lies in 0..1: class 1 from 0.5 on (never where it is flat)."""
    net = nn.Sequential(nn.Flatten(), nn.Linear(1, 2))
    with torch.no_grad():
        net[1].weight.copy_(torch.tensor([[0.0], [0.0 if flat else 1.0]]))
        net[1].bias.copy_(torch.tensor([0.5, 0.0]))
    return net


def pixels(*values):
    """Records of class 1."""
    x = torch.tensor(values).reshape(-1, 1, 1, 1)
    y = torch.ones(len(values), dtype=torch.int64)
    return Records(x, y, low=torch.tensor(0.0), high=torch.tensor(1.0))


def test_the_ball_reaches_exactly_as_far_as_its_radius():
    """On a line the label begins at 0.5: found from 0.42 with a radius of 0.1, not from 0.38."""
    found = residual_in_ball(line(), pixels(0.38, 0.42, 0.45, 0.6), radius=0.1, steps=10)
    assert found.plain.tolist() == [False, False, False, True]
    assert found.recovered.tolist() == [False, True, True, False]
    assert (found.missed, found.share) == (3, pytest.approx(2 / 3))
    assert found.interval == pytest.approx((0.0943, 0.9916), abs=1e-4)


def test_the_radius_is_in_units_of_the_range():
    """The same pixels as numbers of 0..10, for a net that takes these."""
    net, ten = line(), pixels(3.8, 4.2)
    with torch.no_grad():
        net[1].weight.mul_(0.1)
    some = replace(ten, high=torch.tensor(10.0))
    assert residual_in_ball(net, some, radius=0.1, steps=10).recovered.tolist() == [False, True]


def test_no_input_is_tried_beyond_the_data():
    """A label that lies outside what an input can be is not found."""
    net = line()
    with torch.no_grad():
        net[1].bias.copy_(torch.tensor([1.05, 0.0]))
    assert not residual_in_ball(net, pixels(0.9), radius=0.5, steps=10).recovered.any()
    assert not residual_in_noise(net, pixels(0.9), sigma=0.5, draws=50).recovered.any()


def test_noise_is_as_wide_as_said():
    """Of many draws a normal share crosses the line, which scipy knows in closed form."""
    from scipy import stats

    some = pixels(*[0.4] * 400)
    found = residual_in_noise(line(), some, sigma=0.08, draws=20)
    expected = stats.norm.sf(0.1 / 0.08)
    assert found.recognised == pytest.approx(expected, abs=0.01)
    assert residual_in_noise(line(flat=True), some, sigma=0.3).recognised == 0


class Corner(nn.Module):
    """Says class 1 where the pixel in the middle of the left edge is lit."""

    def forward(self, x):
        lit = x[:, 0, x.shape[2] // 2, 0]
        return torch.stack([torch.full_like(lit, 0.5), lit], 1)


def lit(column):
    """One image, 5 x 5, one pixel lit in its middle row."""
    x = torch.zeros(1, 1, 5, 5)
    x[0, 0, 2, column] = 1
    return Records(x, torch.tensor([1]))


def test_flips_and_crops_are_what_they_say():
    """Lit on the right edge: seen when mirrored; lit one off the left edge: seen when shifted."""
    assert residual_in_flips(Corner(), lit(4)).recovered.all()
    assert not residual_in_flips(Corner(), lit(1)).recovered.any()
    shifted = residual_in_crops(Corner(), lit(1), crops=60)
    assert shifted.recovered.all()
    assert shifted.recognised == pytest.approx(1 / 9, abs=0.08)
    assert not residual_in_crops(Corner(), lit(3), crops=60).recovered.any()


def test_residual_knowledge_is_a_ratio_of_shares():
    """One against itself; by hand else."""
    nothing, few, many = (
        Residual(np.zeros(4, bool), np.array(hits, float), tried=5)
        for hits in ([0, 0, 0, 0], [1, 0, 2, 0], [5, 1, 0, 0])
    )
    assert residual_knowledge(many, few) == pytest.approx(2)
    assert residual_knowledge(few, few) == residual_knowledge(nothing, nothing) == 1
    assert residual_knowledge(few, nothing) == float("inf")
    assert refusal(residual_knowledge, few, Residual(np.zeros(3, bool), np.zeros(3), tried=5)) == (
        "Wanted two probes of the same records with the same settings. "
        "Got 4 and 3 records, 5 and 5 inputs tried. Probe both models alike."
    )


def test_nothing_missed_is_no_share():
    """A share of none is not 0."""
    found = Residual(np.ones(2, bool), np.ones(2), tried=1)
    assert found.share is None
    assert found.interval == (0, 1)


def test_inputs_that_a_probe_does_not_serve_are_refused_in_words(tiny_net, some):
    """A row of a table cannot be mirrored; a value has no label to be said."""
    for probe in (residual_in_flips, residual_in_crops):
        assert refusal(probe, model_of_kind("table"), records_of_kind("table")) == (
            "Wanted images, (n, c, h, w), which can be flipped and cropped. "
            "Got inputs of shape (60, 64). Use noise or the ball, which serve any inputs."
        )
    for kind in ("regression", "multilabel"):
        assert refusal(
            residual_in_ball, model_of_kind(kind), records_of_kind(kind), radius=0.1
        ) == (
            "Wanted multiclass records, which this probe asks about. "
            f"Got {kind}. Omit this probe, and say that it was not run."
        )
    assert refusal(residual_in_flips, tiny_net, some.take([])) == (
        "Wanted at least one record. Got none. Give the records to be probed."
    )
    assert refusal(residual_in_noise, tiny_net, some, sigma=0.0) == (
        "Wanted a sigma above 0. Got 0.0. Give it as a share of the data's range."
    )


@pytest.mark.parametrize("kind", ["table", "one output", "tied"])
def test_noise_and_the_ball_serve_any_inputs(kind):
    """Tables and single units too."""
    for name in ("noise", "ball"):
        found = PROBES[name][0](model_of_kind(kind), records_of_kind(kind))
        assert len(found.hits) == 60

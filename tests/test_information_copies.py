"""The share of noisy copies that keep the answer: the normal tail of a linear model."""

import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy import stats
from torch import nn

from efface.errors import InputError
from efface.metrics.measure import evaluate
from efface.ranking.copies import kept_share, kept_share_cost, kept_shares, nearby
from efface.runtime import PassCounter
from efface.testing.nets import net_of, records_for
from efface.types import Records

sys.path.insert(0, str(Path(__file__).parent))
from probe_promises import untouched

WEIGHTS = torch.tensor([[0.3, -0.2, 0.5], [-0.4, 0.1, 0.2]])


@pytest.fixture(scope="module")
def some(digits):
    """40 digits."""
    return digits.take(range(40))


def line():
    """Two classes with a plane between them."""
    net = nn.Linear(3, 2)
    with torch.no_grad():
        net.weight.copy_(WEIGHTS)
        net.bias.copy_(torch.tensor([0.1, -0.1]))
    return net


def wide(n=80):
    """Points about 0 within bounds that no noise of a hundredth of their range reaches."""
    x = torch.as_tensor(np.random.default_rng(0).normal(size=(n, 3)), dtype=torch.float32)
    low, high = torch.tensor(-50.0), torch.tensor(50.0)
    return Records(x, torch.zeros(n, dtype=torch.int64), low=low, high=high)


def plane(records):
    """By how far each point would have to move for another answer."""
    apart = (WEIGHTS[0] - WEIGHTS[1]).double()
    return ((records.x.double() @ apart + 0.2).abs() / apart.norm()).numpy()


def test_a_linear_model_keeps_the_normal_share():
    """Phi(distance / noise), each within its binomial error and all together in spread."""
    records, copies = wide(), 250
    sigma = 0.01
    found = kept_share(line(), records, sigma=sigma, copies=copies)
    expected = stats.norm.cdf(plane(records) / (sigma * 100))
    errors = (found - expected) / np.sqrt(expected * (1 - expected) / copies)
    assert abs(errors).max() < 5
    tail = stats.chi2(len(errors)).cdf((errors**2).sum())
    assert 0.001 < tail < 0.999


def test_every_sigma_has_its_own_normal_share():
    """A row of ``kept_shares`` is ``kept_share`` of that sigma, and falls to a half."""
    records, sigmas = wide(), (0.001, 0.01, 0.1)
    found = kept_shares(line(), records, sigmas=sigmas, copies=50)
    for row, sigma in zip(found, sigmas, strict=True):
        assert (row == kept_share(line(), records, sigma=sigma, copies=50)).all()
        expected = stats.norm.cdf(plane(records) / (sigma * 100)).mean()
        assert row.mean() == pytest.approx(expected, abs=0.03)


def test_copies_stay_within_what_an_input_can_be():
    """A model that changes its answer beyond the bounds alone never does."""
    net, records = nn.Linear(1, 2), Records(torch.tensor([[0.0], [1.0]]), torch.tensor([0, 0]))
    with torch.no_grad():
        net.weight.copy_(torch.tensor([[0.0], [1.0]]))
        net.bias.copy_(torch.tensor([1.0001, 0.0]))
    assert (kept_share(net, records, sigma=3.0) == 1).all()
    beyond = replace(records, high=torch.tensor(2.0))
    assert (kept_share(net, beyond, sigma=3.0) < 1).all()


def test_a_record_keeps_its_share_in_any_batch(tiny_net, some):
    """Its draws come from its id; another seed draws others."""
    found = kept_share(tiny_net, some, sigma=0.4)
    order = torch.randperm(len(some), generator=torch.Generator().manual_seed(0))
    assert (kept_share(tiny_net, some.take(order), sigma=0.4) == found[order]).all()
    alone = [kept_share(tiny_net, some.take([row]), sigma=0.4)[0] for row in range(20)]
    assert (alone == found[:20]).all()
    assert 0 < found.mean() < 1
    assert (kept_share(tiny_net, some, sigma=0.4, seed=1) != found).any()


def test_they_cost_what_is_declared(tiny_net, some):
    """One pass of the record, one of each copy at each sigma; no memory for gradients."""
    counted = PassCounter(tiny_net)
    kept_shares(counted.model, some, sigmas=(0.1, 0.5), copies=4)
    assert counted.passes == kept_share_cost(some, 4, sigmas=2)
    counted = PassCounter(tiny_net)
    kept_share(counted.model, some, sigma=0.1)
    assert counted.passes == kept_share_cost(some)
    assert counted.passes.forward == 40 * 17


def test_the_model_is_left_as_it_came(tiny_net, some, random_state_kept):
    """Modes, flags, gradients, hooks, and the global random state; the same numbers twice."""
    untouched(lambda model: kept_share(model, some, sigma=0.4), tiny_net, random_state_kept)


def test_margins_come_from_the_same_passes(tiny_net, some):
    """What ``evaluate`` says of the records, and the log-odds of the model's own answer."""
    some = replace(some, y=(some.y + 1) % 10)  # the net knows the right ones
    found, measured = nearby(tiny_net, some, sigmas=(0.4,)), evaluate(tiny_net, some)
    assert found.plain.logits == pytest.approx(measured.logits, abs=1e-5)
    assert found.plain.margin == pytest.approx(measured.margin, abs=1e-4)
    p = measured.probabilities.max(axis=1)
    assert found.margin == pytest.approx(np.log(p / (1 - p)), abs=1e-3)
    assert (found.kept[0] == kept_share(tiny_net, some, sigma=0.4)).all()


def test_a_single_unit_has_two_answers():
    """Net with one sigmoid: class 1 above 0."""
    assert kept_share(net_of("one output"), records_for("one output"), sigma=0.5).mean() < 1


@pytest.mark.parametrize("kind", ["regression", "multilabel"])
def test_records_without_one_class_are_refused(kind):
    """There is no answer to keep."""
    with pytest.raises(InputError, match="one class of several"):
        kept_share(net_of(kind), records_for(kind), sigma=0.1)


def test_what_cannot_be_asked_is_refused(tiny_net, some):
    """In words."""
    for sigmas, came in (((), "none"), ((0.1, 0.0), "0.1, 0.0"), ((float("nan"),), "nan")):
        with pytest.raises(InputError) as error:
            kept_shares(tiny_net, some, sigmas=sigmas)
        assert str(error.value) == (
            f"Wanted every sigma above 0. Got {came}. Give it as a share of the data's range."
        )
    with pytest.raises(InputError) as error:
        kept_share(tiny_net, some, sigma=0.1, copies=0)
    assert str(error.value) == (
        "Wanted one copy or more. Got 0. 16 give a standard error below 0.13."
    )
    with pytest.raises(InputError, match="at least one record"):
        kept_share(tiny_net, some.take([]), sigma=0.1)
    broken = nn.Linear(3, 2)
    nn.init.constant_(broken.weight, float("nan"))
    with pytest.raises(InputError) as error:
        kept_share(broken, wide(4), sigma=0.1)
    assert str(error.value) == (
        "Wanted finite numbers for the model's answers. Got 8 of 8 that are nan or infinite. "
        "Look at the model: its answers cannot be scored."
    )

"""Relearning: a copy learns, the curve is read off the forget records, the price is known."""

import copy
import math

import pytest
import torch
from torch import nn

from efface.metrics.evaluation import evaluate
from efface.probes.relearning import Relearning, anamnesis, relearning, relearning_cost
from efface.runtime import Passes
from efface.testing import KINDS, model_of_kind, records_of_kind, untrained_model
from efface.types import Records
from tests.probe_promises import passes_of, same, untouched
from tests.refusals import refusal

RATES = (1e-3, 1e-2)


@pytest.fixture(scope="module")
def parts(digits):
    """Forget, retain and unseen digits of the tiny net."""
    return digits.take(range(40)), digits.take(range(40, 300)), digits.take(range(300, 400))


@pytest.fixture(scope="module")
def hidden(tiny_net):
    """The tiny net with another last layer: the knowledge is there, and not shown."""
    net = copy.deepcopy(tiny_net)
    with torch.random.fork_rng(), torch.no_grad():
        torch.manual_seed(3)
        net[-1].reset_parameters()
    return net


def curves(model, parts, *, on=0, **settings):
    """Two learning rates, two epochs on one part."""
    settings = {"learning_rates": RATES, "epochs": 2, "batch_size": 20, **settings}
    return relearning(model, parts[0], parts[on], original=1.0, **settings)


@pytest.mark.parametrize("training_mode", [True, False])
def test_the_given_model_is_untouched_and_the_same_seed_gives_the_same_numbers(
    tiny_net, parts, random_state_kept, training_mode
):
    """Weights, buffers, gradients, flags, hooks and the host's random numbers."""
    found = untouched(
        lambda model: curves(model, parts, training_mode=training_mode), tiny_net, random_state_kept
    )
    assert not same(found, curves(tiny_net, parts, training_mode=not training_mode))


def test_another_seed_draws_another_order(hidden, parts):
    """A seed that changes nothing is not the seed of what is drawn."""
    one, other = (curves(hidden, parts, on=1, seed=seed) for seed in (0, 1))
    assert not same(one, other)


@pytest.mark.parametrize(("on", "every"), [(0, 1), (1, 1), (1, 5), (2, 7)])
def test_the_price_is_known_beforehand(tiny_net, parts, on, every):
    """PassCounter on the model and on every copy of it."""
    settings = {"learning_rates": RATES, "epochs": 2, "batch_size": 20, "every": every}
    said = relearning_cost(parts[0], parts[on], **settings)
    assert passes_of(lambda model: curves(model, parts, on=on, every=every), tiny_net) == said


def test_the_price_written_out():
    """Forty records, 260 to train on, 13 steps an epoch: by hand."""
    forty, others = torch.zeros(40, 1), torch.zeros(260, 1)
    said = relearning_cost(
        *(records(x) for x in (forty, others)),
        learning_rates=(1e-3,),
        epochs=2,
        batch_size=20,
        every=4,
    )
    assert said == Passes(forward=2 * 260 + 40 * (1 + 7), backward=2 * 260)


def records(x):
    """Records of one class."""
    return Records(x, torch.zeros(len(x), dtype=torch.int64))


def test_the_curve_is_that_of_a_loop_written_by_hand(hidden, parts):
    """Adam on the mean cross-entropy over all records of a step, in eval mode."""
    forget = parts[0]
    found = relearning(
        hidden, forget, forget, original=1.0, learning_rates=(3e-3,), epochs=4, training_mode=False
    )[0]
    net = copy.deepcopy(hidden)
    optimizer = torch.optim.Adam(net.parameters(), lr=3e-3)
    shares = []
    for _ in range(5):
        logits = net(forget.x)
        shares.append(float((logits.argmax(1) == forget.y).float().mean()))
        optimizer.zero_grad()
        nn.functional.cross_entropy(logits, forget.y).backward()
        optimizer.step()
    assert found.at == (0, 1, 2, 3, 4)
    assert found.accuracy == pytest.approx(shares)
    assert shares[-1] > shares[0]


def test_records_that_were_hidden_come_back_from_the_retained_ones_alone(hidden, tiny_net, parts):
    """The head was replaced: at first nothing is known, and training elsewhere brings it back."""
    forget = parts[0]
    original = float(evaluate(tiny_net, forget).correct.mean())
    settings = {"original": original, "learning_rates": (1e-2,), "epochs": 3}
    back = relearning(hidden, forget, parts[1], **settings)[0]
    assert back.accuracy[0] < 0.3
    assert back.steps is not None
    blank = relearning(untrained_model(5), forget, parts[1], **settings)[0]
    assert blank.steps is None or blank.steps > back.steps
    assert relearning(tiny_net, forget, parts[1], **settings)[0].steps == 0


def test_frozen_weights_move_too(tiny_net, parts):
    """Whoever has the model need not keep to its flags."""
    frozen = copy.deepcopy(tiny_net).requires_grad_(requires_grad=False)
    assert same(curves(frozen, parts), curves(tiny_net, parts))


@pytest.mark.parametrize("kind", KINDS)
def test_nets_of_other_kinds_are_served(kind):
    """Many labels and values too: what is read is the adapter's share right."""
    some = records_of_kind(kind)
    (found,) = relearning(
        model_of_kind(kind), some, some, original=0.5, learning_rates=(1e-2,), epochs=8
    )
    assert len(found.accuracy) == 9
    assert found.accuracy[-1] >= found.accuracy[0]


def test_half_precision_learns_in_single(tiny_net, parts):
    """In bfloat16 a small step rounds back to where it was."""
    some = curves(copy.deepcopy(tiny_net).bfloat16(), parts)
    assert same(some, curves(copy.deepcopy(tiny_net).bfloat16().float(), parts))


def curve(*shares, wanted=0.95, rate=1e-3):
    """A curve read after each step."""
    return Relearning(
        rate, tuple(range(len(shares))), (*map(float, shares),), wanted, len(shares) - 1
    )


@pytest.mark.parametrize(
    ("ours", "theirs", "index", "low", "high"),
    [
        ((0, 0, 1), (0, 0, 1), 1, 1, 1),
        ((0, 1, 1), (0, 0, 1), 0.5, 0.5, 0.5),
        ((1, 1, 1), (1, 1, 1), 1, 1, 1),
        ((1, 1, 1), (0, 0, 1), 0, 0, 0),
        ((0, 0, 0), (0, 1, 1), None, 2, math.inf),
        ((0, 1, 1), (0, 0, 0), None, 0, 0.5),
        ((0, 0, 0), (0, 0, 0), None, 0, math.inf),
        ((0, 0, 1), (1, 1, 1), None, 2, math.inf),
    ],
)
def test_the_anamnesis_index_is_a_ratio_of_steps(ours, theirs, index, low, high):
    """One for the same model; where a curve ended first, only bounds are known."""
    found = anamnesis(curve(*ours), curve(*theirs))
    assert (found.index, found.low, found.high) == (index, low, high)


def test_curves_that_were_made_otherwise_are_not_compared():
    """A ratio of steps at two learning rates means nothing."""
    assert refusal(anamnesis, curve(0, 1), curve(0, 1, 1, rate=1e-2)) == (
        "Wanted two curves of one learning rate, with the same readings and the same wanted share. "
        "Got 0.001 and 0.01, up to 1 and 2 steps, to 0.950 and 0.950. "
        "Probe both models with the same settings."
    )


def test_what_cannot_be_relearned_is_refused(tiny_net, parts, digits):
    """No records, or an original that knew nothing: the first step would do."""
    assert refusal(relearning, tiny_net, digits.take([]), parts[1], original=1.0) == (
        "Wanted forget records, and records to train on. Got 0 and 260. Give at least one of each."
    )
    assert refusal(relearning, tiny_net, parts[0], parts[1], original=0.0) == (
        "Wanted an original accuracy above 0 and up to 1, a tolerance from 0 to below 1. "
        "Got 0.0 and 0.05. Evaluate the original model on the forget records; "
        "what it never knew cannot be relearned."
    )
    assert refusal(relearning, tiny_net, parts[0], parts[1], original=1.0, every=0) == (
        "Wanted at least one epoch, and a reading every step or more rarely. "
        "Got 10 epochs, every 0. Give integers above 0."
    )

"""Methods that train on: by hand, and the limits in which one is another."""

import pytest
import torch
from by_hand import assert_state, linear, near, one, same, sgd_steps, slope
from refusals import refusal
from torch import nn

from efface.methods.baselines import finetune, negative_gradient, neggrad_plus, retrain
from efface.methods.l1_sparse import l1_sparse
from efface.testing import fresh_from, train_recipe
from efface.types import Records, Split

STAYS, GOES = one([1.0, 0.5], 1), one([-0.5, 2.0], 2)
RATE, DECAY = 0.1, 0.01


@pytest.fixture
def parts(digits):
    """Twenty records that go and fifty that stay."""
    return digits.take(range(20)), digits.take(range(20, 70))


def test_finetune_takes_two_steps_by_hand():
    """Momentum and weight decay as torch and the source have them; the forget record has no say."""
    settings = {"learning_rate": RATE, "momentum": 0.9, "weight_decay": DECAY, "epochs": 2}
    result = finetune(linear(), Split(GOES, retain=STAYS), **settings)
    slopes = [lambda weights: slope(weights, STAYS)] * 2
    near(result.weight, sgd_steps(linear().weight, slopes, RATE, decay=DECAY))


def test_finetune_in_train_mode_gives_batch_norm_the_statistics_of_a_step(tiny_net, parts):
    """A twin by hand: one full batch through the net in train mode."""
    forget, retain = parts
    result = finetune(tiny_net, Split(forget, retain=retain), epochs=1, learning_rate=0.0)
    twin = fresh_from(tiny_net)(0)
    twin.load_state_dict(tiny_net.state_dict())
    twin.train()(retain.x)
    assert_state(result, twin.state_dict(), rtol=1e-5, atol=1e-6)


def test_a_batch_norm_that_may_not_move_keeps_its_statistics(tiny_net, parts):
    """With the last layer open alone, everything else keeps its bits, in train mode too."""
    model = fresh_from(tiny_net)(0)
    model[:-1].requires_grad_(requires_grad=False)
    result = finetune(model, Split(parts[0], retain=parts[1]), epochs=1)
    assert same(result[:-1], model[:-1])
    assert not same(result, model)


def test_negative_gradient_climbs_by_hand():
    """The sign, and nothing but the forget record."""
    settings = {"learning_rate": RATE, "momentum": 0.9, "weight_decay": DECAY, "epochs": 1}
    result = negative_gradient(linear(), Split(GOES), **settings)
    start = linear().weight
    near(result.weight, start - RATE * (-slope(start, GOES) + DECAY * start))


def test_neggrad_plus_takes_its_step_by_hand():
    """Down on what stays, up on what goes, in the weights of the paper."""
    settings = {"forget_weight": 0.2, "learning_rate": RATE, "epochs": 1}
    result = neggrad_plus(linear(), Split(GOES, retain=STAYS), **settings)
    start = linear().weight
    near(result.weight, start - RATE * (0.8 * slope(start, STAYS) - 0.2 * slope(start, GOES)))


def test_neggrad_plus_uses_every_forget_record_equally_often():
    """Three with five retained ones: after three epochs each was a partner five times."""
    seen = []

    class Telling(nn.Linear):
        def forward(self, x):
            seen.extend(x[:, 0].tolist())
            return super().forward(x)

    model = Telling(2, 3).double()
    forget = Records(torch.arange(3.0).double()[:, None].repeat(1, 2) + 100, torch.arange(3))
    retain = Records(torch.zeros(5, 2).double(), torch.tensor([0, 1, 2, 0, 1]))
    neggrad_plus(model, Split(forget, retain=retain), epochs=3, batch_size=2)
    assert [seen.count(value) for value in (100.0, 101.0, 102.0)] == [5, 5, 5]


@pytest.mark.parametrize("training_mode", [True, False])
def test_neggrad_plus_without_a_forget_weight_is_finetune_bit_for_bit(
    tiny_net, parts, training_mode
):
    """Its forget pass is skipped; so the forget records cannot reach it."""
    split = Split(parts[0], retain=parts[1])
    settings = {"epochs": 2, "batch_size": 16, "momentum": 0.9, "weight_decay": 5e-4}
    settings |= {"learning_rate": 0.01, "training_mode": training_mode, "seed": 3}
    first = neggrad_plus(tiny_net, split, forget_weight=0.0, **settings)
    assert same(first, finetune(tiny_net, split, **settings))


def test_neggrad_plus_refuses_a_weight_that_leaves_nothing_to_hold():
    split, settings = Split(GOES, retain=STAYS), {"forget_weight": 0.5, "strength": 2.0}
    assert refusal(neggrad_plus, linear(), split, **settings) == (
        "Wanted forget_weight times strength from 0 to below 1. Got 1. "
        "At 1 the retained records would not count; change forget_weight."
    )


@pytest.mark.parametrize("copies", [1, 2])
def test_l1_sparse_takes_the_steps_of_two_epochs_by_hand(copies):
    """γ falls to γ/2 in the second epoch, and stays the same within one, of equal records."""
    retain = Records(STAYS.x.repeat(copies, 1), STAYS.y.repeat(copies))
    settings = {"penalty": 0.3, "learning_rate": RATE, "momentum": 0.0, "weight_decay": 0.0}
    settings |= {"epochs": 2, "batch_size": 1}
    result = l1_sparse(linear(), Split(GOES, retain=retain), **settings)
    weights = linear().weight
    for penalty in [0.3] * copies + [0.15] * copies:
        weights = weights - RATE * (slope(weights, STAYS) + penalty * weights.sign())
    near(result.weight, weights)


def test_l1_sparse_without_a_penalty_is_finetune_bit_for_bit(tiny_net, parts):
    """The limit in which it must equal something known."""
    split = Split(parts[0], retain=parts[1])
    settings = {"epochs": 2, "batch_size": 16, "learning_rate": 0.01, "seed": 3}
    first = l1_sparse(tiny_net, split, penalty=0.0, **settings)
    assert same(first, finetune(tiny_net, split, **settings))


def test_retrain_with_nothing_to_forget_is_the_recipe_bit_for_bit(tiny_net, digits):
    """The same weights as the user's own two lines."""
    everything, fresh = digits.take(range(60)), fresh_from(tiny_net)
    split = Split(digits.take([]), retain=everything, fresh=fresh, train=train_recipe)
    assert same(retrain(tiny_net, split, seed=7), train_recipe(fresh(7), everything, 7))


def test_retrain_keeps_no_weight_of_the_model(tiny_net, parts):
    """Resetting the last layer alone, as one code base does, would keep all the others."""
    start = {}

    def train(model, records, seed):
        start.update({name: weight.clone() for name, weight in model.named_parameters()})
        return train_recipe(model, records, seed)

    retrain(tiny_net, Split(parts[0], retain=parts[1], fresh=fresh_from(tiny_net), train=train))
    drawn = {name for name in start if start[name].unique().numel() > 1}
    assert {"0.weight", "3.weight", "7.weight"} <= drawn
    assert not any(torch.equal(start[name], tiny_net.get_parameter(name)) for name in start)

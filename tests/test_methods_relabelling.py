"""Methods that teach another label: by hand, and the limits in which one is another."""

from dataclasses import replace

import pytest
import torch
from by_hand import Answers, accuracy, linear, near, one, same, slope
from torch import nn

from efface.methods._perturb import other_class, random_class
from efface.methods.jit_forms import mislabel
from efface.methods.relabelling import (
    amnesiac,
    join_unlabelled,
    random_labels,
    relabelled_loss,
    salun,
)
from efface.types import Records, Split

STAYS, GOES = one([1.0, 0.5], 1), one([-0.5, 2.0], 2)
RATE = 0.1
PLAIN = {"learning_rate": RATE, "momentum": 0.0, "weight_decay": 0.0}


@pytest.fixture
def parts(digits):
    """Twenty records that go and fifty that stay."""
    return digits.take(range(20)), digits.take(range(20, 70))


def test_labels_are_drawn_from_all_classes_and_from_all_others():
    """Uniform over many records; the own label is in the one draw and never in the other."""
    ids = [str(number) for number in range(6000)]
    own = torch.arange(6000) % 3
    anything = random_class(ids, 3, seed=1, step=0)
    another = other_class(ids, own, 3, seed=1)
    assert torch.bincount(anything, minlength=3).min() > 1850
    assert not (another == own).any()
    counts = torch.bincount((another - own) % 3, minlength=3).tolist()
    assert counts == pytest.approx([0, 3000, 3000], abs=150)
    assert not torch.equal(anything, random_class(ids, 3, seed=1, step=1))
    assert torch.equal(another[5:9], other_class(ids[5:9], own[5:9], 3, seed=1))


def test_random_labels_takes_four_steps_by_hand():
    """The forget record under a new draw each epoch, the other under its own label."""
    result = random_labels(linear(), Split(GOES, retain=STAYS), epochs=4, seed=1, **PLAIN)
    weights = linear().weight
    labels = [int(random_class(GOES.ids, 3, seed=1, step=epoch)) for epoch in range(4)]
    assert len(set(labels)) > 1
    for drawn in labels:
        weights = weights - RATE * (slope(weights, GOES, drawn) + slope(weights, STAYS)) / 2
    near(result.weight, weights)


def test_parts_that_are_both_numbered_from_0_stay_apart():
    """Ids that are row numbers name other records in each part."""
    x = torch.arange(4.0)[:, None]
    forget, retain = Records(x[:2], torch.tensor([5, 6])), Records(x[2:], torch.tensor([7, 8]))
    both = join_unlabelled(forget, retain)
    assert len(set(both.ids)) == 4
    assert both.y[2:].tolist() == [7, 8]


def test_salun_moves_the_weights_of_the_largest_gradients_and_no_other():
    """Momentum and decay would move the others: they keep their bits over many steps."""
    start = linear().weight.detach()
    settings = {"learning_rate": RATE, "momentum": 0.9, "weight_decay": 0.1}
    split = Split(GOES, retain=STAYS)
    result = salun(linear(), split, keep=0.5, epochs=5, **settings).weight.detach()
    order = slope(start, GOES).abs().flatten().argsort(descending=True)
    moved = (result != start).flatten()
    assert moved[order[:3]].all()
    assert not moved[order[3:]].any()


def test_random_labels_and_salun_take_a_step_without_others_by_hand():
    """The zero-shot form: one record, one draw, one step; salun's where the mask is."""
    start, settings = linear().weight.detach(), {"epochs": 1, "seed": 4, **PLAIN}
    step = RATE * slope(start, GOES, int(random_class(GOES.ids, 3, seed=4, step=0)))
    near(random_labels(linear(), Split(GOES), **settings).weight, start - step)
    sizes = slope(start, GOES).abs()
    mask = sizes >= sizes.flatten().sort(descending=True).values[2]
    near(salun(linear(), Split(GOES), keep=0.5, **settings).weight, start - mask * step)


def test_salun_keeps_a_share_of_all_weights_together(tiny_net, parts):
    """Not of each layer; dead weights of gradient 0 must not widen the share."""
    settings = {"keep": 0.3, "epochs": 2, "learning_rate": 0.01, "batch_size": 16}
    result = salun(tiny_net, Split(parts[0], retain=parts[1]), **settings)
    old, new = (nn.utils.parameters_to_vector(one.parameters()) for one in (tiny_net, result))
    assert 0.25 < float((old != new).double().mean()) <= 0.3


def test_salun_keeping_every_weight_is_random_labels_bit_for_bit(tiny_net, parts):
    """The limit in which it must equal something known."""
    split, settings = Split(parts[0], retain=parts[1]), {"epochs": 2, "batch_size": 16}
    first = salun(tiny_net, split, keep=1.0, seed=3, **settings)
    assert same(first, random_labels(tiny_net, split, seed=3, **settings))


def test_amnesiac_takes_the_first_step_of_adam_by_hand():
    """With a drawn class for each record; Adam's first step is g / (|g| + ε)."""
    result = amnesiac(linear(), Split(GOES, retain=STAYS), learning_rate=RATE, epochs=1, seed=4)
    start = linear().weight
    drawn = int(other_class(GOES.ids, GOES.y, 3, seed=4))
    assert drawn != 2
    gradient = (slope(start, GOES, drawn) + slope(start, STAYS)) / 2
    near(result.weight, start - RATE * gradient / (gradient.abs() + 1e-8))


def test_mislabel_pushes_a_record_to_its_runner_up_by_hand():
    """GOES is answered 1 by the net, so it has left its own class; STAYS is pushed to the next."""
    start = linear().weight
    scores = start @ STAYS.x[0]
    assert scores.argsort(descending=True).tolist() == [1, 0, 2]
    result = mislabel(linear(), Split(STAYS), learning_rate=RATE, epochs=1)
    near(result.weight, start - RATE * slope(start, STAYS, 0))
    assert same(mislabel(linear(), Split(GOES), learning_rate=RATE), linear())


def test_mislabel_ends_once_every_prediction_has_flipped(tiny_net, parts):
    """No further than it must: all are predicted otherwise, and steps stop an epoch later."""
    steps = Answers()
    result = mislabel(tiny_net, Split(parts[0]), learning_rate=0.02, epochs=500, callback=steps)
    assert accuracy(result, parts[0]) == 0
    assert steps.losses[-1] == 0
    assert all(steps.losses[:-1])
    assert len(steps.losses) < 500


def test_an_id_that_looks_like_the_mark_of_what_goes_stays(digits):
    """Ids may be paths: a record that stays in a folder `forget` keeps its label."""
    stays = replace(digits.take(range(3)), ids=("first 0", "first 1", "second 0"))
    seen, forget = [], digits.take([7])
    # ``extend`` returns None: the labels are drawn as 0
    loss = relabelled_loss(lambda ids, *_: seen.extend(ids) or torch.zeros(len(ids)).long())
    loss(nn.Sequential(nn.Flatten(), nn.Linear(64, 10)), join_unlabelled(forget, stays), 0)
    assert seen == [*forget.ids]

"""AMUN: the closest input in closed form and as in the authors' loop, and its steps by hand."""

from dataclasses import replace

import pytest
import torch
from by_hand import linear_problem, mean_slope, near, sgd_steps
from refusals import refusal
from torch import nn

from efface.methods._records import join
from efface.methods.amun import amun, find_closest
from efface.task import frozen_teacher
from efface.types import Records, Split

MEAN, STD = 0.3053, 0.3760  # of the digits, in 0..1
SEARCH = {"radius": 0.04, "steps": 50, "doublings": 10}
RATE, DECAY = 0.2, 0.01


def closest_of_plane(gap, half=0.5, **search):
    """Of one record at (0, 0) of class 0, within ± ``half``; f₀ is 1 where 3 a + 4 b > gap."""
    model, half = nn.Linear(2, 2).double(), torch.as_tensor(half).double()
    with torch.no_grad():
        model.weight.copy_(torch.tensor([[0.0, 0.0], [3.0, 4.0]]))
        model.bias.copy_(torch.tensor([gap, 0.0]))
    record = Records(torch.zeros(1, 2).double(), torch.tensor([0]), low=-half, high=half)
    return find_closest(frozen_teacher(model), record, **{**SEARCH, **search})


@pytest.mark.parametrize("gap", [0.05, 0.21, 2.0])
def test_the_closest_input_of_a_plane_is_the_first_step_beyond_it(gap):
    """The way is straight, in steps of a tenth of the radius; then in twice as long ones."""
    closest, length, radius = closest_of_plane(gap), 0.0, 0.04
    while 5 * length <= gap:
        length += radius / 10
        radius *= 2 if length > radius - 1e-9 else 1
    near(closest.x, torch.tensor([[0.6, 0.8]]).double() * length, atol=1e-7)
    assert (closest.y.tolist(), closest.flipped.tolist()) == ([1], [True])
    assert closest.length.item() == pytest.approx(length)


def test_a_record_that_flips_with_the_last_step_is_found():
    """Three steps of 0.004 are beyond 0.01, two are not."""
    found = [closest_of_plane(0.05, steps=steps, doublings=0).flipped for steps in (2, 3)]
    assert [bool(one) for one in found] == [False, True]


def test_lengths_are_in_units_of_the_range_of_each_feature():
    """A feature that reaches ten times as far is moved ten times as far; one of no range never."""
    spans = torch.tensor([1.0, 0.1]).double()
    closest = closest_of_plane(0.5, spans)
    way = torch.tensor([3.0, 4.0]).double() * (2 * spans) ** 2
    assert torch.allclose(closest.x / closest.x.norm(), way / way.norm())
    assert closest.length.item() == pytest.approx((closest.x / (2 * spans)).norm().item())
    closest = closest_of_plane(0.5, [1.0, 0.0])
    assert closest.x[0, 1] == 0
    assert closest.flipped.all()


def test_it_stays_within_the_bounds_and_says_when_nothing_is_found():
    """The plane lies outside of what an input can be."""
    closest = closest_of_plane(4.0)
    assert closest.x.abs().max() <= 0.5
    assert not closest.flipped.any()


def authors_loop(model, x, y):
    """Their attack from its description, one record in pixels: (x', its predicted class)."""
    adversarial, radius = x.clone(), 0.04
    for _ in range(12):
        for _ in range(50):
            adversarial = adversarial.detach().requires_grad_()
            answer = model(adversarial)
            if answer.argmax() != y:
                return adversarial.detach(), int(answer.argmax())
            (slope,) = torch.autograd.grad(nn.functional.cross_entropy(answer, y), adversarial)
            moved = adversarial.detach() + radius / 10 * slope / slope.norm()
            way = moved - x
            adversarial = (x + way * min(1, radius / way.norm())).clamp(0, 1)
        radius *= 2
    raise AssertionError("nothing found")


def test_the_attack_is_that_of_the_authors_on_a_net(tiny_net, digits):
    """In pixels there, in the model's own space here; one record is wrong from the start."""
    records = digits.take(range(300, 330))
    closest = find_closest(frozen_teacher(tiny_net), records, **SEARCH)
    assert closest.flipped.all()
    assert (closest.length == 0).any()
    for row in range(len(records)):
        pixels, y = records.x[row : row + 1] * STD + MEAN, records.y[row : row + 1]
        expected = authors_loop(lambda z: tiny_net((z - MEAN) / STD), pixels, y)
        near(closest.x[row] * STD + MEAN, expected[0][0], atol=1e-3)
        assert int(closest.y[row]) == expected[1]


def known():
    """Three classes, and five records labelled as the model predicts them."""
    model, records = linear_problem(3, 4, 5)
    return model, replace(records, y=model(records.x).argmax(1))


@pytest.mark.parametrize("with_forget", [True, False])
def test_equals_the_steps_by_hand(with_forget):
    """Full batches; momentum is kept, and η falls to a tenth after every second epoch."""
    model, forget = known()
    settings = {"learning_rate": RATE / 2, "strength": 2.0, "weight_decay": DECAY}
    settings |= {"with_forget": with_forget, "decay_every": 2, "epochs": 5}
    result = amun(model, Split(forget), **settings)
    closest = find_closest(frozen_teacher(model), forget, **SEARCH)
    assert (closest.y != forget.y).all()
    records = Records(closest.x, closest.y)
    records = join(records, forget) if with_forget else records
    slopes = [lambda weights: mean_slope(weights, records.x, records.y)] * 5
    rates = [RATE * 0.1 ** (epoch // 2) for epoch in range(5)]
    near(result.weight, sgd_steps(model.weight, slopes, rates, decay=DECAY))


def test_what_is_not_found_is_not_taught():
    """A label that nobody was led to would be a label of the record's own class."""
    model, forget = known()
    settings = {"with_forget": False, "doublings": 0, "radius": 0.1}
    closest = find_closest(frozen_teacher(model), forget, radius=0.1, steps=50, doublings=0)
    rows = closest.flipped.nonzero()[:, 0]
    assert 0 < len(rows) < len(forget)
    expected = amun(model, Split(forget.take(rows)), **settings)
    near(amun(model, Split(forget), **settings).weight, expected.weight)


def test_a_model_that_answers_everything_alike_is_refused():
    """Nothing near its records could be taught."""
    model, forget = known()
    with torch.no_grad():
        model.weight.zero_()
    same = Records(forget.x, torch.zeros(5, dtype=torch.int64))
    assert refusal(amun, model, Split(same)) == (
        "Wanted an input near a forget record that the model classifies otherwise. "
        "Got none for 5 records. "
        "The model may predict one class only; else raise radius or doublings."
    )

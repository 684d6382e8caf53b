"""AMUN: the closest input in closed form and as in the authors' loop, and its steps by hand."""

from dataclasses import replace

import pytest
import torch
from by_hand import linear_problem
from torch import nn

from efface.errors import InputError
from efface.methods._records import join
from efface.methods.amun import amun, find_closest
from efface.task import frozen_teacher
from efface.types import Records, Split

MEAN, STD = 0.3053, 0.3760  # of the digits, in 0..1
SEARCH = {"radius": 0.04, "steps": 50, "doublings": 10}
RATE, DECAY = 0.2, 0.01


def two_classes(gap):
    """f₀ says 1 where 3 a + 4 b > gap; one record at (0, 0), of class 0."""
    model = nn.Linear(2, 2).double()
    with torch.no_grad():
        model.weight.copy_(torch.tensor([[0.0, 0.0], [3.0, 4.0]]))
        model.bias.copy_(torch.tensor([gap, 0.0]))
    at_0 = torch.zeros(1, 2, dtype=torch.float64)
    return model, at_0, torch.tensor([0])


@pytest.mark.parametrize("gap", [0.05, 0.21, 2.0])
def test_the_closest_input_of_a_plane_is_the_first_step_beyond_it(gap):
    """The way is straight, in steps of a tenth of the radius; then in twice as long ones."""
    model, x, y = two_classes(gap)
    wide = {"low": torch.tensor(-0.5).double(), "high": torch.tensor(0.5).double()}
    near = find_closest(frozen_teacher(model), Records(x, y, **wide), **SEARCH)
    length, radius = 0.0, 0.04
    while 5 * length <= gap:
        length += radius / 10
        radius *= 2 if length > radius - 1e-9 else 1
    expected = torch.tensor([[0.6, 0.8]]).double() * length
    torch.testing.assert_close(near.x, expected, rtol=0, atol=1e-7)
    assert (near.y.tolist(), near.flipped.tolist()) == ([1], [True])
    assert near.length.item() == pytest.approx(length)


def test_a_record_that_flips_with_the_last_step_is_found():
    """Three steps of 0.004 are beyond 0.01, two are not."""
    model, x, y = two_classes(0.05)
    wide = {"low": torch.tensor(-0.5).double(), "high": torch.tensor(0.5).double()}
    taken = {steps: {"radius": 0.04, "steps": steps, "doublings": 0} for steps in (2, 3)}
    found = [
        find_closest(frozen_teacher(model), Records(x, y, **wide), **taken[n]).flipped
        for n in (2, 3)
    ]
    assert [bool(one) for one in found] == [False, True]


def test_lengths_are_in_units_of_the_range_of_each_feature():
    """A feature that reaches ten times as far is moved ten times as far; one of no range never."""
    model, x, y = two_classes(0.5)
    spans = torch.tensor([1.0, 0.1]).double()
    near = find_closest(frozen_teacher(model), Records(x, y, low=-spans, high=spans), **SEARCH)
    way = torch.tensor([3.0, 4.0]).double() * (2 * spans) ** 2
    assert torch.allclose(near.x / near.x.norm(), way / way.norm())
    assert near.length.item() == pytest.approx((near.x / (2 * spans)).norm().item())
    flat = torch.tensor([1.0, 0.0]).double()
    near = find_closest(frozen_teacher(model), Records(x, y, low=-flat, high=flat), **SEARCH)
    assert near.x[0, 1] == 0
    assert near.flipped.all()


def test_it_stays_within_the_bounds_and_says_when_nothing_is_found():
    """The plane lies outside of what an input can be."""
    model, x, y = two_classes(4.0)
    near = find_closest(
        frozen_teacher(model), Records(x, y, low=x[0] - 0.5, high=x[0] + 0.5), **SEARCH
    )
    assert near.x.abs().max() <= 0.5
    assert not near.flipped.any()


def authors_loop(model, x, y):
    """Their attack from its description, one record in pixels: (x', what is said, ε)."""
    adversarial, radius = x.clone(), 0.04
    for _ in range(12):
        for _ in range(50):
            adversarial = adversarial.detach().requires_grad_()
            answer = model(adversarial)
            if answer.argmax() != y:
                return adversarial.detach(), int(answer.argmax()), radius
            (slope,) = torch.autograd.grad(nn.functional.cross_entropy(answer, y), adversarial)
            moved = adversarial.detach() + radius / 10 * slope / slope.norm()
            way = moved - x
            adversarial = (x + way * min(1, radius / way.norm())).clamp(0, 1)
        radius *= 2
    raise AssertionError("nothing found")


def test_the_attack_is_that_of_the_authors_on_a_net(tiny_net, digits):
    """In pixels there, in the model's own space here; one record is wrong from the start."""
    records = digits.take(range(300, 330))
    near = find_closest(frozen_teacher(tiny_net), records, **SEARCH)
    assert near.flipped.all()
    assert (near.length == 0).any()
    for row in range(len(records)):
        pixels = records.x[row : row + 1] * STD + MEAN
        told = authors_loop(lambda z: tiny_net((z - MEAN) / STD), pixels, records.y[row : row + 1])
        torch.testing.assert_close(near.x[row] * STD + MEAN, told[0][0], rtol=0, atol=1e-3)
        assert int(near.y[row]) == told[1]


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
    near = find_closest(frozen_teacher(model), forget, **SEARCH)
    assert (near.y != forget.y).all()
    taught = Records(near.x, near.y)
    taught = join(taught, forget) if with_forget else taught
    weights, speed = model.weight.detach(), 0
    for epoch in range(5):
        wrong = torch.softmax(taught.x @ weights.T, 1) - nn.functional.one_hot(taught.y, 3)
        speed = 0.9 * speed + wrong.T @ taught.x / len(taught) + DECAY * weights
        weights = weights - RATE * 0.1 ** (epoch // 2) * speed
    torch.testing.assert_close(result.weight.detach(), weights, rtol=0, atol=1e-12)


def test_what_is_not_found_is_not_taught():
    """A label that nobody was led to would be a label of the record's own class."""
    model, forget = known()
    settings = {"with_forget": False, "doublings": 0, "radius": 0.1}
    near = find_closest(frozen_teacher(model), forget, radius=0.1, steps=50, doublings=0)
    rows = near.flipped.nonzero()[:, 0]
    assert 0 < len(rows) < len(forget)
    expected = amun(model, Split(forget.take(rows)), **settings)
    result = amun(model, Split(forget), **settings)
    torch.testing.assert_close(result.weight, expected.weight, rtol=0, atol=1e-12)


def test_a_model_that_answers_everything_alike_is_refused():
    """Nothing near its records could be taught."""
    model, forget = known()
    with torch.no_grad():
        model.weight.zero_()
    same = Records(forget.x, torch.zeros(5, dtype=torch.int64))
    with pytest.raises(InputError) as error:
        amun(model, Split(same))
    assert str(error.value) == (
        "Wanted an input near a forget record that the model classifies otherwise. "
        "Got none for 5 records. "
        "The model may predict one class only; else raise radius or doublings."
    )

"""JiT: its loss by hand, where it could divide by nothing, and that its settings hardly matter."""

import copy
import math

import pytest
import torch
from torch import nn

from efface.errors import InputError
from efface.methods._perturb import add_noise, natural_spectrum, normals
from efface.methods._unseen import lower_logits, search_sigma
from efface.methods.jit import REGULARISER_DRAWS, Regulariser, jit, jit_loss
from efface.task import frozen_teacher
from efface.types import Records, Split, record_key
from efface.unlearn import capture_facts


def _records(n: int = 8, dtype: torch.dtype = torch.float64) -> Records:
    generator = torch.Generator().manual_seed(0)
    return Records(
        torch.randn(n, 4, generator=generator, dtype=dtype), torch.zeros(n, dtype=torch.int64)
    )


def test_the_loss_is_the_formula_by_hand():
    """Equation 1 with the given model's branch, and λ times the held neighbours' distance."""
    records, sigma, step, weight = _records(), 0.1, 3, 1.7
    teacher, student = nn.Linear(4, 2).double(), nn.Linear(4, 2).double()
    teacher.requires_grad_(requires_grad=False)
    loss = jit_loss(
        teacher,
        Split(records),
        sigma=sigma,
        perturbations=2,
        regulariser=Regulariser(weight),
        seed=5,
    )
    found = loss(student, records, step)

    low, high = records.x.min(), records.x.max()

    def neighbours(draw: int) -> torch.Tensor:
        noise = normals(records.ids, (4,), seed=5, step=draw).double()
        return (records.x + sigma * (high - low) * noise).clamp(low, high)

    for row, identity in enumerate(records.ids):
        x, terms, scales = records.x[row], [], []
        for draw in range(2):
            near = neighbours(draw)[row]
            distance, length = (student(x) - teacher(near)).norm(), (x - near).norm()
            terms.append(distance / length)
            scales.append(distance * length)
        expected = sum(terms) / 2
        if (record_key(identity) + step) % 4 == 0:
            far = neighbours(REGULARISER_DRAWS + step)[row]
            moved = (student(far) - teacher(far)).square().sum()
            expected = expected + 4 * weight * moved / (sum(scales) / 2)
        assert float(found[row].detach()) == pytest.approx(float(expected.detach()), rel=1e-9)
    assert {(record_key(i) + step) % 4 == 0 for i in records.ids} == {True, False}


def test_gradients_are_those_of_the_formula_with_its_scale_held_still():
    """Central differences of the loss, where d ‖ξ‖ in the second term is a constant."""
    records, teacher, student = _records(), nn.Linear(4, 2).double(), nn.Linear(4, 2).double()
    loss = jit_loss(
        frozen_teacher(teacher), Split(records), sigma=0.1, regulariser=Regulariser(0.0)
    )
    loss(student, records, 0).sum().backward()
    with torch.no_grad():
        values = []
        for shift in (1e-6, -1e-6):
            moved = copy.deepcopy(student)
            moved.weight[1, 2] += shift
            values.append(float(loss(moved, records, 0).sum()))
    assert float(student.weight.grad[1, 2]) == pytest.approx(
        (values[0] - values[1]) / 2e-6, rel=1e-6
    )


def test_a_blank_image_alone_leaves_every_weight_as_it_was():
    """In the authors' code one blank image in a batch of one turns every weight into NaN."""
    blank = Records(torch.zeros(1, 4), torch.tensor([0]))
    model = nn.Linear(4, 2)
    student = jit(model, Split(blank), steps=3)
    assert torch.equal(student.weight, model.weight)


def test_where_the_search_for_sigma_begins_hardly_matters(tiny_net, digits):
    """Three orders of magnitude apart, within the 9 % that the search is fine."""
    found = [
        search_sigma(frozen_teacher(tiny_net), digits, 0.3, start=start, seed=0)
        for start in (0.003, 0.1, 3.0)
    ]
    sigmas, shares = zip(*found, strict=True)
    assert max(sigmas) / min(sigmas) < 1.15
    assert all(abs(share - 0.3) < 0.06 for share in shares)


def test_sigma_is_where_neighbours_cross_a_known_boundary():
    """One number, boundary at 0, records at 1: P(1 + σ z > 0) = Φ(1/σ), range 2, white noise."""
    records = Records(
        torch.ones(512, 1), torch.ones(512, dtype=torch.int64),
        low=torch.tensor(-100.0), high=torch.tensor(100.0),
    )  # fmt: skip
    net = nn.Linear(1, 2, bias=False)
    net.weight.data = torch.tensor([[0.0], [1.0]])
    sigma, _ = search_sigma(frozen_teacher(net), records, 0.7, start=0.15, seed=0)
    deviation = 200 * sigma
    kept = 0.5 * (1 + math.erf(1 / deviation / math.sqrt(2)))
    assert kept == pytest.approx(0.7, abs=0.04)


def test_a_share_of_all_neighbours_is_where_the_first_one_changes():
    """A model that is right on all of its holdout: the search may not end where it began."""
    model = nn.Linear(1, 2)
    with torch.no_grad():
        model.weight.copy_(torch.tensor([[1.0], [-1.0]]))
        model.bias.zero_()
    records = Records(torch.full((100, 1), 0.2), torch.zeros(100, dtype=torch.int64),
                      low=torch.tensor(-1.0), high=torch.tensor(1.0))  # fmt: skip
    found = [search_sigma(model, records, 1.0, start=start, seed=0) for start in (0.01, 1.0)]
    assert all(sigma < 0.1 and kept > 0.9 for sigma, kept in found)


def test_a_neighbourhood_without_an_end_leaves_the_search_where_it_began():
    """A net that answers everything alike has no σ at which answers change."""
    net = nn.Linear(4, 2)
    net.weight.data.zero_()
    found = search_sigma(frozen_teacher(net), _records(dtype=torch.float32), 0.5, start=0.2, seed=0)
    assert found == (0.2, 1.0)


def test_natural_noise_has_the_spectrum_of_photographs_and_deviation_1():
    """Power falls as one over the square of the frequency; each pixel's variance is 1."""
    white = normals([str(i) for i in range(400)], (3, 16, 16), seed=0, step=0)
    noise = natural_spectrum(white)
    assert float(noise.std()) == pytest.approx(1.0, abs=0.02)
    power = torch.fft.fft2(noise).abs().square().mean((0, 1))
    assert float(power[0, 1] / power[0, 4]) == pytest.approx(16, rel=0.1)
    assert float(power[2, 0] / power[4, 0]) == pytest.approx(4, rel=0.1)


def test_noise_on_what_is_no_image_is_white():
    """Numbers in a table have no neighbours in space."""
    records = _records(dtype=torch.float32)
    noise = (add_noise(records, 0.01, seed=0, step=0, natural=True).x - records.x) / 0.01
    inside = normals(records.ids, (4,), seed=0, step=0) * (records.high - records.low)
    closest = (noise - inside).abs() < 1e-3  # but for those that the bounds cut
    assert closest.float().mean() > 0.8


def test_what_it_could_not_reach_is_said(tiny_net, digits):
    """Budget over, way not done: the facts say how far it came."""
    facts: dict = {}
    with capture_facts(facts):
        jit(tiny_net, Split(digits.take(range(60))), steps=1)
    assert {"sigma", "kept", "wanted", "progress", "changed", "weight"} <= facts.keys()
    assert facts["progress"] < 0.95


def test_how_many_neighbours_keep_the_answer_follows_from_what_is_known(tiny_net, digits):
    """What was said, else the accuracy on the holdout, else a guess; whatever the request is."""
    wanted, some, unseen = {}, digits.take(range(60)), digits.take(range(300, 350))
    for name, split, settings in (
        ("forget_classes", Split(some, forget_classes=(3,)), {}),
        ("guess", Split(some), {}),
        ("said", Split(some, holdout=unseen), {"expected_accuracy": 0.8}),
        ("holdout", Split(some, holdout=unseen), {}),
    ):
        facts: dict = {}
        with capture_facts(facts):
            jit(tiny_net, split, steps=1, **settings)
        wanted[name] = facts["wanted"]
    with torch.no_grad():
        right = float((tiny_net(unseen.x).argmax(1) == unseen.y).double().mean())
    assert wanted == {
        "forget_classes": 0.7,
        "guess": 0.7,
        "said": 0.8,
        "holdout": pytest.approx(right),
    }


@pytest.mark.parametrize(
    ("forget_classes", "mislabelled", "hidden"),
    [((), False, []), ((1,), False, [1]), ((), True, [2])],
)
def test_a_class_that_leaves_is_as_low_as_the_lowest_and_a_wrong_label_as_the_mean(
    forget_classes, mislabelled, hidden
):
    """By hand, on one record of label 2 and a net of three outputs."""
    teacher, student = nn.Linear(4, 3).double(), nn.Linear(4, 3).double()
    x = torch.tensor([[1.0, -1.0, 0.5, 2.0]], dtype=torch.float64)
    record = Records(x, torch.tensor([2]), low=torch.tensor(-9.0), high=torch.tensor(9.0))
    split = Split(record, forget_classes=forget_classes)
    loss = jit_loss(
        teacher, split, sigma=0.01, mislabelled=mislabelled, regulariser=Regulariser(0.0)
    )
    noise = 0.18 * normals(record.ids, (4,), seed=0, step=0).double()
    target = teacher(x + noise)[0].detach()
    others = [float(target[k]) for k in range(3) if k not in hidden]
    level = sum(others) / len(others) if mislabelled else min(others)
    target = torch.tensor([level if k in hidden else float(target[k]) for k in range(3)])
    expected = float((student(x)[0].detach() - target).norm() / noise.norm())
    assert float(loss(student, record, 0).detach()) == pytest.approx(expected, rel=1e-6)


def test_of_two_classes_the_hidden_one_is_as_far_below_the_other_as_it_was_above():
    """At the level of the one other it would be a tie; with none left there is nothing to say."""
    answer = torch.tensor([[1.0, 4.0], [1.0, -2.0], [1.0, 4.0]])
    gone = torch.tensor([[False, True], [False, True], [True, True]])
    for wrong in (False, True):
        found = lower_logits(answer, gone, to_mean=wrong)
        assert found.tolist() == [[1.0, -2.0], [1.0, -2.0], [1.0, 4.0]]


def test_a_leaving_class_of_values_is_refused():
    """A class leaves only where there are classes."""
    records = Records(torch.rand(20, 4), torch.rand(20, 2))
    with pytest.raises(InputError) as error:
        jit(nn.Linear(4, 2), Split(records, forget_classes=(1,)))
    assert str(error.value) == (
        "Wanted one class of several, where a class leaves or labels are wrong. Got regression. "
        "Name the records alone, without forget_classes and mislabelled."
    )


def test_a_neighbour_answered_as_the_class_that_leaves_is_not_held():
    """It would hold what is to go: with every neighbour in that class λ has nothing to act on."""
    teacher, student = nn.Linear(4, 3).double(), nn.Linear(4, 3).double()
    with torch.no_grad():
        teacher.bias.copy_(torch.tensor([0.0, 100.0, 0.0]))
    records = _records()
    few, many = (
        jit_loss(
            frozen_teacher(teacher),
            Split(records, forget_classes=(1,)),
            regulariser=Regulariser(weight),
        )
        for weight in (0.0, 50.0)
    )
    assert torch.equal(few(student, records, 3), many(student, records, 3))

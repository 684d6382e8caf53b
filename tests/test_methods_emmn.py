"""EMMN: noise of both kinds, impair and repair by hand, and the form of the later comparison."""

import copy

import pytest
import torch
from by_hand import Answers, adam_step, assert_state, descend_by_torch, linear_problem, near

from efface.methods._attacks import optimize_noise
from efface.methods.zero_shot import SEED_OFFSET, emmn
from efface.task import frozen_teacher
from efface.types import Records, Split

RATE, SEED = 0.02, 3
# What an input is; nobody may look at its numbers.
LIKE = Records(torch.full((1, 4), torch.nan, dtype=torch.float64), torch.tensor([0]))


def noise(model, labels, sign, steps, seed, like=LIKE):
    """Inputs of one kind, in the weights of the method; the test of UNSIR has their loop."""
    how = {"sign": sign, "penalty": 0.1 if sign < 0 else 0.0, "learning_rate": 0.1, "steps": steps}
    return optimize_noise(frozen_teacher(model), like, torch.tensor(labels), **how, seed=seed).x


@pytest.mark.parametrize("repair_epochs", [0, 1])
def test_impair_and_repair_are_the_steps_by_hand(repair_epochs):
    """The forget class keeps its label, as the authors have it; repair shows it no more."""
    model, split = linear_problem(3, 4)[0], Split(LIKE, forget_classes=(1,))
    counts = {"noise_per_class": 3, "noise_steps": 4, "retained_steps": 5, "copies": 2}
    passes = {"impair_epochs": 1, "repair_epochs": repair_epochs, "batch_size": 100}
    settings = {"learning_rate": RATE, "strength": 2.0, "seed": SEED}
    result = emmn(model, split, **counts, **passes, **settings)
    gone = noise(model, [1] * 3, -1.0, 4, SEED)
    kept = noise(model, [0, 0, 0, 2, 2, 2], 1.0, 5, SEED + SEED_OFFSET)
    x = torch.cat([gone, gone, kept, kept])
    y = torch.tensor([1] * 6 + [0, 0, 0, 2, 2, 2] * 2)
    expected = adam_step(model.weight.detach(), x, y, 2 * RATE)
    if repair_epochs:
        expected = adam_step(expected, x[6:], y[6:], RATE)
    near(result.weight, expected, atol=1e-9)


def test_the_form_of_the_later_comparison_is_a_loop_of_adam(tiny_net, digits):
    """A twin from its description: three images a class, train mode, no repair."""
    split = Split(digits.take([0]), forget_classes=(4,))
    others = [one for one in range(10) if one != 4 for _ in range(3)]
    model = copy.deepcopy(tiny_net).double()  # a gradient of rounding alone is a step of Adam
    gone = noise(model, [4] * 3, -1.0, 25, 0, digits)
    kept = noise(model, others, 1.0, 30, SEED_OFFSET, digits)
    x, y = torch.cat([gone, kept]).double(), torch.tensor([4] * 3 + others)
    student = copy.deepcopy(model).train()
    descend_by_torch(student, x, y, torch.optim.Adam(student.parameters(), lr=1e-4))
    form = {"noise_per_class": 3, "copies": 1, "repair_epochs": 0, "training_mode": True}
    result = emmn(model, split, **form, batch_size=30)
    assert_state(result, student.state_dict(), atol=1e-8)


def test_noise_is_taken_for_what_stays_and_not_for_what_goes(tiny_net, digits):
    """What the whole method rests on, in the settings of the comparison."""
    labels = torch.arange(10).repeat_interleave(4)
    kept, gone = (
        tiny_net(noise(tiny_net, labels.tolist(), sign, steps, 0, digits)).argmax(1)
        for sign, steps in ((1.0, 30), (-1.0, 25))
    )
    assert (kept == labels).all()
    assert (gone != labels).all()


def test_both_kinds_of_noise_begin_elsewhere():
    """From the same start a class that stays would be impaired with the one that goes."""
    model = linear_problem(3, 4)[0]
    gone = noise(model, [1] * 3, -1.0, 0, SEED)
    kept = noise(model, [0] * 3, 1.0, 0, SEED + SEED_OFFSET)
    assert ((gone - kept).abs() > 1e-3).all()


def test_several_classes_leave_and_all_of_them_leave_no_repair():
    """Each has noise of its own; where none stays there is nothing to show again."""
    model = linear_problem(3, 4)[0]
    quick = {"noise_steps": 2, "retained_steps": 2, "copies": 1, "noise_per_class": 2}
    for forget_classes, steps in (((0, 2), 2 * 3 + 1), ((0, 1, 2), 2 * 3)):
        split, going = Split(LIKE, forget_classes=forget_classes), Answers()
        emmn(model, split, **quick, batch_size=2, callback=going)
        assert len(going.losses) == steps

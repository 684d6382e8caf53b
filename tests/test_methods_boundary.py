"""Boundary shrink and boundary expanding: by hand, against twins, in their limits."""

import copy
import logging
from dataclasses import replace

import pytest
import torch
from by_hand import (
    Answers,
    assert_state,
    descend_by_torch,
    linear,
    near,
    one,
    same,
    sgd_steps,
    slope,
)
from torch import nn

from efface.methods._attacks import clamp, loss_gradient, sign_step
from efface.methods.boundary import Widened, boundary_expand, boundary_shrink
from efface.types import Action, Records, Split

RATE, LOW, HIGH = 0.1, torch.tensor([-1.5, -0.8]).double(), torch.tensor([0.5, 7.2]).double()
GOES = replace(one([-0.4, 1.0], 1), low=LOW, high=HIGH)
PLAIN = {"learning_rate": RATE, "momentum": 0.0, "epochs": 1}


def moved_by_hand(weights, record, bound):
    """The moved x of one record of the linear model: ∇_x CE = Wᵀ (softmax − one-hot)."""
    x, p = record.x[0], (weights @ record.x[0]).softmax(0)
    p[int(record.y[0])] -= 1
    step = bound * (record.high - record.low) * (weights.T @ p).sign()
    return torch.minimum(torch.maximum(x + step, record.low), record.high)


def test_shrink_moves_each_feature_by_its_own_range_and_no_further_than_its_bounds():
    """One feature ends a quarter of its own range away, the other at its bound."""
    weights = linear().weight.detach()
    moved = clamp(sign_step(GOES, loss_gradient(linear(), GOES)[1], 0.25), GOES)
    near(moved[0], moved_by_hand(weights, GOES, 0.25))
    near(moved, torch.stack([GOES.x[0, 0] - 0.25 * 2, LOW[1]])[None])


def test_a_reach_around_the_inputs_is_kept_too():
    """What an attack of several steps needs: the clamp is around where it began."""
    far = GOES.x + torch.tensor([[0.3, -3.0]]).double()
    near(clamp(far, GOES, 0.1), GOES.x + 0.1 * (HIGH - LOW) * torch.tensor([1.0, -1.0]).double())
    edge = torch.stack([HIGH[0], GOES.x[0, 1] + 0.5 * (HIGH - LOW)[1]])
    near(clamp(far + 100, GOES, 0.5), edge[None])


@pytest.mark.parametrize("epochs", [1, 3])
def test_shrink_teaches_what_is_beyond_the_nearest_boundary_by_hand(epochs):
    """The class at x' is not the runner-up at x: the step decides, and momentum is kept."""
    start = linear().weight.detach()
    label = int((start @ moved_by_hand(start, GOES, 0.25)).argmax())
    order = (start @ GOES.x[0]).argsort(descending=True).tolist()
    assert (order, label) == ([1, 2, 0], 0)
    slopes = [lambda weights: slope(weights, GOES, label)] * epochs
    settings = {"bound": 0.25, "learning_rate": RATE, "epochs": epochs, "strength": 2.0}
    result = boundary_shrink(linear(), Split(GOES), **settings)
    near(result.weight, sgd_steps(start, slopes, 2 * RATE))


@pytest.mark.parametrize(
    ("bound", "reinforce", "flipped", "label"),
    # b = 0 is the first step of greedy mislabelling
    [(0.0, False, 0.0, 2), (0.02, False, 0.0, 2), (0.02, True, 0.0, 1), (0.25, True, 1.0, 0)],
)
def test_a_record_that_does_not_flip_gets_the_runner_up_at_its_place_or_is_reinforced(
    bound, reinforce, flipped, label, caplog
):
    """The authors' code learns it once more; how many flipped is logged."""
    settings = {"bound": bound, "reinforce_unflipped": reinforce, **PLAIN}
    with caplog.at_level(logging.INFO, "efface"):
        result = boundary_shrink(linear(), Split(GOES), **settings)
    assert [record.facts for record in caplog.records] == [{"flipped": flipped}]
    near(result.weight, linear().weight - RATE * slope(linear().weight, GOES, label))


def test_shrink_is_the_authors_loop_in_pixels(tiny_net, digits):
    """A twin from their description: FGSM on pixels in 0..1, labels as they fall, train mode."""
    forget = digits.take(range(24))
    student = copy.deepcopy(tiny_net).train()
    black, spread = forget.low, forget.high - forget.low
    pixels = ((forget.x - black) / spread).requires_grad_()
    nn.functional.cross_entropy(tiny_net(pixels * spread + black), forget.y).backward()
    moved = (pixels.detach() + 0.1 * pixels.grad.sign()).clamp(0, 1)
    labels = tiny_net(moved * spread + black).argmax(1)
    assert 0 < int((labels == forget.y).sum()) < 24
    optimizer = torch.optim.SGD(student.parameters(), lr=0.01, momentum=0.9)
    descend_by_torch(student, forget.x, labels, optimizer)
    settings = {"reinforce_unflipped": True, "training_mode": True, "learning_rate": 0.01}
    result = boundary_shrink(tiny_net, Split(forget), epochs=2, **settings)
    assert_state(result, student.state_dict(), rtol=1e-5, atol=1e-6)


def test_shrink_attacks_the_given_model_in_eval_mode_whatever_mode_it_came_in(tiny_net, digits):
    """Labels from the statistics of one batch would be another model's."""
    split = Split(digits.take(range(24)))
    results = [
        boundary_shrink(copy.deepcopy(tiny_net).train(mode), split, learning_rate=0.01)
        for mode in (False, True)
    ]
    assert same(*results)


def widened_by_hand(split, epochs, seed, halve_at=None):
    """The head as one matrix of four rows, trained, and cut; ``halve_at``: a step taken back."""
    drawn = torch.randn(1, 2, generator=torch.Generator().manual_seed(seed)).double()
    wide = torch.cat([linear().weight.detach(), (2 / 6) ** 0.5 * drawn])
    bias, x, rate = torch.zeros(4).double(), split.forget.x, 2 * RATE
    speeds = [torch.zeros_like(wide), torch.zeros_like(bias)]
    step = 0
    while step < epochs:
        p = (x @ wide.T + bias).softmax(1)
        p[:, 3] -= 1
        open_ = torch.tensor([0, 0, 0, 1]).double()  # the given head has no bias
        slopes = [p.T @ x / len(x), p.mean(0) * open_]
        if step == halve_at:
            rate, halve_at, speeds = rate / 2, None, [torch.zeros_like(s) for s in speeds]
            continue
        speeds = [0.9 * speed + slope for speed, slope in zip(speeds, slopes, strict=True)]
        wide, bias = wide - rate * speeds[0], bias - rate * speeds[1]
        step += 1
    return wide[:3]


TWO = Split(Records(torch.tensor([[-0.4, 1.0], [2.0, 0.5]]).double(), torch.tensor([1, 1])))


@pytest.mark.parametrize("epochs", [1, 4])
def test_expand_is_a_wider_head_that_is_cut_again_by_hand(epochs):
    """The new row moves with the others, and is in the softmax at every step."""
    settings = {"learning_rate": RATE, "strength": 2.0, "epochs": epochs, "seed": 7}
    result = boundary_expand(linear(), TWO, **settings)
    near(result.weight, widened_by_hand(TWO, epochs, seed=7))
    assert not result._forward_pre_hooks


def test_a_step_that_the_guard_takes_back_is_taken_back_in_the_new_row_too():
    """Else the row would have learned from a step that never was."""
    kept, seen = [], []

    def callback(student, loss):
        seen.append(loss)
        if len(seen) == 3:
            student.load_state_dict(kept[-1])
            return Action.HALVE_LR
        kept.append(copy.deepcopy(student.state_dict()))
        return Action.CONTINUE

    settings = {"learning_rate": RATE, "strength": 2.0, "epochs": 4, "seed": 7}
    result = boundary_expand(linear(), TWO, **settings, callback=callback)
    near(result.weight, widened_by_hand(TWO, 4, seed=7, halve_at=2))
    assert seen[2] == seen[3]


def test_expand_is_the_authors_loop_on_a_net(tiny_net, digits):
    """A twin from their description: rows copied, one drawn, trained in train mode, cut."""
    forget = digits.take(range(24))
    wide = copy.deepcopy(tiny_net).train()
    head, last = tiny_net[-1], nn.Linear(256, 11)
    drawn = torch.randn(1, 256, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        last.weight.copy_(torch.cat([head.weight, (2 / (256 + 11)) ** 0.5 * drawn]))
        last.bias.copy_(torch.cat([head.bias, torch.zeros(1)]))
    wide[-1] = last
    optimizer = torch.optim.SGD(wide.parameters(), lr=0.01, momentum=0.9)
    descend_by_torch(wide, forget.x, torch.full((24,), 10), optimizer)
    settings = {"learning_rate": 0.01, "epochs": 2, "training_mode": True}
    result, wanted = boundary_expand(tiny_net, Split(forget), **settings), wide.state_dict()
    wanted |= {name: wanted[name][:10] for name in ("7.weight", "7.bias")}
    assert_state(result, wanted, rtol=1e-5, atol=1e-6)


def test_expand_gives_a_sigmoid_unit_a_third_class():
    """Its outputs are 0 and z: by hand with one weight, softmax over (0, z, e)."""
    model = nn.Linear(1, 1, bias=False).double()
    drawn = torch.randn(1, 1, generator=torch.Generator().manual_seed(0)).double()
    with torch.no_grad():
        model.weight.fill_(0.5)
    record = Records(torch.tensor([[2.0]]).double(), torch.tensor([1]))
    result = boundary_expand(model, Split(record), **PLAIN)
    e = (2 / 3) ** 0.5 * drawn[0, 0] * 2.0
    p = torch.stack([torch.zeros(()).double(), torch.ones(()).double(), e]).softmax(0)
    near(result.weight, torch.full((1, 1), 0.5).double() - RATE * p[1] * 2.0)


def test_where_the_guard_takes_back_several_steps_the_new_row_goes_back_as_far(tiny_net):
    """The guard keeps a state now and then; the row belongs to the head of that state."""
    wide = Widened(copy.deepcopy(tiny_net), seed=0)
    guard = Answers(*[Action.CONTINUE] * 4, Action.HALVE_LR)
    callback, rows = wide.wrap(guard), []
    for step in range(5):
        with torch.no_grad():
            wide.student[-1].weight.add_(0.1)
            wide.row.weight.add_(1.0)
        rows.append(wide.row.weight.detach().clone())
        guard.restore = copy.deepcopy(wide.student.state_dict()) if step == 1 else guard.restore
        callback(wide, 0.0)
    assert len(guard.losses) == 5
    assert torch.equal(wide.row.weight, rows[1])

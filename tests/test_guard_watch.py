"""The guard after each step: what it lets pass, what it takes back, and when it gives up."""

import copy
import inspect
import math
import sys
from pathlib import Path

import pytest
import torch

from efface.errors import NotMet
from efface.guard import Guard
from efface.methods import METHODS
from efface.types import Action, Records, Split

sys.path.insert(0, str(Path(__file__).parent))
from method_promises import keeping, split_for

WIDE = {"movement": 1e9, "drift": 10.0, "utility_budget": 1.0}


@pytest.fixture
def forget(digits):
    """Twenty records to forget."""
    return digits.take(range(20))


@pytest.fixture
def unseen(digits):
    """A hundred records that the net was not trained on."""
    return digits.take(range(300, 400))


def state_of(model):
    """A copy of weights and buffers."""
    return {name: tensor.clone() for name, tensor in model.state_dict().items()}


def same(model, state):
    """Whether weights and buffers are these, bit for bit."""
    now = model.state_dict()
    return now.keys() == state.keys() and all(now[name].equal(state[name]) for name in state)


@torch.no_grad()
def push(model, size, seed=0):
    """Move every weight by normal noise of ``size`` times its own spread."""
    generator = torch.Generator().manual_seed(seed)
    for weight in model.parameters():
        noise = torch.randn(weight.shape, generator=generator, dtype=torch.float64)
        weight.add_((size * weight.std() * noise).to(weight.dtype))
    return model


@pytest.mark.parametrize("loss", [math.nan, math.inf, -math.inf])
def test_a_loss_that_is_not_finite_is_taken_back_bit_for_bit(tiny_net, forget, loss):
    """After a NaN every later step is NaN too; only the state before it helps."""
    guard, student = Guard(tiny_net, Split(forget)), copy.deepcopy(tiny_net)
    push(student, 0.01)
    assert guard.callback(student, 1.0) is Action.CONTINUE
    good = state_of(student)
    push(student, 0.01, seed=1)
    assert guard.callback(student, loss) is Action.HALVE_LR
    assert same(student, good)
    assert guard.as_json()["violations"] == [
        {"step": 2, "kind": "loss", "value": None, "limit": None}
    ]


@pytest.mark.parametrize("spoiled", ["0.weight", "1.running_var"])
def test_a_weight_or_buffer_that_is_not_finite_is_taken_back(tiny_net, forget, spoiled):
    """A finite loss does not tell that the step it led to overflowed."""
    guard, student = Guard(tiny_net, Split(forget)), copy.deepcopy(tiny_net)
    student.state_dict()[spoiled].view(-1)[0] = math.nan
    assert guard.callback(student, 1.0) is Action.HALVE_LR
    assert same(student, tiny_net.state_dict())
    assert guard.violations[0].kind == "weights"


def test_a_student_beyond_the_trust_region_goes_back_to_its_last_good_state(tiny_net, forget):
    """One wild step must not cost the steps before it."""
    guard = Guard(tiny_net, Split(forget), **{**WIDE, "movement": 0.1})
    student = push(copy.deepcopy(tiny_net), 0.01)
    assert guard.callback(student, 1.0) is Action.CONTINUE
    good = state_of(student)
    assert guard.callback(push(student, 1.0), 1.0) is Action.HALVE_LR
    assert same(student, good)
    assert not same(student, tiny_net.state_dict())


def test_drift_alone_is_noticed(tiny_net, forget):
    """Small weights can move far in what the model says: here only the last bias moves."""
    guard = Guard(tiny_net, Split(forget), **{**WIDE, "drift": 0.3})
    student = copy.deepcopy(tiny_net)
    with torch.no_grad():
        student[-1].bias[0] += 100
    assert guard.callback(student, 1.0) is Action.HALVE_LR
    assert guard.violations[0].kind == "drift"


def test_a_holdout_tells_what_the_trust_region_does_not(tiny_net, forget, unseen):
    """With wide limits on movement and drift, the drop in accuracy still ends it."""
    limits = {**WIDE, "utility_budget": 0.02}
    split = Split(forget, holdout=unseen)
    student = push(copy.deepcopy(tiny_net), 1.0)
    assert Guard(tiny_net, Split(forget), **limits).callback(student, 1.0) is Action.CONTINUE
    guard = Guard(tiny_net, split, **limits)
    assert guard.callback(student, 1.0) is Action.HALVE_LR
    assert guard.violations[0].kind == "utility"


def test_after_so_many_halvings_the_given_model_is_back_and_the_request_has_failed(
    tiny_net, forget
):
    """A request that cannot be met ends with the old model, never with a broken one."""
    guard = Guard(tiny_net, Split(forget), movement=0.1, halvings=3)
    student = push(copy.deepcopy(tiny_net), 0.01)
    assert guard.callback(student, 1.0) is Action.CONTINUE
    verdicts = [guard.callback(push(student, 1.0), 1.0) for _ in range(4)]
    assert verdicts == [Action.HALVE_LR] * 3 + [Action.STOP]
    assert same(student, tiny_net.state_dict())
    assert guard.as_json()["halvings"] == 3
    assert guard.failed.startswith("3 halvings of the step did not help, movement ")
    with pytest.raises(NotMet):
        guard.settle(student)


@keeping("region")
def test_a_method_at_a_ruinous_step_ends_inside_the_region(tiny_net, digits, name):
    """The same settings without a guard leave a model at chance, or NaN."""
    forgotten, retain = digits.take(range(40)), digits.take(range(40, 80))
    split = split_for(name, forgotten, retain, model=tiny_net)
    guard = Guard(tiny_net, split)
    function, ruin = METHODS[name].function, {"learning_rate": 30.0, "steps": 12, "attack_steps": 5}
    known = inspect.signature(function).parameters
    ruin = {setting: value for setting, value in ruin.items() if setting in known}
    try:
        settled = guard.settle(function(tiny_net, split, callback=guard.callback, **ruin))
    except NotMet:
        return
    assert guard.movement(settled) <= guard.budgets["movement"]
    assert guard.drift(settled) <= guard.budgets["drift"]


def test_leaving_classes_do_not_count_as_utility(tiny_net, forget, unseen):
    """Forgetting the class is the request; only what it does to the others is loss."""
    student = copy.deepcopy(tiny_net)
    with torch.no_grad():
        student[-1].bias[3] -= 1000
    wide = {**WIDE, "utility_budget": 0.02}
    plain = Guard(tiny_net, Split(forget, holdout=unseen), **wide)
    asked = Guard(tiny_net, Split(forget, holdout=unseen, forget_classes=(3,)), **wide)
    assert plain.callback(copy.deepcopy(student), 1.0) is Action.HALVE_LR
    assert asked.callback(student, 1.0) is Action.CONTINUE
    assert asked.drift(student) < 1e-6
    assert plain.drift(student) > 0.05


def test_a_fresh_start_has_no_trust_region_and_no_utility_until_it_is_settled(
    tiny_net, forget, unseen
):
    """An untrained model is far from the given one and at chance, and must be let go on."""
    split = Split(forget, holdout=unseen)
    guard = Guard(tiny_net, split, movement=0.01, drift=0.01, fresh_start=True)
    student = push(copy.deepcopy(tiny_net), 3.0)
    assert guard.callback(student, 1.0) is Action.CONTINUE
    good = state_of(student)
    assert guard.callback(push(student, 1.0), math.nan) is Action.HALVE_LR
    assert same(student, good)
    with pytest.raises(NotMet, match="utility"):
        guard.settle(student)


def test_a_class_of_the_holdout_that_leaves_altogether_leaves_no_utility_to_measure(
    tiny_net, digits
):
    """Then the trust region alone speaks; it must not divide by nothing."""
    of_class = digits.take((digits.y == 3).nonzero().flatten())
    guard = Guard(tiny_net, Split(of_class, holdout=of_class, forget_classes=(3,)))
    assert guard.callback(copy.deepcopy(tiny_net), 1.0) is Action.CONTINUE
    assert guard.as_json()["holdout_records"] == 0


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("training", [False, True])
def test_the_given_model_and_the_random_state_stay_as_they_are(
    tiny_net, digits, dtype, training, random_state_kept
):
    """Law 1 and law 3 hold for the guard as for a method; gradients and modes included."""
    model = copy.deepcopy(tiny_net).to(dtype).train(training)
    records = Records(digits.x.repeat(2, 1, 1, 1).to(dtype), digits.y.repeat(2))
    before = state_of(model)
    torch.rand(1)
    with random_state_kept():
        guard = Guard(model, Split(records.take(range(9)), holdout=records))
        student = copy.deepcopy(model).eval()
        for step in range(6):
            guard.callback(push(student, 3.0, seed=step), 1.0)
    assert same(model, before)
    assert model.training is training
    assert all(w.grad is None and w.requires_grad for w in model.parameters())


def test_a_student_in_training_mode_is_asked_in_eval_mode_and_stays_in_training_mode(
    tiny_net, forget, unseen
):
    """Else the guard's own questions would move the BatchNorm statistics."""
    guard, student = Guard(tiny_net, Split(forget, holdout=unseen)), copy.deepcopy(tiny_net)
    student.train()[1].eval()
    assert guard.callback(student, 1.0) is Action.CONTINUE
    assert guard.drift(student) == 0
    assert [module.training for module in student[:3]] == [True, False, True]
    assert same(student, tiny_net.state_dict())


def test_the_same_seed_gives_the_same_synthetic_inputs_and_another_seed_others(tiny_net, forget):
    """Every process, and every rerun, must reach the same verdict."""
    student = push(copy.deepcopy(tiny_net), 0.5)
    drift = {seed: Guard(tiny_net, Split(forget), seed=seed).drift(student) for seed in (0, 1)}
    assert Guard(tiny_net, Split(forget), seed=0).drift(student) == drift[0]
    assert drift[0] != drift[1]


@pytest.mark.parametrize(("holdout", "verdict"), [(499, Action.HALVE_LR), (500, Action.CONTINUE)])
def test_drift_is_no_limit_where_a_holdout_measures_what_it_estimates(
    tiny_net, digits, forget, holdout, verdict
):
    """Answers half as sure are far off in nats, and every one of them is the same."""
    student = copy.deepcopy(tiny_net)
    with torch.no_grad():
        student[-1].weight.mul_(0.2)
        student[-1].bias.mul_(0.2)
    rows = [row % len(digits) for row in range(holdout)]
    unseen = Records(digits.x[rows], digits.y[rows], low=digits.low, high=digits.high)
    guard = Guard(tiny_net, Split(forget, holdout=unseen), movement=10.0)
    assert guard.callback(student, 1.0) is verdict
    assert guard.as_json()["measured"]["drift"] > 0.2

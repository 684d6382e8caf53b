"""The guard: what it lets pass, what it takes back, what may be written, and when it gives up."""

import copy
import json
import math
from contextlib import suppress

import pytest
import torch
from by_hand import same
from method_promises import keeping, split_for
from scipy import stats
from scipy.special import rel_entr
from small_nets import Given
from torch import nn
from torch.nn.utils import parameters_to_vector

from efface.errors import NotMet
from efface.guard import Guard, synthetic_inputs
from efface.methods import METHODS
from efface.runtime import PassCounter
from efface.types import Action, Records, Split

WIDE = {"movement": 1e9, "drift": 10.0, "utility_budget": 1.0}


@pytest.fixture
def forget(digits):
    """Twenty records to forget."""
    return digits.take(range(20))


@pytest.fixture
def unseen(digits):
    """A hundred records that the model was not trained on."""
    return digits.take(range(300, 400))


@torch.no_grad()
def push(model, size, seed=0):
    """Move every weight by normal noise of ``size`` times its standard deviation."""
    generator = torch.Generator().manual_seed(seed)
    for weight in model.parameters():
        noise = torch.randn(weight.shape, generator=generator, dtype=torch.float64)
        weight.add_((size * weight.std() * noise).to(weight.dtype))
    return model


def pushed(model, size):
    return push(copy.deepcopy(model), size)


@torch.no_grad()
def biased(model, label, by):
    """A copy with another bias of one output."""
    student = copy.deepcopy(model)
    student[-1].bias[label] += by
    return student


@torch.no_grad()
def moved(model, relative):
    """A copy whose weights have moved in one random direction by this share of their norm."""
    student, weights = copy.deepcopy(model), parameters_to_vector(model.parameters())
    step = torch.randn(weights.shape, generator=torch.Generator().manual_seed(0))
    weights = weights + step * relative * weights.norm() / step.norm()
    nn.utils.vector_to_parameters(weights, student.parameters())
    return student


@pytest.mark.parametrize("forget_classes", [(), (3,), (0, 3, 9)])
@pytest.mark.parametrize("size", [0.1, 2.0, 50.0])
def test_drift_is_the_mean_divergence_of_scipy(tiny_net, forget, forget_classes, size):
    """One input at a time, without the forget classes, 10 nats at most."""
    split = Split(forget, forget_classes=forget_classes)
    guard, student = Guard(tiny_net, split), pushed(tiny_net, size)
    staying = [label for label in range(10) if label not in forget_classes]
    x = synthetic_inputs(tiny_net, split).x
    with torch.no_grad():
        p, q = (net(x)[:, staying].double().softmax(1).numpy() for net in (tiny_net, student))
    expected = rel_entr(p, q).sum(1).clip(max=10).mean()
    assert guard.drift(student) == pytest.approx(expected, rel=1e-4)


def test_the_same_answer_for_everything_is_far_outside(tiny_net, digits):
    assert 5 < Guard(tiny_net, Split(digits.take([0]))).drift(biased(tiny_net, 0, 1e4)) <= 10


@pytest.mark.parametrize("forget_classes", [(), (3,)])
def test_an_impression_is_of_a_class_that_stays(tiny_net, digits, forget_classes):
    """Else a class that was to be forgotten would be held in place."""
    split = Split(digits.take([0]), forget_classes=forget_classes)
    staying = [label for label in range(10) if label not in forget_classes]
    wanted = torch.tensor([staying[i % len(staying)] for i in range(32)])
    with torch.no_grad():
        log_p = tiny_net(synthetic_inputs(tiny_net, split).x[32:]).log_softmax(1)
    # one class on: what the mean would be if the impressions were of nothing
    own, other = (log_p.gather(1, y[:, None]).mean() for y in (wanted, (wanted + 1) % 10))
    assert own > other + 0.5


def test_synthetic_inputs_stay_within_the_bounds_of_the_data(tiny_net, digits):
    inputs = synthetic_inputs(tiny_net, Split(digits.take(range(9)))).x
    assert inputs.shape == (64, 1, 8, 8)
    assert digits.low - 1e-5 <= inputs.min() < inputs.max() <= digits.high + 1e-5


@pytest.mark.parametrize("size", [1, 5, 8, 64])
@pytest.mark.parametrize("outputs", [1, 10])
def test_micro_batches_change_no_input_and_none_is_larger(
    monkeypatch, tiny_net, digits, size, outputs
):
    """At 224 px one graph of all impressions takes a gigabyte."""
    seen, net, records = [], copy.deepcopy(tiny_net), digits.take(range(12))
    if outputs == 1:  # driven up and down in turns
        net[-1] = nn.Linear(net[-1].in_features, 1)
        records = Records(records.x, records.y.float())
    whole = synthetic_inputs(net, Split(records)).x
    net.register_forward_pre_hook(lambda _, given: seen.append(len(given[0])))
    monkeypatch.setattr("efface.guard.MICRO_BATCH", size)
    inputs = Guard(net, Split(records))._inputs.x
    # two inputs show how many outputs there are
    assert max(seen) <= max(size, 2)
    torch.testing.assert_close(inputs, whole, atol=1e-5, rtol=1e-5)


def test_records_that_are_not_images_are_supervised_too(random_state_kept):
    """Tables have no perspective; half a record and half noise takes its place."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        net = nn.Sequential(nn.Linear(5, 16), nn.ReLU(), nn.Linear(16, 3))
        rows = Records(torch.rand(7, 5), torch.tensor([0, 1, 2, 0, 1, 2, 0]))
    with random_state_kept():
        guard = Guard(net, Split(rows))
    assert guard.drift(net) == 0
    assert guard.drift(pushed(net, 5.0)) > guard.drift(pushed(net, 0.1)) > 0


STEPS = [(0.01, loss, "loss") for loss in (math.nan, math.inf, -math.inf)]


@pytest.mark.parametrize(("size", "loss", "kind"), [*STEPS, (1.0, 1.0, "movement")])
def test_a_bad_step_goes_back_to_the_last_good_state(tiny_net, forget, size, loss, kind):
    """After a NaN every later step is NaN too; and one wild step must not cost those before it."""
    guard = Guard(tiny_net, Split(forget), **{**WIDE, "movement": 0.1})
    student = pushed(tiny_net, 0.01)
    assert guard.callback(student, 1.0) is Action.CONTINUE
    good = copy.deepcopy(student)
    assert guard.callback(push(student, size, seed=1), loss) is Action.HALVE_LR
    assert same(student, good)
    assert not same(student, tiny_net)
    assert [(one.step, one.kind) for one in guard.violations] == [(2, kind)]


@pytest.mark.parametrize("value", [math.nan, math.inf])
@pytest.mark.parametrize("name", ["0.weight", "1.running_var"])
def test_what_is_not_finite_is_never_interpolated(tiny_net, forget, value, name):
    """A finite loss does not show that a step overflowed, and this says nothing of the way."""
    guard, student = Guard(tiny_net, Split(forget)), copy.deepcopy(tiny_net)
    student.state_dict()[name].view(-1)[0] = value
    result = copy.deepcopy(student)
    assert guard.callback(student, 1.0) is Action.HALVE_LR
    assert same(student, tiny_net)
    assert guard.violations[0].kind == "weights"
    with pytest.raises(NotMet, match="one that exceeds the limits: weights not finite"):
        guard.settle(result)
    assert guard.interpolation is None


def test_drift_alone_is_a_violation(tiny_net, forget):
    """Small weights can move far in what the model says: here only the last bias moves."""
    guard = Guard(tiny_net, Split(forget), **{**WIDE, "drift": 0.3})
    assert guard.callback(biased(tiny_net, 0, 100), 1.0) is Action.HALVE_LR
    assert guard.violations[0].kind == "drift"


def test_a_holdout_shows_what_the_trust_region_does_not(tiny_net, forget, unseen):
    limits, student = {**WIDE, "utility_budget": 0.02}, pushed(tiny_net, 1.0)
    assert Guard(tiny_net, Split(forget), **limits).callback(student, 1.0) is Action.CONTINUE
    guard = Guard(tiny_net, Split(forget, holdout=unseen), **limits)
    assert guard.callback(student, 1.0) is Action.HALVE_LR
    assert guard.violations[0].kind == "utility"


def test_after_so_many_halvings_the_given_model_is_back_and_the_run_has_failed(tiny_net, forget):
    """A request that cannot be met ends with the old model, never with a broken one."""
    guard = Guard(tiny_net, Split(forget), movement=0.1, halvings=3)
    student = pushed(tiny_net, 0.01)
    assert guard.callback(student, 1.0) is Action.CONTINUE
    actions = [guard.callback(push(student, 1.0), 1.0) for _ in range(4)]
    assert actions == [Action.HALVE_LR] * 3 + [Action.STOP]
    assert same(student, tiny_net)
    assert guard.as_json()["halvings"] == 3
    assert guard.failed.startswith(
        "3 halvings of the step did not help: the model moved its weights "
    )
    with pytest.raises(NotMet):
        guard.settle(student)


@keeping("region")
def test_a_method_at_a_ruinous_step_ends_inside_the_region(tiny_net, digits, name):
    """The same settings without a guard leave a model at chance, or NaN."""
    parts = digits.take(range(40)), digits.take(range(40, 80))
    split, method = split_for(name, *parts, model=tiny_net), METHODS[name]
    guard = Guard(tiny_net, split)
    ruin = {"learning_rate": 30.0, "steps": 12, "attack_steps": 5}
    ruin = {setting: value for setting, value in ruin.items() if setting in method.settings}
    try:
        settled = guard.settle(method.function(tiny_net, split, callback=guard.callback, **ruin))
    except NotMet:
        return
    assert guard.movement(settled) <= guard.budgets["movement"]
    assert guard.drift(settled) <= guard.budgets["drift"]


def test_forget_classes_do_not_count_as_utility(tiny_net, forget, unseen):
    """Forgetting the class is the request; only what it does to the others is loss."""
    student, limits = biased(tiny_net, 3, -1000), {**WIDE, "utility_budget": 0.02}
    records, of_class = (
        Guard(tiny_net, Split(forget, unseen, forget_classes=gone), **limits) for gone in ((), (3,))
    )
    assert records.callback(copy.deepcopy(student), 1.0) is Action.HALVE_LR
    assert of_class.callback(student, 1.0) is Action.CONTINUE
    assert of_class.drift(student) < 1e-6
    assert records.drift(student) > 0.05


def test_a_fresh_start_has_no_trust_region_and_no_utility_until_settled(tiny_net, forget, unseen):
    """An untrained model is far from the given one and at chance, and has to go on."""
    limits = {"movement": 0.01, "drift": 0.01, "fresh_start": True}
    guard, student = Guard(tiny_net, Split(forget, holdout=unseen), **limits), pushed(tiny_net, 3.0)
    assert guard.callback(student, 1.0) is Action.CONTINUE
    good = copy.deepcopy(student)
    assert guard.callback(push(student, 1.0), math.nan) is Action.HALVE_LR
    assert same(student, good)
    with pytest.raises(NotMet, match="utility"):
        guard.settle(student)


def test_a_holdout_of_forget_classes_alone_leaves_no_utility_to_measure(tiny_net, digits):
    """It must not divide by nothing."""
    of_class = digits.take((digits.y == 3).nonzero().flatten())
    guard = Guard(tiny_net, Split(of_class, holdout=of_class, forget_classes=(3,)))
    assert guard.callback(copy.deepcopy(tiny_net), 1.0) is Action.CONTINUE
    assert guard.as_json()["holdout_records"] == 0


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("training", [False, True])
def test_the_given_model_stays(tiny_net, digits, dtype, training, random_state_kept):
    """Laws 1 and 3 hold for the guard as for a method; gradients and modes included."""
    model = copy.deepcopy(tiny_net).to(dtype).train(training)
    records = Records(digits.x.repeat(2, 1, 1, 1).to(dtype), digits.y.repeat(2))
    given = Given(model)
    torch.rand(1)
    with random_state_kept():
        guard = Guard(model, Split(records.take(range(9)), holdout=records))
        student = copy.deepcopy(model).eval()
        for step in range(6):
            guard.callback(push(student, 3.0, seed=step), 1.0)
    given.is_untouched()


def test_a_student_is_evaluated_in_eval_mode_and_keeps_its_modes(tiny_net, forget, unseen):
    """Else the guard's own passes would change the BatchNorm statistics."""
    guard, student = Guard(tiny_net, Split(forget, holdout=unseen)), copy.deepcopy(tiny_net)
    student.train()[1].eval()
    assert guard.callback(student, 1.0) is Action.CONTINUE
    assert guard.drift(student) == 0
    assert [module.training for module in student[:3]] == [True, False, True]
    assert same(student, tiny_net)


def test_the_seed_draws_the_synthetic_inputs(tiny_net, forget):
    """Every process, and every rerun, must come to the same action."""
    student = pushed(tiny_net, 0.5)
    one, again, other = (Guard(tiny_net, Split(forget), seed=s).drift(student) for s in (0, 0, 1))
    assert one == again != other


@pytest.mark.parametrize(("holdout", "action"), [(499, Action.HALVE_LR), (500, Action.CONTINUE)])
def test_drift_is_no_limit_with_a_large_holdout(tiny_net, digits, forget, holdout, action):
    """Outputs half as confident are far off in nats, and every prediction is the same."""
    student = copy.deepcopy(tiny_net)
    for weight in student[-1].parameters():
        weight.data.mul_(0.2)
    rows = [row % len(digits) for row in range(holdout)]
    unseen = Records(digits.x[rows], digits.y[rows], low=digits.low, high=digits.high)
    guard = Guard(tiny_net, Split(forget, holdout=unseen), movement=10.0)
    assert guard.drift(student) > 0.2
    assert guard.callback(student, 1.0) is action
    told = guard.as_json()
    assert told["synthetic_inputs"] == (64 if holdout < 500 else 0)
    assert ("drift" in told["measured"]) == (holdout < 500)


def test_the_given_model_answers_once(tiny_net, digits):
    """On the whole holdout, of which the sample is a part."""
    many = Records(digits.x.repeat(2, 1, 1, 1), digits.y.repeat(2))
    counted = PassCounter(tiny_net)
    guard = Guard(counted.model, Split(digits.take([0]), holdout=many))
    assert guard.callback(copy.deepcopy(tiny_net), 1.0) is Action.CONTINUE
    guard.settle(copy.deepcopy(tiny_net))
    assert counted.passes.total == 800
    # a sample after the first step, all at the end
    assert guard.passes == guard.as_json()["passes"] == 512 + 800


@pytest.mark.parametrize(("steps", "records"), [(1, 4), (30, 4), (30, 300), (400, 300)])
def test_the_guard_takes_a_tenth_of_the_passes_or_two_looks(
    tiny_net, forget, unseen, steps, records
):
    """Whichever is more; a run of many passes is looked at in between too."""
    spent = 0
    split = Split(forget, holdout=unseen)
    guard, student = Guard(tiny_net, split, spent=lambda: spent), copy.deepcopy(tiny_net)
    looks = 2 * (64 + len(unseen))
    for _ in range(steps):
        spent += 2 * records
        before = guard.passes
        guard.callback(student, 1.0)
        # the counter of a run counts what the guard asks, too
        spent += guard.passes - before
    own = spent - guard.passes
    guard.settle(student)
    assert looks <= guard.passes <= max(looks, own / 10)
    assert (guard.passes > looks) == (own / 10 >= 1.5 * looks)


def test_outputs_that_are_not_finite_are_outside_though_each_weight_is(digits):
    """Nan is above no limit: a comparison with it would let it pass."""
    x = digits.x.repeat(2, 1, 1, 1)
    many, model = Records(x, torch.zeros(len(x), dtype=torch.int64)), Threshold()
    guard, student = Guard(model, Split(many.take([0]), holdout=many)), copy.deepcopy(model)
    student.scale = math.nan
    assert guard.callback(student, 1.0) is Action.HALVE_LR
    assert [str(one) for one in guard.violations] == ["outputs not finite"]


def test_a_result_inside_is_returned_unchanged_in_eval_mode(tiny_net, forget):
    result = moved(tiny_net, 0.001).train()
    before, guard = copy.deepcopy(result), Guard(tiny_net, Split(forget))
    settled = guard.settle(result)
    assert same(settled, before)
    assert (settled.training, guard.interpolation) == (False, None)


@pytest.mark.parametrize(("relative", "t"), [(0.15, 0.625), (0.35, 0.25), (0.7, 0.125)])
def test_a_result_outside_is_interpolated_to_the_first_point_inside(tiny_net, forget, relative, t):
    """Weights on the way back are θ₀ + t(θ₁ - θ₀); movement is that of one long vector."""
    result = moved(tiny_net, relative)
    result[1].running_mean.add_(5)
    far = copy.deepcopy(result.state_dict())
    guard = Guard(tiny_net, Split(forget), **{**WIDE, "movement": 0.1})
    old, new = (parameters_to_vector(m.parameters()).detach().double() for m in (tiny_net, result))
    expected = float((new - old).norm() / old.norm())
    assert guard.movement(result) == pytest.approx(expected, rel=1e-6)
    settled, told = guard.settle(result), guard.as_json()
    assert told["interpolation"] == t
    assert told["measured"]["movement"] == guard.movement(settled) <= 0.1
    for name, weight in tiny_net.named_parameters():
        expected = weight + t * (far[name] - weight)
        torch.testing.assert_close(settled.get_parameter(name), expected, rtol=1e-5, atol=1e-7)
    assert settled[1].running_mean.equal(tiny_net[1].running_mean)


def test_a_result_whose_eighth_is_outside_is_refused_in_words(tiny_net, forget):
    guard = Guard(tiny_net, Split(forget), movement=0.1, drift=10.0, utility_budget=0.02)
    with pytest.raises(NotMet) as caught:
        guard.settle(moved(tiny_net, 0.9))
    assert str(caught.value) == (
        "Wanted a model within the guard's budgets (utility 0.02, movement 0.1, drift 10). "
        "Got too much even with an eighth of the change; with all of it the model moved its "
        "weights 9 times as much as allowed (movement 0.9 above 0.1). "
        "The old model stands. Choose another method, or retrain without the records."
    )
    assert guard.as_json()["failed"] == caught.value.came


class Threshold(nn.Module):
    """Class 1 where the first pixel exceeds a threshold; at first it never does."""

    def __init__(self):
        super().__init__()
        self.bias = nn.Parameter(torch.tensor([0.0, -9.0]))
        self.scale = 1.0

    def forward(self, x):
        first = self.scale * x[:, 0, 0, 0]
        return torch.stack([0 * first, first], 1) + self.bias


def test_utility_is_exceeded_only_two_standard_errors_beyond_the_budget():
    """The limit against scipy's standard error of the paired drop, on both sides of it."""
    model, n, low, high = Threshold(), 200, torch.tensor(0.0), torch.tensor(1.0)
    holdout = Records(torch.zeros(n, 1, 8, 8), torch.zeros(n, dtype=torch.int64), (), low, high)
    holdout.x[:, 0, 0, 0] = torch.arange(n) / n
    outside = []
    for wrong in range(20):
        guard = Guard(model, Split(holdout, holdout), **{**WIDE, "utility_budget": 0.02})
        student = copy.deepcopy(model)
        student.bias.data[1] = -((n - wrong) - 0.5) / n
        with suppress(NotMet):
            guard.settle(student)
        outside.append(bool(guard.violations))
        lost = [1.0] * wrong + [0.0] * (n - wrong)
        assert outside[-1] == (wrong / n > 0.02 + 2 * stats.sem(lost))
    assert {*outside} == {True, False}


def test_the_result_is_evaluated_on_the_whole_holdout(digits, tiny_net):
    """During the run a sample of 512 is enough."""
    many = Records(digits.x.repeat(2, 1, 1, 1), digits.y.repeat(2))
    guard = Guard(tiny_net, Split(digits.take([0]), holdout=many))
    guard.settle(copy.deepcopy(tiny_net))
    correct = (tiny_net(digits.x).argmax(1) == digits.y).double().mean()
    assert guard.as_json()["holdout_records"] == 800
    assert guard.as_json()["measured"]["utility_after"] == pytest.approx(float(correct))


def test_what_the_guard_reports_is_plain_json(tiny_net, forget):
    """NaN is not JSON; the manifest is read by other programs."""
    guard, student = Guard(tiny_net, Split(forget)), copy.deepcopy(tiny_net)
    student[0].weight.data.fill_(math.nan)
    guard.callback(student, math.nan)
    guard.settle(copy.deepcopy(tiny_net))
    told = json.loads(json.dumps(guard.as_json(), allow_nan=False))
    first = {"step": 1, "kind": "loss", "value": None, "limit": None, "text": "loss not finite"}
    assert told["violations"] == [first]
    assert set(told["measured"]) == {"movement", "drift"}


def test_a_label_that_goes_is_no_drift_on_inputs_made_of_its_records(tiny_net, digits):
    """Only there: an impression of that class that loses it counts as before."""
    split = Split(digits.take([row for row in range(300) if digits.y[row] == 3]))
    plain, told = Guard(tiny_net, split), Guard(tiny_net, split, labels_go=True)
    student = biased(tiny_net, 3, -50.0)
    halves = [
        one._task.divergence(one._given_outputs, one._outputs_of(student)).split(32)
        for one in (plain, told)
    ]
    assert float(halves[0][0].max()) > 1
    assert float(halves[1][0].abs().max()) < 1e-6
    torch.testing.assert_close(halves[0][1], halves[1][1])


def test_drift_may_be_twice_its_limit_on_the_way_and_not_at_the_end(tiny_net, forget):
    student = pushed(tiny_net, 0.5)
    value = Guard(tiny_net, Split(forget)).drift(student)
    limits = {**WIDE, "drift": value / 1.5}
    guard = Guard(tiny_net, Split(forget), **limits)
    assert guard.callback(student, 1.0) is Action.CONTINUE
    guard.settle(student)
    assert guard.interpolation is not None
    guard = Guard(tiny_net, Split(forget), **{**WIDE, "drift": value / 2.5})
    assert guard.callback(pushed(tiny_net, 0.5), 1.0) is Action.HALVE_LR

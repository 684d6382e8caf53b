"""GKT: a twin of the authors' loop, its limits, its gate, the generator and attention."""

import logging

import pytest
import torch
from by_hand import Answers, assert_state, same
from torch import nn
from torch.nn import functional

from efface.methods._perturb import normals
from efface.methods.zero_shot import attention_maps, gkt, make_generator, restore_fresh
from efface.types import Action, Records, Split

GONE, COUNT = 2, 16


def net(seed, *, convolutions=True):
    """A net of three classes in float64 with BatchNorm, and a ReLU that works in place."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        first = [nn.Conv2d(1, 4, 3, 2, 1), nn.ReLU(inplace=True), nn.Conv2d(4, 3, 3)]
        layers = [*first, nn.BatchNorm2d(3), nn.ReLU()] if convolutions else []
        model = nn.Sequential(*layers, nn.Flatten(), nn.Linear(12 if convolutions else 64, 3))
    return model.double().eval()


def given(**kind):
    """The given model, surer of its answers than an untrained one."""
    model = net(9, **kind)
    with torch.no_grad():
        model[-1].weight.mul_(12)
    return model


def split(**further):
    """One image of NaN: what an input is, and no number that anybody may use."""
    like = Records(torch.full((1, 1, 8, 8), torch.nan), torch.tensor([GONE]))
    return Split(like, forget_classes=(GONE,), **{"fresh": net, **further})


def looks(model, x):
    """Where the two convolutions look, by hand: channel means of squares, in rows of length 1."""
    first = functional.conv2d(x, model[0].weight, model[0].bias, 2, 1)
    second = functional.conv2d(first.relu(), model[2].weight, model[2].bias)
    rows = [answer.pow(2).mean(1).view(len(x), -1) for answer in (first, second)]
    return [row / row.norm(dim=1, keepdim=True) for row in rows]


def by_hand(teacher, student, *, rounds, beta, epsilon, training_mode):
    """The authors' loop from its description: one step of the generator, ten of the student."""
    generator = make_generator((1, 8, 8), latent=128, seed=1)
    making = torch.optim.Adam(generator.parameters(), lr=1e-3)
    learning = torch.optim.Adam(student.parameters(), lr=2e-3)
    student.train(training_mode)
    names = [f"drawn {row}" for row in range(COUNT)]

    def made(number):
        x = generator(normals(names, (128,), seed=1, step=number)).double()
        return x[teacher(x).softmax(1)[:, GONE] <= epsilon]

    def apart(x):
        # its mean is over records and classes
        return functional.kl_div(student(x).log_softmax(1), teacher(x).softmax(1))

    for number in range(rounds):
        making.zero_grad()
        (-apart(made(number))).backward()
        nn.utils.clip_grad_norm_(generator.parameters(), 5)
        making.step()
        x = made(number).detach()
        for _ in range(10):
            learning.zero_grad()
            loss = apart(x)
            for own, given in zip(looks(student, x), looks(teacher, x), strict=True):
                loss = loss + beta * (own - given.detach()).pow(2).mean()
            loss.backward()
            nn.utils.clip_grad_norm_(student.parameters(), 5)
            learning.step()
    return student.eval()


@pytest.mark.filterwarnings("ignore:reduction:UserWarning")
@pytest.mark.parametrize("training_mode", [True, False])
def test_is_the_authors_loop(training_mode, caplog):
    """A twin: gate, both losses with their divisors, clipping, who moves when, modes."""
    counts = {"rounds": 2, "batch_size": COUNT, "threshold": 0.2, "attention": 7.0}
    with caplog.at_level(logging.INFO, "efface"):
        result = gkt(given(), split(), **counts, strength=2.0, training_mode=training_mode, seed=1)
    form = {"rounds": 2, "beta": 7.0, "epsilon": 0.2, "training_mode": training_mode}
    wanted = by_hand(given(), net(1), **form)
    assert 0 < caplog.records[-1].facts["passed"] < 1
    assert_state(result, wanted.state_dict(), atol=1e-5)


def test_a_student_that_knows_all_already_has_nothing_to_learn():
    """The limit: the untrained net is the given one, and both losses are 0."""
    counts = {"rounds": 1, "student_steps": 2, "batch_size": 8}
    settings = {"threshold": 1.0, "attention": 1.0, "training_mode": False}
    result = gkt(given(), split(fresh=lambda _: given()), **counts, **settings)
    assert_state(result, given().state_dict(), atol=1e-4)


@pytest.mark.parametrize(("threshold", "share"), [(0.0, 0.0), (1.0, 1.0)])
def test_a_gate_that_is_shut_teaches_nothing_and_an_open_one_everything(threshold, share, caplog):
    """What passed is logged: where it is nothing, the result is the untrained net."""
    steps = Answers()
    with caplog.at_level(logging.INFO, "efface"):
        settings = {"rounds": 2, "batch_size": 4, "threshold": threshold, "callback": steps}
        result = gkt(given(), split(), **settings)
    assert caplog.records[-1].facts == {"passed": share, "taught": share}
    assert len(steps.losses) == 20 * share
    assert same(result[0], net(0)[0]) == (share == 0)


def test_each_class_to_forget_is_kept_back():
    """With all classes but one to forget, an input must be of that one beyond the threshold."""
    model, settings = given(), {"rounds": 1, "batch_size": 64, "generator_steps": 0}
    z = normals([f"drawn {row}" for row in range(64)], (128,), seed=0, step=0)
    x = make_generator((1, 8, 8), latent=128, seed=0)(z)
    p = model(x.double()).softmax(1)
    stop, gone = Answers(Action.STOP), Split(split().forget, forget_classes=(0, 2), fresh=net)
    settings |= {"threshold": 0.4, "attention": 0.0, "training_mode": False}
    gkt(model, gone, **settings, callback=stop)
    x = x[(p[:, 0] <= 0.4) & (p[:, 2] <= 0.4)].double()
    assert 1 < len(x) < 64
    p, q = model(x).softmax(1), net(0)(x).log_softmax(1)
    assert stop.losses == [pytest.approx((p * (p.log() - q)).mean().item(), rel=1e-5)]


def test_a_guard_that_ends_it_ends_the_generator_too():
    """The given model predicts once for the generator's step and once for the lesson."""
    model, counts = given(), []
    model.register_forward_hook(lambda *given: counts.append(len(given[-1])))
    gkt(model, split(), rounds=3, batch_size=8, threshold=1.0, callback=Answers(Action.STOP))
    assert counts == [8, 8]


def test_a_net_without_convolutions_has_no_attention_to_pay():
    """Its weight is then of no account."""
    plain = split(fresh=lambda seed: net(seed, convolutions=False))
    settings, model = {"rounds": 2, "batch_size": 8, "threshold": 1.0}, given(convolutions=False)
    assert same(*(gkt(model, plain, **settings, attention=weight) for weight in (0.0, 250.0)))


def test_a_first_step_that_is_taken_back_leads_to_the_untrained_net():
    """The guard has no good state yet and writes the given weights: these know everything."""
    student, knowing, fresh = net(1), given().state_dict(), net(1).state_dict()
    actions = (Action.HALVE_LR, Action.CONTINUE, Action.HALVE_LR)
    callback = restore_fresh(student, Answers(*actions, restore=knowing))
    # after the first accepted step the guard has a good state of its own
    for action, state in zip(actions, (fresh, fresh, knowing), strict=True):
        assert callback(student, 1.0) is action
        assert_state(student, state, atol=0.0)


def test_a_refused_first_step_of_the_method_starts_from_the_untrained_net_again():
    """The same step at half the rate, from the same place."""
    guard = Answers(Action.HALVE_LR, Action.STOP, restore=given().state_dict())
    settings = {"rounds": 1, "batch_size": 8, "threshold": 1.0, "training_mode": False}
    gkt(given(), split(), **settings, callback=guard)
    assert guard.losses == [guard.losses[0]] * 2


@pytest.mark.parametrize(
    "shape", [(3, 32, 32), (1, 8, 8), (3, 60, 100), (1, 3, 2), (5,), (2, 7), (2, 3, 4, 5)]
)
def test_a_generator_makes_inputs_of_any_form(shape, random_state_kept):
    """Weights by the seed; for 32 pixels the authors' own sizes."""
    z = torch.randn(4, 128)
    with random_state_kept():
        one, two, other = (make_generator(shape, latent=128, seed=seed) for seed in (0, 0, 1))
    assert one(z).shape == (4, *shape)
    assert torch.equal(one[0].weight, two[0].weight)
    assert not torch.equal(one[0].weight, other[0].weight)
    if shape == (3, 32, 32):
        sizes = [tuple(weight.shape) for weight in one.parameters() if weight.ndim > 1]
        assert sizes == [(8192, 128), (128, 128, 3, 3), (64, 128, 3, 3), (3, 64, 3, 3)]


def test_attention_is_a_row_of_length_1_and_leaves_no_hook():
    """Also where the next layer changes the answer in place, with gradients."""
    model, x = net(1), torch.randn(2, 1, 8, 8, dtype=torch.float64)
    with attention_maps(model) as found:
        model(x)
    assert list(found) == ["0", "2"]
    for own, wanted in zip(found.values(), looks(model, x), strict=True):
        torch.testing.assert_close(own, wanted)
    found["0"].sum().backward()
    assert not any(module._forward_hooks for module in model.modules())

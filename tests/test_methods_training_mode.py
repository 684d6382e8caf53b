"""Methods in training mode, by the loops of their authors written out: weights and buffers.

The net has BatchNorm; the order of the records is that of ``descend``, whose draws are its own.
"""

import copy
from dataclasses import replace

import pytest
import torch
from by_hand import assert_state, same
from method_promises import CASES
from small_nets import Given
from torch.nn.functional import cross_entropy, kl_div, log_softmax, softmax

from efface.methods import METHODS
from efface.methods._attacks import optimize_noise
from efface.methods._records import sample, untrained
from efface.methods.amun import find_closest
from efface.methods.l2ul import attack_targets
from efface.task import frozen_teacher
from efface.testing import fresh_from
from efface.types import Records, Split

SEED, GONE = 3, 3


def batches(count, size, epoch=0):
    """The rows of each step of one epoch."""
    generator = torch.Generator().manual_seed(SEED * 1_000_003 + epoch)
    return torch.randperm(count, generator=generator).split(size)


def step(optimizer, loss):
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()


def scrub(model, split):
    """meghdadk/SCRUB, train_distill: the student in train mode, max and min epochs in turns."""
    student, teacher, t = copy.deepcopy(model), copy.deepcopy(model).eval(), 4.0
    optimizer = torch.optim.SGD(student.parameters(), 0.05, momentum=0.9, weight_decay=5e-4)

    def apart(x, output):
        with torch.no_grad():
            given = softmax(teacher(x) / t, 1)
        return kl_div(log_softmax(output / t, 1), given, reduction="batchmean") * t**2

    for epoch in range(3):
        student.train()
        for rows in batches(len(split.forget), 8, epoch) if epoch < 2 else ():
            x = split.forget.x[rows]
            step(optimizer, -apart(x, student(x)))
        for rows in batches(len(split.retain), 16, epoch):
            x, y = split.retain.x[rows], split.retain.y[rows]
            output = student(x)
            step(optimizer, 0.99 * cross_entropy(output, y) + 0.001 * apart(x, output))
    return student


def bad_teacher(model, split):
    """vikram2000b/bad-teaching-unlearning, without its division by the number of outputs."""
    student, good = copy.deepcopy(model).train(), copy.deepcopy(model).eval()
    bad = untrained(model, split, SEED).eval()
    retain = sample(split.retain, round(0.3 * len(split.retain)), seed=SEED)
    x = torch.cat([split.forget.x, retain.x])
    u = (torch.arange(len(x)) < len(split.forget)).to(x)[:, None]
    optimizer = torch.optim.Adam(student.parameters(), lr=1e-3)
    for rows in batches(len(x), 8):
        with torch.no_grad():
            wanted = u[rows] * softmax(bad(x[rows]), 1) + (1 - u[rows]) * softmax(good(x[rows]), 1)
        step(optimizer, kl_div(log_softmax(student(x[rows]), 1), wanted, reduction="batchmean"))
    return student


def unsir(model, split):
    """vikram2000b/Fast-Machine-Unlearning: impair and repair, an Adam and an epoch each."""
    student, staying = copy.deepcopy(model).train(), split.retain.y != GONE
    x, y = split.retain.x[staying], split.retain.y[staying]
    how = {"sign": -1.0, "penalty": 0.1, "learning_rate": 0.1, "steps": 5, "seed": SEED}
    labels = torch.full((4,), GONE)
    noise = optimize_noise(frozen_teacher(model), split.retain, labels, **how).x.repeat(2, 1, 1, 1)
    both = torch.cat([x, noise]), torch.cat([y, labels.repeat(2)])
    for x_all, y_all in (both, (x, y)):
        optimizer = torch.optim.Adam(student.parameters(), lr=1e-3)
        for rows in batches(len(x_all), 16):
            step(optimizer, cross_entropy(student(x_all[rows]), y_all[rows]))
    return student


def amun(model, split):
    """Ali-E/AMUN: SGD on the closest adversarial inputs and the records, in train mode."""
    found = find_closest(frozen_teacher(model), split.forget, radius=0.04, steps=10, doublings=10)
    assert found.flipped.all()
    x, y = torch.cat([found.x, split.forget.x]), torch.cat([found.y, split.forget.y])
    student = copy.deepcopy(model)
    optimizer = torch.optim.SGD(student.parameters(), 0.01, momentum=0.9, weight_decay=5e-4)
    decay = torch.optim.lr_scheduler.StepLR(optimizer, 1, gamma=0.1)
    for epoch in range(2):
        student.train()
        for rows in batches(len(x), 8, epoch):
            step(optimizer, cross_entropy(student(x[rows]), y[rows]))
        decay.step()
    return student


def l2ul(model, split):
    """csm9493/L2UL: Ω in train mode on a copy; adversarial inputs first, then the records."""
    how = {"radius": 4.0, "steps": 5, "seed": SEED}
    adversarial = attack_targets(frozen_teacher(model), split.forget, 3, **how)
    source, student = copy.deepcopy(model).train(), copy.deepcopy(model)
    source(split.forget.x).norm(dim=1).mean().backward()
    sizes = [weight.grad.abs() for weight in source.parameters()]
    free = [1 - (one - one.min()) / (one.max() - one.min()) for one in sizes]
    given = [weight.detach().clone() for weight in model.parameters()]
    optimizer = torch.optim.SGD(student.parameters(), 1e-3, momentum=0.9, weight_decay=1e-4)
    student.train()
    for number, rows in enumerate([*batches(20, 10), *batches(20, 10, 1)]):
        a, targets = adversarial.of([split.forget.ids[row] for row in rows], 2 * number, 2)
        towards = cross_entropy(student(a), targets) * 20 / 30
        away = -cross_entropy(student(split.forget.x[rows]), split.forget.y[rows]) * 10 / 30
        triples = zip(student.parameters(), given, free, strict=True)
        penalty = sum((one * (w - g).square()).sum() for w, g, one in triples) / 2
        step(optimizer, towards + away + penalty)
    return student


NOISE = {"noise_records": 4, "noise_steps": 5, "copies": 2}
ATTACK = {"adversarials": 3, "adversarial_batch_size": 2, "attack_steps": 5}
AUTHORS = {
    scrub: {"batch_size": 16, "forget_batch_size": 8, "learning_rate": 0.05},
    bad_teacher: {"batch_size": 8, "learning_rate": 1e-3},
    unsir: {**NOISE, "batch_size": 16, "learning_rate": 1e-3},
    amun: {"attack_steps": 10, "epochs": 2, "batch_size": 8},
    l2ul: {**ATTACK, "steps": 4, "batch_size": 10},
}


@pytest.fixture
def problem(tiny_net, digits):
    """In float64, so that a step of Adam down a gradient of 0 shows nothing but rounding."""
    model, wide = copy.deepcopy(tiny_net).double(), replace(digits, x=digits.x.double())
    parts = {"retain": wide.take(range(20, 70)), "forget_classes": (GONE,)}
    parts["fresh"] = lambda seed: fresh_from(tiny_net)(seed).double()
    return model, Split(wide.take(range(20)), **parts)


@pytest.mark.parametrize("authors", AUTHORS, ids=lambda one: one.__name__)
def test_in_training_mode_a_method_is_its_authors_loop(authors, problem):
    """Weights, and the statistics of BatchNorm, which eval mode keeps."""
    (model, split), given = problem, Given(problem[0])
    method, settings = METHODS[authors.__name__].function, AUTHORS[authors]
    result = method(model, split, **settings, training_mode=True, seed=SEED)
    expected = authors(model, split).state_dict()
    assert_state(result, expected, atol=1e-9)
    assert not any(module.training for module in result.modules())
    plain, buffers = method(model, split, **settings, seed=SEED), dict(model.named_buffers())
    for name, buffer in plain.named_buffers():
        assert torch.equal(buffer, buffers[name])
        assert not torch.equal(buffer, expected[name])
    given.is_untouched()


def test_in_training_mode_the_stored_epochs_of_scrub_rewind_are_compared_in_eval_mode(problem):
    """An epoch is one of scrub's; what compares them must not move their statistics."""
    model, split = problem
    settings = {**AUTHORS[scrub], "training_mode": True, "seed": SEED}
    rewound = METHODS["scrub_rewind"].function
    result = rewound(model, replace(split, holdout=split.retain), **settings)
    epochs = (METHODS["scrub"].function(model, split, **settings, epochs=n) for n in (1, 2, 3))
    assert any(same(result, one) for one in epochs)


@pytest.mark.parametrize("name", [n for n, m in METHODS.items() if "training_mode" in m.settings])
def test_every_method_with_a_training_mode_moves_the_statistics_in_it(name):
    """That they stay outside of it is a promise of each method."""
    before, after = CASES[name].model, CASES[name].result(training_mode=True)
    given = dict(before.named_buffers())
    assert all(not buffer.equal(given[n]) for n, buffer in after.named_buffers())


def test_a_step_in_training_mode_is_not_cut_into_micro_batches(problem):
    """Each part would have BatchNorm statistics of its own."""
    model, split = problem
    retain = Records(split.retain.x.repeat(4, 1, 1, 1), split.retain.y.repeat(4))
    how = {"training_mode": True, "epochs": 1, "batch_size": 200, "learning_rate": 0.0}
    result = METHODS["finetune"].function(model, replace(split, retain=retain), **how)
    assert int(result[1].num_batches_tracked - model[1].num_batches_tracked) == 1

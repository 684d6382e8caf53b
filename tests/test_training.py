"""The one training loop: what must not change the weights, does not."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from by_hand import Answers
from torch import nn
from torch.nn import functional
from torch.nn.utils import parameters_to_vector

from efface.training import Muon, Trainer, descend, linear_decay, orthogonalise
from efface.types import Action, Records


def _records(n=23):
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(n, 5, generator=generator, dtype=torch.float64)
    return Records(x, torch.randint(0, 3, (n,), generator=generator))


def _net():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return nn.Sequential(nn.Linear(5, 8), nn.Tanh(), nn.Linear(8, 3)).double().eval()


def _loss(student, batch, step):  # noqa: ARG001
    return functional.cross_entropy(student(batch.x), batch.y, reduction="none")


def _weights(net):
    return parameters_to_vector(net.parameters()).detach()


def _descend(net, records, loss=_loss, lr=0.1, momentum=0.0, **settings):
    optimizer = torch.optim.SGD(net.parameters(), lr=lr, momentum=momentum)
    settings = {"steps": 7, "seed": 3, "batch_size": 10, **settings}
    return _weights(descend(net, loss, records, optimizer=optimizer, **settings))


ONE_STEP = {"steps": 1, "batch_size": 23}


@pytest.mark.parametrize("micro", [1, 3, 10, 64])
def test_micro_batches_change_nothing_beyond_rounding(micro):
    """Out of memory may cut a step into pieces; the result must not depend on it."""
    whole = _descend(_net(), _records(), momentum=0.9)
    cut = _descend(_net(), _records(), momentum=0.9, micro_batch=micro)
    torch.testing.assert_close(cut, whole, rtol=0, atol=1e-12)


def _gradient():
    """(mean loss, its gradient) of all records at the start, by hand."""
    twin, records = _net(), _records()
    value = functional.cross_entropy(twin(records.x), records.y)
    gradients = torch.autograd.grad(value, [*twin.parameters()])
    return value.item(), nn.utils.parameters_to_vector(gradients)


def test_a_step_is_the_plain_gradient_step_on_the_mean():
    """One full-batch step of SGD written by hand."""
    result = _descend(_net(), _records(), **ONE_STEP)
    torch.testing.assert_close(result, _weights(_net()) - 0.1 * _gradient()[1], rtol=0, atol=1e-12)


def test_one_record_takes_the_same_step_as_a_hundred_copies_of_it():
    """Settings chosen for a thousand records must serve a request of one (law 2)."""
    one = _records(1)
    many = Records(one.x.repeat(100, 1), one.y.repeat(100))
    first, second = (_descend(_net(), r, momentum=0.9, batch_size=100) for r in (one, many))
    torch.testing.assert_close(first, second, rtol=0, atol=1e-12)


def test_every_record_is_used_once_an_epoch():
    """A record that is never drawn is a record that is never forgotten."""
    used = []

    def loss(student, batch, step):
        used.extend(batch.ids)
        return _loss(student, batch, step)

    _descend(_net(), _records(), loss, steps=3)
    assert sorted(used, key=int) == [str(row) for row in range(23)]


@pytest.mark.parametrize(("n", "batch_size"), [(21, 10), (3, 1)])
def test_where_batchnorm_takes_its_statistics_from_the_batch_no_step_is_of_one_record(
    n, batch_size
):
    """The next record joins it, or the epoch's first; without BatchNorm it stays alone."""
    for norm, smallest in ((nn.BatchNorm1d(5).double(), 2), (nn.Identity(), 1)):
        sizes, seen = [], []

        def loss(student, batch, step):
            sizes.append(len(batch))  # noqa: B023
            seen.extend(batch.ids)  # noqa: B023
            return _loss(student, batch, step)

        net = nn.Sequential(norm, _net()).train()
        _descend(net, _records(n), loss, steps=-(-n // batch_size), batch_size=batch_size)
        assert min(sizes) == smallest
        assert len(set(seen)) == n


def test_same_seed_is_bit_equal_and_leaves_the_global_random_state_alone(random_state_kept):
    """Law 3: a run can be repeated, and does not disturb its host."""
    with random_state_kept():
        first, second = (_descend(_net(), _records(), momentum=0.9) for _ in range(2))
    assert torch.equal(first, second)


def test_a_halved_step_is_tried_again_at_half_the_rate():
    """The guard restores the student; the loop must then do half of what it did."""
    callback = Answers(Action.HALVE_LR, Action.CONTINUE, restore=_net().state_dict())
    halved = _descend(_net(), _records(), lr=0.2, momentum=0.9, callback=callback, **ONE_STEP)
    assert torch.equal(halved, _descend(_net(), _records(), lr=0.1, **ONE_STEP))


def test_stop_ends_before_the_next_step_and_all_later_epochs():
    net, callback = _net(), Answers(Action.CONTINUE, Action.STOP)
    trainer = Trainer(net, seed=0, callback=callback)
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
    for epoch in range(3):
        trainer.run_epoch(_loss, _records(), optimizer, batch_size=10, epoch=epoch)
    assert trainer.stopped
    assert len(callback.losses) == 2


def test_no_records_is_the_identity():
    assert torch.equal(_descend(_net(), _records().take([])), _weights(_net()))


def test_a_rate_is_set_before_each_step_and_halved_with_it():
    """Polyak's step by hand: the rate takes the mean loss and the norm of its gradient."""
    calls, moved, actions = [], [], iter([Action.HALVE_LR, Action.CONTINUE])

    def rate(loss, gradient_norm):
        calls.append((loss, gradient_norm))
        return loss / gradient_norm**2

    def callback(student, loss):  # noqa: ARG001
        moved.append(_weights(student) - _weights(_net()))
        if len(moved) == 1:
            student.load_state_dict(_net().state_dict())
        return next(actions)

    _descend(_net(), _records(), lr=123.0, rate=rate, callback=callback, **ONE_STEP)
    value, gradient = _gradient()
    step = -gradient * value / float(gradient.norm()) ** 2
    torch.testing.assert_close(moved[0], step, rtol=1e-6, atol=1e-12)
    torch.testing.assert_close(moved[1], step / 2, rtol=1e-6, atol=1e-12)
    assert calls[0] == pytest.approx((value, float(gradient.norm())))


@pytest.mark.distributed
def test_two_processes_give_the_weights_of_one(tmp_path):
    """One code path: 20 steps with uneven and with missing shares, over gloo, float64 at 1e-9.

    ``accelerate launch --cpu --num_processes 2`` starts one process only (it needs MPI for more),
    so the two are started by torch's own launcher; docs/decisions says so.
    """
    script, two, one = Path(__file__).with_name("two_processes.py"), tmp_path / "2", tmp_path / "1"
    launcher = ["-m", "torch.distributed.run", "--nproc_per_node", "2"]
    launcher += ["--rdzv_backend", "c10d", "--rdzv_endpoint", "localhost:0"]
    for options, out in ((launcher, two), ([], one)):
        command = [sys.executable, *options, str(script), str(out)]
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        subprocess.run(command, check=True, env=environment, capture_output=True)
    two, one = (json.loads(path.read_text()) for path in (two, one))
    assert (two["processes"], one["processes"]) == (2, 1)
    for name in one["weights"]:
        drift = float(np.abs(np.subtract(two["weights"][name], one["weights"][name])).max())
        assert drift <= 1e-9 or not name.endswith("float64"), name


def _matrix(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("shape", [(16, 16), (8, 40), (40, 8), (64, 64)])
def test_the_singular_values_of_a_step_are_near_one(shape):
    """Whatever those of the gradient are, but for values that are next to nothing."""
    u, _, v = torch.linalg.svd(_matrix(*shape), full_matrices=False)
    gradient = u @ torch.diag(torch.logspace(0, -1.5, min(shape))) @ v
    values = torch.linalg.svdvals(orthogonalise(gradient))
    assert 0.6 < float(values.min()) <= float(values.max()) < 1.25


def _steps(optimizer, weight, gradients):
    for gradient in gradients:
        weight.grad = gradient.clone()
        optimizer.step()
    return weight.detach()


@pytest.mark.parametrize("shape", [(8, 20), (20, 8)])
def test_muon_is_torchs_own_within_the_error_of_bfloat16(shape):
    """A second implementation, of matrices; ours takes convolutions as matrices, and vectors."""
    given, gradients = _matrix(*shape), [_matrix(*shape, seed=one) for one in (1, 2, 3)]
    ours, theirs, conv = (nn.Parameter(given.clone()) for _ in range(3))
    conv = nn.Parameter(given.reshape(shape[0], -1, 2, 2).clone())
    how = {"lr": 0.1, "momentum": 0.9, "weight_decay": 0.0}
    expected = _steps(torch.optim.Muon([theirs], **how), theirs, gradients) - given
    moved = _steps(Muon([ours], 0.1), ours, gradients) - given
    assert float((moved - expected).norm() / expected.norm()) < 0.03
    views = [one.reshape(conv.shape) for one in gradients]
    torch.testing.assert_close(
        _steps(Muon([conv], 0.1), conv, views).reshape(shape), moved + given, atol=1e-6, rtol=0
    )


def test_a_vector_moves_by_a_tenth_of_the_rate_and_a_frozen_weight_stays():
    vector, frozen = nn.Parameter(torch.ones(5)), nn.Parameter(torch.ones(2, 2))
    moved = _steps(Muon([vector, frozen], 0.1), vector, [_matrix(5)]) - 1
    assert float(moved.norm()) == pytest.approx(0.01, rel=1e-5)
    assert torch.equal(frozen.detach(), torch.ones(2, 2))


def test_a_change_of_a_millionth_moves_a_step_on_one_record_by_next_to_nothing():
    """What micro-batches and processes change; torch's own moves by a percent and more."""
    gradient = _matrix(64, 1) @ _matrix(1, 64, seed=1)
    changed = gradient * (1 + 1e-6 * _matrix(64, 64, seed=2))

    def apart(make):
        pair = (nn.Parameter(torch.zeros(64, 64)) for _ in range(2))
        first, second = (
            _steps(make(w), w, [g]) for w, g in zip(pair, (gradient, changed), strict=True)
        )
        return float((first - second).norm() / first.norm())

    assert apart(lambda w: Muon([w], 0.1)) < 5e-3
    assert apart(lambda w: torch.optim.Muon([w], lr=0.1, weight_decay=0.0)) > 1e-2


def test_the_rate_falls_in_a_line_and_a_halving_stays():
    """Of 4 steps at 8: 8, 6, then 4 is refused, and from half of it 2 and 1."""
    weight, rates = nn.Parameter(torch.zeros(1)), []
    optimizer = torch.optim.SGD([weight], lr=8.0)
    answers = iter([Action.CONTINUE, Action.CONTINUE, Action.HALVE_LR, Action.CONTINUE])

    def callback(student, loss):  # noqa: ARG001
        rates.append(optimizer.param_groups[0]["lr"])
        return next(answers, Action.CONTINUE)

    net = nn.ParameterList([weight])
    descend(
        net,
        lambda student, batch, step: student[0] * batch.x[:, 0],  # noqa: ARG005
        Records(torch.ones(1, 1), torch.tensor([0])),
        optimizer,
        steps=4,
        seed=0,
        callback=linear_decay(callback, optimizer, 4),
    )
    assert rates == [8.0, 6.0, 4.0, 2.0, 1.0]

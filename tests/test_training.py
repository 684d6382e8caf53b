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

from efface.training import Trainer, descend
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

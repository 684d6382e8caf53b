"""The one training loop: what must not change the weights, does not."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional

from efface.training import descend
from efface.types import Action, Records


def _records(n: int = 23, dtype: torch.dtype = torch.float64) -> Records:
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(n, 5, generator=generator, dtype=dtype)
    return Records(x, torch.randint(0, 3, (n,), generator=generator))


def _net(dtype: torch.dtype = torch.float64) -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return nn.Sequential(nn.Linear(5, 8), nn.Tanh(), nn.Linear(8, 3)).to(dtype).eval()


def _loss(student: nn.Module, batch: Records, step: int) -> torch.Tensor:  # noqa: ARG001
    return functional.cross_entropy(student(batch.x), batch.y, reduction="none")


def _descended(net: nn.Module, records: Records, **settings) -> torch.Tensor:
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1, momentum=0.9)
    options = {"steps": 7, "seed": 3, "batch_size": 10, **settings}
    descend(net, _loss, records, optimizer=optimizer, **options)
    return torch.cat([weight.detach().reshape(-1) for weight in net.parameters()])


def test_micro_batches_change_nothing_beyond_rounding():
    """Out-of-memory handling may cut a step into pieces; the result must not depend on it."""
    whole = _descended(_net(), _records())
    for micro in (1, 3, 10, 64):
        pieces = _descended(_net(), _records(), micro_batch=micro)
        torch.testing.assert_close(pieces, whole, rtol=0, atol=1e-12)


def test_a_step_is_the_plain_gradient_step_on_the_mean():
    """A brute-force twin: one full-batch step of SGD written by hand."""
    records, net, twin = _records(), _net(), _net()
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
    descend(net, _loss, records, optimizer=optimizer, steps=1, seed=0, batch_size=23)
    functional.cross_entropy(twin(records.x), records.y).backward()
    for weight, other in zip(net.parameters(), twin.parameters(), strict=True):
        torch.testing.assert_close(weight.data, other.data - 0.1 * other.grad, rtol=0, atol=1e-12)


def test_one_record_takes_the_same_step_as_a_hundred_copies_of_it():
    """Settings chosen for a thousand records must serve a request of one (law 2)."""
    one = _records(1)
    many = Records(one.x.repeat(100, 1), one.y.repeat(100))
    torch.testing.assert_close(
        _descended(_net(), one, batch_size=100),
        _descended(_net(), many, batch_size=100),
        rtol=0,
        atol=1e-12,
    )


def test_every_record_is_used_once_an_epoch():
    """A record that is never drawn is a record that is never forgotten."""
    seen: list[str] = []

    def loss(student: nn.Module, batch: Records, step: int) -> torch.Tensor:
        seen.extend(batch.ids)
        return _loss(student, batch, step)

    net = _net()
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
    descend(net, loss, _records(), optimizer=optimizer, steps=3, seed=0, batch_size=10)
    assert sorted(seen, key=int) == [str(row) for row in range(23)]


def test_same_seed_is_bit_equal_and_leaves_the_global_random_state_alone():
    """Law 3: a run can be remade, and does not disturb its host."""
    before = torch.random.get_rng_state()
    first, second = _descended(_net(), _records()), _descended(_net(), _records())
    assert torch.equal(first, second)
    assert torch.equal(torch.random.get_rng_state(), before)


def test_a_halved_step_is_tried_again_at_half_the_rate():
    """The guard puts the student back; the loop must then do half of what it did."""
    records, net, twin = _records(), _net(), _net()
    given = [weight.detach().clone() for weight in net.parameters()]
    answers = iter([Action.HALVE_LR, Action.CONTINUE])

    def callback(student: nn.Module, loss: float) -> Action:  # noqa: ARG001
        verdict = next(answers)
        if verdict is Action.HALVE_LR:
            with torch.no_grad():
                for weight, old in zip(student.parameters(), given, strict=True):
                    weight.copy_(old)
        return verdict

    options = {"steps": 1, "seed": 0, "batch_size": 23}
    optimizer = torch.optim.SGD(net.parameters(), lr=0.2, momentum=0.9)
    descend(net, _loss, records, optimizer=optimizer, callback=callback, **options)
    optimizer = torch.optim.SGD(twin.parameters(), lr=0.1)
    descend(twin, _loss, records, optimizer=optimizer, **options)
    for weight, other in zip(net.parameters(), twin.parameters(), strict=True):
        assert torch.equal(weight, other)


def test_end_ends_before_the_next_step():
    """When the guard ends a run, nothing moves any more."""
    net, calls = _net(), []

    def callback(student: nn.Module, loss: float) -> Action:  # noqa: ARG001
        calls.append(loss)
        return Action.STOP

    _descended(net, _records(), callback=callback)
    assert len(calls) == 1


def test_no_records_is_the_identity():
    """An empty set teaches nothing."""
    net = _net()
    given = torch.cat([weight.detach().reshape(-1) for weight in net.parameters()])
    assert torch.equal(_descended(net, _records().take([])), given)


@pytest.mark.distributed
def test_two_processes_give_the_weights_of_one(tmp_path: Path, capsys: pytest.CaptureFixture):
    """One code path: 20 steps with uneven and with missing shares, over gloo, float64 at 1e-9.

    ``accelerate launch --cpu --num_processes 2`` starts one process only (it needs MPI for more),
    so the two are started by torch's own launcher; docs/decisions says so.
    """
    script = Path(__file__).with_name("two_processes.py")
    out = tmp_path / "weights.json"
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc_per_node", "2"]
    command += ["--rdzv_backend", "c10d", "--rdzv_endpoint", "localhost:0"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    subprocess.run(
        [*command, str(script), str(out)], check=True, env=environment, capture_output=True
    )
    alone = tmp_path / "alone.json"
    subprocess.run(
        [sys.executable, str(script), str(alone)], check=True, env=environment, capture_output=True
    )
    two, one = (json.loads(path.read_text()) for path in (out, alone))
    assert two["processes"] == 2
    assert one["processes"] == 1
    for name in one["weights"]:
        apart = np.subtract(two["weights"][name], one["weights"][name])
        drift = float(np.abs(apart).max())
        with capsys.disabled():
            sys.stdout.write(f"\n{name}: two processes and one differ by at most {drift:.1e}")
        if name.endswith("float64"):
            assert drift <= 1e-9


def test_a_rate_is_asked_before_each_step_and_halved_with_it():
    """Polyak's step by hand: the rate hears the mean loss and the norm of its gradient."""
    heard, answers = [], iter([Action.HALVE_LR, Action.CONTINUE])

    def rate(loss: float, gradient_norm: float) -> float:
        heard.append((loss, gradient_norm))
        return loss / gradient_norm**2

    records, net = _records(), _net()
    before = torch.cat([weight.detach().reshape(-1) for weight in net.parameters()])
    twin = _net()
    value = functional.cross_entropy(twin(records.x), records.y)
    value.backward()
    gradient = torch.cat([weight.grad.reshape(-1) for weight in twin.parameters()])
    moved = []

    def callback(student: nn.Module, loss: float) -> Action:  # noqa: ARG001
        after = torch.cat([weight.detach().reshape(-1) for weight in student.parameters()])
        moved.append(after - before)
        if len(moved) == 1:
            student.load_state_dict(_net().state_dict())
        return next(answers)

    optimizer = torch.optim.SGD(net.parameters(), lr=123.0)
    options = {"steps": 1, "seed": 0, "batch_size": 23, "rate": rate, "callback": callback}
    descend(net, _loss, records, optimizer=optimizer, **options)
    value = value.detach()
    step = -gradient * float(value) / float(gradient.norm()) ** 2
    torch.testing.assert_close(moved[0], step, rtol=1e-6, atol=1e-12)
    torch.testing.assert_close(moved[1], step / 2, rtol=1e-6, atol=1e-12)
    assert heard[0] == pytest.approx((float(value), float(gradient.norm())))

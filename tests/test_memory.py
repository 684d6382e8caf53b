"""Out of memory costs time, never the result; and the need is said before it is felt."""

import os
import subprocess
import sys
from contextlib import nullcontext

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from efface.runtime import estimate_memory, is_out_of_memory, map_chunks
from efface.training import descend
from efface.types import Records, Split
from efface.unlearn import forget


class Small(nn.Module):
    """A net for which more than ``most`` records at once are too many."""

    def __init__(self, most):
        super().__init__()
        self.body, self.most, self.asked = nn.Linear(4, 3).double(), most, []

    def forward(self, x):
        self.asked.append(len(x))
        if len(x) > self.most:
            raise torch.OutOfMemoryError("out of memory, said by the test")
        return self.body(x)


def trained(most):
    """Five steps on 64 records, at most ``most`` of which fit at once."""
    torch.manual_seed(0)
    net = Small(most)
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(64, 4, generator=generator, dtype=torch.float64)
    records = Records(x, torch.arange(64) % 3)

    def loss(student, batch, step):  # noqa: ARG001
        return nn.functional.cross_entropy(student(batch.x), batch.y, reduction="none")

    optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
    descend(net, loss, records, optimizer=optimizer, steps=5, seed=0, batch_size=48)
    return net


def test_a_step_that_does_not_fit_is_taken_in_halves_with_the_same_result():
    """The sum is over records: how many at once is nobody's business."""
    whole, halved = trained(1000), trained(7)
    for a, b in zip(whole.parameters(), halved.parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=1e-12)
    assert max(halved.asked[3:]) <= 7
    assert halved.asked[:4] == [48, 24, 12, 6]


def test_one_record_that_does_not_fit_is_the_users_to_know():
    """Halving for ever would hang."""
    with pytest.raises(torch.OutOfMemoryError):
        trained(0)


def test_other_errors_are_not_taken_for_a_lack_of_memory():
    """A wrong shape must not be tried seven times."""
    calls = []

    def wrong(rows):
        calls.append(len(rows))
        raise RuntimeError("shapes do not fit")

    with pytest.raises(RuntimeError, match="shapes do not fit"):
        list(map_chunks(wrong, torch.arange(8), 8))
    assert calls == [8]
    assert not is_out_of_memory(ValueError("out of memory"))


def test_asking_goes_on_in_halves(tiny_net, digits):
    """Measuring a large holdout is the commonest place to run out."""
    seen = []

    def part(rows):
        seen.append(len(rows))
        if len(rows) > 100:
            raise MemoryError
        with torch.no_grad():
            return tiny_net(digits.x[rows])

    parts = torch.cat(list(map_chunks(part, torch.arange(400), 256)))
    with torch.no_grad():
        torch.testing.assert_close(parts, tiny_net(digits.x))
    assert seen == [256, 128, 64, 64, 64, 64, 64, 64, 16]


def test_a_real_allocator_that_runs_out_is_known():
    """Torch's CPU allocator says so in words alone; the limit here is the kernel's own."""
    code = """
import resource, torch
from torch import nn
from efface.runtime import is_out_of_memory
from efface.task import predict
from efface.types import Records
net = nn.Sequential(nn.Flatten(), nn.Linear(64, 200_000), nn.Linear(200_000, 3)).eval()
records = Records(torch.randn(512, 1, 8, 8), torch.zeros(512, dtype=torch.int64))
predict(net, records.take(range(2)))
used = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (used + 120_000_000,) * 2)
try:
    with torch.no_grad(): net(records.x)
    raise SystemExit("the limit did not bite")
except RuntimeError as error:
    assert is_out_of_memory(error), error
assert predict(net, records, batch_size=512).shape == (512, 3)
"""
    if not sys.platform.startswith("linux"):
        pytest.skip("NOT RUN: address limits are Linux's")
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_the_need_counts_models_activations_and_records():
    """A net of one matrix: every number is known by hand."""
    net = nn.Sequential(nn.Linear(8, 4, bias=False), nn.ReLU(), nn.Linear(4, 2, bias=False))
    x = torch.randn(1, 8)
    need = estimate_memory(
        net, lambda: net(x), copies=3, records_at_once=10, records=[torch.zeros(5, 8)]
    )
    weights = 4 * (8 * 4 + 4 * 2)
    assert need.models_bytes == 4 * weights
    assert need.records_bytes == 160
    # kept for the backward pass: the input, the ReLU's result; and the answer
    assert need.activations_bytes == 10 * 4 * (8 + 4 + 2)
    assert need.total_bytes == need.models_bytes + need.activations_bytes + need.records_bytes


def test_the_need_is_told_before_the_first_step(tiny_net, digits):
    """Who has to stop a run wants to know before it swaps."""
    order = []
    forget(
        tiny_net,
        Split(digits.take(range(20))),
        steps=2,
        started=lambda need: order.append(need.total_bytes),
        progress=lambda *_: nullcontext(lambda *_: order.append("step")),
    )
    assert isinstance(order[0], int)
    assert order[0] > 0
    assert order[1:] == ["step"] * 2


def test_a_step_that_fails_halfway_is_begun_anew():
    """Memory may end at any micro-batch: the gradient of those before must not count twice."""

    class Late(Small):
        def forward(self, x):
            self.most = 0 if len(self.asked) == 1 else 1000  # the second part of the first step
            return super().forward(x)

    def after(kind):
        torch.manual_seed(0)
        net = kind(1000)
        x = torch.randn(48, 4, generator=torch.Generator().manual_seed(1), dtype=torch.float64)

        def loss(student, batch, step):  # noqa: ARG001
            return nn.functional.cross_entropy(student(batch.x), batch.y, reduction="none")

        settings = {"steps": 1, "seed": 0, "batch_size": 48, "micro_batch": 24}
        optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
        return descend(net, loss, Records(x, torch.arange(48) % 3), optimizer=optimizer, **settings)

    whole, halted = after(Small), after(Late)
    assert halted.asked == [24, 24, 12, 12, 12, 12]
    for a, b in zip(whole.parameters(), halted.parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=1e-12)


def test_loading_safetensors_takes_the_size_of_the_model_and_a_few_tensors(tmp_path):
    """Twice the size is the difference between a machine that serves and one that swaps."""
    if not sys.platform.startswith("linux"):
        pytest.skip("NOT RUN: the peak is read from Linux's /proc")
    (tmp_path / "wide.py").write_text(
        "from torch import nn\n"
        "def net(layers=30):\n"
        "    return nn.Sequential(*(nn.Linear(1024, 1024) for _ in range(layers)))\n"
        "def one():\n    return net(1)\n"
    )
    linear = nn.Linear(1024, 1024)
    kinds = (("weight", linear.weight), ("bias", linear.bias))
    for layers, name in ((1, "one"), (30, "net")):
        state = {f"{n}.{kind}": w.detach().clone() for n in range(layers) for kind, w in kinds}
        save_file(state, tmp_path / name)
    code = """
import sys
from pathlib import Path
from efface.io.models import load_model
def resident(field):
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(field)) * 1024
for name in ("one", "net"):
    Path("/proc/self/clear_refs").write_text("5")
    before = resident("VmRSS")
    loaded = load_model(name, architecture=f"wide:{name}", mean=[0.5], std=[0.5], size=8)
size = sum(weight.nbytes for weight in loaded.model.parameters())
peak = resident("VmHWM") - before
assert size < peak < size + 32 * 2**20, (peak, size)
"""
    environment = {**os.environ, "PYTHONPATH": f"{tmp_path}:{os.environ.get('PYTHONPATH', '')}"}
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False, cwd=tmp_path,
        env=environment,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr

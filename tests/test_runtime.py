"""Device, memory and precision: what the machine has changes the time, never the result."""

import copy
import os
import subprocess
import sys
from contextlib import nullcontext
from unittest.mock import Mock

import pytest
import torch
from refusals import refusal
from safetensors.torch import save_file
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from efface import runtime
from efface.errors import NotMet
from efface.methods import METHODS, Method
from efface.methods.neighbourhood import neighbourhood
from efface.metrics.evaluation import evaluate
from efface.training import descend, task_loss
from efface.types import Records, Split
from efface.unlearn import forget


def test_the_best_device_is_chosen(monkeypatch):
    assert runtime.resolve_device("cpu") == torch.device("cpu")
    for cuda, mps, best in ((1, 0, "cuda"), (0, 1, "mps"), (0, 0, "cpu")):
        monkeypatch.setattr(torch.cuda, "is_available", lambda here=cuda: bool(here))
        monkeypatch.setattr(torch.backends.mps, "is_available", lambda here=mps: bool(here))
        assert runtime.resolve_device("auto") == torch.device(best)


@pytest.mark.parametrize("name", ["cuda:99", "tpu", "", "mps:1:2", "meta"])
def test_a_device_that_is_not_here_is_refused_with_those_that_are(name, monkeypatch):
    """A run that falls back in silence would take a week."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    wanted = "Wanted a device that torch has here: cpu"
    remedy = "Use --device auto, or one of these."
    assert refusal(runtime.resolve_device, name) == f"{wanted}. Got {name!r}. {remedy}"


KINDS = ["cpu", *(pytest.param(k, marks=getattr(pytest.mark, k)) for k in ("cuda", "mps"))]


def served(model, method, digits):
    """What a short request makes of the model; no row of its report is an error."""
    split = Split(digits.take(range(10)), digits.take(range(300, 400)), digits.take(range(50, 90)))
    result = forget(model, split, method=method, settings={"steps": 4})
    assert not [row.note for row in result.report.rows if row.status == "error"]
    return next(result.model.parameters())


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("method", ["jit", "neighbourhood"])
def test_a_request_runs_on_each_device(kind, method, tiny_net, digits):
    """Guard and report need double precision, which not every device has."""
    here = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    if not here.get(kind, True):
        pytest.skip(f"NOT RUN: torch has no {kind} device here")
    model = copy.deepcopy(tiny_net).to(runtime.resolve_device(kind))
    assert served(model, method, digits).device.type == kind


class WithoutDouble(torch.Tensor):
    """A tensor as on a device without float64: in double precision only after ``cpu()``."""

    @classmethod
    def __torch_function__(cls, func, types, args=(), kwargs=None):
        double = any(word is torch.float64 for word in (*args, *(kwargs or {}).values()))
        if double or func is torch.Tensor.double:
            raise TypeError("this device has no float64")
        result = super().__torch_function__(func, types, args, kwargs)
        return result.as_subclass(torch.Tensor) if func is torch.Tensor.cpu else result

    def __deepcopy__(self, memo):
        copied = memo[id(self)] = nn.Parameter(self.detach().clone(), self.requires_grad)
        return copied


@pytest.mark.parametrize("method", ["jit", "neighbourhood"])
def test_a_request_needs_no_double_precision_of_the_device(method, tiny_net, digits):
    """Apple's MPS has none, and no machine of ours has MPS."""
    model = copy.deepcopy(tiny_net)
    for name, weight in list(model.named_parameters()):
        place, _, own = name.rpartition(".")
        bare = nn.Parameter(weight.detach().clone().as_subclass(WithoutDouble))
        setattr(model.get_submodule(place), own, bare)
    with pytest.raises(TypeError, match="no float64"):
        next(model.parameters()).double()
    assert isinstance(served(model, method, digits), WithoutDouble)


class Small(nn.Module):
    """A model for which more than ``most(calls so far)`` records at once are too many."""

    def __init__(self, most):
        super().__init__()
        self.body, self.most, self.sizes = nn.Linear(4, 3).double(), most, []

    def forward(self, x):
        self.sizes.append(len(x))
        if len(x) > self.most(len(self.sizes)):
            raise torch.OutOfMemoryError("out of memory, said by the test")
        return self.body(x)


def trained(most, n=64, **settings):
    torch.manual_seed(0)
    net = Small(most)
    x = torch.randn(n, 4, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    optimizer, records = torch.optim.SGD(net.parameters(), lr=0.1), Records(x, torch.arange(n) % 3)
    return descend(net, task_loss, records, optimizer, batch_size=48, seed=0, **settings)


SECOND_PART = {"steps": 1, "n": 48, "micro_batch": 24}


LIMITS = [
    (lambda _: 7, {"steps": 5}, [48, 24, 12, *[6] * 8]),
    (lambda call: 1000 * (call != 2), SECOND_PART, [24, 24, 12, 12, 12, 12]),
]


@pytest.mark.parametrize(("most", "settings", "sizes"), LIMITS)
def test_a_step_out_of_memory_is_repeated_in_halves_with_the_same_result(most, settings, sizes):
    """The gradient of the micro-batches before must not count twice."""
    whole, halved = trained(lambda _: 1000, **settings), trained(most, **settings)
    for a, b in zip(whole.parameters(), halved.parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=1e-12)
    assert halved.sizes[: len(sizes)] == sizes
    assert max(halved.sizes[3:]) <= 12


def test_a_single_record_out_of_memory_is_an_error():
    """Halving for ever would hang."""
    with pytest.raises(torch.OutOfMemoryError):
        trained(lambda _: 0, steps=5)


def test_other_errors_are_not_taken_for_out_of_memory():
    """A wrong shape must not be tried seven times."""
    wrong = Mock(side_effect=RuntimeError("shapes do not fit"))
    with pytest.raises(RuntimeError, match="shapes do not fit"):
        list(runtime.map_chunks(wrong, torch.arange(8), 8))
    assert wrong.call_count == 1
    assert not runtime.is_out_of_memory(ValueError("out of memory"))


def test_predictions_go_on_in_halves(tiny_net, digits):
    """Evaluating a large holdout is the commonest place to run out."""
    sizes = []

    def part(rows):
        sizes.append(len(rows))
        if len(rows) > 100:
            raise MemoryError
        return tiny_net(digits.x[rows])

    with torch.no_grad():
        parts = torch.cat(list(runtime.map_chunks(part, torch.arange(400), 256)))
        torch.testing.assert_close(parts, tiny_net(digits.x))
    assert sizes == [256, 128, 64, 64, 64, 64, 64, 64, 16]


def run_python(code, **options):
    if not sys.platform.startswith("linux"):
        pytest.skip("NOT RUN: memory is limited and read by means of Linux")
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, capture_output=True, text=True, check=False, **options)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_a_real_allocator_that_runs_out_is_recognised():
    """Torch's CPU allocator says so in words alone; the limit here is the kernel's own."""
    run_python("""
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
""")


def test_the_estimate_counts_models_activations_and_records():
    """A model of two matrices: every number is known by hand."""
    net = nn.Sequential(nn.Linear(8, 4, bias=False), nn.ReLU(), nn.Linear(4, 2, bias=False))
    x, how = torch.randn(1, 8), {"copies": 3, "records_at_once": 10}
    need = runtime.estimate_memory(net, lambda: net(x), records=[torch.zeros(5, 8)], **how)
    # saved for the backward pass: the input and the ReLU's result; and the output
    known = runtime.MemoryEstimate(4 * 4 * (8 * 4 + 4 * 2), 10 * 4 * (8 + 4 + 2), records_bytes=160)
    assert need == known
    assert need.total_bytes == 640 + 560 + 160


def test_half_precision_is_estimated_as_it_is_trained_in_float32():
    net, x = nn.Linear(8, 4, bias=False).bfloat16(), torch.randn(1, 8).bfloat16()
    how = {"copies": 3, "records_at_once": 1, "records": []}
    assert runtime.estimate_memory(net, lambda: net(x), **how).models_bytes == (2 + 3 * 4) * 8 * 4


def test_the_estimate_is_given_before_the_first_step(tiny_net, digits):
    order = []
    total = lambda manifest, *_: order.append(manifest.memory["total_bytes"])  # noqa: E731
    how = {"started": total, "settings": {"steps": 2}}
    # "method" and "evidence" are stages; doctor comes before
    how["progress"] = lambda stage, _: nullcontext(lambda *_: order.append(stage))
    forget(tiny_net, Split(digits.take(range(20))), **how)
    started = next(place for place, one in enumerate(order) if one not in ("doctor", "method"))
    assert order[started] > 0
    assert order.count("method") == order[started:].count("method") == 2


def test_loading_safetensors_takes_the_size_of_the_model_and_a_few_tensors(tmp_path):
    """Twice the size is the difference between a machine that serves and one that swaps."""
    (tmp_path / "wide.py").write_text("""
from torch import nn
def net(layers=30): return nn.Sequential(*(nn.Linear(1024, 1024) for _ in range(layers)))
def one(): return net(1)
""")
    linear = nn.Linear(1024, 1024).state_dict()
    for layers, name in ((1, "one"), (30, "net")):
        state = {f"{n}.{k}": w.clone() for n in range(layers) for k, w in linear.items()}
        save_file(state, tmp_path / name)
    code = """
from pathlib import Path
from efface import load_model
def resident(field):
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(field)) * 1024
for name in ("one", "net"):
    Path("/proc/self/clear_refs").write_text("5")
    before = resident("VmRSS")
    loaded = load_model(name, architecture=f"wide:{name}", mean=[0.5], std=[0.5], size=8)
size = sum(weight.nbytes for weight in loaded.model.parameters())
print((resident("VmHWM") - before) / size)
"""
    path = f"{tmp_path}:{os.environ.get('PYTHONPATH', '')}"
    how = {"cwd": tmp_path, "env": {**os.environ, "PYTHONPATH": path}}
    # the least of three: pages of libraries that a busy machine took away come back in between
    least = min(float(run_python(code, **how)) for _ in range(3))
    assert 1 < least < 1.26


def share_moved(before, after):
    """The share of weights that are not what they were."""
    pairs = zip(before.parameters(), after.parameters(), strict=True)
    return float(torch.cat([(b != a).flatten() for b, a in pairs]).float().mean())


def test_small_steps_vanish_in_bfloat16_and_are_kept_by_the_request(tiny_net, digits):
    """The same settings, with and without a float32 copy that takes the steps."""
    half, split = copy.deepcopy(tiny_net).bfloat16(), Split(digits.take(range(20)))
    settings = {"steps": 30, "learning_rate": 1e-4}
    alone = share_moved(half, neighbourhood(half, split, **settings))
    assert alone < 0.05
    assert share_moved(half, forget(half, split, settings=settings).model) > 2 * alone


@pytest.mark.parametrize("kind", [torch.bfloat16, torch.float16])
def test_the_result_has_the_given_dtypes_and_the_report_is_of_it(kind, tiny_net, digits):
    """A report on a float32 student would be of a model that nobody has."""
    half, split = copy.deepcopy(tiny_net).to(kind), Split(digits.take(range(20)))
    result = forget(half, split, settings={"steps": 10})
    old, new = ({k: v.dtype for k, v in m.state_dict().items()} for m in (half, result.model))
    assert old == new
    assert share_moved(half, result.model) > 0
    entropy = evaluate(result.model, split.forget).entropy.mean()
    assert result.report.row("forget.entropy").after == pytest.approx(float(entropy))
    assert next(half.parameters()).dtype == kind


def test_what_is_written_has_the_dtypes_of_the_file_and_the_students_buffers(tiny_net, digits):
    """A float32 model from a bfloat16 file is evaluated by what the file can hold."""
    student, stored = copy.deepcopy(tiny_net), {"0.weight": torch.bfloat16}
    student[0].weight.data.add_(1e-4)
    # some papers train in training mode; without its statistics that is another model
    student[1].running_mean.add_(1)
    written = runtime.as_stored(student, tiny_net, stored)
    assert written[1].running_mean.equal(student[1].running_mean)
    assert not written[1].running_mean.equal(tiny_net[1].running_mean)
    assert torch.equal(written[0].weight, student[0].weight.bfloat16().float())
    assert torch.equal(written[3].weight, student[3].weight)
    result = forget(tiny_net, Split(digits.take(range(9))), settings={"steps": 4}, stored=stored)
    assert torch.equal(result.model[0].weight, result.model[0].weight.bfloat16().float())


def test_a_model_of_full_precision_is_not_copied_to_be_trained(tiny_net):
    assert runtime.upcast_to_fp32(tiny_net) is tiny_net


def test_weights_that_their_dtype_cannot_hold_are_not_met(tiny_net, digits, monkeypatch):
    """float16 ends at 65,504: a model of infinities must not be written."""

    def blown(model, *_, **__):
        student = copy.deepcopy(model)
        student[0].bias.data[0] = 1e6
        return student

    monkeypatch.setitem(METHODS, "blown", Method(blown))
    monkeypatch.setattr("efface.guard.Guard.settle", lambda _, result, *__: result)
    with pytest.raises(NotMet) as error:
        forget(copy.deepcopy(tiny_net).half(), Split(digits.take(range(9))), method="blown")
    assert str(error.value) == (
        "Wanted weights that their own dtype can hold. Got nan or inf after rounding 0.bias. "
        "The old model stands. Convert it to bfloat16 or float32 first, or lower --strength."
    )


WIDE = nn.Sequential(nn.Conv2d(3, 64, 3), nn.ReLU(), nn.Flatten(), nn.Linear(64 * 36 * 36, 8))


@pytest.mark.parametrize(
    ("at_once", "given", "wanted"), [(1, None, 1), (64, None, 6), (64, "3", 2)]
)
def test_threads_are_those_that_the_work_is_worth(monkeypatch, at_once, given, wanted):
    """A record is 3 million multiplications; OMP_NUM_THREADS is what torch has already."""
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    if given:
        monkeypatch.setenv("OMP_NUM_THREADS", given)
    monkeypatch.setattr("joblib.cpu_count", lambda *, only_physical_cores: 6 * only_physical_cores)
    monkeypatch.setattr("torch.get_num_threads", lambda: 2)
    x = torch.zeros(1, 3, 38, 38)
    assert runtime.choose_threads(WIDE, lambda: WIDE(x), records_at_once=at_once) == wanted
    assert not any(module._forward_hooks for module in WIDE.modules())


@pytest.mark.parametrize(
    "model", [WIDE, nn.Sequential(nn.Conv2d(3, 6, 3, groups=3), nn.BatchNorm2d(6))]
)
def test_multiplications_are_those_of_torchs_own_counter(model):
    x = torch.zeros(1, 3, 38, 38)
    with FlopCounterMode(display=False) as counter:
        model(x)
    # torch counts additions too
    assert runtime._multiplications(model, lambda: model(x)) == counter.get_total_flops() / 2

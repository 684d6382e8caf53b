"""What jit costs next to the authors' code: passes counted exactly, seconds side by side, memory.

    python -m research.benchmarks.jit_speed            # research/results/jit_speed.json and .md; six minutes on one core

VGG11 for 32 pixels (9 million weights) and a vision transformer (6 blocks of 192, patches of 4), on
random images: times do not depend on what is in them. A backward pass is counted as two forwards.
The loop by hand makes the same passes on the same inputs and nothing else.
"""

import copy
import json
import sys
import time
from collections.abc import Callable
from itertools import pairwise
from statistics import median
from typing import Any

import timm
import torch
from torch import nn

from efface.methods.jit import PROBES, jit
from efface.methods.jit_forms import jit_reference
from efface.nets import vgg_small
from efface.runtime import PassCounter
from efface.task import frozen_teacher
from efface.types import Action, Records, Split
from research import pages
from research.own_process import MIB, resident, run_alone
from research.pages import table
from research.tables import write_record

BATCH, ROUNDS, STEPS, CLASSES = 128, 3, 6, 10


def net(name: str) -> nn.Module:
    """Fresh weights from seed 0, in eval mode."""
    torch.manual_seed(0)
    if name == "VGG11":
        return vgg_small(CLASSES, width=64).eval()
    return timm.models.VisionTransformer(
        img_size=32, patch_size=4, embed_dim=192, depth=6, num_heads=3, num_classes=CLASSES
    ).eval()


def records(count: int) -> Records:
    """Random images within their bounds."""
    generator = torch.Generator().manual_seed(1)
    x = torch.rand(count, 3, 32, 32, generator=generator) * 4 - 2
    return Records(x, torch.zeros(count, dtype=torch.int64))


def counted(method: Callable[..., nn.Module], model: nn.Module, n: int, **settings: Any) -> Any:
    """Forwards and backwards a forget record, by hooks on every call of every copy of the model."""
    watched = PassCounter(model)
    method(watched.model, Split(records(n), forget_classes=(0,)), **settings)
    passes = watched.passes
    each = {"forward": passes.forward / n, "backward": passes.backward / n}
    return {**each, "worth": each["forward"] + 2 * each["backward"]}


def seconds_of(function: Callable[[], Any]) -> float:
    """Wall-clock."""
    began = time.perf_counter()
    function()
    return time.perf_counter() - began


def side_by_side(model: nn.Module) -> dict[str, float]:
    """Seconds a step of 128 records: medians over rounds taken in turn, after a round to warm up."""
    split, teacher = Split(records(BATCH)), frozen_teacher(model)
    times: dict[str, list[float]] = {"jit": [], "by hand": [], "jit_reference": []}
    for number in range(ROUNDS + 1):
        once = {
            "jit": _seconds_of_jit(model, split),
            "by hand": by_hand(model, teacher, split.forget),
            "jit_reference": [seconds_of(lambda: jit_reference(model, split))],
        }
        # the first round warms caches up
        if number:
            for name, found in once.items():
                times[name] += found
    return {name: median(found) for name, found in times.items()}


def _seconds_of_jit(model: nn.Module, split: Split) -> list[float]:
    """Of each step but the first, its checks included; without the calibration."""
    called: list[float] = []

    def callback(student: nn.Module, loss: float) -> Action:  # noqa: ARG001
        called.append(time.perf_counter())
        return Action.CONTINUE

    jit(model, split, steps=STEPS, tolerance=2.0, callback=callback)
    return [after - before for before, after in pairwise(called)]


def by_hand(model: nn.Module, teacher: nn.Module, batch: Records) -> list[float]:
    """The passes of jit's steps on given inputs: no noise is drawn, nothing is decided."""
    student = copy.deepcopy(model)
    optimizer = torch.optim.SGD(student.parameters(), lr=1e-6)
    x = batch.x.contiguous(memory_format=torch.channels_last)
    # jit regularises a quarter of each batch, and checks its progress on a sample
    quarter, sample = x[: BATCH // 4], x[:PROBES]
    ends = []
    for _ in range(STEPS):
        with torch.no_grad():
            target, far = teacher(x), teacher(quarter)
        logits, still = student(torch.cat([x, quarter])).split([BATCH, BATCH // 4])
        loss = (logits - target).norm(dim=1).mean() + (still - far).square().sum(1).mean()
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        with torch.no_grad():
            student(sample)
        ends.append(time.perf_counter())
    return [after - before for before, after in pairwise(ends)]


def peak(name: str, n: int, perturbations: int) -> float:
    """Peak memory of jit in this process, beyond what is resident before, in MiB."""
    model, split = net(name), Split(records(n))
    before = resident("VmHWM")
    jit(model, split, steps=3, perturbations=perturbations, tolerance=2.0)
    return round((resident("VmHWM") - before) / MIB, 1)


def measured(name: str) -> dict[str, Any]:
    """Everything about one model."""
    model = net(name)
    # A step is the difference between 9 steps and 1: calibration and the last look cancel out.
    few, many = (counted(jit, model, BATCH, steps=n, tolerance=2.0) for n in (1, 9))
    peaks = {
        f"n {n}, N {k}": run_alone("jit_speed", name, str(n), str(k))
        for n, k in ((128, 1), (1024, 1), (128, 8))
    }
    return {
        "jit_reference": counted(jit_reference, model, BATCH),
        "jit, a step": {key: (value - few[key]) / 8 for key, value in many.items()},
        "jit, a request of 1000": counted(jit, model, 1000, tolerance=2.0),
        "jit, one record": counted(jit, model, 1, tolerance=2.0),
        "seconds a step": side_by_side(model),
        "peak MiB": peaks,
    }


def page(record: dict[str, Any]) -> str:
    """One table a model."""
    parts = [
        (
            f"`{record['command']}`, one thread. Passes a record, "
            "counted by hooks; a backward is worth two forwards."
        )
    ]
    for name, one in record["nets"].items():
        whole, step = one["jit_reference"]["worth"], one["jit, a step"]["worth"]
        rows = []
        for row in ("jit_reference", "jit, a step", "jit, a request of 1000", "jit, one record"):
            p = one[row]
            numbers = (p["forward"], p["backward"], p["worth"], p["worth"] / whole)
            rows.append((row, *(f"{number:.2f}" for number in numbers)))
        seconds, by_hand, reference = one["seconds a step"].values()
        parts += [
            f"## {name}",
            table(" | forwards | backwards | worth | against jit_reference", rows),
            (
                f"Seconds for 128 records: jit {seconds:.3f} a step, its passes by hand "
                f"{by_hand:.3f} (ratio {seconds / by_hand:.2f}), jit_reference "
                f"{reference:.3f} (ratio {seconds / reference:.2f}; by passes {step / whole:.2f})."
            ),
            "Peak memory of three steps beyond model and records: "
            + ", ".join(f"{k}: {v:.0f} MiB" for k, v in one["peak MiB"].items())
            + ".",
        ]
    return pages.page("What jit costs", *parts)


def main() -> None:
    """Measure both models, record, tabulate."""
    torch.set_num_threads(1)
    found = {name: measured(name) for name in ("VGG11", "small ViT")}
    write_record("jit_speed", "jit_speed", {"nets": found})


if __name__ == "__main__":
    if len(sys.argv) > 1:
        torch.set_num_threads(1)
        print(json.dumps(peak(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]))))
    else:
        main()

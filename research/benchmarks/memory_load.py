"""The memory that loading a model takes, against the model's own size.

    git worktree add ../before 40962b7
    python -m research.benchmarks.memory_load ../before/src   # writes research/results/memory_load.json and .md

Each load is a process of its own on weights drawn at random. The peak is the operating system's
resident size at its highest, pages of the mapped file included, less what it was with everything
imported and a tiny model loaded.
"""

import importlib
import json
import sys
import tempfile
from pathlib import Path
from typing import Any

from research import pages
from research.own_process import MIB, ROOT, reset_peak, resident, run_alone
from research.pages import table

NETS = {
    "small": "torchvision.models:resnet18",
    "middle": "torchvision.models:wide_resnet50_2",
    "large": "torchvision.models:wide_resnet101_2",
}
# every size as safetensors; other dtypes and containers at one size suffice
FILES = (
    *((size, "safetensors") for size in NETS),
    ("middle", "safetensors float16"),
    ("middle", "torch.save"),
)
FED = {"mean": (0.5,) * 3, "std": (0.5,) * 3, "size": 224}
OURS = str(ROOT / "src")


def make(architecture: str, kind: str, path: str) -> None:
    """A weights file of this model, each number drawn at random."""
    import torch
    from safetensors.torch import save_file

    from efface.io.models import build_model

    state = build_model(architecture).state_dict()
    if kind == "torch.save":
        torch.save(state, path)
        return
    if kind.endswith("float16"):
        state = {n: t.half() if t.is_floating_point() else t for n, t in state.items()}
    save_file(state, path)


def load(architecture: str, tiny: str, path: str) -> dict:
    """Load the file in this process; what was measured, in bytes."""
    import torch

    from efface import load_model

    torch.set_num_threads(1)
    importlib.import_module(architecture.partition(":")[0])
    load_model(tiny, architecture="efface.nets:conv_small", mean=(0.5,), std=(0.5,), size=8)
    before = reset_peak()
    loaded = load_model(path, architecture=architecture, **FED)
    sizes = [tensor.nbytes for tensor in loaded.model.state_dict().values()]
    return {
        "model_bytes": sum(sizes),
        "largest_tensor_bytes": max(sizes),
        "peak_bytes": resident("VmHWM") - before,
        "held_afterwards_bytes": resident("VmRSS") - before,
    }


def own_process(source: str, *words: str) -> Any:
    """What this benchmark prints in a process of its own with the efface at ``source``."""
    # the source first, so that an old efface is found before an installed one
    return run_alone("memory_load", *words, PYTHONPATH=source, OMP_NUM_THREADS="1")


def main(old: str) -> None:
    """Every file by the old efface and by this one, side by side."""
    from research.tables import write_record

    cells = {}
    with tempfile.TemporaryDirectory() as folder:
        tiny, path = f"{folder}/tiny.pt", f"{folder}/weights"
        own_process(OURS, "make", "efface.nets:conv_small", "torch.save", tiny)
        for size, kind in FILES:
            net = NETS[size]
            own_process(OURS, "make", net, kind, path)
            sources = {"before": str(Path(old).resolve()), "now": OURS}
            cells[f"{size} {kind}"] = {
                "net": net,
                "file_bytes": Path(path).stat().st_size,
                **{when: own_process(s, "load", net, tiny, path) for when, s in sources.items()},
            }
    found = {"before": "commit 40962b7", "cells": cells}
    write_record("memory_load", "memory_load ../before/src", found)


def page(record: dict) -> str:
    """A row a file: peak and what stays, in copies of the model."""
    rows = []
    for name, cell in record["cells"].items():
        size = cell["now"]["model_bytes"]
        sizes = [f"{n / MIB:.0f}" for n in (size, cell["now"]["largest_tensor_bytes"])]
        keys = ("peak_bytes", "held_afterwards_bytes")
        shares = [f"{cell[when][key] / size:.2f}" for key in keys for when in ("before", "now")]
        rows.append((f"{name} ({cell['net']})", *sizes, *shares))
    head = "model, container | model, MiB | largest tensor, MiB | peak before | peak now | afterwards before | afterwards now"
    return pages.page(
        "The memory that loading takes",
        f"{record['date']}, `{record['command']}`, one CPU thread, models in float32. Peak and afterwards: resident size "
        "(pages of the mapped file included) over the size of the model. Before: commit 40962b7, "
        "which had every tensor of the file in memory next to the model's own.",
        table(head, rows),
    )


if __name__ == "__main__":
    if sys.argv[1:2] == ["make"]:
        make(*sys.argv[2:])
        print("{}")
    elif sys.argv[1:2] == ["load"]:
        print(json.dumps(load(*sys.argv[2:])))
    else:
        main(sys.argv[1])

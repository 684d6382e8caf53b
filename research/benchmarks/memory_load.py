"""The memory that loading a model takes, beside the model's own size.

    git worktree add ../before 40962b7
    python -m research.benchmarks.memory_load ../before/src   # writes research/results/memory_load.json and .md

Each load is a process of its own on weights drawn at random. The peak is the operating system's
resident size at its highest, pages of the mapped file included, less what it was with everything
imported and a tiny model loaded.
"""

import importlib
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

from research.benchmarks.memory_need import MIB, resident
from research.tables import write_record

NETS = {
    "small": "torchvision.models:resnet18",
    "middle": "torchvision.models:wide_resnet50_2",
    "large": "torchvision.models:wide_resnet101_2",
}
FILES = (
    *((size, "safetensors") for size in NETS),
    ("middle", "safetensors float16"),
    ("middle", "torch.save"),
)
FED = {"mean": (0.5,) * 3, "std": (0.5,) * 3, "size": 224}
COMMAND = "python -m research.benchmarks.memory_load ../before/src"
OURS = str(Path(__file__).parent.parent / "src")


def make(architecture: str, kind: str, path: str) -> None:
    """A weights file of this net, each number drawn at random."""
    import torch
    from safetensors.torch import save_file

    from efface.io.models import build_model

    state = build_model(architecture).state_dict()
    if kind == "torch.save":
        torch.save(state, path)
        return
    half = kind.endswith("float16")
    save_file(
        {n: t.half() if half and t.is_floating_point() else t for n, t in state.items()}, path
    )


def load(architecture: str, tiny: str, path: str) -> dict:
    """Load the file in this process; what was seen, in bytes."""
    import torch

    from efface import load_model

    torch.set_num_threads(1)
    importlib.import_module(architecture.partition(":")[0])
    load_model(tiny, architecture="efface.nets:conv_small", mean=(0.5,), std=(0.5,), size=8)
    Path("/proc/self/clear_refs").write_text("5")  # the highest so far starts again from now
    before = resident("VmRSS")
    loaded = load_model(path, architecture=architecture, **FED)
    sizes = [tensor.nbytes for tensor in loaded.model.state_dict().values()]
    return {
        "model_bytes": sum(sizes),
        "largest_tensor_bytes": max(sizes),
        "peak_bytes": resident("VmHWM") - before,
        "held_afterwards_bytes": resident("VmRSS") - before,
    }


def own_process(source: str, *words: str) -> str:
    """What this script prints when it is started anew with these words and this efface."""
    command = [sys.executable, __file__, *words]
    environment = {**os.environ, "PYTHONPATH": source, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, check=True, capture_output=True, text=True, env=environment)
    return done.stdout


def main(old: str) -> None:
    """Every file by the old efface and by this one, side by side."""
    cells = {}
    with tempfile.TemporaryDirectory() as folder:
        tiny, path = f"{folder}/tiny.pt", f"{folder}/weights"
        own_process(OURS, "make", "efface.nets:conv_small", "torch.save", tiny)
        for size, kind in FILES:
            net = NETS[size]
            own_process(OURS, "make", net, kind, path)
            cells[f"{size} {kind}"] = {
                "net": net,
                "file_bytes": Path(path).stat().st_size,
                "before": json.loads(own_process(old, "load", net, tiny, path)),
                "now": json.loads(own_process(OURS, "load", net, tiny, path)),
            }
    found = {"before": "commit 40962b7", "cells": cells}
    write_record("memory_load", "memory_load ../before/src", found)


def page(record: dict) -> str:
    """A row a file: peak and what stays, in copies of the model."""
    lines = [
        "# The memory that loading takes",
        "",
        f"{record['date']}, `{record['command']}`, one CPU thread, nets in float32. Peak and held: resident size",
        "(pages of the mapped file included) over the size of the model. Before: commit 40962b7,",
        "which had every tensor of the file in memory beside the model's own.",
        "",
        "| net, container | model, MiB | largest tensor, MiB | peak before | peak now | held before | held now |",
        "|---|---|---|---|---|---|---|",
    ]
    for name, cell in record["cells"].items():
        size = cell["now"]["model_bytes"]
        sizes = [f"{n / MIB:.0f}" for n in (size, cell["now"]["largest_tensor_bytes"])]
        shares = [
            f"{cell[when][key] / size:.2f}"
            for key in ("peak_bytes", "held_afterwards_bytes")
            for when in ("before", "now")
        ]
        lines.append(f"| {name} ({cell['net']}) | {' | '.join([*sizes, *shares])} |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    if sys.argv[1:2] == ["make"]:
        make(*sys.argv[2:])
    elif sys.argv[1:2] == ["load"]:
        print(json.dumps(load(*sys.argv[2:])))
    else:
        main(sys.argv[1])

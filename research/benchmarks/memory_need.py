"""The memory that a request declares, and its peak as the operating system measured it.

    python -m research.benchmarks.memory_need     # writes research/results/memory_need.json and .md

Each request is a process of its own on synthetic photographs (no data set). The peak is the
operating system's resident size at its highest, less what it was with everything imported and a
tiny request done, before the model and the records were made.
"""

import json
import sys
from typing import Any

from research import pages
from research.own_process import MIB, reset_peak, resident, run_alone
from research.pages import table
from research.tables import write_record

NETS = {
    "small": ("efface.nets:resnet_small", 16, 32),
    "middle": ("torchvision.models:resnet18", None, 64),
    "large": ("torchvision.models:wide_resnet50_2", None, 32),
}
RECORDS = {"small": 256, "middle": 64, "large": 32}
METHODS = ("jit", "neighbourhood")


def one(size: str, method: str) -> dict:
    """Run one request in this process; what was declared and what was measured, in bytes."""
    import torch

    from efface import Records, Split, forget
    from efface.io.models import build_model
    from efface.nets import resnet_small

    torch.set_num_threads(1)
    # everything that the first request imports or allocates for good is in memory after this one
    tiny = Split(Records(torch.randn(4, 3, 32, 32), torch.tensor([0, 1, 2, 3])))
    how: dict[str, Any] = {"method": method, "mislabelled": True}
    forget(resnet_small(width=2).eval(), tiny, settings={"steps": 2}, **how)
    before = reset_peak()
    name, width, side = NETS[size]
    torch.manual_seed(0)
    model = (resnet_small(width=width) if width else build_model(name, 10)).eval()
    n, declared = RECORDS[size], []
    split = Split(Records(torch.randn(n, 3, side, side), torch.randint(0, 10, (n,))))
    how["started"] = lambda manifest, *_: declared.append(manifest.memory)
    forget(model, split, settings={"steps": 3}, **how)
    weights = sum(weight.numel() for weight in model.parameters())
    return {"weights": weights, "peak_bytes": resident("VmHWM") - before, **declared[0]}


def main() -> None:
    """Every size with every method; the ratio of the peak to what was declared."""
    found = {}
    for size, (net, _, side) in NETS.items():
        for method in METHODS:
            row = run_alone("memory_need", size, method)
            row |= {"net": net, "records": RECORDS[size], "side": side}
            row["peak_over_said"] = row["peak_bytes"] / row["total_bytes"]
            found[f"{size} {method}"] = row
    write_record("memory_need", "memory_need", {"cells": found})


def page(record: dict) -> str:
    """The table from the record."""
    rows = []
    for name, row in record["cells"].items():
        what = (f"{row['weights'] / 1e6:.1f} M", f"{row['records']} of {row['side']} pixels")
        sizes = (f"{row[key] / MIB:.0f}" for key in ("total_bytes", "peak_bytes"))
        rows.append((f"{name} ({row['net']})", *what, *sizes, f"{row['peak_over_said']:.2f}"))
    return pages.page(
        "Declared and measured memory",
        f"{record['date']}, `{record['command']}`, one CPU thread, float32. Declared before it starts: given "
        "model, what method and guard keep next to it, activations, records.",
        table(
            "model, method | weights | records | declared, MiB | peak, MiB | peak / declared", rows
        ),
    )


if __name__ == "__main__":
    if len(sys.argv) > 1:
        print(json.dumps(one(sys.argv[1], sys.argv[2])))
    else:
        main()

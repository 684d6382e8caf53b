"""The memory that a request says it needs, beside what the operating system saw it take.

    python -m research.benchmarks.memory_need     # writes research/results/memory_need.json and .md

Each request is a process of its own on synthetic photographs (no data set). The peak is the
operating system's resident size at its highest, less what it was with everything imported and a
tiny request done, before the model and the records were made.
"""

import json
import subprocess
import sys
from pathlib import Path

from research.tables import write_record

NETS = {
    "small": ("efface.nets:resnet_small", {"width": 16}, 32),
    "middle": ("torchvision.models:resnet18", {"num_classes": 10}, 64),
    "large": ("torchvision.models:wide_resnet50_2", {"num_classes": 10}, 32),
}
RECORDS = {"small": 256, "middle": 64, "large": 32}
METHODS = ("jit", "neighbourhood")
MIB = 2**20


def resident(field: str) -> int:
    """Bytes of ``VmRSS`` (now) or ``VmHWM`` (the highest so far)."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(field):
            return int(line.split()[1]) * 1024
    raise SystemExit("this benchmark reads /proc, which this system does not have")


def one(size: str, method: str) -> dict:
    """Run one request in this process; what was said and what was seen, in bytes."""
    import torch

    from efface import Records, Split, forget
    from efface.io.models import build_model
    from efface.nets import resnet_small

    torch.set_num_threads(1)
    tiny = Records(torch.randn(4, 3, 32, 32), torch.tensor([0, 1, 2, 3]))
    forget(
        resnet_small(width=2).eval(),
        Split(tiny),
        method=method,
        settings={"steps": 2},
        mislabelled=True,
    )
    Path("/proc/self/clear_refs").write_text("5")  # the highest so far starts again from now
    before = resident("VmRSS")
    name, settings, side = NETS[size]
    torch.manual_seed(0)
    model = _built(build_model, name, settings)
    n = RECORDS[size]
    records = Records(torch.randn(n, 3, side, side), torch.randint(0, 10, (n,)))
    said = []
    forget(
        model,
        Split(records),
        method=method,
        settings={"steps": 3},
        mislabelled=True,
        started=lambda need: said.append(need.as_json()),
    )
    weights = sum(weight.numel() for weight in model.parameters())
    return {"weights": weights, "peak_bytes": resident("VmHWM") - before, **said[0]}


def _built(build_model, name: str, settings: dict):  # noqa: ANN001, ANN202
    """The net; the package's own small one with its width."""
    if "width" in settings:
        from efface.nets import resnet_small

        return resnet_small(**settings).eval()
    return build_model(name, settings["num_classes"]).eval()


def main() -> None:
    """Every size with every method; the ratio of the peak to what was said."""
    found = {}
    for size in NETS:
        for method in METHODS:
            command = [sys.executable, "-m", "research.benchmarks.memory_need", size, method]
            done = subprocess.run(command, check=True, capture_output=True, text=True)
            row = json.loads(done.stdout)
            found[f"{size} {method}"] = {
                **row,
                "net": NETS[size][0],
                "records": RECORDS[size],
                "side": NETS[size][2],
                "peak_over_said": row["peak_bytes"] / row["total_bytes"],
            }
    write_record("memory_need", "memory_need", {"cells": found})


def page(record: dict) -> str:
    """The table from the record."""
    lines = [
        "# The memory that is said, and the memory that is taken",
        "",
        (
            f"{record['date']}, `{record['command']}`, one CPU thread, float32. Said before it starts: given "
            "model, what method and guard hold beside it, activations, records."
        ),
        "",
        "| net, method | weights | records | said, MiB | peak, MiB | peak / said |",
        "|---|---|---|---|---|---|",
    ]
    for name, row in record["cells"].items():
        lines.append(
            f"| {name} ({row['net']}) | {row['weights'] / 1e6:.1f} M | {row['records']} of "
            f"{row['side']} pixels | {row['total_bytes'] / MIB:.0f} | "
            f"{row['peak_bytes'] / MIB:.0f} | {row['peak_over_said']:.2f} |"
        )
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    if len(sys.argv) > 1:
        print(json.dumps(one(sys.argv[1], sys.argv[2])))
    else:
        main()

"""Peak memory of a whole request beside one forward and backward pass of the same batch.

    python -m research.benchmarks.memory     # writes research/results/memory.json

Each is a process of its own; figures are the operating system's peak resident size, and what it
rose above the process with everything imported and the model and the records in memory.
"""

import json
import resource
import subprocess
import sys
from pathlib import Path

BATCH = 128
CASES = ("loaded", "one pass", "jit", "neighbourhood")


def peak(case: str) -> int:
    """Bytes at the peak of this process after running one case."""
    import torch
    from torch.nn import functional

    from efface.nets import resnet_small
    from efface.types import Records, Split

    import efface.unlearn  # isort: skip  # what every case has in memory

    torch.set_num_threads(1)
    torch.manual_seed(0)
    model = resnet_small(width=32).eval()
    x, y = torch.randn(BATCH, 3, 32, 32), torch.randint(0, 10, (BATCH,))
    if case == "one pass":
        functional.cross_entropy(model(x), y).backward()
    elif case != "loaded":
        split = Split(Records(x, y))
        efface.unlearn.forget(model, split, method=case, settings={"steps": 10}, mislabelled=True)
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def main() -> None:
    """One process a case; the ratios of what each rose above the loaded process."""
    found = {}
    for case in CASES:
        command = [sys.executable, __file__, case]
        done = subprocess.run(command, check=True, capture_output=True, text=True)
        found[case] = int(done.stdout)
    rise = {case: found[case] - found["loaded"] for case in CASES[1:]}
    ratios = {case: rise[case] / rise["one pass"] for case in ("jit", "neighbourhood")}
    record = {
        "command": "python -m research.benchmarks.memory",
        "net": "efface.nets:resnet_small, width 32",
        "batch": BATCH,
        "peak_bytes": found,
        "ratio_to_one_pass": ratios,
    }
    Path("research/results/memory.json").write_text(json.dumps(record, indent=1) + "\n")
    for case, size in found.items():
        ratio = f"{ratios[case]:.2f} of one pass" if case in ratios else ""
        print(f"{case:15} {size / 2**20:8.0f} MiB   {ratio}")


if __name__ == "__main__":
    if len(sys.argv) > 1:
        print(peak(sys.argv[1]))
    else:
        main()

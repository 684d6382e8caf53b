"""What the default costs as the number of records grows.

    EFFACE_DATA=… python -m research.benchmarks.cost_growth STORE     # research/results/cost_growth.json, .md and .svg

Random records of the first base of goals.py (10,000 images of CIFAR-10; its store, where it is
trained), each request in a process of its own, and in two that share it: the operating system's peak
of resident memory, less what it was with the model and the records in memory.
"""

import gc
import json
import os
import sys
from typing import Any

import matplotlib.pyplot as plt
from matplotlib.figure import Figure

from research import pages
from research.own_process import MIB, reset_peak, resident, run_alone
from research.pages import origin, table
from research.tables import write_record

# nearly all of the 10,000 that the model was trained on: some must stay
SEED, COUNTS = 1000, (1, 10, 100, 500, 1000, 9000)
SHARED = (100, 1000, 9000)
PASSES = ("forward", "backward", "guard")


def one(store: str, count: int) -> dict[str, Any]:
    """One request in this process."""
    import numpy as np
    import torch
    from accelerate import PartialState

    from efface import Records, Split
    from efface.nets import resnet_small
    from research.benchmarks.in_a_row import given
    from research.benchmarks.jit_requests import FIRST
    from research.timed import timed_forget

    torch.set_num_threads(1)
    processes = PartialState(cpu=True).num_processes
    # everything that the first request imports or allocates for good is in memory after this one
    # the same in every process: processes that differ in their records wait for each other in vain
    noise = torch.randn(4, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    tiny = Split(Records(noise, torch.tensor([0, 1, 2, 3])))
    torch.manual_seed(0)
    timed_forget(resnet_small(width=2).eval(), tiny, settings={"steps": 2})
    model, records, test = given(store)
    rows = np.random.default_rng(SEED).choice(FIRST, count, replace=False)
    # copies: records that a job maps from its file come into memory as they are read
    forget, declared = records.take(rows.tolist()), []
    split = Split(forget, holdout=test.clone())
    del records, test
    gc.collect()
    before = reset_peak()

    def started(manifest: Any, *_: Any) -> None:
        declared.append(manifest.memory)

    _, facts = timed_forget(model, split, started=started)
    peak = resident("VmHWM") - before
    return {
        "records": count,
        "processes": processes,
        "declared": declared[0],
        "peak": peak,
        **facts,
    }


def main(store: str) -> None:
    """Every number of records, each in its own process."""
    found = []
    for processes, count in [(1, count) for count in COUNTS] + [(2, count) for count in SHARED]:
        found.append(run_alone("cost_growth", store, str(count), processes=processes))
        sys.stderr.write(f"{found[-1]}\n")
        # what is measured is kept if this is stopped
        write_record("cost_growth", "cost_growth STORE", {"seed": SEED, "rows": found})


def page(record: dict[str, Any]) -> str:
    """The table from the record."""
    rows = []
    for row in record["rows"]:
        n, seconds = row["records"], row["seconds"]
        each = (f"{row['passes'][name] / n:,.1f}" for name in PASSES)
        spent = (f"{seconds[name]:.1f}" for name in ("method", "request"))
        need = row["declared"]
        parts = (row["peak"], need["total_bytes"], need["records_bytes"])
        memory = (f"{part / MIB:,.0f}" for part in parts)
        rows.append(
            [
                f"{n:,}",
                f"{row['processes']}",
                *each,
                *spent,
                f"{1000 * seconds['request'] / n:,.1f}",
                *memory,
            ]
        )
    return pages.page(
        "Cost of the default as the number of records grows",
        f"{origin(record)}, one process of one thread: random records (seed {record['seed']}) of the 10,000 that a quarter VGG11 was trained on, 10,000 test "
        "images as the holdout, of which method and guard see one half. CPU seconds of the method, with what the guard does at its steps, and of the "
        "whole request without a report. Passes of the method and of the guard in records; one forward pass of its 5,000 unseen records and its "
        "search for copies are among them. Memory: the operating system's peak, less what was resident with model and records in memory, and what was declared beforehand "
        "for the whole, of which records are a part. "
        "Two processes divide the records of a step and give the weights of one up to rounding, which a test "
        "checks (`tests/test_training.py`); seconds and memory are then those of the first process.",
        table(
            "records | processes | forward a record | backward a record | guard a record | CPU s: method | CPU s: request | CPU ms a record | peak above records, MiB | declared, MiB | of it records",
            rows,
        ),
        "![Seconds, passes and memory over the number of records](cost_growth.svg)",
    )  # fmt: skip


def figure(record: dict[str, Any]) -> Figure:
    """Seconds, passes a record and memory, each over the number of records."""
    chart, (seconds, passes, memory) = plt.subplots(1, 3, figsize=(10, 3.2), layout="constrained")
    rows = [row for row in record["rows"] if row["processes"] == 1]
    counts = [row["records"] for row in rows]
    for name, label in (("request", "whole request"), ("method", "method")):
        seconds.plot(counts, [row["seconds"][name] for row in rows], "o-", label=label)
    for name in PASSES:
        passes.plot(
            counts, [row["passes"][name] / row["records"] for row in rows], "o-", label=name
        )
    for part, name in (("total_bytes", "declared"), ("records_bytes", "of it records")):
        memory.plot(counts, [row["declared"][part] / MIB for row in rows], "o-", label=name)
    memory.plot(counts, [row["peak"] / MIB for row in rows], "o-", label="peak above records")
    for axes, label in ((seconds, "CPU s"), (passes, "passes a record"), (memory, "MiB")):
        axes.set(xscale="log", yscale="log", xlabel="records", ylabel=label)
        axes.legend(fontsize=8)
    return chart


if __name__ == "__main__":
    if len(sys.argv) > 2:  # noqa: PLR2004
        facts = one(sys.argv[1], int(sys.argv[2]))
        if os.environ.get("RANK", "0") == "0":
            print(json.dumps(facts))
    else:
        main(sys.argv[1])

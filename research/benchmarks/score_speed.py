"""What the scores of tier T2 cost beside bare forward passes, and the field's form at batch size 1.

    EFFACE_DATA=… python -m research.benchmarks.score_speed    # about five minutes alone; research/results/score_speed.md

1,000 forget, 10,000 holdout and 2,000 retain records of CIFAR-10 through a quarter VGG11 (what it has
learned makes no difference). Each round times all forms one after the other; the median counts.
"""

import copy
import os
import time
from collections.abc import Callable

import numpy as np
import torch

from efface.io.data import load_data
from efface.metrics.evaluation import evaluate
from efface.report import collect, forward_passes
from efface.runtime import PassCounter
from efface.task import predict
from efface.types import Split
from research.recipes import RECIPES, fresh
from research.tables import write_record

FORGET, HOLDOUT, RETAIN, ROUNDS, ONE_BY_ONE = 1_000, 10_000, 2_000, 3, 1_000
RECIPE = RECIPES["cifar10-vgg-quarter"]


def split() -> Split:
    """Records as a request has them."""
    folder = f"{os.environ['EFFACE_DATA']}/cifar10"
    train, test = (load_data(f"{folder}:{part}") for part in ("train", "test"))
    known = train.records(range(FORGET + RETAIN), RECIPE.preprocessing)
    unseen = test.records(range(HOLDOUT), RECIPE.preprocessing)
    return Split(known.take(range(FORGET)), unseen, known.take(range(FORGET, FORGET + RETAIN)))


def seconds(work: Callable[[], object]) -> float:
    """Wall-clock of one call."""
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def main() -> None:
    """Time, count, and write record and page."""
    torch.set_num_threads(1)
    old, records = fresh(RECIPE, 10, seed=0).eval(), split()
    new = copy.deepcopy(old)
    with torch.no_grad():
        for weight in new.parameters():
            weight.mul_(1.01)
    declared, some = forward_passes(records, probes=False), records.holdout
    probed = forward_passes(records)
    few = some.take(range(ONE_BY_ONE))
    counted = PassCounter(old), PassCounter(new)
    collect(counted[0].model, counted[1].model, records, probes=False)
    made = sum(one.passes.forward for one in counted)
    names = ("scores", "passes", "measured", "probed", "one_by_one", "batched")
    times: dict[str, list[float]] = {name: [] for name in names}
    for _ in range(ROUNDS):
        times["passes"].append(
            seconds(lambda: predict(old, some, batch_size=256)) * declared / len(some)
        )
        times["scores"].append(seconds(lambda: collect(old, new, records, probes=False)))
        times["probed"].append(seconds(lambda: collect(old, new, records)))
        times["measured"].append(seconds(lambda: evaluate(old, some)))
        times["one_by_one"].append(seconds(lambda: evaluate(old, few, batch_size=1)))
        times["batched"].append(seconds(lambda: evaluate(old, few)))
    middle = {name: float(np.median(found)) for name, found in times.items()}
    found = {
        "records": {"forget": FORGET, "holdout": HOLDOUT, "retain": RETAIN},
        "declared_passes": declared,
        "made_passes": made,
        "declared_passes_with_probes": probed,
        "seconds": times,
        "median_seconds": middle,
        "beyond_passes_seconds": middle["scores"] - middle["passes"],
        "allowed_seconds": 1.2 * middle["passes"] + 2,
        "one_by_one_over_batched": middle["one_by_one"] / middle["batched"],
    }
    write_record("score_speed", "score_speed", found)


def page(record: dict) -> str:
    """The table from the record."""
    middle = record["median_seconds"]
    n = record["records"]
    return "\n".join(
        [
            "# What the scores of tier T2 cost",
            "",
            (
                f"`{record['command']}`, {record['date']}. {n['forget']:,} forget, {n['holdout']:,} holdout and {n['retain']:,} retain records of "
                f"CIFAR-10, quarter VGG11, one thread; medians of {len(record['seconds']['scores'])} rounds, all forms in each."
            ),
            "",
            "| | |",
            "|---|---|",
            f"| forward passes declared before it starts | {record['declared_passes']:,} |",
            f"| forward passes made | {record['made_passes']:,} |",
            f"| seconds of so many bare passes | {middle['passes']:.1f} |",
            f"| seconds of the scores of the tier, figures' arrays and tables | {middle['scores']:.1f} |",
            f"| with the probes (views, copies, features), {record['declared_passes_with_probes']:,} passes declared: seconds | {middle['probed']:.1f} |",
            f"| allowed without probes: 1.2 times the passes and 2 s of statistics | {record['allowed_seconds']:.1f} |",
            f"| one record at a time, as the field's entropy attack asks, over batches of 256 | {record['one_by_one_over_batched']:.1f} times |",
            "",
        ]
    )


if __name__ == "__main__":
    main()

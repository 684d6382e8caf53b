"""What the metrics of tier T2 cost next to bare forward passes, and the field's form at batch size 1.

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
from research import pages
from research.pages import origin, table
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
            # any other model will do: the cost does not depend on the weights
            weight.mul_(1.01)
    declared, some = forward_passes(records, probes=False), records.holdout
    few = some.take(range(ONE_BY_ONE))
    counted = PassCounter(old), PassCounter(new)
    collect(counted[0].model, counted[1].model, records, probes=False)
    forms: dict[str, Callable[[], object]] = {
        "passes": lambda: predict(old, some, batch_size=256),
        "scores": lambda: collect(old, new, records, probes=False),
        "probed": lambda: collect(old, new, records),
        "measured": lambda: evaluate(old, some),
        "one_by_one": lambda: evaluate(old, few, batch_size=1),
        "batched": lambda: evaluate(old, few),
    }
    # The bare passes are timed on the holdout alone, and scaled to as many as were declared.
    scale = {"passes": declared / len(some)}
    times: dict[str, list[float]] = {name: [] for name in forms}
    for _ in range(ROUNDS):
        for name, work in forms.items():
            times[name].append(seconds(work) * scale.get(name, 1))
    median = {name: float(np.median(found)) for name, found in times.items()}
    found = {
        "records": {"forget": FORGET, "holdout": HOLDOUT, "retain": RETAIN},
        "declared_passes": declared,
        "made_passes": sum(one.passes.forward for one in counted),
        "declared_passes_with_probes": forward_passes(records),
        "seconds": times,
        "median_seconds": median,
        "beyond_passes_seconds": median["scores"] - median["passes"],
        "allowed_seconds": 1.2 * median["passes"] + 2,
        "one_by_one_over_batched": median["one_by_one"] / median["batched"],
    }
    write_record("score_speed", "score_speed", found)


def page(record: dict) -> str:
    """The table from the record."""
    median, n = record["median_seconds"], record["records"]
    rows = [
        ("forward passes declared before it starts", f"{record['declared_passes']:,}"),
        ("forward passes made", f"{record['made_passes']:,}"),
        ("seconds of so many bare passes", f"{median['passes']:.1f}"),
        ("seconds of the metrics of the tier, figures' arrays and tables", f"{median['scores']:.1f}"),
        (f"with the probes (views, copies, embeddings), {record['declared_passes_with_probes']:,} passes declared: seconds", f"{median['probed']:.1f}"),
        ("allowed without probes: 1.2 times the passes and 2 s of statistics", f"{record['allowed_seconds']:.1f}"),
        ("one record at a time, as the field's entropy attack predicts, over batches of 256", f"{record['one_by_one_over_batched']:.1f} times"),
    ]  # fmt: skip
    return pages.page(
        "What the metrics of tier T2 cost",
        f"{origin(record)}. {n['forget']:,} forget, {n['holdout']:,} holdout and {n['retain']:,} retain records of "
        f"CIFAR-10, quarter VGG11, one thread; medians of {len(record['seconds']['scores'])} rounds, all forms in each.",
        table(" | ", rows),
    )


if __name__ == "__main__":
    main()

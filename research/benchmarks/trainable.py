"""Less than full gradients: gap to the retrained model against cost, for each way of it.

    OMP_NUM_THREADS=1 python -m research.benchmarks.trainable     # research/results/trainable.json and .md

A small ViT of transformers, trained from fresh weights on 600 of scikit-learn's digits; each request
next to its own model retrained from fresh weights without the records. The method has a holdout of
200 digits for the expected accuracy, the columns are of the 997 others. No guard: what the method
itself does. ``scored`` and ``unlearned`` take any model and split.
"""

import itertools
import math
import time
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from scipy import stats
from sklearn.datasets import load_digits
from torch import nn
from transformers import ViTConfig, ViTForImageClassification

from efface.methods import METHODS
from efface.metrics.evaluation import evaluate
from efface.metrics.retrain_gap import columns, floor, gap
from efface.trainable import TRAINABLE, count_trainable, merge_adapter, select_trainable
from efface.types import Records, Split
from research import pages
from research.pages import interval, percent, table, triple
from research.tables import write_record

# three base models: intervals are Student's with two degrees of freedom, and wide
SEEDS, REQUESTS, WAYS = (0, 1, 2), ("class", "random"), ("jit", "neighbourhood")
TRAINED, HELD, GOING = 600, 200, 60
LEVEL = 0.95
Row = dict[str, Any]


def digits() -> tuple[Records, Records, Records]:
    """Records that are trained on, the method's holdout, and those that are scored."""
    found: Any = load_digits()
    x = torch.tensor(found.images / 8 - 1, dtype=torch.float32)[:, None]
    order = torch.randperm(len(x), generator=torch.Generator().manual_seed(0))
    low, high = torch.tensor(-1.0), torch.tensor(1.0)
    every = Records(x, torch.tensor(found.target), low=low, high=high)
    parts = order.split([TRAINED, HELD, len(x) - TRAINED - HELD])
    return tuple(every.take(rows) for rows in parts)  # type: ignore[return-value]


def trained(records: Records, *, seed: int, epochs: int = 40, rate: float = 2e-3) -> nn.Module:
    """A ViT of 58,570 weights from fresh ones: AdamW, one cycle, no augmentation, no dropout."""
    config = ViTConfig(
        image_size=8, patch_size=2, num_channels=1, hidden_size=48, num_hidden_layers=3,
        num_attention_heads=4, intermediate_size=96, hidden_dropout_prob=0.0,
        attention_probs_dropout_prob=0.0,
    )  # fmt: skip
    config.num_labels = 10
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = ViTForImageClassification(config)
        steps = epochs * math.ceil(len(records) / 64)
        optimizer = torch.optim.AdamW(model.parameters(), rate)
        schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, rate, total_steps=steps)
        for _ in range(epochs):
            for rows in torch.randperm(len(records)).split(64):
                optimizer.zero_grad()
                answer = model(records.x[rows]).logits
                nn.functional.cross_entropy(answer, records.y[rows]).backward()
                optimizer.step()
                schedule.step()
    model.zero_grad(set_to_none=True)
    return model.eval()


def request(name: str, train: Records, *, seed: int) -> tuple[torch.Tensor, tuple[int, ...]]:
    """Rows that go, and the forgotten class: another for each seed."""
    if name == "class":
        forget_classes = (2 * seed + 1) % 10
        return (train.y == forget_classes).nonzero().flatten(), (forget_classes,)
    generator = torch.Generator().manual_seed(100 + seed)
    return torch.randperm(len(train), generator=generator)[:GOING].sort().values, ()


def scored(
    model: nn.Module, parts: tuple[Records, Records, Records], forget_classes: tuple[int, ...]
) -> Row:
    """The paper's columns; ``parts``: forget, never trained on, staying."""
    return columns(*(evaluate(model, part) for part in parts), forget_classes=forget_classes)


def unlearned(
    model: nn.Module, split: Split, *, method: str, trainable: str, seed: int, **settings: Any
) -> tuple[nn.Module, Row]:
    """The new model, and what it cost: processor seconds, and the trainable share of the weights."""
    began = time.process_time()
    start = select_trainable(model, split.forget.take([0]), trainable, seed=seed)
    student = METHODS[method].function(start, split, seed=seed, **settings)
    new = merge_adapter(student, model)
    return new, {"cpu_seconds": time.process_time() - began, **count_trainable(start, trainable)}


def rows() -> Iterator[Row]:
    """Every way on every request, nothing done and a second retrained model first."""
    train, holdout, unseen = digits()
    for seed in SEEDS:
        base = trained(train, seed=seed)
        for name in REQUESTS:
            going, forget_classes = request(name, train, seed=seed)
            mask = torch.ones(len(train), dtype=torch.bool)
            mask[going] = False
            stay = train.take(mask.nonzero().flatten())
            parts = (train.take(going), unseen, stay)
            target, other = (
                scored(trained(stay, seed=1000 + seed + k), parts, forget_classes) for k in (0, 500)
            )
            where = {"seed": seed, "request": name, "leaving": forget_classes}
            nothing = _result(base, base, parts, forget_classes, target)
            yield {**where, "target": target, "floor": floor([target, other]), **nothing}
            split = Split(parts[0], holdout=holdout, forget_classes=forget_classes)
            for method, trainable in itertools.product(WAYS, TRAINABLE):
                way = {"method": method, "trainable": trainable}
                new, cost = unlearned(base, split, **way, seed=seed)
                yield {**where, **way, **cost, **_result(new, base, parts, forget_classes, target)}


def _result(new: nn.Module, old: nn.Module, parts: Any, forget_classes: Any, target: Row) -> Row:
    """Columns, gap, what was lost of D_r."""
    found, before = (scored(model, parts, forget_classes) for model in (new, old))
    return {"columns": found, "gap": gap(found, target), "lost": before["retain"] - found["retain"]}


def mean(values: list[float]) -> str:
    """Mean in points with Student's interval over base models."""
    centre, n = 100 * float(np.mean(values)), len(values)
    half = 100 * float(np.std(values, ddof=1)) / n**0.5 * stats.t.ppf((1 + LEVEL) / 2, n - 1)
    return interval(centre, centre - half, centre + half, form=".1f")


def page(record: Row) -> str:
    """One table a request."""
    parts = [
        (
            f"`{record['command']}`, records in trainable.json. A ViT of "
            f"58,570 weights on {TRAINED} digits, {len(SEEDS)} base models, each request with its own "
            "retrained model. D_r / D_f / MIA in %; gap to the retrained model and lost D_r in points, "
            "with a 95 % interval over the base models; seconds of one core; weights: the trainable "
            "share, with the adapter what it adds. No guard."
        )
    ]
    for name in REQUESTS:
        here = [row for row in record["rows"] if row["request"] == name]
        nothing = [row for row in here if "method" not in row]
        floors = percent(float(np.mean([row["floor"] for row in nothing])))
        target = triple(*(row["target"] for row in nothing))
        rows = [["retrained", "", target, f"{floors} (floor)", "", "", ""]]
        rows += [_line("nothing done", "", nothing)]
        for pair in itertools.product(WAYS, TRAINABLE):
            some = [r for r in here if (r.get("method"), r.get("trainable")) == pair]
            rows += [_line(f"`{pair[0]}`", f"`{pair[1]}`", some)] if some else []
        head = "method | trainable | D_r / D_f / MIA | gap | lost D_r | seconds | weights"
        title = "A class" if name == "class" else f"{GOING} random records"
        parts += [f"## {title}", table(head, rows)]
    return pages.page("Less than full gradients", *parts)


def _line(method: str, trainable: str, some: list[Row]) -> list[str]:
    seconds, share = "", ""
    if "numbers" in some[0]:
        seconds = f"{np.mean([row['cpu_seconds'] for row in some]):.1f}"
        share = f"{percent(some[0]['numbers'] / some[0]['of'])} %"
    points = (mean([row[name] for row in some]) for name in ("gap", "lost"))
    return [method, trainable, triple(*(row["columns"] for row in some)), *points, seconds, share]


def main() -> None:
    """Run, record, tabulate."""
    torch.set_num_threads(1)
    began, found = time.process_time(), list(rows())
    seconds = round(time.process_time() - began)
    write_record("trainable", "trainable", {"cpu_seconds": seconds, "rows": found})


if __name__ == "__main__":
    main()

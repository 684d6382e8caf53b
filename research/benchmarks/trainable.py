"""Less than full gradients: gap to the retrained model against cost, for each way of it.

    OMP_NUM_THREADS=1 python -m research.benchmarks.trainable     # research/results/trainable.json and .md

A small ViT of transformers, trained from fresh weights on 600 of scikit-learn's digits; each request
beside its own model retrained from fresh weights without the records. The method has a holdout of
200 digits for the expected accuracy, the columns are of the 997 others. No guard: what the method
itself does. ``scored`` and ``unlearned`` take any model and split.
"""

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
from research.tables import write_record

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
    """Rows that go, and the class that leaves: another for each seed."""
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
    """The new model, and what it cost: processor seconds, and the share of weights that move."""
    began = time.process_time()
    start = select_trainable(model, split.forget.take([0]), trainable, seed=seed)
    student = METHODS[method].function(start, split, seed=seed, **settings)
    new = merge_adapter(student, model)
    return new, {"cpu_seconds": time.process_time() - began, **count_trainable(start, trainable)}


def rows() -> Iterator[Row]:
    """Every way on every request, nothing done and a second retrained model first."""
    train, held, unseen = digits()
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
            yield {**where, "target": target, "floor": floor([target, other]),
                   **_result(base, base, parts, forget_classes, target)}  # fmt: skip
            for method in WAYS:
                for trainable in TRAINABLE:
                    split = Split(parts[0], holdout=held, forget_classes=forget_classes)
                    new, cost = unlearned(
                        base, split, method=method, trainable=trainable, seed=seed
                    )
                    yield {**where, "method": method, "trainable": trainable, **cost,
                           **_result(new, base, parts, forget_classes, target)}  # fmt: skip


def _result(new: nn.Module, old: nn.Module, parts: Any, forget_classes: Any, target: Row) -> Row:
    """Columns, gap, what was lost of D_r."""
    found, before = (scored(model, parts, forget_classes) for model in (new, old))
    return {"columns": found, "gap": gap(found, target), "lost": before["retain"] - found["retain"]}


def mean(values: list[float]) -> str:
    """Mean in points with Student's interval over base models."""
    middle, n = 100 * float(np.mean(values)), len(values)
    half = 100 * float(np.std(values, ddof=1)) / n**0.5 * stats.t.ppf((1 + LEVEL) / 2, n - 1)
    return f"{middle:.1f} ({middle - half:.1f} to {middle + half:.1f})"


def page(record: Row) -> str:
    """One table a request."""
    found = record["rows"]
    lines = ["# Less than full gradients", "",
             (f"`{record['command']}`, records in trainable.json. A ViT of "
              f"58,570 weights on {TRAINED} digits, {len(SEEDS)} base models, each request with its own "
              "retrained model. D_r / D_f / MIA in %; gap to the retrained model and lost D_r in points, "
              "with a 95 % interval over the base models; seconds of one core; weights: the share that may "
              "move, with the adapter what it adds. No guard."), ""]  # fmt: skip
    for name in REQUESTS:
        here = [row for row in found if row["request"] == name]
        nothing = [row for row in here if "method" not in row]
        targets = [row["target"] for row in nothing]
        floors = f"{100 * np.mean([row['floor'] for row in nothing]):.1f} (floor)"
        lines += [f"## {'A class' if name == 'class' else f'{GOING} random records'}", "",
                  "| method | trainable | D_r / D_f / MIA | gap | lost D_r | seconds | weights |",
                  "|---|---|---|---|---|---|---|",
                  f"| retrained | | {_columns(targets)} | {floors} | | | |",
                  _line("nothing done", "", nothing)]  # fmt: skip
        for method in WAYS:
            for trainable in TRAINABLE:
                pair = (method, trainable)
                some = [r for r in here if (r.get("method"), r.get("trainable")) == pair]
                lines.append(_line(f"`{method}`", f"`{trainable}`", some))
        lines.append("")
    return "\n".join(lines)


def _columns(found: list[dict[str, float]]) -> str:
    return " / ".join(f"{100 * np.mean([one[name] for one in found]):.1f}" for name in found[0])


def _line(method: str, trainable: str, some: list[Row]) -> str:
    seconds, share = "", ""
    if "numbers" in some[0]:
        seconds = f"{np.mean([row['cpu_seconds'] for row in some]):.1f}"
        share = f"{100 * some[0]['numbers'] / some[0]['of']:.1f} %"
    gaps, lost = (mean([row[name] for row in some]) for name in ("gap", "lost"))
    said = _columns([row["columns"] for row in some])
    return f"| {method} | {trainable} | {said} | {gaps} | {lost} | {seconds} | {share} |"


def main() -> None:
    """Run, record, tabulate."""
    torch.set_num_threads(1)
    began, found = time.process_time(), list(rows())
    seconds = round(time.process_time() - began)
    write_record("trainable", "trainable", {"cpu_seconds": seconds, "rows": found})


if __name__ == "__main__":
    main()

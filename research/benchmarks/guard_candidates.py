"""Which drift on which synthetic inputs predicts best that a model lost accuracy.

    EFFACE_DATA=… python -m research.benchmarks.guard_candidates

Each unguarded run is measured on ten kinds of inputs by five statistics. For each pair: the AUC on
each data set, and missed runs and false positives at the limit that balances them, fitted on both
data sets and on the other one alone. The committed record was made with the first form of ``jit``.
"""

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from sklearn.metrics import roc_auc_score
from torch import Tensor, nn
from torch.nn import functional

from efface.guard import COUNT, Guard, synthetic_inputs
from efface.methods._perturb import perspective
from efface.types import Split
from research.benchmarks.guard_damage import TASKS, damaged, runs
from research.benchmarks.guard_models import NETS, Net, accuracy, request, trained, unseen
from research.tables import write_record

# Drop of accuracy on unseen records, as a share, beyond which a run counts as damaged.
LOST = 0.05


def kinds(model: nn.Module, split: Split, seed: int) -> dict[str, Tensor]:
    """64 inputs of each kind, and those that the guard has."""
    generator = torch.Generator().manual_seed(seed + 1)
    rows = torch.randint(len(split.forget), (64,), generator=generator)
    some, low, high = split.forget.x[rows], split.forget.low, split.forget.high
    chosen = synthetic_inputs(model, split, seed=seed).x
    coarse = [max(2, side // 4) for side in some.shape[2:]]
    drawn = torch.rand((64, some.shape[1], *coarse), generator=generator)
    smooth = low + (high - low) * functional.interpolate(drawn, some.shape[2:], mode="bilinear")
    draws = torch.rand((64, 8), generator=generator, dtype=torch.float64)
    half = some.shape[-1] // 2
    return {
        "white noise": low + (high - low) * torch.rand(some.shape, generator=generator),
        "smooth noise": smooth,
        "record, half noise": (some + smooth) / 2,
        "record, quarters swapped": some.roll((half, half), (2, 3)),
        "record, perspective 0.5": perspective(some, draws, 0.5),
        "record, perspective 0.8": chosen[:COUNT],
        "two records mixed": (some + some.roll(1, 0).flip(-1)) / 2,
        "faint impressions": chosen[COUNT:],
        "strong impressions": _strong(model, smooth, split),
        "perspective 0.8 and faint impressions": chosen,
    }


def _strong(model: nn.Module, x: Tensor, split: Split) -> Tensor:
    """Twenty steps of 3 % of the range up the logit of each staying class."""
    low, high = split.forget.low, split.forget.high
    with torch.no_grad():
        k = model(x[:1]).shape[1]
    staying = [label for label in range(k) if label not in split.forget_classes]
    wanted = torch.tensor([staying[i % len(staying)] for i in range(len(x))])
    for _ in range(20):
        seen = x.detach().requires_grad_()
        (slope,) = torch.autograd.grad(model(seen).gather(1, wanted[:, None]).sum(), seen)
        deviation = slope.flatten(1).std(1).clamp_min(1e-12)[:, None, None, None]
        x = torch.clamp(x + 0.03 * (high - low) * slope / deviation, low, high)
    return x


def statistics(before: Tensor, after: Tensor) -> dict[str, float]:
    """Five distances between outputs before and after, log-probabilities (n, k)."""
    p, q = before.exp(), after.exp()
    k = p.shape[1]
    counts = [torch.bincount(a.argmax(1), minlength=k) / len(a) for a in (before, after)]
    # log p is -inf for a masked class in both models: 0 · inf must count as 0
    kl = torch.where(p > 0, p * (before - after), 0).sum(1).clamp_max(10)
    entropies = [torch.where(a.exp() > 0, -a.exp() * a, 0).sum(1).mean() for a in (before, after)]
    found = {
        "divergence": kl.mean(),
        "total variation": (p - q).abs().sum(1).mean() / 2,
        "changed answers": (before.argmax(1) != after.argmax(1)).double().mean(),
        "class histogram": (counts[0] - counts[1]).abs().sum() / 2,
        "entropy shift": (entropies[0] - entropies[1]).abs(),
    }
    return {name: float(value.nan_to_num(10)) for name, value in found.items()}


@torch.no_grad()
def answers(model: nn.Module, x: Tensor, forget_classes: tuple[int, ...]) -> Tensor:
    """Log-probabilities, forgotten classes masked out."""
    found = model(x).double()
    found[:, list(forget_classes)] = -torch.inf
    return found.log_softmax(1)


def candidates(net: Net, folder: Path) -> list[dict[str, Any]]:
    """Every run on a net: the true loss and all candidates."""
    model, lines = trained(net, folder), []
    splits = {task: request(net, task) for task in TASKS}
    inputs = {task: kinds(model, split, net.seed) for task, split in splits.items()}
    tests = {task: unseen(net, split) for task, split in splits.items()}
    before = {task: accuracy(model, test) for task, test in tests.items()}
    for run in runs():
        split = splits[run.task]
        student = damaged(model, split, run, seed=net.seed)
        found = {"weights | movement": Guard(model, split).movement(student)}
        for kind, x in inputs[run.task].items():
            both = [answers(m, x, split.forget_classes) for m in (model, student)]
            found |= {f"{kind} | {name}": v for name, v in statistics(*both).items()}
        loss = before[run.task] - accuracy(student, tests[run.task])
        lines.append({"data": net.data, "loss": loss, **found})
    return lines


def errors(values: np.ndarray, bad: np.ndarray, limit: float) -> tuple[float, float]:
    """FNR and FPR, as shares."""
    return float((values[bad] <= limit).mean()), float((values[~bad] > limit).mean())


def best(values: np.ndarray, bad: np.ndarray, data: np.ndarray) -> float:
    """The limit that minimises missed / 10 % + false positives / 20 % over the data sets."""
    ordered = np.unique(values)
    # a limit on a measured value itself would depend on rounding
    middles = (ordered[1:] + ordered[:-1]) / 2
    # the guard may miss 10 % and refuse 20 % of the harmless: weights 10 and 5
    cost = [
        sum(np.dot(errors(values[data == d], bad[data == d], m), (10, 5)) for d in set(data))
        for m in middles
    ]
    return float(middles[int(np.argmin(cost))])


def summary(lines: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """One row a candidate, the best first."""
    data = np.array([line["data"] for line in lines])
    bad = np.array([line["loss"] for line in lines]) > LOST
    rows = []
    for name in [key for key in lines[0] if " | " in key]:
        # a wrecked model has no finite statistic: beyond every limit
        values = np.nan_to_num(np.array([line[name] for line in lines]), nan=99, posinf=99)
        limit = best(values, bad, data)
        row = {"candidate": name, "limit": limit, "errors": errors(values, bad, limit)}
        for d in sorted(set(data)):
            here, there = data == d, data != d
            other = best(values[there], bad[there], data[there])
            row[f"auc_{d}"] = float(roc_auc_score(bad[here], values[here]))
            row[f"errors_{d}_limit_from_the_other"] = errors(values[here], bad[here], other)
        rows.append(row)
    return sorted(rows, key=lambda row: np.dot(row["errors"], (10, 5)))


def main() -> None:
    """Make the runs again, print the best twelve, and write all."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--folder", type=Path, default=Path("runs/guard"))
    parser.add_argument("--skip", default="none", help="models whose name begins with this")
    options = parser.parse_args()
    torch.set_num_threads(1)
    chosen = [n for n in NETS if not str(n).startswith(options.skip)]
    rows = summary([line for net in chosen for line in candidates(net, options.folder)])
    for row in rows[:12]:
        print(json.dumps(row))
    found = {"nets": [str(net) for net in chosen], "candidates": rows}
    write_record("guard_candidates", "guard_candidates", found)


if __name__ == "__main__":
    main()

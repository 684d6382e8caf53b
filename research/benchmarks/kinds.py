"""One request of each kind on scikit-learn's real tables and digits, next to a retrained model.

python -m research.benchmarks.kinds     # writes research/results/kinds.json and .md; about a minute
"""

from typing import Any

import torch
from sklearn.datasets import load_breast_cancer, load_diabetes, load_digits, load_wine
from torch import nn
from torch.nn import functional

from efface import Records, Split, forget
from efface.metrics.evaluation import evaluate
from research import pages
from research.pages import percent, table
from research.tables import write_record

FORGET, SEED = 20, 0


def table_of(load, *, regression: bool = False) -> Records:  # noqa: ANN001
    """A real table, standardised; regression targets too."""
    x, y = (torch.tensor(part, dtype=torch.float32) for part in load(return_X_y=True))
    x = (x - x.mean(0)) / x.std(0).clamp_min(1e-6)
    return shuffled(Records(x, (y - y.mean()) / y.std() if regression else y.long()))


def digits(*, multilabel: bool) -> Records:
    """Digits with their class, or with three labels each: even, above 4, with a closed loop."""
    data: Any = load_digits(return_X_y=True)
    pixels, y = data
    x, y = torch.tensor(pixels / 16, dtype=torch.float32).reshape(-1, 1, 8, 8), torch.tensor(y)
    loop = torch.isin(y, torch.tensor([0, 6, 8, 9]))
    labels = torch.stack([y % 2 == 0, y > 4, loop], 1).long() if multilabel else y  # noqa: PLR2004
    return shuffled(Records(x, labels)).take(range(800))


def shuffled(records: Records) -> Records:
    """In a seeded order."""
    order = torch.randperm(len(records), generator=torch.Generator().manual_seed(SEED))
    return records.take(order)


def unit(z: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    """The loss of one sigmoid unit."""
    return functional.binary_cross_entropy_with_logits(z[:, 0], y.float())


CASES = {
    "table, 3 classes (wine)": (lambda: table_of(load_wine), 3, functional.cross_entropy),
    "table, one sigmoid unit (breast cancer)": (lambda: table_of(load_breast_cancer), 1, unit),
    "table, regression (diabetes)": (
        lambda: table_of(load_diabetes, regression=True),
        1,
        lambda z, y: functional.mse_loss(z[:, 0], y),
    ),
    "images, multilabel (digits)": (
        lambda: digits(multilabel=True),
        3,
        lambda z, y: functional.binary_cross_entropy_with_logits(z, y.float()),
    ),
    "images, bfloat16 weights (digits)": (
        lambda: digits(multilabel=False),
        10,
        functional.cross_entropy,
    ),
}


def trained(records: Records, k: int, loss, *, seed: int) -> nn.Module:  # noqa: ANN001
    """A small model that memorises its records, from fresh weights."""
    torch.manual_seed(seed)
    width = records.x[0].numel()
    hidden = [nn.Linear(width, 64), nn.ReLU(), nn.Linear(64, 64), nn.ReLU()]
    net = nn.Sequential(nn.Flatten(), *hidden, nn.Linear(64, k))
    optimizer = torch.optim.Adam(net.parameters(), 2e-3)
    for _ in range(800):
        optimizer.zero_grad()
        loss(net(records.x), records.y).backward()
        optimizer.step()
    return net.eval()


def cell(name: str) -> dict:
    """The request of one kind with both methods; accuracy on forget and unseen records."""
    make, k, loss = CASES[name]
    records = make()
    # half is unseen, so that accuracy on it is not decided by a few records
    half = len(records) // 2
    base = records.take(range(half))
    stay, unseen = records.take(range(FORGET, half)), records.take(range(half, len(records)))
    model, retrained = trained(base, k, loss, seed=0), trained(stay, k, loss, seed=1)
    if "bfloat16" in name:
        model, retrained = model.bfloat16(), retrained.bfloat16()
    split = Split(records.take(range(FORGET)), holdout=unseen)
    models = {"nothing done": model, "retrained": retrained}
    for method in ("jit", "neighbourhood"):
        models[method] = forget(model, split, method=method, seed=SEED).model
    return {which: scored(one, split, unseen) for which, one in models.items()}


def scored(model: nn.Module, split: Split, unseen: Records) -> dict[str, float]:
    """Accuracy and mean loss; the scale of regression targets comes from the whole holdout."""
    both = Records(torch.cat([split.forget.x, unseen.x]), torch.cat([split.forget.y, unseen.y]))
    found = evaluate(model, both)
    return {
        "forget_right": float(found.accuracy[:FORGET].mean()),
        "unseen_right": float(found.accuracy[FORGET:].mean()),
        "forget_loss": float(found.loss[:FORGET].mean()),
        "unseen_loss": float(found.loss[FORGET:].mean()),
    }


def main() -> None:
    """Measure every kind."""
    torch.set_num_threads(1)
    cells = {name: cell(name) for name in CASES}
    write_record("kinds", "kinds", {"seed": SEED, "forget": FORGET, "cells": cells})


def page(record: dict[str, Any]) -> str:
    """The table from the record."""
    rows = []
    # by place: old records name the kinds in older words
    for name, models in zip(CASES, record["cells"].values(), strict=True):
        for which in ("nothing done", "jit", "neighbourhood", "retrained"):
            row = models[which]
            shares = (percent(row[f"{part}_right"]) for part in ("forget", "unseen"))
            losses = (f"{row[f'{part}_loss']:.3f}" for part in ("forget", "unseen"))
            rows.append((name, which, *shares, *losses))
    return pages.page(
        "One request of each kind",
        f"{record['date']}, `{record['command']}`: {record['forget']} records are forgotten, half of the data was never "
        "seen (the method and the guard have all of it here). Accuracy in % (regression: 1 - error "
        "in standard deviations) and mean loss; the target is the retrained row. One model each: no intervals.",
        table(
            "request | model | accuracy on forget | accuracy on unseen | loss on forget | loss on unseen",
            rows,
        ),
    )


if __name__ == "__main__":
    main()

"""Nets of other kinds than a VGG, and digits in the form that each takes."""

from dataclasses import dataclass, replace

import torch
from torch import nn

from efface.testing.digits import digits
from efface.types import Records


@dataclass(frozen=True)
class Kind:
    """What is particular about a net, how many outputs it has, whether a method may refuse it."""

    said: str
    outputs: int = 10
    may_be_refused: bool = False


NETS = {
    "layer norm": Kind("LayerNorm"),
    "dropout": Kind("dropout"),
    "tied": Kind("tied weights"),
    "one output": Kind("a single output unit", outputs=1, may_be_refused=True),
    "table": Kind("inputs that are no images"),
    "multilabel": Kind("many labels, each there or not", may_be_refused=True),
    "regression": Kind("outputs that are values", outputs=1, may_be_refused=True),
}


def net_of(kind: str) -> nn.Module:
    """An untrained net in eval mode, the same each time."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        middle = nn.Linear(16, 16)
        extra = {
            "layer norm": [nn.LayerNorm(16)],
            "dropout": [nn.Dropout(0.5)],
            "tied": [middle, nn.ReLU(), middle],
        }.get(kind, [])
        head = nn.Linear(16, NETS[kind].outputs)
        return nn.Sequential(nn.Flatten(), nn.Linear(64, 16), *extra, nn.ReLU(), head).eval()


def records_for(kind: str) -> Records:
    """Sixty digits: their parity for a single unit, ten marks, or the digit as a value."""
    records = digits().take(range(60))
    y = {
        "one output": records.y % 2,
        "multilabel": nn.functional.one_hot(records.y, 10),
        "regression": records.y[:, None].float(),
    }.get(kind, records.y)
    x = records.x.flatten(1) if kind == "table" else records.x
    return replace(records, x=x, y=y)

"""One method on trial: its entry, quick settings, splits with what it needs, and a run."""

import copy
import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import nn

from efface.methods import Method
from efface.task import outputs, task_of
from efface.testing.digits import digits, learned
from efface.types import Records, Split

QUICK = {
    "steps": 6,
    "epochs": 2,
    "batch_size": 6,
    "perturbations": 3,
    "copies": 2,
    "selection_weighting": 1.0,
}
"""Few and small steps; a setting that a method does not have is left out."""

RECIPE_EPOCHS = 3


@dataclass(frozen=True, eq=False)
class Case:
    """A method, the net it is tried on, and what it is given.

    ``quick``: settings beside ``QUICK`` that make it run in a moment; ``toy``: those that fit a toy
    problem of 30 records, where the method's own are made for thousands.
    """

    entry: Method
    quick: Mapping[str, Any] = field(default_factory=dict)
    toy: Mapping[str, Any] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """That of the function."""
        return self.entry.function.__name__

    @property
    def model(self) -> nn.Module:
        """The shared net: never to be changed."""
        return learned()

    @property
    def own(self) -> Mapping[str, inspect.Parameter]:
        """The parameters of the function."""
        return inspect.signature(self.entry.function).parameters

    @property
    def split(self) -> Split:
        """Twenty digits that the net has learned, and forty that stay, as far as it needs them."""
        return self.split_of(digits().take(range(20)), digits().take(range(20, 60)), self.model)

    def split_of(self, forget: Records, retain: Records, model: nn.Module | None = None) -> Split:
        """The forget records, and of the rest what the method needs, ``retain`` if it sees it."""
        at_hand: dict[str, Any] = {
            "retain": retain,
            "holdout": retain,
            "forget_classes": (int(forget.y.reshape(-1)[0]),) if len(forget) else (0,),
            "fresh": fresh_of(model) if model else None,
            "train": recipe,
        }
        wanted = self.entry.needs | ({"retain"} & self.entry.reads)
        return Split(forget, **{part: one for part, one in at_hand.items() if part in wanted})

    def run(self, model: nn.Module, split: Split, **settings: Any) -> nn.Module:
        """The method with few and small steps; settings that it does not have are left out."""
        wanted = {**QUICK, **self.quick, **settings}
        chosen = {key: value for key, value in wanted.items() if key in self.own}
        return self.entry.function(model, split, **{"seed": 5, **chosen})


def fresh_of(model: nn.Module) -> Callable[[int], nn.Module]:
    """``fresh(seed)``: the same modules with every weight drawn anew."""

    def fresh(seed: int) -> nn.Module:
        net = copy.deepcopy(model)
        with torch.random.fork_rng(), torch.no_grad():
            torch.manual_seed(seed)
            for module in net.modules():
                if callable(reset := getattr(module, "reset_parameters", None)):
                    reset()
        return net

    return fresh


def recipe(model: nn.Module, records: Records, seed: int) -> nn.Module:
    """``train(model, records, seed)``: three epochs of SGD over batches in a seeded order."""
    task, generator = task_of(records), torch.Generator().manual_seed(seed)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)
    model.train()
    for _ in range(RECIPE_EPOCHS):
        for rows in torch.randperm(len(records), generator=generator).split(16):
            optimizer.zero_grad()
            batch = replace(records.take(rows), task=task)
            task.loss(outputs(model, batch), batch.y).mean().backward()
            optimizer.step()
    return model.eval()

"""What the tests over every method share: a split with what it needs, quick settings, exceptions.

A method joins by being in METHODS. What it does not promise stands in EXCEPTIONS, with the reason.
"""

import copy
import inspect

import pytest
import torch
from torch import nn

from efface.adapters import logits
from efface.methods import METHODS
from efface.methods.parts.entry import PARTS, Passes
from efface.types import Records, Split

QUICK = {
    "steps": 6,
    "epochs": 2,
    "records_per_step": 6,
    "perturbations": 3,
    "copies": 2,
    "selection": 1.0,
    "rounds": 2,
}

EXCEPTIONS = {
    ("baseline", "changes"): "it is the model as it is",
    ("baseline", "seed"): "the same",
    ("baseline", "identity"): "the same: it has no settings",
    ("baseline", "strength"): "the same",
    ("baseline", "guard"): "there is no step to ask after",
    ("baseline", "trainable"): "nothing moves",
    ("retrain", "buffers"): "every buffer is the recipe's own",
    ("retrain", "identity"): "it starts from an untrained model; the recipe has the settings",
    ("retrain", "strength"): "the same",
    ("retrain", "order"): "the recipe has batches of its own",
    ("retrain", "guard"): "the steps are the recipe's; the guard judges the result",
    ("retrain", "region"): "every weight is drawn anew, far from the given one",
    ("retrain", "trainable"): "it trains every weight, and the request refuses anything else",
    ("retrain", "empty"): "it is the recipe itself then, and never looks at the forget records",
    ("retrain", "processes"): "the recipe is the user's own",
    ("retrain", "blank"): "fresh weights on 40 digits are not within the guard's budget",
    ("finetune", "empty"): "it never looks at the forget records",
    ("l1_sparse", "empty"): "it never looks at the forget records",
    ("jit_paper", "order"): "one update a record: the next starts where the last one ended",
    ("jit_reference", "order"): "the authors' noise goes by a record's place in its batch",
    **{(name, "guard"): "one change, asked once" for name in ("ssd", "lfssd", "assd")},
    **{(name, "identity"): "its own tests: α → ∞, λ → ∞" for name in ("ssd", "lfssd", "assd")},
    **{(name, "trainable"): "a new adapter is refused" for name in ("ssd", "lfssd", "assd")},
    ("scrub", "empty"): "distillation remains, a limit of its own tests",
    ("scrub_rewind", "empty"): "the same",
    ("bad_teacher", "empty"): "the same",
    ("unsir", "empty"): "it never looks at the forget records",
    ("emmn", "empty"): "it looks at what an input is and at no record",
    ("emmn", "blank"): "the same",
    ("gkt", "buffers"): "the student is made anew, with buffers of its own",
    ("gkt", "identity"): "it starts from an untrained model",
    ("gkt", "region"): "every weight is drawn anew, far from the given one",
    ("gkt", "trainable"): "it trains every weight, and the request refuses anything else",
    ("gkt", "empty"): "it looks at what an input is and at no record",
    ("gkt", "blank"): "the same, and fresh weights are not within the guard's budget",
    ("gkt", "processes"): "BatchNorm of the generator takes its statistics from whole rounds",
    ("unsir", "order"): "noise and records that stay are more than one batch",
    ("jit_reference", "blank"): "its own test: the authors' ratio is 0 by 0 there",
}
"""Promises that a method does not keep, each with the reason."""


def keeping(promise: str):
    """Parametrizes over the methods that make the promise; exceptions are in the table above."""
    kept = [name for name in METHODS if (name, promise) not in EXCEPTIONS]
    return pytest.mark.parametrize("name", kept)


EVERY_METHOD = pytest.mark.parametrize("name", METHODS)


def split_for(
    name: str, forget: Records, retain: Records, *, model: nn.Module | None = None
) -> Split:
    """The forget records, and of the rest what the method needs, and ``retain`` if it sees it."""
    at_hand = {
        "retain": retain,
        "holdout": retain,
        "leaving": (int(forget.y[0]),) if len(forget) else (0,),
        "fresh": fresh_of(model) if model else None,
        "train": recipe,
    }
    entry = METHODS[name]
    wanted = entry.needs | ({"retain"} & entry.sees)
    return Split(forget, **{part: given for part, given in at_hand.items() if part in wanted})


def run(name: str, model: nn.Module, split: Split, **settings) -> nn.Module:
    """The method with few and small steps; settings that it does not have are left out."""
    own = inspect.signature(METHODS[name].function).parameters
    chosen = {key: value for key, value in {**QUICK, **settings}.items() if key in own}
    return METHODS[name].function(model, split, **{"seed": 5, **chosen})


def fresh_of(model: nn.Module):
    """``fresh(seed)``: the same modules with every weight drawn anew."""

    def fresh(seed: int) -> nn.Module:
        net = copy.deepcopy(model)
        with torch.random.fork_rng(), torch.no_grad():
            torch.manual_seed(seed)
            for module in net.modules():
                if hasattr(module, "reset_parameters"):
                    module.reset_parameters()
        return net

    return fresh


RECIPE_EPOCHS = 3


def recipe(model: nn.Module, records: Records, seed: int) -> nn.Module:
    """``train(model, records, seed)``: three epochs of SGD over batches in a seeded order."""
    generator = torch.Generator().manual_seed(seed)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)
    model.train()
    for _ in range(RECIPE_EPOCHS):
        for rows in torch.randperm(len(records), generator=generator).split(16):
            optimizer.zero_grad()
            nn.functional.cross_entropy(logits(model, records.x[rows]), records.y[rows]).backward()
            optimizer.step()
    return model.eval()


class Counted:
    """A copy of a model that counts the records that go through it, and through its copies."""

    def __init__(self, model: nn.Module) -> None:
        self.forward, self.backward = 0, 0
        self.model = copy.deepcopy(model)
        self.model.register_forward_hook(lambda _, inputs, answer: self._seen(inputs[0], answer))

    def _seen(self, x: torch.Tensor, answer: torch.Tensor) -> None:
        self.forward += len(x)
        if answer.requires_grad:
            answer.register_hook(lambda gradient: self._back(len(gradient)))

    def _back(self, count: int) -> None:
        self.backward += count

    @property
    def passes(self) -> Passes:
        """What went through so far."""
        return Passes(self.forward, self.backward)


def numbers_for(name: str, split: Split, **settings) -> dict:
    """What the names in a cost formula stand for."""
    parameters = inspect.signature(METHODS[name].function).parameters.values()
    defaults = {p.name: p.default for p in parameters if p.default is not p.empty}
    own = {**defaults, **{k: v for k, v in {**QUICK, **settings}.items() if k in defaults}}
    counts = {part: len(getattr(split, part) or ()) for part in ("forget", "retain", "holdout")}
    at_once = own.get("records_per_step", METHODS[name].records_per_step)
    batch = min(counts["forget"], at_once)
    known = {"leaving": len(split.leaving), "classes": 10}  # tiny_net's
    return {**counts, **known, "batch": batch, "recipe": RECIPE_EPOCHS, **own}


class Trap:
    """Stands for what a method says that it does not see: touching it raises."""

    def __init__(self, part: str) -> None:
        object.__setattr__(self, "part", part)

    def _sprung(self, *_: object) -> None:
        raise AssertionError(f"the method touched {object.__getattribute__(self, 'part')}")

    __getattribute__ = __len__ = __iter__ = __bool__ = __call__ = __getitem__ = _sprung
    __contains__ = __eq__ = __hash__ = _sprung


def _trap(*_: object) -> None:
    raise AssertionError("the method called what it says it does not see")


class TrappedLabels(torch.Tensor):
    """Labels that may be carried along, but whose values may not be looked at."""

    @classmethod
    def __torch_function__(cls, func, types, args=(), kwargs=None):
        if func.__name__ not in {"__get__", "__len__", "__getitem__", "to", "size", "dim"}:
            raise AssertionError(f"the method looked at the labels: {func.__name__}")
        return super().__torch_function__(func, types, args, kwargs)


def trapped(split: Split, sees: frozenset[str]) -> Split:
    """The split with a trap in the place of every part, and of all labels, not in ``sees``."""
    split = copy.copy(split)
    for part in PARTS[1:]:
        where, _, labels = part.partition(" ")
        if part in sees or where not in sees | {part}:
            continue
        given = getattr(split, where)
        if not labels:
            trap = _trap if part in {"fresh", "train"} else Trap(part)
            object.__setattr__(split, where, trap)
        elif given is not None:
            kept = Records(
                given.x, given.y.as_subclass(TrappedLabels), given.ids, given.low, given.high
            )
            object.__setattr__(split, where, kept)
    return split

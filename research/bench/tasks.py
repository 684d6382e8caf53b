"""The tasks: what is trained on what, which records go, and the models that never saw them.

A ``Task`` names a recipe, data and what goes; ``Task.requests()`` are its requests, each to one of
several base models, with true retrains of it (fresh weights, other seeds, the same recipe).
Settings are searched for on ``Task.tuning()``: another base model, another class or forget set,
which nothing is scored on. ``TASKS`` is the list; adding a task is adding an entry.
"""

import os
from dataclasses import dataclass, replace
from functools import cache
from typing import Any

import numpy as np

from efface.errors import InputError, did_you_mean
from efface.grid import Job
from efface.io.data import load_data
from efface.methods import METHODS
from research.data import DIGITS
from research.jobs import seen_by, training, unlearning
from research.recipes import Recipe, named
from research.tables import RESULTS

# seeds of base models that no method's rule and no other benchmark has seen
BASES, TUNING_BASE = (71, 72, 73), 79
# a request's retrained models: their seeds begin at 100 times the request's
PER_REQUEST = 100


@dataclass(frozen=True, eq=False)
class Request:
    """Rows that go from one base model.

    ``forget``: the rule of the rows; ``facts``: what the request says of them beyond that, which a
    method is told if it asks; ``seed``: that of the draw, of which the models' and the methods' follow;
    ``turn``: its place among the requests to its base, 0 first.
    """

    task: "Task"
    name: str
    seed: int
    base: Job
    retrained: tuple[Job, ...]
    forget: dict[str, Any]
    forget_classes: tuple[int, ...] = ()
    facts: dict[str, Any] | None = None
    turn: int = 0

    def unlearned(self, method: str, **settings: Any) -> Job:
        """The job of a method, which sees of the split what it says that it reads; no guard."""
        known = METHODS[method].settings if method in METHODS else {}
        told = {name: value for name, value in (self.facts or {}).items() if name in known}
        if method == "source_free_newton":
            told["retained_records"] = self.task.trained - self.task.going
        return unlearning(
            self.base, method, forget=self.forget, forget_classes=self.forget_classes,
            # not the base's: a random teacher would be what the base grew from
            seed=1_000_000 + self.seed, guard=False, probed=True, **seen_by(method),
            **{**told, **settings},
        )  # fmt: skip


@dataclass(frozen=True)
class Task:
    """One table of the benchmark.

    ``kind``: class, sub-class, random, wrong labels or memorised; ``asked``: names of classes, or
    for each base so many requests of that many records; ``tuning``: the one to search on;
    ``going``: about so many records a request; ``paper``: the table of arXiv 2402.01401 next to it;
    ``retrained``: models a request; ``anchor``: few models, not for counts.
    """

    name: str
    title: str
    kind: str
    recipe: str | Recipe
    data: str
    asked: tuple[str, ...] | int
    going: int
    tuned_on: str = ""
    first: int | None = 10_000
    label: str | None = None
    paper: str = ""
    bases: tuple[int, ...] = BASES
    retrained: int = 3
    anchor: bool = False

    @property
    def trained(self) -> int:
        """How many records the base models are trained on."""
        if self.first:
            return self.first
        return len(_digits() if self.data == DIGITS else _source(self.data, self.label).labels)

    def requests(self) -> list[Request]:
        """Those that are scored, base by base."""
        count = self.asked if isinstance(self.asked, int) else len(self.asked)
        return [self._request(base, turn) for base in self.bases for turn in range(count)]

    def tuning(self) -> Request:
        """The one that settings are chosen on."""
        return self._request(TUNING_BASE, 0, asked=(self.tuned_on,))

    def _request(self, base: int, turn: int, asked: tuple[str, ...] | None = None) -> Request:
        seed, names = 10 * base + turn, asked or self.asked
        name = f"{self.going} records, seed {seed}"
        if not isinstance(names, int) and names[turn]:
            name = names[turn]
        forget, classes, labels = self._rule(name, seed)
        # a wrong label is the base's own: one base for each request
        base_seed = seed if labels else base
        own: dict[str, Any] = {"first": self.first, "label_column": self.label}
        own["labels"] = labels
        model = training(self.recipe, self.data, seed=base_seed, keep_weights=True, **own)
        seeds = range(PER_REQUEST * seed, PER_REQUEST * seed + self.retrained)
        without: dict[str, Any] = {"excluded": forget, "forget_classes": classes}
        others = tuple(training(self.recipe, self.data, seed=s, **own, **without) for s in seeds)
        facts = {"mislabelled": True} if labels else None
        return Request(self, name, seed, model, others, forget, classes, facts, turn)

    def _rule(
        self, name: str, seed: int
    ) -> tuple[dict[str, Any], tuple[int, ...], dict[int, int] | None]:
        """Rows that go, classes that go with all their records, labels that are wrong."""
        if self.kind == "class":
            label = int(name) if name.isdigit() else _class(self.data, self.label, name)
            return {"class": label}, (label,), None
        if self.kind == "sub-class":
            return {"rows": _fine_rows(self.data, name, self.trained)}, (), None
        if self.kind == "wrong labels":
            labels = _wrong(self.data, self.label, self.trained, self.going, seed)
            return {"rows": sorted(labels)}, (), labels
        if self.kind == "memorised":
            return {"random": self.going, "seed": seed, "of": _memorised()}, (), None
        return {"random": self.going, "seed": seed}, (), None


def _source(data: str, label: str | None) -> Any:
    folder = os.environ.get("EFFACE_DATA")
    if not folder:
        remedy = "Set EFFACE_DATA to that folder; the tasks of digits need none."
        wanted = f"the folder that holds {data}"
        raise InputError(wanted, "no EFFACE_DATA in the environment", remedy)
    return load_data(f"{folder}/{data}:train", label_column=label)


@cache
def _class(data: str, label: str | None, name: str) -> int:
    classes = _source(data, label).classes or ()
    return classes.index(name)


@cache
def _fine_rows(data: str, name: str, first: int) -> list[int]:
    """Rows of one of CIFAR-100's classes among the first, whatever labels are trained on."""
    fine = np.asarray(_source(data, "fine_label").labels[:first])
    return np.flatnonzero(fine == _class(data, "fine_label", name)).tolist()


@cache
def _wrong(data: str, label: str | None, first: int, count: int, seed: int) -> dict[int, int]:
    """A wrong label for each of some rows, both drawn from the seed."""
    if data == DIGITS:
        labels, classes = _digits(), 10
    else:
        source = _source(data, label)
        labels, classes = source.labels, source.num_classes
    draw = np.random.default_rng(seed)
    rows = draw.choice(first, count, replace=False).tolist()
    moved = draw.integers(1, classes, count).tolist()
    return {row: int(labels[row] + by) % classes for row, by in zip(rows, moved, strict=True)}


@cache
def _digits() -> np.ndarray:
    """Labels of the training part of research.data."""
    from sklearn.datasets import load_digits

    every = load_digits(return_X_y=True)[1]
    return every[np.arange(len(every)) % 3 != 0]


@cache
def _memorised() -> list[int]:
    """The 500 of CIFAR-10's first 8,000 rows that models without them are wrong on by most.

    Memorisation as in Feldman and Zhang, from the 48 models of ``information``.
    """
    with np.load(RESULTS / "information" / "cifar10_halves.npz") as found:
        order = np.argsort(-found["memorisation"], kind="stable")
    return sorted(order[:500].tolist())


_VGG, _VGG100 = "cifar10-vgg-quarter", "cifar20-vgg-quarter"
_TEN = {"data": "cifar10", "asked": 3}
_CLASSES = ("truck", "bird", "horse")
_SHORT = replace(named(_VGG), epochs=6)

_LIST = (
    Task("digits-class", "a digit", "class", "digits-conv", DIGITS, ("3", "6", "9"), 120, "1", None),
    Task("digits-random", "100 random digits", "random", "digits-conv", DIGITS, 3, 100, "", None),
    Task("digits-wrong-labels", "30 wrong labels of digits", "wrong labels", "digits-conv", DIGITS, 3, 30, "", None),
    Task("class", "a class of CIFAR-100", "class", _VGG100, "cifar100", ("rocket", "mushroom", "sea"), 200, "lamp", 20_000, "fine_label", "T2b"),
    Task("sub-class", "a sub-class of CIFAR-20", "sub-class", _VGG100, "cifar100", ("rocket", "mushroom", "sea", "baby", "lamp"), 100, "pear", 10_000, "coarse_label", "T3a"),
    Task("random-1", "1 % of CIFAR-10", "random", _VGG, going=100, paper="T4a", **_TEN),
    Task("random-10", "10 % of CIFAR-10", "random", _VGG, going=1000, **_TEN),
    Task("wrong-labels", "100 wrong labels", "wrong labels", _VGG, going=100, **_TEN),
    Task("memorised", "100 memorised records", "memorised", _VGG, going=100, **_TEN),
    Task("faces", "a person of PubFig83", "class", "faces-resnet", "pubfig83", ("5", "17", "40"), 120, "60", None, paper="T1"),
    Task("resnet-class", "a class, ResNet18 at quarter width", "class", "resnet18-quarter", "cifar10", _CLASSES, 1000, "cat"),
    Task("resnet-random", "1 %, ResNet18 at quarter width", "random", "resnet18-quarter", going=100, **_TEN),
    Task("vit-class", "a class, small ViT", "class", "vit", "cifar10", _CLASSES[:1], 1000, bases=BASES[:1], retrained=2, anchor=True, paper="T2a"),
    Task("vit-random", "1 %, small ViT", "random", "vit", "cifar10", 1, 100, bases=BASES[:1], retrained=2, anchor=True, paper="T4b"),
    Task("resnet18-class", "a class, ResNet18 at full width, augmented", "class", "resnet18", "cifar10", _CLASSES[:1], 1000, bases=BASES[:1], retrained=1, anchor=True),
    Task("resnet18-random", "1 %, ResNet18 at full width, augmented", "random", "resnet18", "cifar10", 1, 100, bases=BASES[:1], retrained=1, anchor=True),
    Task("undertrained-class", "a class, trained for 6 epochs of 18", "class", _SHORT, "cifar10", _CLASSES, 1000, "cat"),
    Task("undertrained-random", "1 %, trained for 6 epochs of 18", "random", _SHORT, going=100, **_TEN),
)  # fmt: skip
TASKS = {task.name: task for task in _LIST}


def find_task(name: str) -> Task:
    """The task of this name. Raises InputError with the nearest name when there is none."""
    if name not in TASKS:
        raise InputError(f"a task out of {', '.join(TASKS)}", repr(name), did_you_mean(name, TASKS))
    return TASKS[name]

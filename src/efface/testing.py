"""The contract that every method must keep, ours and yours: ``check_method``.

``PROMISES`` is the table: one function a promise, which takes a ``Case`` (a method, its settings
and its runs) and raises ``BrokenPromise`` when it is not kept. Every method is tried on handwritten
``digits`` and a small ``trained_model``; on models and labels of other ``KINDS``; and on a toy
problem, where a digit goes and the result is compared with a retrained model. What takes a guard,
an adapter or several processes is promised in the project's own tests alone.
"""

import copy
import gc
import inspect
import json
import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import cache, cached_property
from typing import Any

import numpy as np
import torch
from docstring_parser import parse
from torch import Tensor, nn

from efface.errors import InputError
from efface.manifest import changed_tensors, tensor_digests
from efface.methods import Method
from efface.methods._base import NEEDED, READABLE
from efface.runtime import PassCounter, Passes, nonfinite_tensors
from efface.task import outputs, predict, task_of
from efface.types import PARTS, Action, Records, Split

# Of the pixels of all digits, in 0..1.
MEAN, STD = 0.3053, 0.3760

# ``trained_model`` was trained on so many of the digits, from the first; never on the others.
SEEN = 300

# The digit that is forgotten in the toy problem.
FORGET_CLASS = 3

# Published steps are for large models; a method has to manage at one of these.
STRENGTHS = (1.0, 3.0, 0.3, 10.0, 0.1, 30.0)

# Accuracy on the other digits that may be lost; share of the gap to retraining that may stay.
LOST, LEFT = 0.1, 0.9

# Few and small steps; a setting that a method does not have is omitted.
QUICK = {"steps": 6, "epochs": 2, "batch_size": 6}
QUICK |= {"perturbations": 3, "copies": 2, "selection_weighting": 1.0}


class BrokenPromise(AssertionError):
    """A promise that a method does not keep; the text says what was wanted and what came."""


class TrapSprung(AssertionError):
    """The method touched what it says that it does not read."""


def expect(kept: bool, wanted: object, came: object) -> None:
    """Raise BrokenPromise unless ``kept``."""
    if not kept:
        raise BrokenPromise(f"wanted {wanted}; got {came}")


@cache
def digits() -> Records:
    """400 digits, 1 x 8 x 8, normalised; the classes are nearly balanced."""
    from sklearn.datasets import load_digits

    # in scikit-learn's own package: nothing is downloaded
    data: Any = load_digits()
    pixels = torch.tensor(data.images[:400] / 16, dtype=torch.float32).unsqueeze(1)
    labels = torch.tensor(data.target[:400], dtype=torch.int64)
    low, high = (torch.tensor((bound - MEAN) / STD) for bound in (0, 1))
    ids = tuple(f"digit-{row:04d}" for row in range(400))
    return Records((pixels - MEAN) / STD, labels, ids, low, high)


def untrained_model(seed: int) -> nn.Module:
    """A convolutional model with BatchNorm and 4,000 weights, enough to memorise 300 digits."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return nn.Sequential(
            *(nn.Conv2d(1, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU()),
            *(nn.Conv2d(8, 16, 3, padding=1, stride=2), nn.BatchNorm2d(16), nn.ReLU()),
            *(nn.Flatten(), nn.Linear(256, 10)),
        )


def fit(model: nn.Module, records: Records, seed: int) -> nn.Module:
    """Twelve epochs of Adam in a shuffled order; the model itself, in eval mode."""
    optimizer = torch.optim.Adam(model.parameters(), lr=5e-3)

    def loss(rows: Tensor) -> Tensor:
        return nn.functional.cross_entropy(model(records.x[rows]), records.y[rows])

    return _train(model, optimizer, loss, len(records), seed, epochs=12, batch_size=50)


def _train(
    model: nn.Module, optimizer: Any, loss: Any, n: int, seed: int, *, epochs: int, batch_size: int
) -> nn.Module:
    # by hand and not by efface.training: the contract must not test the loop by the loop
    generator = torch.Generator().manual_seed(seed)
    model.train()
    for _ in range(epochs):
        for rows in torch.randperm(n, generator=generator).split(batch_size):
            optimizer.zero_grad()
            loss(rows).backward()
            optimizer.step()
    # a gradient left behind would be taken for one that a method left
    model.zero_grad(set_to_none=True)
    return model.eval()


@cache
def trained_model() -> nn.Module:
    """Trained on the first 300 digits. One for all: copy it before you change it."""
    return fit(untrained_model(0), digits().take(range(SEEN)), 0)


# what a method may be given as fresh and train: any recipe does, the contract judges no accuracy
def fresh_from(model: nn.Module) -> Callable[[int], nn.Module]:
    """``fresh(seed)``: the same modules with newly drawn weights."""

    def fresh(seed: int) -> nn.Module:
        new = copy.deepcopy(model)
        with torch.random.fork_rng(), torch.no_grad():
            torch.manual_seed(seed)
            for module in new.modules():
                # torch's layers know how to draw their own weights
                if callable(reset := getattr(module, "reset_parameters", None)):
                    reset()
        return new

    return fresh


def train_recipe(model: nn.Module, records: Records, seed: int) -> nn.Module:
    """``train(model, records, seed)``: three epochs of SGD over batches in a seeded order."""
    task = task_of(records)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)

    def loss(rows: Tensor) -> Tensor:
        batch = replace(records.take(rows), task=task)
        return task.loss(outputs(model, batch), batch.y).mean()

    return _train(model, optimizer, loss, len(records), seed, epochs=3, batch_size=16)


@dataclass(frozen=True)
class Kind:
    """What is particular about a model, how many outputs it has, whether a method may refuse it."""

    description: str
    outputs: int = 10
    refusable: bool = False
    random: bool = False


# ``random``: of which a run is repeated, since what it draws differs from the digits'
KINDS = {
    "layer norm": Kind("LayerNorm"),
    "dropout": Kind("dropout", random=True),
    "tied": Kind("tied weights"),
    "one output": Kind("a single output unit", outputs=1, refusable=True),
    "table": Kind("inputs that are not images"),
    "multilabel": Kind("several labels per record", refusable=True, random=True),
    "regression": Kind("outputs that are values", outputs=1, refusable=True, random=True),
}


def model_of_kind(kind: str) -> nn.Module:
    """An untrained model in eval mode, the same each time."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        middle = nn.Linear(16, 16)
        extra: dict[str, list[nn.Module]] = {"tied": [middle, nn.ReLU(), middle]}
        extra |= {"layer norm": [nn.LayerNorm(16)], "dropout": [nn.Dropout(0.5)]}
        head, layers = nn.Linear(16, KINDS[kind].outputs), extra.get(kind, [])
        return nn.Sequential(nn.Flatten(), nn.Linear(64, 16), *layers, nn.ReLU(), head).eval()


def records_of_kind(kind: str) -> Records:
    """Sixty digits: their parity for a single unit, one-hot labels, or the digit as a value."""
    records = digits().take(range(60))
    if kind == "table":
        return replace(records, x=records.x.flatten(1))
    y = {"one output": records.y % 2, "multilabel": nn.functional.one_hot(records.y, 10)}
    y["regression"] = records.y[:, None].float()
    return replace(records, y=y.get(kind, records.y))


@dataclass(frozen=True, eq=False)
class Case:
    """A method on trial: its settings, the splits that it is given, and its runs, each made once.

    ``quick``: settings besides ``QUICK`` that make it run in a moment; ``toy``: those that fit a
    toy problem of 30 records, where the method's own are made for thousands; ``strengths``: those
    that it is tried at there, in this order.
    """

    method: Method
    quick: Mapping[str, Any] = field(default_factory=dict)
    toy: Mapping[str, Any] = field(default_factory=dict)
    strengths: tuple[float, ...] = STRENGTHS
    _results: dict[Any, nn.Module] = field(default_factory=dict, init=False, repr=False)

    @property
    def model(self) -> nn.Module:
        """The shared model: never to be changed."""
        return trained_model()

    @property
    def split(self) -> Split:
        """Twenty digits that the model has seen, and forty that stay, as far as it needs them."""
        return self.split_for(self.model)

    def split_for(self, model: nn.Module, records: Records | None = None, n: int = 20) -> Split:
        """The first n records to forget, twice as many that stay; of all digits if not given."""
        records = digits() if records is None else records
        return self.split_of(records.take(range(n)), records.take(range(n, 3 * n)), model)

    def split_of(self, forget: Records, retain: Records, model: nn.Module | None = None) -> Split:
        """The forget records, and of the rest what the method needs, ``retain`` if it reads it."""
        # any records do as a holdout: the contract does not judge how good the result is
        given: dict[str, Any] = {"retain": retain, "holdout": retain, "train": train_recipe}
        given["forget_classes"] = (int(forget.y.reshape(-1)[0]),) if len(forget) else (0,)
        given["fresh"] = fresh_from(model) if model else None
        wanted = self.method.needs | ({"retain"} & self.method.reads)
        return Split(forget, **{part: one for part, one in given.items() if part in wanted})

    def run(self, model: nn.Module, split: Split, **settings: Any) -> nn.Module:
        """The method with few and small steps; settings that it does not have are omitted."""
        return self.method.function(model, split, **self._own(settings))

    def result(self, **settings: Any) -> nn.Module:
        """``run`` on the shared model and split, once for the same settings: do not change it."""
        # training_mode=False is the plain run of a method without that setting
        key = tuple(sorted(self._own(settings).items()))
        if key not in self._results:
            self._results[key] = self.run(self.model, self.split, **settings)
        return self._results[key]

    @cached_property
    def repetition(self) -> tuple[PassCounter, nn.Module]:
        """The same run again, on a counted copy, with a trap in all that it does not read."""
        counter = PassCounter(self.model)
        split = set_traps(self.split_for(counter.model), self.method.reads)
        with _keep_random_state():
            return counter, self.run(counter.model, split)

    def _own(self, settings: Mapping[str, Any]) -> dict[str, Any]:
        known = {*self.method.settings, "seed", "callback"}
        wanted = {"seed": 5, **QUICK, **self.quick, **settings}
        return {name: value for name, value in wanted.items() if name in known}


# Raises BrokenPromise; text that it returns is the method's own refusal of such a model.
Promise = Callable[[Case], str | None]

# Every promise by the name by which an exception names it.
PROMISES: dict[str, Promise] = {}


def promise(name: str) -> Callable[[Promise], Promise]:
    """Put the decorated function into ``PROMISES``."""
    return lambda function: PROMISES.setdefault(name, function)


@promise("parts")
def reads_parts_of_a_split(case: Case) -> None:
    """What it reads and needs is named in the words of a split, or it would never be trapped."""
    reads, needs = case.method.reads, case.method.needs
    expect(reads <= set(READABLE), f"parts out of {', '.join(READABLE)}", sorted(reads))
    expect(needs <= reads, "to read what it needs", sorted(needs))
    expect(needs <= NEEDED.keys(), f"needs out of {', '.join(NEEDED)}", sorted(needs))
    # "forget labels" without "forget" would be trapped by the inputs
    bare = {part for part in reads if part.removesuffix(" labels") not in reads}
    expect(not bare, "labels only of parts that it reads", sorted(bare))


@promise("settings")
def settings_have_defaults(case: Case) -> None:
    """Keyword-only, with a default that JSON can hold: manifest and command line read them."""
    own = inspect.signature(case.method.function).parameters
    first = list(own)[:2]
    expect(first == ["model", "split"], "model, split first", case.method.name)
    expect({"seed", "callback"} <= own.keys(), "seed and callback", sorted(own))
    for parameter in list(own.values())[2:]:
        good = parameter.kind is parameter.KEYWORD_ONLY and parameter.default is not parameter.empty
        expect(good, f"{parameter.name} keyword-only, with a default", str(parameter))
        if parameter.name != "callback":
            json.dumps(parameter.default)


@promise("strength")
def strength_is_a_setting(case: Case) -> None:
    """``strength`` is the one knob, with default 1, and half of it gives another model."""
    setting = case.method.settings.get("strength")
    expect(setting is not None and setting.default == 1.0, "strength=1.0", str(setting))
    distance = _distance(case.result(strength=0.5), case.result())
    expect(distance > 0, "other weights at strength 0.5 than at 1", "the same bits")


@promise("explained")
def settings_are_explained(case: Case) -> None:
    """The docstring explains every argument: it is the help of the command line."""
    documentation = parse(inspect.getdoc(case.method.function) or "")
    explained = {argument.arg_name for argument in documentation.params}
    own = set(inspect.signature(case.method.function).parameters)
    expect(explained == own, f"Args: {', '.join(sorted(own))}", sorted(explained))


@promise("nonsense")
def nonsense_is_refused(case: Case) -> None:
    """NaN, infinity and −1 are refused, and the setting is named."""
    for name, setting in case.method.settings.items():
        if isinstance(setting.default, bool) or not isinstance(setting.default, int | float):
            continue
        # comparisons with NaN are False: a range check may let it pass
        for nonsense in (math.nan, math.inf, -math.inf, -1):
            try:
                case.run(case.model, case.split, **{name: nonsense})
            except InputError as error:
                expect(name in str(error), f"{name} named", str(error))
            else:
                raise BrokenPromise(f"{name}={nonsense} is accepted")


@promise("needs")
def refuses_without_its_needs(case: Case) -> None:
    """Before anything happens, and in words that say how to give what is missing."""
    name = case.method.name
    for part in case.method.needs:
        what, remedy = NEEDED[part]
        wanted = f"Wanted {part} for {name}: {what}. Got a split without it. {remedy}"
        try:
            empty = () if part == "forget_classes" else None
            case.run(case.model, _with(case.split, **{part: empty}))
        except InputError as error:
            expect(str(error) == wanted, wanted, str(error))
        else:
            raise BrokenPromise(f"it runs without {part}, which it says it needs")


@promise("untouched")
def given_model_is_untouched(case: Case) -> None:
    """Weights, buffers, gradients, flags, hooks, mode and records stay as given (law 1)."""
    # in training mode, so that a change of mode shows
    model, split = copy.deepcopy(case.model).train(), case.split
    given = [part for name in PARTS if (part := getattr(split, name)) is not None]
    copies, before = [part.clone() for part in given], tensor_digests(model)
    case.run(model, split)
    changed = changed_tensors(model, before)
    expect(not changed, "the given weights and buffers as they were", changed)
    changed = [one for part, own in zip(given, copies, strict=True) for one in part.differing(own)]
    expect(not changed, "the given records as they were", changed)
    expect(all(module.training for module in model.modules()), "train mode as it was", "eval mode")
    _expect_clean(model)


@promise("form")
def result_has_the_same_form(case: Case) -> None:
    """Whoever loads the result notices no difference in keys, shapes or dtypes; all is finite."""
    result = case.result()
    expect(result is not case.model, "a model of its own", "the given one")
    states = (model.state_dict().items() for model in (case.model, result))
    given, new = ([(name, t.shape, t.dtype, t.device) for name, t in state] for state in states)
    expect(given == new, given, new)
    expect(not nonfinite_tensors(result.state_dict()), "finite weights", "nan or inf")
    expect(not any(m.training for m in result.modules()), "eval mode", "train mode")
    _expect_clean(result)


@promise("changes")
def weights_change(case: Case) -> None:
    """A method that does nothing would keep every other promise."""
    expect(_distance(case.result(), case.model) > 0, "weights that changed", "the given ones")


@promise("buffers")
def buffers_stay(case: Case) -> None:
    """BatchNorm's statistics change in training mode alone, where a paper has it."""
    result, given = case.result(training_mode=False), dict(case.model.named_buffers())
    changed = _changed(given, dict(result.named_buffers()))
    expect(not changed, "buffers as they were", changed)


@promise("same seed")
def same_seed_same_bits(case: Case) -> None:
    """Law 3: a run can be repeated, and leaves the global random state alone."""
    same = torch.equal(_weights(case.result()), _weights(case.repetition[1]))
    expect(same, "the same bits from the same seed", "other bits")


@promise("seed")
def another_seed_other_bits(case: Case) -> None:
    """A seed that changes nothing is not the seed of what is drawn."""
    distance = _distance(case.result(), case.result(seed=6))
    expect(distance > 0, "other bits from another seed", "the same")


@promise("identity")
def zero_is_identity(case: Case) -> None:
    """A step of nothing leaves every weight where it is."""
    # methods with a learning rate scale it by the strength: one of the two is enough
    for setting in {"learning_rate"} & case.method.settings.keys() or {"strength"}:
        result = case.run(case.model, case.split, **{setting: 0.0})
        _expect_close(result, case.model, f"{setting}=0.0", 1e-6)


@promise("empty")
def nothing_to_forget_is_identity(case: Case) -> None:
    """The request refuses it; a method in Python returns the model, bit for bit.

    One that does not read the forget records cannot see that there are none.
    """
    if "forget" in case.method.reads:
        retain = digits().take(range(20, 60))
        result = case.run(case.model, case.split_of(retain.take([]), retain, case.model))
        expect(result is not case.model, "a model of its own", "the given one")
        changed = _changed(case.model.state_dict(), result.state_dict())
        expect(not changed, "nothing changed", changed)


@promise("reads")
def reads_no_more_than_it_says(case: Case) -> None:
    """Zero-shot must mean zero-shot: everything else is booby-trapped."""
    _ = case.repetition


@promise("passes")
def passes_are_per_record(case: Case) -> None:
    """Twice the records take twice the passes at most, counted on the model and all its copies."""
    half, whole = PassCounter(case.model), case.repetition[0].passes
    case.run(half.model, case.split_for(half.model, n=10))
    # a tenth more: an attack or a search that ends by itself needs more for some records
    limit = Passes(round(2.2 * half.forward), round(2.2 * half.backward))
    within = whole.forward <= limit.forward and whole.backward <= limit.backward
    expect(within, f"at most {limit} for twice the records", whole)


BY_ID = "what a record draws and meets follows its id, never its row or the size of a batch"

FULL_BATCH: dict[str, Any] = {"batch_size": 60, "training_mode": False}


@promise("order")
def order_does_not_matter(case: Case) -> None:
    """A full batch is a set."""
    forget, retain = (digits().take(rows[::-1]) for rows in (range(20), range(20, 60)))
    split = case.split_of(forget, retain, case.model)
    # the forget class would be that of the first record
    split = _with(split, forget_classes=case.split.forget_classes)
    result = case.run(case.model, split, **FULL_BATCH)
    _expect_close(case.result(**FULL_BATCH), result, f"records backwards ({BY_ID})", 1e-5)


@promise("micro-batches")
def micro_batches_change_nothing(case: Case) -> None:
    """Where memory holds few records at a time, a step is cut and comes out the same."""
    # a hook that refuses more than sixteen records acts as a small device
    whole, small = case.result(**FULL_BATCH), copy.deepcopy(case.model)
    small.register_forward_pre_hook(_no_room_for_more_than_sixteen)
    # else each of the many collections would go through all that was imported
    gc.freeze()
    try:
        cut = case.run(small, case.split_for(small), **FULL_BATCH)
    finally:
        gc.unfreeze()
    within = 1e-6 + min(1e-4, 0.02 * _distance(whole, case.model))
    _expect_close(whole, cut, f"sixteen records at a time ({BY_ID})", within)


@promise("guard")
def callback_is_obeyed(case: Case) -> None:
    """A guard that is not called after each step cannot save a model."""
    losses: list[float] = []
    # the third: a loop that looks at the first answer alone would pass at 1
    last = 1 if case.method.one_step else 3

    def callback(student: nn.Module, loss: float) -> Action:  # noqa: ARG001
        losses.append(loss)
        return Action.STOP if len(losses) == last else Action.CONTINUE

    case.run(case.model, case.split, callback=callback)
    hint = "as the callback said (without a loop: @register_method(one_step=True))"
    expect(len(losses) == last, f"to stop after step {last}, {hint}", f"{len(losses)} steps")
    expect(all(isinstance(loss, float) for loss in losses), "losses", losses)


def _works_on(kind: str) -> Promise:
    def works(case: Case) -> str | None:
        model, about = model_of_kind(kind), KINDS[kind]
        split = case.split_for(model, records_of_kind(kind))
        try:
            # dropout draws from the global state, which must come back
            with _keep_random_state():
                runs = [_weights(case.run(model, split)) for _ in range(1 + about.random)]
        except InputError as error:
            expect(about.refusable, f"to work on {about.description}", str(error))
            return str(error)
        expect(bool(runs[0].isfinite().all()), "finite weights", "nan or inf")
        expect(torch.equal(runs[0], runs[-1]), "the same bits from the same seed", "other bits")
        return None

    works.__doc__ = f"It works on a model with {KINDS[kind].description}."
    return works


for _kind in KINDS:
    promise(_kind)(_works_on(_kind))


@promise("toy")
def the_toy_problem(case: Case) -> None:
    """A digit goes: it is forgotten, the others stay, and the retrained model is nearer."""
    outcomes = []
    for strength in case.strengths if "strength" in case.method.settings else (1.0,):
        try:
            good, text = _try_toy(case, strength)
        except InputError as error:  # a strength that the method refuses by name
            good, text = False, str(error)
        if good:
            return
        outcomes += [text]
    wanted = f"wanted less confidence, at most {LOST} lost, at most {LEFT} of the gap left"
    raise BrokenPromise(f"{wanted}; got {'; '.join(outcomes)}. Settings for 30 records: toy={{…}}")


def toy_split() -> Split:
    """Of the digits that the model has seen one goes; those that it never saw are the holdout."""
    seen, holdout = digits().take(range(SEEN)), digits().take(range(SEEN, 400))
    going = seen.y == FORGET_CLASS
    forget, retain = (seen.take(rows.nonzero()[:, 0]) for rows in (going, ~going))
    return Split(forget, holdout, retain, (FORGET_CLASS,), fresh=untrained_model, train=fit)


def _try_toy(case: Case, strength: float) -> tuple[bool, str]:
    """Whether it is forgotten at this strength, without damage, and nearer to retraining."""
    from efface.metrics.retrain_gap import gap

    split, own = toy_split(), case.method.settings
    # only what it says that it reads
    unread = {"retain", "holdout", "fresh", "train"} - case.method.reads
    split = _with(split, **dict.fromkeys(unread))
    settings = {**case.toy, **({"strength": strength} if "strength" in own else {})}
    result = case.method.function(trained_model(), split, **settings)
    # metrics refuse NaN, and a diverged strength is no error of the method
    if not bool(predict(result, digits()).isfinite().all()):
        return False, f"at strength {strength:g} outputs that are nan or inf"
    (before, old), (_, target) = _toy_references()
    after, new = _score(result)
    lost, left = old["retain"] - new["retain"], gap(new, target) / gap(old, target)
    text = f"at strength {strength:g} confidence {before:.2f} -> {after:.2f}, "
    text += f"{lost:.3f} lost on the others, {left:.2f} of the gap left"
    return after < before and lost <= LOST and left <= LEFT, text


@cache
def _toy_references() -> list[tuple[float, dict[str, float]]]:
    """Scores of the given model and of one retrained without the digit."""
    # another seed: retraining is compared as a user would have it
    retrained = fit(untrained_model(1), toy_split().retain, 1)
    return [_score(model) for model in (trained_model(), retrained)]


def _score(model: nn.Module) -> tuple[float, dict[str, float]]:
    """Mean confidence in the digit that goes, and accuracies and entropy attack."""
    from efface.metrics.evaluation import evaluate
    from efface.metrics.retrain_gap import columns

    split = toy_split()
    parts = [evaluate(model, part) for part in (split.forget, split.holdout, split.retain)]
    return float(np.exp(-parts[0].loss).mean()), columns(*parts, forget_classes=(FORGET_CLASS,))


class Trap:
    """Stands for a part of a split; every use of it raises TrapSprung."""

    def __init__(self, part: str) -> None:
        object.__setattr__(self, "part", part)

    def _spring(self, *_: object) -> Any:
        part = object.__getattribute__(self, "part")
        raise TrapSprung(f"the method touched {part}: leave it alone, or name it in reads")

    __getattribute__ = __len__ = __iter__ = __bool__ = __call__ = __getitem__ = _spring
    __contains__ = __eq__ = __hash__ = _spring


class TrappedModel(Trap, nn.Module):
    """A trap that a run-time check of types takes for a model, without a look into it."""


# a function, since a run-time check of types looks into anything else
def _trap_call(*_: object) -> Any:
    raise TrapSprung("the method called what it says it does not read")


class TrappedLabels(Tensor):
    """Labels that may be carried along, but whose values may not be read."""

    @classmethod
    def __torch_function__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Let through what moves labels, and nothing that reads them."""
        # shape and device are no secret, values are
        if func.__name__ not in {"__get__", "__len__", "__getitem__", "to", "size", "dim"}:
            raise TrapSprung(f"the method read the labels: {func.__name__}")
        return super().__torch_function__(func, types, args, kwargs)


def set_traps(split: Split, reads: frozenset[str]) -> Split:
    """The split with a trap in the place of every part, and of all labels, not in ``reads``."""
    for part in set(READABLE[1:]) - reads:
        name, _, labels = part.partition(" ")
        if part in {"fresh", "train"}:
            split = _with(split, **{name: _trap_call})
        elif part == "reference":
            split = _with(split, reference=TrappedModel(part))
        elif not labels:
            split = _with(split, **{name: Trap(part)})
        elif name in reads and (given := getattr(split, name)) is not None:
            carried = replace(given, y=given.y.as_subclass(TrappedLabels))
            split = _with(split, **{name: carried})
    return split


def _with(split: Split, **parts: Any) -> Split:
    """The split with other parts, which nothing validates: they may be traps."""
    split = copy.copy(split)
    for name, part in parts.items():
        object.__setattr__(split, name, part)
    return split


@dataclass(frozen=True)
class PromiseResult:
    """The outcome of a promise: ``kept``; ``excepted`` and why; ``refused``, with the error."""

    promise: str
    outcome: str
    reason: str = ""


def check_method(
    method: Method | Callable[..., nn.Module],
    *,
    exceptions: Mapping[str, str] | None = None,
    quick: Mapping[str, Any] | None = None,
    toy: Mapping[str, Any] | None = None,
) -> list[PromiseResult]:
    """Check every promise of a method, as scikit-learn's ``check_estimator`` does an estimator's.

    Args:
        method: a ``Method``, or the function that ``@register_method`` decorates.
        exceptions: promises that it does not make, by name, each with the reason.
        quick: settings that let it run in a moment, besides ``efface.testing.QUICK``.
        toy: settings that fit a toy problem of 30 records, where its own are made for thousands.

    Returns:
        One row a promise, in the order of ``PROMISES``.

    Raises:
        BrokenPromise: all promises that were not kept, one a line.
        InputError: an exception from no promise; a function that is not a method; a seed among the
            settings of the toy problem.
    """
    # the traceback ends at the test that calls this
    __tracebackhide__ = True
    found, exceptions = getattr(method, "method", method), exceptions or {}
    if not isinstance(found, Method):
        wanted, came = "a Method, or a function with @register_method", f"{method!r}"
        remedy = "Declare what it reads, needs and holds: "
        remedy += "@register_method(reads=…, needs=…, memory=…)."
        raise InputError(wanted, getattr(method, "__name__", came), remedy)
    if unknown := sorted(exceptions.keys() - PROMISES.keys()):
        raise InputError(f"exceptions from {', '.join(PROMISES)}", ", ".join(unknown), "Omit them.")
    if "seed" in (toy or {}):
        raise InputError("a toy problem at its own seed", "toy with a seed", "Omit it.")
    case = Case(found, quick or {}, toy or {})
    rows = [_check(case, name, exceptions.get(name)) for name in PROMISES]
    if broken := [f"{row.promise}: {row.reason}" for row in rows if row.outcome == "broken"]:
        broken.insert(0, f"{found.name} breaks {len(broken)} of its promises")
        raise BrokenPromise("\n".join(broken))
    return rows


def _check(case: Case, name: str, exception: str | None) -> PromiseResult:
    if exception is not None:
        return PromiseResult(name, "excepted", exception)
    try:
        refusal = PROMISES[name](case)
    except Exception as error:  # noqa: BLE001  # a method that fails breaks a promise
        kind = "" if isinstance(error, BrokenPromise) else f"{type(error).__name__}: "
        return PromiseResult(name, "broken", f"{kind}{error}")
    return PromiseResult(name, "refused" if refusal else "kept", refusal or "")


def _weights(model: nn.Module) -> Tensor:
    """All weights in one row."""
    return torch.cat([weight.detach().reshape(-1) for weight in model.parameters()])


def _changed(old: Mapping[str, Tensor], new: Mapping[str, Tensor]) -> list[str]:
    return [name for name, tensor in old.items() if not torch.equal(tensor, new[name])]


def _expect_clean(model: nn.Module) -> None:
    """No gradients, no hooks, and every weight trainable."""
    weights = dict(model.named_parameters())
    left = [name for name, weight in weights.items() if weight.grad is not None]
    expect(not left, "no gradients left behind", left)
    frozen = [name for name, weight in weights.items() if not weight.requires_grad]
    expect(not frozen, "weights that are trainable", frozen)
    kinds = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")
    hooked = [n for n, m in model.named_modules() if any(getattr(m, kind) for kind in kinds)]
    expect(not hooked, "no hooks left behind", hooked)


def _distance(first: nn.Module, second: nn.Module) -> float:
    """The largest difference of two weights."""
    return float((_weights(first) - _weights(second)).abs().max())


def _expect_close(first: nn.Module, second: nn.Module, when: str, within: float) -> None:
    apart = _distance(first, second)
    expect(apart <= within, f"the same weights with {when}, within {within:g}", f"{apart:g} apart")


def _no_room_for_more_than_sixteen(_: nn.Module, inputs: tuple[Any, ...]) -> None:
    if len(inputs[0]) > 16:  # noqa: PLR2004
        raise torch.OutOfMemoryError("CUDA out of memory (as a small device would say)")


@contextmanager
def _keep_random_state() -> Iterator[None]:
    before = torch.random.get_rng_state()
    yield
    same = torch.equal(before, torch.random.get_rng_state())
    expect(same, "the global random state as it was", "another")

"""The registry of methods: what each reads, needs and holds in memory, and its settings.

``@register_method(…)`` puts a function into ``METHODS``. Its settings are its keyword-only
arguments; kind and range are those of the annotation (``learning_rate: NonNegative = 1e-3``), and
nothing says them a second time: the request, the command line and the contract read them here.

The decorated function refuses what it cannot work with before it runs: a split without what it
needs, a setting out of its range, labels of another kind. With no record to forget it returns a
copy of the model (``runs_on_empty=True``: it runs all the same).
"""

import functools
import inspect
import logging
import math
import operator
import warnings
from collections import UserDict
from collections.abc import Callable
from dataclasses import dataclass, field
from importlib.metadata import EntryPoint, entry_points
from typing import Annotated, Any, TypeVar, get_args

from annotated_types import Interval
from torch import nn

from efface.errors import InputError, did_you_mean
from efface.task import task_of, trainable_copy
from efface.types import Split

NonNegative = Annotated[float, Interval(ge=0)]
Positive = Annotated[float, Interval(gt=0)]
Share = Annotated[float, Interval(ge=0, le=1)]
PositiveShare = Annotated[float, Interval(gt=0, le=1)]
# Of momentum and of moving averages: at 1 nothing new would count.
Decay = Annotated[float, Interval(ge=0, lt=1)]
Natural = Annotated[int, Interval(ge=0)]
Count = Annotated[int, Interval(ge=1)]

# Everything that a method may read, in the words of ``Split``.
READABLE: tuple[str, ...] = ("model", "forget", "forget labels", "retain", "retain labels")
READABLE += ("holdout", "forget_classes", "fresh", "train", "reference")


EXACT = "on the command line --method retrain --train-command 'YOUR COMMAND'"

_WHAT = {
    "retain": "records that the model was trained on and that stay",
    "holdout": "records that the model was never trained on",
    "forget_classes": "the classes to forget as a whole",
    "fresh": "a function that makes an untrained model",
    "train": "the recipe that the model was trained by",
    "reference": "a model that never saw the records",
}
_HOW = {
    "retain": "retain=records), on the command line --retain DATA.",
    "holdout": "holdout=records), on the command line --holdout DATA.",
    "forget_classes": "forget_classes=(class,)), on the command line --forget-class NAME.",
    "fresh": f"fresh=function of a seed); {EXACT}.",
    "train": f"train=function of a model, records and a seed); {EXACT}.",
    "reference": "reference=model), on the command line --reference MODEL.",
}
# Of each part that may be needed: what it is, and how it is given.
NEEDED = {part: (what, f"Give Split(forget, {_HOW[part]}") for part, what in _WHAT.items()}


@dataclass(frozen=True)
class Memory:
    """What a run holds at once, next to the given model; research/benchmarks/memory_need.py checks.

    ``copies``, the first: float32 states (student, gradients, momentum, average, the guard's last
    good state, and one in passing); ``graphs``: forward passes of a micro-batch that wait for their
    backward pass, and one for that pass itself; ``neighbours``: inputs next to the records in a
    step of few of them; ``batch_size``: records in one step of a method without such a setting.
    """

    copies: int = 5
    graphs: int = 2
    neighbours: int = 0
    batch_size: int = 128


@dataclass(frozen=True)
class Setting:
    """A keyword-only argument of a method: its default and its annotation."""

    name: str
    default: Any
    annotation: Any = field(repr=False)

    @property
    def range(self) -> str:
        """Kind and range in words, such as "a number of at least 0"; empty for other kinds."""
        return _constraint(self.annotation)[2]

    def check(self, value: Any) -> None:
        """Raise InputError for a value of another kind or out of range."""
        check_value(self.name, value, self.annotation, f"Its default is {self.default}.")


@dataclass(frozen=True)
class Method:
    """A method and what it may touch; anything else raises in the contract when touched.

    ``reads``: names out of ``READABLE``; ``needs``: those of them without which it refuses, besides
    model and forget records; ``classes_only``: it gives records another class, and refuses outputs
    of tasks that are not multiclass; ``fresh_start``: it starts from an untrained model, so the
    guard's limits on movement do not hold; ``one_step``: it changes the weights once and calls the
    callback once; ``exact``: it trains from scratch without the forget records;
    ``runs_on_empty``: it also runs where there is no record to forget. For who chooses among them:
    ``purpose``: what it is for, in a few words; ``year``: of its paper's publication; ``passes``:
    forward and backward passes for each forget record at its defaults, as counted in
    research/results/method_costs.md (256 records of a class go, 1,024 stay), at most where it may
    stop early; ``schedule``: those of all records of a split with these settings, for a method
    whose cost does not grow in proportion to them.
    """

    function: Callable[..., nn.Module]
    reads: frozenset[str] = frozenset()
    needs: frozenset[str] = frozenset()
    # frozen, so that one default serves all
    memory: Memory = Memory()
    classes_only: bool = False
    fresh_start: bool = False
    one_step: bool = False
    exact: bool = False
    runs_on_empty: bool = False
    purpose: str = ""
    year: int | None = None
    passes: int | None = None
    schedule: Callable[[Split, dict[str, Any]], int] | None = None

    def count_passes(self, split: Split, settings: dict[str, Any]) -> int | None:
        """About how many forward and backward passes a run takes; None where that is not known."""
        if self.schedule:
            return self.schedule(split, settings)
        return None if self.passes is None else self.passes * len(split.forget)

    @property
    def name(self) -> str:
        """The function's name."""
        return self.function.__name__

    @functools.cached_property
    def settings(self) -> dict[str, Setting]:
        """By name, in the order of the signature; the arguments of every method are no settings."""
        # eval_str: other packages may postpone the evaluation of annotations
        parameters = inspect.signature(self.function, eval_str=True).parameters.values()
        everywhere = ("model", "split", "seed", "callback")
        own = [one for one in parameters if one.name not in everywhere]
        return {one.name: Setting(one.name, one.default, one.annotation) for one in own}

    @property
    def zero_shot(self) -> bool:
        """Whether the model and the forget records are enough."""
        return not self.needs & {"retain", "holdout", "fresh", "train"}

    @property
    def runs_from(self) -> str:
        """Where it can be called from: what needs a function cannot be named on a command line."""
        if self.exact:
            return "--train-command"
        return "Python" if self.needs & {"fresh", "train"} else "command line"

    @staticmethod
    def in_order(parts: frozenset[str]) -> tuple[str, ...]:
        """These parts in the order of ``READABLE``."""
        return tuple(part for part in READABLE if part in parts)

    @property
    def optional(self) -> tuple[str, ...]:
        """What it reads if it is there, besides what it needs."""
        further = self.in_order(self.reads - self.needs - {"model", "forget"})
        return tuple(part for part in further if "labels" not in part)

    @property
    def labels(self) -> tuple[str, ...]:
        """The parts whose labels it may read."""
        return tuple(part for part in ("forget", "retain") if f"{part} labels" in self.reads)

    def refuse(self, split: Split, settings: dict[str, Any]) -> None:
        """Raise InputError for a split or a setting that the method cannot work with."""
        refuse_without(split, self.name, *self.in_order(self.needs))
        for name, value in settings.items():
            if name == "seed":
                check_value(name, value, Natural)
            elif name in self.settings:
                self.settings[name].check(value)
        # labels of what is read only: anything else is trapped in the contract
        records = split.forget if "forget" in self.reads else split.retain
        if self.classes_only and (kind := task_of(records).name) != "multiclass":
            wanted = f"a multiclass task for {self.name}, which relabels records"
            remedy = "Choose a method that does not relabel; `efface methods` lists them."
            raise InputError(wanted, kind, remedy)


class _Registry(UserDict[str, Method]):
    """Methods by name.

    Those of other installed packages (entry points of the group ``efface.methods``) join at the
    first look-up and not before: a package that imports efface is itself half imported until then.
    """

    def __init__(self) -> None:
        self.registered: dict[str, Method] = {}
        self._waiting = True

    @property
    def data(self) -> dict[str, Method]:  # type: ignore[override]  # what UserDict looks things up in
        """All methods."""
        # set before the loop: a method's module may look METHODS up while it is loaded
        if self._waiting:
            self._waiting = False
            for point in entry_points(group="efface.methods"):
                self._join(point)
        return self.registered

    def _join(self, point: EntryPoint) -> None:
        """Add what an entry point names; what is wrong with it is a warning, never an error."""
        fault = None
        try:
            target = point.load()
            method = getattr(target, "method", target)
            if not isinstance(method, Method):
                kind = type(method).__name__
                fault = f"wanted a function with @register_method, or a Method; got a {kind}"
            elif self.registered.get(point.name, method).function is not method.function:
                fault = "efface has a method of that name"
            elif method.name != point.name:
                fault = f"its function is called {method.name!r}: one name for both"
            else:
                self.registered[point.name] = method
        except Exception as error:  # noqa: BLE001  # whatever another's module does on import
            fault = f"{type(error).__name__}: {error}"
        if fault:
            text = f"the method {point.name!r} of {point.value} is omitted: {fault}"
            warnings.warn(text, stacklevel=5)


# Every method by name: those of this package first, then those of other installed packages.
METHODS = _Registry()

Function = TypeVar("Function", bound=Callable[..., nn.Module])


def register_method(
    *,
    reads: set[str] | frozenset[str] = frozenset(),
    needs: set[str] | frozenset[str] = frozenset(),
    name: str | None = None,
    **facts: Any,
) -> Callable[[Function], Function]:
    """Put the decorated function into ``METHODS``; ``facts`` are further fields of ``Method``.

    ``name``: the method's name, where it is not the function's. What a method needs it also
    reads, and what it names with " labels" it reads with its labels.
    The function keeps its signature, with the refusals of ``Method.refuse`` before it, and carries
    its ``Method`` as the attribute ``method``.
    """

    def register(function: Function) -> Function:
        @functools.wraps(function)
        def refusing(model: nn.Module, split: Split, **settings: Any) -> nn.Module:
            # before any copy of the model is made
            method.refuse(split, settings)
            if "forget" in method.reads and not method.runs_on_empty and not len(split.forget):
                return trainable_copy(model)
            return function(model, split, **settings)

        # the registry, the manifest and the command line all use this name
        refusing.__name__ = name or function.__name__
        named = {*reads, *needs}
        everything = frozenset({"model"} | named | {part.removesuffix(" labels") for part in named})
        wanted = frozenset(part.removesuffix(" labels") for part in needs)
        method = Method(refusing, everything, wanted, **facts)
        refusing.method = method  # type: ignore[attr-defined]
        # a module may be imported again, but nobody takes the name of another's method
        taken = METHODS.registered.get(method.name, method)
        if taken.function.__module__ != function.__module__:
            own = "a method with a name of its own"
            raise InputError(own, repr(method.name), "Rename the function.")
        METHODS.registered[method.name] = method
        return refusing  # type: ignore[return-value]

    return register


def log(message: str, **facts: Any) -> None:
    """Log what a method measured; it joins the calibration in the run's manifest."""
    # one logger for all: the request listens to it while a method runs
    logging.getLogger("efface.methods").info(message, extra={"facts": facts})


def find_method(name: str) -> Method:
    """The method of this name. Raises InputError with the nearest name that there is."""
    if name not in METHODS:
        wanted = f"a method out of {', '.join(METHODS)}"
        raise InputError(wanted, repr(name), did_you_mean(name, METHODS))
    return METHODS[name]


# Settings of efface 0.1 and their names now.
RENAMED = {
    "records_per_step": "batch_size",
    "settled": "tolerance",
    "trust": "trust_region",
    "held_weight": "distillation_weight",
    "recovered": "recovery",
    "selection": "selection_weighting",
    "as_loaded": "sequential",
    "adversarials_per_step": "adversarial_batch_size",
}


def check_settings(method: str, settings: dict[str, Any]) -> dict[str, Any]:
    """The settings that are given (not None); InputError for an unknown name or a wrong value."""
    known = find_method(method).settings
    chosen = {name: value for name, value in settings.items() if value is not None}
    # None is "not given": the command line and the request pass it for what nobody set
    for name, value in chosen.items():
        if name not in known:
            wanted = f"a setting of {method}: {', '.join(known)}"
            now = RENAMED.get(name)
            remedy = f"It is called {now} now." if now in known else did_you_mean(name, known)
            raise InputError(wanted, repr(name), remedy)
        known[name].check(value)
    return chosen


def default_settings(method: str) -> dict[str, Any]:
    """Name and default of each setting of a method."""
    return {name: setting.default for name, setting in METHODS[method].settings.items()}


def check_value(name: str, value: Any, annotation: Any, remedy: str = "") -> None:
    """Raise InputError unless ``value`` is of the annotated kind, finite and within its range."""
    kind, optional, words, limits = _constraint(annotation)
    if not words or (optional and value is None):
        return
    # bool is an int in Python, and True steps are nobody's intention
    good = isinstance(value, kind | int) and isinstance(value, bool) == (kind is bool)
    if (
        not good
        or not math.isfinite(value)
        or not all(within(value, end) for within, end in limits)
    ):
        raise InputError(f"{words} for {name}", repr(value), remedy or f"Change {name}.")


_KINDS = {bool: "true or false", int: "an integer", float: "a number"}
# The constraints of ``annotated_types`` and the functions of ``operator`` have the same names.
_LIMITS = {"ge": "of at least", "gt": "above", "le": "at most", "lt": "below"}


def _constraint(annotation: Any) -> tuple[Any, bool, str, list[tuple[Callable[..., bool], Any]]]:
    """Kind; whether None is allowed too; both in words, "" for another kind; the limits."""
    optional = type(None) in get_args(annotation)
    if optional:
        annotation = next(one for one in get_args(annotation) if one is not type(None))
    kind, *limits = get_args(annotation) if hasattr(annotation, "__metadata__") else (annotation,)
    ends = [(key, getattr(one, key, None)) for one in limits for key in _LIMITS]
    ends = [(key, end) for key, end in ends if end is not None]
    words = " and ".join(f"{_LIMITS[key]} {end}" for key, end in ends)
    words = f"{_KINDS[kind]} {words}".strip() if kind in _KINDS else ""
    return kind, optional, words, [(getattr(operator, key), end) for key, end in ends]


def refuse_without(split: Split, method: str, *parts: str) -> None:
    """Raise InputError for the first of these parts that the split does not have."""
    for part in parts:
        given = getattr(split, part)
        if given is None or (not callable(given) and not len(given)):
            what, remedy = NEEDED[part]
            # forget_classes is () and not None where there are none
            absent = given is None or part == "forget_classes"
            came = "a split without it" if absent else "no records"
            raise InputError(f"{part} for {method}: {what}", came, remedy)

"""From the name of an architecture to an untrained net."""

import copy
import difflib
import importlib
import inspect
import re
import signal
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from types import ModuleType
from typing import Any, NoReturn

import torch
from torch import Tensor, nn

from efface.errors import EffaceError, InputError, MissingExtra
from efface.runtime import upcast_to_fp32

LIMIT_SECONDS = 120.0
"""How long importing and calling a factory may take."""


def net_of(architecture: str | nn.Module, num_classes: int | None = None) -> tuple[nn.Module, str]:
    """The net of a name, or a float32 copy of one that was given, and what it is called.

    Raises InputError as ``build`` does.
    """
    if isinstance(architecture, nn.Module):
        kind = type(architecture)
        return copy.deepcopy(upcast_to_fp32(architecture)), f"{kind.__module__}.{kind.__qualname__}"
    return build(architecture, num_classes), architecture


def build(architecture: str, num_classes: int | None = None) -> nn.Module:
    """An untrained net of ``timm:NAME`` or ``package.module:factory``; no weights are fetched.

    ``num_classes`` None is the net's own default. The global random state is left as it was.
    Raises InputError for an unknown name, for a factory that raises, hangs or makes no module;
    MissingExtra for timm.
    """
    with _limited(architecture, LIMIT_SECONDS):
        return _built(architecture, num_classes)


@contextmanager
def _limited(architecture: str, seconds: float) -> Iterator[None]:
    """Refuse a user's code that raises, ends the program, or does not come back in time.

    The time is kept by the system's alarm, which the main thread alone may set.
    """

    def late(number: int, frame: object) -> NoReturn:  # noqa: ARG001
        raise TimeoutError(f"no answer within {seconds:g} s")

    timed = threading.current_thread() is threading.main_thread() and hasattr(signal, "SIGALRM")
    before = signal.signal(signal.SIGALRM, late) if timed else None
    if timed:
        signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    except EffaceError:
        raise
    except (Exception, SystemExit) as error:
        raise InputError(
            f"a net from {architecture}",
            f"{type(error).__name__}: {error}".splitlines()[0],
            "Mend the factory: it must return an untrained net, and do nothing else.",
        ) from error
    finally:
        if timed:
            signal.setitimer(signal.ITIMER_REAL, 0)
            signal.signal(signal.SIGALRM, before)


def _built(architecture: str, num_classes: int | None) -> nn.Module:
    """What the factory makes, seen to be a net."""
    factory = _factory(architecture)
    wanted = (
        {} if num_classes is None or not _takes_classes(factory) else {"num_classes": num_classes}
    )
    with torch.random.fork_rng(devices=[]):
        try:
            model = factory(**wanted)
        except TypeError as error:
            raise InputError(
                f"a factory that needs nothing but num_classes: {architecture}",
                str(error),
                "Write a small function that returns your net, and name that.",
            ) from error
    if not isinstance(model, nn.Module):
        raise InputError(
            f"a torch module from {architecture}",
            type(model).__name__,
            "Name a function that makes one.",
        )
    return model


def classes_in(state: Mapping[str, Tensor], model: nn.Module) -> int | None:
    """How many classes the weights have, where the net has another number of them.

    The net's last tensor of another shape tells, when it is another in its length alone; else None.
    """
    own = model.state_dict()
    last = [n for n in own if n in state and state[n].ndim and state[n].shape != own[n].shape]
    if not last or state[last[-1]].shape[1:] != own[last[-1]].shape[1:]:
        return None
    return state[last[-1]].shape[0]


def _factory(architecture: str) -> Callable[..., Any]:
    if architecture.startswith("timm:"):
        return _timm_factory(architecture.removeprefix("timm:"))
    if not re.fullmatch(r"[A-Za-z_][\w.]*:[A-Za-z_]\w*", architecture):
        raise InputError(
            "an architecture as timm:NAME or package.module:factory",
            repr(architecture),
            "Such as timm:resnet18 or torchvision.models:resnet18.",
        )
    module_name, name = architecture.split(":")
    try:
        module = importlib.import_module(module_name)
    except ImportError as error:
        raise InputError(
            f"a module named {module_name}", str(error), "Install it, or put it on PYTHONPATH."
        ) from error
    factory = getattr(module, name, None)
    if not callable(factory):
        raise InputError(
            f"a function or class of {module_name}", repr(name), _nearest(name, _functions(module))
        )
    return factory


def _timm_factory(name: str) -> Callable[..., Any]:
    try:
        import timm
    except ImportError as error:
        raise MissingExtra(
            "the package timm", "none installed", "Install it: pip install 'efface[timm]'."
        ) from error
    if not timm.is_model(name.split(".", maxsplit=1)[0]):
        raise InputError("a net that timm knows", repr(name), _nearest(name, timm.list_models()))

    def factory(**settings: Any) -> nn.Module:
        return timm.create_model(name, pretrained=False, **settings)

    return factory


def _functions(module: ModuleType) -> list[str]:
    return [name for name, value in vars(module).items() if name[0] != "_" and callable(value)]


def _nearest(word: str, known: Sequence[str]) -> str:
    close = difflib.get_close_matches(word, known, n=1)
    return f"Did you mean {close[0]!r}?" if close else "Look the name up in its documentation."


def _takes_classes(factory: Callable[..., Any]) -> bool:
    parameters = inspect.signature(factory).parameters.values()
    return any(p.name == "num_classes" or p.kind is p.VAR_KEYWORD for p in parameters)

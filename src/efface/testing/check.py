"""``check_method``: the whole contract on a method from anywhere."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from torch import nn

from efface.errors import InputError
from efface.methods import Method
from efface.testing.case import Case
from efface.testing.promises import PROMISES
from efface.testing.words import Broken, Refused


@dataclass(frozen=True)
class Kept:
    """What became of a promise: ``kept``; ``excepted`` and why; ``refused`` in its own words."""

    promise: str
    outcome: str
    reason: str = ""


def check_method(
    method: Method | Callable[..., nn.Module],
    *,
    exceptions: Mapping[str, str] | None = None,
    quick: Mapping[str, Any] | None = None,
    toy: Mapping[str, Any] | None = None,
) -> list[Kept]:
    """Hold a method to every promise, as scikit-learn's ``check_estimator`` does an estimator.

    Args:
        method: a ``Method``, or the function that ``@register_method`` decorates.
        exceptions: promises that it does not make, by name, each with the reason.
        quick: settings that let it run in a moment, beside ``efface.testing.case.QUICK``.
        toy: settings that fit a toy problem of 30 records, where its own are made for thousands.

    Returns:
        One row a promise, in the order of ``PROMISES``.

    Raises:
        Broken: all promises that were not kept, one a line.
        InputError: an exception from no promise; a function that is not in the table of methods; a
            seed among the settings of the toy problem.
    """
    __tracebackhide__ = True
    case, excepted = Case(_entry_of(method), quick or {}, toy or {}), exceptions or {}
    if unknown := sorted(excepted.keys() - PROMISES.keys()):
        raise InputError(
            f"exceptions from {', '.join(PROMISES)}", ", ".join(unknown), "Leave them out."
        )
    if "seed" in (toy or {}):
        raise InputError(
            "a toy problem at the seed as it comes", "toy with a seed", "Leave it out."
        )
    rows, broken = [], []
    for name, promise in PROMISES.items():
        if name in excepted:
            rows.append(Kept(name, "excepted", excepted[name]))
            continue
        try:
            promise(case)
        except Refused as refusal:
            rows.append(Kept(name, "refused", str(refusal)))
            continue
        except Exception as error:  # noqa: BLE001  # a method that fails is a broken promise
            said = str(error) if isinstance(error, Broken) else f"{type(error).__name__}: {error}"
            broken.append(f"{name}: {said}")
        rows.append(Kept(name, "kept"))
    if broken:
        raise Broken("\n".join([f"{case.name} breaks {len(broken)} of its promises", *broken]))
    return rows


def _entry_of(method: Method | Callable[..., nn.Module]) -> Method:
    """The method itself, or that of a decorated function."""
    found = getattr(method, "method", method)
    if isinstance(found, Method):
        return found
    raise InputError(
        "a Method, or a function with @register_method",
        getattr(method, "__name__", repr(method)),
        "Say what it reads, needs and holds: @register_method(reads=…, needs=…, memory=…).",
    )

"""The request's numbers and a method's settings, checked before anything is done."""

from typing import Any

from efface.methods import METHODS, check_settings, check_value, default_settings
from efface.methods._base import Natural, Share, nearest

AUTO = "auto"
"""The word for a method that is left open (``efface.choice``)."""

hyperparameters = default_settings

__all__ = ["AUTO", "check_ranges", "checked", "hyperparameters", "nearest"]


def checked(
    method: str, *, mislabelled: bool, settings: dict[str, Any], **numbers: Any
) -> dict[str, Any]:
    """The keywords for the method, these and further numbers of the request within their ranges.

    None yet for ``auto``. Raises InputError.
    """
    check_ranges(numbers)
    if method == AUTO:
        return {}
    chosen = check_settings(method, settings)
    if mislabelled and "mislabelled" in METHODS[method].settings:
        chosen["mislabelled"] = True
    return chosen


def check_ranges(numbers: dict[str, Any]) -> None:
    """Refuse a number of the request that is out of its range. Raises InputError."""
    for name, value in numbers.items():
        check_value(name, value, {"seed": Natural, "utility_budget": Share}[name])

"""What ``efface methods`` prints: the table of all, and a page of one."""

import inspect

from docstring_parser import parse

from efface import terminal
from efface.errors import InputError
from efface.methods import METHODS, default_settings
from efface.methods._base import nearest

COLUMNS = ["method", "zero-shot", "needs", "may use", "labels of"]


def run_methods(name: str | None = None) -> None:
    """Print the table of methods, or of one what it does, needs, costs and can be told.

    Raises InputError with the nearest name for a method that there is not.
    """
    if name is None:
        rows = [[one, *_facts(one)] for one in METHODS]
        terminal.table("methods (efface methods NAME shows the settings of one)", COLUMNS, rows)
        return
    if name not in METHODS:
        raise InputError(
            f"a method out of {', '.join(METHODS)}", repr(name), nearest(name, METHODS)
        )
    function = METHODS[name].function
    explained = {one.arg_name: one.description for one in parse(inspect.getdoc(function)).params}
    said = [["does", _first_line(function)], ["is", _first_line(inspect.getmodule(function))]]
    said += [*map(list, zip(COLUMNS[1:], _facts(name), strict=True))]
    terminal.table(name, ["", ""], said)
    settings = {**default_settings(name), "seed": inspect.signature(function).parameters["seed"]}
    rows = [
        [key, str(getattr(value, "default", value)), " ".join((explained.get(key) or "").split())]
        for key, value in settings.items()
    ]
    terminal.table("settings", ["", "default", ""], rows)


def _facts(name: str) -> list[str]:
    """The table's row of a method, without its name."""
    entry = METHODS[name]
    return [
        "yes" if entry.zero_shot else "no",
        ", ".join(entry.in_order(entry.needs)),
        ", ".join(entry.optional),
        ", ".join(entry.labels),
    ]


def _first_line(documented: object) -> str:
    """Of its docstring; nothing where another's method has none."""
    return (inspect.getdoc(documented) or "").partition("\n")[0]

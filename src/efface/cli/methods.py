"""``efface methods``: the table of methods; of one method what it does and its settings."""

import inspect

from docstring_parser import parse

from efface.methods import METHODS, Method, find_method
from efface.terminal import table

COLUMNS = ["method", "zero-shot", "needs", "may use", "labels of"]


def run_methods(name: str | None = None) -> None:
    """Print the table of methods, or for one method what it does, needs, and its settings.

    Raises InputError with the nearest name for an unknown method.
    """
    if name is None:
        rows = [[one, *_facts(method)] for one, method in METHODS.items()]
        table("methods (efface methods NAME shows the settings of one)", COLUMNS, rows)
        return
    method = find_method(name)
    # a method of somebody else may have no docstring
    documented = {"does": method.function, "is": inspect.getmodule(method.function)}
    facts = {k: (inspect.getdoc(v) or "").partition("\n")[0] for k, v in documented.items()}
    facts |= zip(COLUMNS[1:], _facts(method), strict=True)
    table(name, ["", ""], [[key, text] for key, text in facts.items()])
    # The help of a setting is its line in the docstring: nothing is written a second time.
    params = parse(inspect.getdoc(method.function) or "").params
    explained = {one.arg_name: " ".join((one.description or "").split()) for one in params}
    settings = {name: (str(one.default), one.range) for name, one in method.settings.items()}
    settings["seed"] = ("0", "an integer of at least 0")
    rows = [[name, *facts, explained.get(name, "")] for name, facts in settings.items()]
    table("settings", ["", "default", "range", ""], rows)


def _facts(method: Method) -> list[str]:
    """The table's row of a method, without its name."""
    words = (method.in_order(method.needs), method.optional, method.labels)
    return ["yes" if method.zero_shot else "no", *map(", ".join, words)]

"""``efface methods``: the table of methods; of one method what it does and its settings."""

import inspect

from docstring_parser import parse

from efface.errors import InputError
from efface.io.architectures import import_typed
from efface.methods import METHODS, Method, find_method
from efface.terminal import table

COLUMNS = ["method", "for", "year", "needs", "passes", "runs from"]
TITLE = "methods (passes a forget record: {}; efface methods NAME shows the settings of one)"
COUNTED = "counted for 256 records of a class, 1,024 retained"


def run_methods(name: str | None = None) -> None:
    """Print the table of methods, or for one method what it does, needs, and its settings.

    Raises InputError with the nearest name for an unknown method.
    """
    if name is None:
        rows = [[one, *_describe(method).values()] for one, method in METHODS.items()]
        table(TITLE.format(COUNTED), COLUMNS, rows)
        return
    method = find_method(name := import_method(name))
    # a method of somebody else may have no docstring
    documented = {"does": method.function, "is": inspect.getmodule(method.function)}
    facts = {k: (inspect.getdoc(v) or "").partition("\n")[0] for k, v in documented.items()}
    facts |= _describe(method) | {"zero-shot": "yes" if method.zero_shot else "no"}
    facts |= {"may use": ", ".join(method.optional), "labels of": ", ".join(method.labels)}
    table(name, ["", ""], [[key, text] for key, text in facts.items()])
    # The help of a setting is its line in the docstring: nothing is written a second time.
    params = parse(inspect.getdoc(method.function) or "").params
    explained = {one.arg_name: " ".join((one.description or "").split()) for one in params}
    settings = {name: (str(one.default), one.range) for name, one in method.settings.items()}
    settings["seed"] = ("0", "an integer of at least 0")
    rows = [[name, *facts, explained.get(name, "")] for name, facts in settings.items()]
    table("settings", ["", "default", "range", ""], rows)


def import_method(name: str) -> str:
    """The name of a method; of ``path/to/file.py:name`` that which its decorator registers.

    Raises InputError for a file or a function that is none.
    """
    if ":" not in name:
        return name
    method = getattr(import_typed(name), "method", None)
    if not isinstance(method, Method):
        remedy = "Declare what it reads and needs: docs/your_own_method.md."
        raise InputError("a function with @register_method", name, remedy)
    return method.name


def _describe(method: Method) -> dict[str, str]:
    """The table's row of a method by column, without its name."""
    needs = ", ".join(method.in_order(method.needs))
    # no number is known of a method of somebody else, nor of a training of one's own
    passes = "" if method.passes is None else f"{method.passes:,}"
    words = (method.purpose, str(method.year or ""), needs, passes)
    return dict(zip(COLUMNS[1:], (*words, method.runs_from), strict=True))

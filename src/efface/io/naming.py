"""Which rows a request names: by ids, by an expression, or a class that goes altogether."""

from collections.abc import Mapping
from typing import Any

from efface.errors import InputError
from efface.io.dataset import read_ids
from efface.io.table import Table


def rows_named(table: Table, naming: Mapping[str, Any]) -> tuple[list[int], tuple[int, ...]]:
    """The rows, and the classes that go altogether; ``naming`` holds one that is not None."""
    given = {name: value for name, value in naming.items() if value is not None}
    if len(given) != 1:
        flags = [f"--{name.replace('_', '-')}" for name in naming]
        came = [f"--{name.replace('_', '-')}" for name in given]
        raise InputError(
            f"one of {', '.join(flags)}",
            " and ".join(came) or "none",
            "Name the records in one way.",
        )
    if "ids" in given:
        return table.rows_of(read_ids(given["ids"], table.columns.id)), ()
    if "where" in given:
        return table.rows_where(given["where"]), ()
    name = next(iter(given.values()))
    return table.rows_of_class(name), (table.class_id(name),)

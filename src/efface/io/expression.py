"""``--where``: comparisons on columns joined by and, or and parentheses; parsed, never run.

    expression = all ("or" all)*        all = one ("and" one)*
    one = "(" expression ")" | column ("=" | "!=" | ">=" | "<=" | ">" | "<") value

A value is a word or a text in quotes. An empty cell is neither equal nor unequal to anything.
"""

import re
from dataclasses import dataclass
from typing import Any, NoReturn

import datasets
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from efface.errors import InputError
from efface.io.columns import nearest

Mask = np.ndarray[Any, np.dtype[np.bool_]]

TOKEN = re.compile(
    r"""\s*(?:(?P<quoted>"[^"]*"|'[^']*')|(?P<operator>!=|>=|<=|==|=|>|<)|(?P<bracket>[()])"""
    r"""|(?P<word>[^\s()=!<>"']+))"""
)

COMPARE = {
    "=": "equal",
    "==": "equal",
    "!=": "not_equal",
    ">=": "greater_equal",
    "<=": "less_equal",
    ">": "greater",
    "<": "less",
}


@dataclass(frozen=True)
class Token:
    """A piece of the expression, what it is, and where it begins."""

    kind: str
    text: str
    place: int


def select(expression: str, dataset: datasets.Dataset) -> Mask:
    """(n,) of which rows the expression is true.

    Raises InputError, with the place or the nearest known word, for anything else than comparisons.
    """
    reader = _Reader(expression, dataset)
    mask = reader.any_of()
    if reader.token.kind != "end":
        reader.refuse("and, or, or the end")
    return mask


class _Reader:
    """Recursive descent over the tokens; each rule returns the mask of its rows."""

    def __init__(self, expression: str, dataset: datasets.Dataset) -> None:
        self.expression, self.dataset = expression, dataset
        self.tokens = _tokens(expression)
        self.next = 0

    @property
    def token(self) -> Token:
        return self.tokens[self.next]

    def take(self, kind: str, wanted: str) -> str:
        token = self.token
        if token.kind != kind:
            self.refuse(wanted)
        self.next += 1
        return token.text

    def took(self, kind: str, text: str) -> bool:
        found = self.token.kind == kind and self.token.text.lower() == text
        self.next += found
        return found

    def any_of(self) -> Mask:
        mask = self.all_of()
        while self.took("word", "or"):
            mask = mask | self.all_of()
        return mask

    def all_of(self) -> Mask:
        mask = self.one()
        while self.took("word", "and"):
            mask = mask & self.one()
        return mask

    def one(self) -> Mask:
        if self.took("bracket", "("):
            mask = self.any_of()
            if not self.took("bracket", ")"):
                self.refuse("a closing parenthesis")
            return mask
        column = self.take("quoted" if self.token.kind == "quoted" else "word", "a column")
        operator = self.take("operator", "one of = != >= <= > <")
        value = self.take("quoted" if self.token.kind == "quoted" else "word", "a value")
        return _compare(self.dataset, column, operator, value)

    def refuse(self, wanted: str) -> NoReturn:
        token = self.token
        found = (
            "the end" if token.kind == "end" else f"{token.text!r} at character {token.place + 1}"
        )
        raise InputError(
            f"{wanted} in the expression {self.expression!r}",
            found,
            "Write comparisons such as label=dog and age>=30; put words with spaces in quotes.",
        )


def _tokens(expression: str) -> list[Token]:
    tokens, place = [], 0
    text = expression.rstrip()
    while place < len(text):
        match = TOKEN.match(text, place)
        if match is None:
            bad = len(text) - len(text[place:].lstrip())
            raise InputError(
                f"an expression such as label=dog and age>=30, not {expression!r}",
                f"{text[bad]!r} at character {bad + 1}",
                "Close quotes that are open; put words with signs in quotes.",
            )
        kind = str(match.lastgroup)
        found = match.group(kind)
        tokens.append(Token(kind, found[1:-1] if kind == "quoted" else found, match.start(kind)))
        place = match.end()
    return [*tokens, Token("end", "", len(text))]


def _compare(dataset: datasets.Dataset, column: str, operator: str, value: str) -> Mask:
    """(n,) of which rows it is true; the type of the column decides what ``value`` is."""
    if column not in dataset.features:
        raise InputError(
            f"a column of the table: {', '.join(dataset.features)}",
            repr(column),
            nearest(column, dataset.features),
        )
    kind = dataset.features[column]
    cells = dataset.select_columns([column]).with_format("arrow")[:][column]
    if isinstance(kind, datasets.ClassLabel):
        scalar: Any = pa.scalar(_class_id(kind, column, operator, value), pa.int64())
    elif not isinstance(kind, datasets.Value) or pa.types.is_nested(cells.type):
        raise InputError(
            "a column of numbers, words or classes",
            f"{column!r} of {kind}",
            "Choose another column.",
        )
    else:
        scalar = _as_type(value, cells.type, column)
    if pa.types.is_integer(cells.type) and pa.types.is_floating(scalar.type):
        cells = cells.cast(pa.float64(), safe=False)
    mask = pc.fill_null(pc.call_function(COMPARE[operator], [cells, scalar]), fill_value=False)
    mask = mask.to_numpy()
    if pa.types.is_floating(cells.type):
        mask &= ~np.isnan(cells.to_numpy())
    return mask


def _class_id(kind: datasets.ClassLabel, column: str, operator: str, value: str) -> int:
    if operator not in {"=", "==", "!="}:
        raise InputError(
            f"= or != with the class {column!r}", repr(operator), "Classes have no order."
        )
    if value in kind.names:
        return kind.names.index(value)
    if value.isdecimal() and int(value) < len(kind.names):
        return int(value)
    raise InputError(
        f"a class of {column!r}: {', '.join(kind.names)}", repr(value), nearest(value, kind.names)
    )


def _as_type(value: str, kind: pa.DataType, column: str) -> pa.Scalar:
    """The value as a cell of this column; a broken number may be compared with whole ones."""
    for wanted in [kind, pa.float64()] if pa.types.is_integer(kind) else [kind]:
        try:
            return pa.scalar(value).cast(wanted)
        except (pa.ArrowInvalid, pa.ArrowNotImplementedError):
            continue
    raise InputError(
        f"a value of {column!r}, which holds {kind}",
        repr(value),
        "Write one such as its cells hold.",
    )

"""``--where``: comparisons on columns joined by and, or and parentheses; parsed, never evaluated.

    any = all ("or" all)*        all = one ("and" one)*
    one = "(" any ")" | column ("=" | "!=" | ">=" | "<=" | ">" | "<") value

A value is a word or a text in quotes. An empty cell is neither equal nor unequal to anything.
"""

import re
from typing import Any, NamedTuple, NoReturn

import datasets
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from efface.errors import InputError, did_you_mean

Mask = np.ndarray[Any, np.dtype[np.bool_]]

TOKEN = re.compile(
    r"""\s*(?:(?P<quoted>"[^"]*"|'[^']*')|(?P<operator>!=|>=|<=|==|=|>|<)|(?P<bracket>[()])"""
    r"""|(?P<word>[^\s()=!<>"']+))"""
)
OPERATORS = {
    "=": "equal",
    "==": "equal",
    "!=": "not_equal",
    ">=": "greater_equal",
    "<=": "less_equal",
    ">": "greater",
    "<": "less",
}


class Token(NamedTuple):
    """A piece of the expression, what it is, and where it begins."""

    kind: str
    text: str
    place: int


def select_rows(expression: str, dataset: datasets.Dataset) -> Mask:
    """(n,) of which rows the expression is true.

    Raises InputError, with the place or the most similar known word, for anything but comparisons.
    """
    parser = _Parser(expression, dataset)
    mask = parser.parse_any()
    if parser.tokens[0].kind != "end":
        parser.refuse("and, or, or the end")
    return mask


class _Parser:
    """Recursive descent over the tokens; each rule returns the mask of its rows."""

    def __init__(self, expression: str, dataset: datasets.Dataset) -> None:
        self.expression, self.dataset = expression, dataset
        self.tokens = _tokenize(expression)

    def accept(self, kind: str, text: str) -> bool:
        token = self.tokens[0]
        matches = token.kind == kind and token.text.lower() == text
        if matches:
            self.tokens.pop(0)
        return matches

    def expect(self, kinds: set[str], wanted: str) -> str:
        if self.tokens[0].kind not in kinds:
            self.refuse(wanted)
        return self.tokens.pop(0).text

    def parse_any(self) -> Mask:
        mask = self.parse_all()
        while self.accept("word", "or"):
            mask = mask | self.parse_all()
        return mask

    def parse_all(self) -> Mask:
        mask = self.parse_one()
        while self.accept("word", "and"):
            mask = mask & self.parse_one()
        return mask

    def parse_one(self) -> Mask:
        if self.accept("bracket", "("):
            mask = self.parse_any()
            if not self.accept("bracket", ")"):
                self.refuse("a closing parenthesis")
            return mask
        column = self.expect({"quoted", "word"}, "a column")
        operator = self.expect({"operator"}, "one of = != >= <= > <")
        return _compare(self.dataset, column, operator, self.expect({"quoted", "word"}, "a value"))

    def refuse(self, wanted: str) -> NoReturn:
        token = self.tokens[0]
        came = f"{token.text!r} at character {token.place + 1}"
        raise InputError(
            f"{wanted} in the expression {self.expression!r}",
            "the end" if token.kind == "end" else came,
            "Write comparisons such as label=dog and age>=30; put words with spaces in quotes.",
        )


def _tokenize(expression: str) -> list[Token]:
    tokens, place = [], 0
    text = expression.rstrip()
    while place < len(text):
        match = TOKEN.match(text, place)
        if match is None:
            bad = len(text) - len(text[place:].lstrip())
            wanted = f"an expression such as label=dog and age>=30, not {expression!r}"
            remedy = "Close open quotes; put words with special characters in quotes."
            raise InputError(wanted, f"{text[bad]!r} at character {bad + 1}", remedy)
        kind = str(match.lastgroup)
        piece = match.group(kind)
        tokens.append(Token(kind, piece[1:-1] if kind == "quoted" else piece, match.start(kind)))
        place = match.end()
    return [*tokens, Token("end", "", len(text))]


def _compare(dataset: datasets.Dataset, column: str, operator: str, value: str) -> Mask:
    """(n,) of which rows it is true; the type of the column decides what ``value`` is."""
    if column not in dataset.features:
        wanted = f"a column of the table: {', '.join(dataset.features)}"
        raise InputError(wanted, repr(column), did_you_mean(column, dataset.features))
    kind = dataset.features[column]
    cells = dataset.select_columns([column]).with_format("arrow")[:][column]
    if isinstance(kind, datasets.ClassLabel):
        scalar: Any = pa.scalar(_class_id(kind, column, operator, value), pa.int64())
    elif not isinstance(kind, datasets.Value) or pa.types.is_nested(cells.type):
        wanted, came = "a column of numbers, words or classes", f"{column!r} of {kind}"
        raise InputError(wanted, came, "Choose another column.")
    else:
        scalar = _cast(value, cells.type, column)
    # integers stay integers where they can: ids beyond 2**53 are alike as floats
    if pa.types.is_integer(cells.type) and pa.types.is_floating(scalar.type):
        cells = cells.cast(pa.float64(), safe=False)
    mask = pc.call_function(OPERATORS[operator], [cells, scalar])
    mask = pc.fill_null(mask, fill_value=False).to_numpy()
    if pa.types.is_floating(cells.type):  # nan is an empty cell too
        mask &= ~np.isnan(cells.to_numpy())
    return mask


def _class_id(kind: datasets.ClassLabel, column: str, operator: str, value: str) -> int:
    if operator not in {"=", "==", "!="}:
        wanted = f"= or != with the class {column!r}"
        raise InputError(wanted, repr(operator), "Classes have no order.")
    if value in kind.names:
        return kind.names.index(value)
    if value.isdecimal() and int(value) < len(kind.names):
        return int(value)
    wanted = f"a class of {column!r}: {', '.join(kind.names)}"
    raise InputError(wanted, repr(value), did_you_mean(value, kind.names))


def _cast(value: str, kind: pa.DataType, column: str) -> pa.Scalar:
    """The value as a cell of this column; integers may be compared with any number."""
    for target in [kind, pa.float64()] if pa.types.is_integer(kind) else [kind]:
        try:
            return pa.scalar(value).cast(target)
        except (pa.ArrowInvalid, pa.ArrowNotImplementedError):
            continue
    remedy = "Write a value as its cells have it."
    raise InputError(f"a value of {column!r}, which holds {kind}", repr(value), remedy)

"""``--where`` selects the rows that a reader of the expression would select, and runs no code."""

import operator
from contextlib import suppress

import datasets
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from efface.errors import InputError
from efface.io.tables import select_rows
from tests.io_helpers import cast
from tests.refusals import refusal

CLASSES = ["cat", "dog", "aquarium fish", "7"]


CELLS = {
    "age": [3, 30, None, 31, -2, 0],
    "weight": [0.5, float("nan"), 2.0, None, -1.5, 30.0],
    "source": ["web", "a (b) or c", None, "", "it's", "web"],
    "checked": [True, False, None, True, False, True],
    "label": [0, 1, 2, 3, 1, None],
    "two words": ["x", "y", "x", "y", "x", "y"],
}


KINDS = {"age": "int64", "weight": "float64", "source": "string", "checked": "bool"}
KINDS = {name: datasets.Value(kind) for name, kind in KINDS.items()}
KINDS |= {"label": datasets.ClassLabel(names=CLASSES), "two words": datasets.Value("string")}
TABLE = datasets.Dataset.from_dict(CELLS, features=datasets.Features(KINDS))
HINT = "Write comparisons such as label=dog and age>=30; put words with spaces in quotes."
SIGNS = {"=": operator.eq, "==": operator.eq, "!=": operator.ne}
SIGNS |= {">=": operator.ge, "<=": operator.le, ">": operator.gt, "<": operator.lt}


def rows(expression):
    return np.flatnonzero(select_rows(expression, TABLE)).tolist()


# what the comparison with Python below does not spell: numbers of classes, quotes, precedence
SELECTED = {
    "label=1": [1, 4],
    "label=7": [3],
    "label != dog": [0, 2, 3],
    "age>29.5": [1, 3],
    'source="it\'s"': [4],
    "source=''": [3],
    "checked=true": [0, 3, 5],
    "'two words'=y": [1, 3, 5],
    "source=web and age=3 or label=dog": [0, 1, 4],
    "source=web and (age=0 or label=dog)": [5],
    "label=dog OR label=cat": [0, 1, 4],
    "((age=3))": [0],
}


@pytest.mark.parametrize("expression", SELECTED)
def test_an_expression_selects_what_it_says(expression):
    assert rows(expression) == SELECTED[expression]


VALUES = {
    "age": st.integers(-3, 32) | st.floats(-3, 32).map(lambda value: round(value, 2)),
    "weight": st.sampled_from([0.5, 2.0, -1.5, 30.0, 7.25]),
    "source": st.sampled_from(["web", "a (b) or c", "", "it's", "zebra"]),
    "label": st.sampled_from(CLASSES),
}


def atoms(name):
    signs = ["=", "!="] if name == "label" else list(SIGNS)
    return st.tuples(st.just(name), st.sampled_from(signs), VALUES[name])


def pairs(inner):
    return st.tuples(inner, st.sampled_from(["and", "or"]), inner)


TREES = st.recursive(st.sampled_from(list(VALUES)).flatmap(atoms), pairs, max_leaves=6)


def spelled(tree):
    left, sign, right = tree
    if isinstance(left, str):
        quote = '"' if "'" in str(right) else "'"
        return f"{left}{sign}{quote}{right}{quote}"
    return f"({spelled(left)}) {sign} ({spelled(right)})"


def meant(tree, row):
    left, sign, right = tree
    if not isinstance(left, str):
        both = meant(left, row), meant(right, row)
        return all(both) if sign == "and" else any(both)
    cell = CELLS[left][row]
    if cell is None or cell != cell:  # noqa: PLR0124  # nan
        return False
    return SIGNS[sign](CLASSES[cell] if left == "label" else cell, right)


@settings(max_examples=80, deadline=None)
@given(TREES)
def test_any_expression_means_what_python_means_by_it(tree):
    assert rows(spelled(tree)) == [row for row in range(6) if meant(tree, row)]


@settings(max_examples=300, deadline=None)
@given(st.text(alphabet="age label=!<>()'\"3dog and or_.[]+", max_size=30) | st.text(max_size=12))
def test_no_text_ends_in_anything_but_rows_or_an_input_error(text):
    with suppress(InputError):
        assert select_rows(text, TABLE).shape == (6,)


SIGN, JOINED = "one of = != >= <= > <", "and, or, or the end"
MISPLACED = {
    "__import__('os')": (SIGN, "'(' at character 11"),
    "lambda: 0": (SIGN, "'0' at character 9"),
    "": ("a column", "the end"),
    "age=": ("a value", "the end"),
    "age": (SIGN, "the end"),
    "age=3 and": ("a column", "the end"),
    "age=3 age=4": (JOINED, "'age' at character 7"),
    "(age=3": ("a closing parenthesis", "the end"),
    "age=3)": (JOINED, "')' at character 6"),
    "not age=3": (SIGN, "'age' at character 5"),
}
COLUMN = "a column of the table: age, weight, source, checked, label, two words. Got "
CLASS = "a class of 'label': cat, dog, aquarium fish, 7. Got "
AS_CELLS = " Write a value as its cells have it."
OTHERS = {
    "age.__class__=3 if 1": f"{COLUMN}'age.__class__'. Choose one of these.",
    "labl=dog": f"{COLUMN}'labl'. Did you mean 'label'?",
    "label=dgo": f"{CLASS}'dgo'. Did you mean 'dog'?",
    "label=4": f"{CLASS}'4'. Choose one of these.",
    "age=3; age=4": f"a value of 'age', which holds int64. Got '3;'.{AS_CELLS}",
    "checked=maybe": f"a value of 'checked', which holds bool. Got 'maybe'.{AS_CELLS}",
    "label>dog": "= or != with the class 'label'. Got '>'. Classes have no order.",
    "source='web": f'words in "source=\'web". Got "\'" at character 8. Close open quotes. {HINT}',
    "age!3": f"words in 'age!3'. Got '!' at character 4. Close open quotes. {HINT}",
}


@pytest.mark.parametrize("expression", [*MISPLACED, *OTHERS])
def test_anything_but_comparisons_is_refused_with_its_place_or_the_nearest_name(expression):
    message = OTHERS.get(expression)
    if message is None:
        wanted, came = MISPLACED[expression]
        message = f"{wanted} in the expression {expression!r}. Got {came}. {HINT}"
    assert refusal(select_rows, expression, TABLE) == f"Wanted {message}"


def test_an_image_cannot_be_compared():
    assert refusal(select_rows, "image=x", cast({"image": [None]}, image=datasets.Image())) == (
        "Wanted a column of numbers, words or classes. "
        "Got 'image' of Image(mode=None, decode=True). Choose another column."
    )


def test_rows_of_a_selection_are_numbered_in_the_selection():
    assert np.flatnonzero(select_rows("label=dog", TABLE.select([4, 0, 1]))).tolist() == [0, 2]


def test_integers_beyond_the_precision_of_floats_differ():
    table = datasets.Dataset.from_dict({"user": [2**53, 2**53 + 1]})
    assert np.flatnonzero(select_rows(f"user={2**53 + 1}", table)).tolist() == [1]
    assert np.flatnonzero(select_rows("user>0.5", table)).tolist() == [0, 1]

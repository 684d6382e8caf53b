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
from tests.io_helpers import error_of

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


@pytest.mark.parametrize(
    ("expression", "expected"),
    [
        ("label=dog", [1, 4]),
        ("label != dog", [0, 2, 3]),
        ("label=1", [1, 4]),
        ("label=7", [3]),
        ("label='aquarium fish'", [2]),
        ("age>=30", [1, 3]),
        ("age>29.5", [1, 3]),
        ("age<-1", [4]),
        ("weight!=0.5", [2, 4, 5]),
        ('source="it\'s"', [4]),
        ("source='a (b) or c'", [1]),
        ("source=''", [3]),
        ("checked=true", [0, 3, 5]),
        ("'two words'=y", [1, 3, 5]),
        ("source=web and age=3 or label=dog", [0, 1, 4]),
        ("source=web and (age=0 or label=dog)", [5]),
        ("label=dog OR label=cat", [0, 1, 4]),
        ("((age=3))", [0]),
    ],
)
def test_an_expression_selects_what_it_says(expression, expected):
    assert rows(expression) == expected


VALUES = {
    "age": st.integers(-3, 32) | st.floats(-3, 32).map(lambda value: round(value, 2)),
    "weight": st.sampled_from([0.5, 2.0, -1.5, 30.0, 7.25]),
    "source": st.sampled_from(["web", "a (b) or c", "", "it's", "zebra"]),
    "label": st.sampled_from(CLASSES),
}


def atoms(name):
    signs = ["=", "!="] if name == "label" else list(SIGNS)
    return st.tuples(st.just(name), st.sampled_from(signs), VALUES[name])


TREES = st.recursive(
    st.sampled_from(list(VALUES)).flatmap(atoms),
    lambda inner: st.tuples(inner, st.sampled_from(["and", "or"]), inner),
    max_leaves=6,
)


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


@pytest.mark.parametrize(
    ("expression", "wanted", "came"),
    [
        ("__import__('os')", "one of = != >= <= > <", "'(' at character 11"),
        ("age.__class__=3 if 1", "a column of the table", "'age.__class__'"),
        ("age=3; age=4", "a value of 'age', which holds int64", "'3;'"),
        ("lambda: 0", "one of = != >= <= > <", "'0' at character 9"),
        ("", "a column", "the end"),
        ("age=", "a value", "the end"),
        ("age", "one of = != >= <= > <", "the end"),
        ("age=3 and", "a column", "the end"),
        ("age=3 age=4", "and, or, or the end", "'age' at character 7"),
        ("(age=3", "a closing parenthesis", "the end"),
        ("age=3)", "and, or, or the end", "')' at character 6"),
        ("not age=3", "one of = != >= <= > <", "'age' at character 5"),
        ("age=dog", "a value of 'age', which holds int64", "'dog'"),
        ("checked=maybe", "a value of 'checked', which holds bool", "'maybe'"),
        ("label>dog", "= or != with the class 'label'", "'>'"),
        ("source='web", "words", '"\'" at character 8'),
        ("age!3", "words", "'!' at character 4"),
    ],
)
def test_anything_but_comparisons_is_refused_with_its_place(expression, wanted, came):
    message = error_of(select_rows, expression, TABLE)
    assert message.startswith(f"Wanted {wanted}")
    assert f". Got {came}. " in message


@pytest.mark.parametrize(
    ("expression", "message"),
    [
        ("age=3 age=4", f"in the expression 'age=3 age=4'. Got 'age' at character 7. {HINT}"),
        ("labl=dog", "Did you mean 'label'?"),
        ("label=dgo", "Did you mean 'dog'?"),
        ("label=4", "Choose one of these."),
        ("colour=red", "checked, label, two words. Got 'colour'. Choose one of these."),
    ],
)
def test_a_typo_is_refused_with_its_place_or_the_most_similar_name(expression, message):
    assert error_of(select_rows, expression, TABLE).endswith(message)


def test_an_image_cannot_be_compared():
    kinds = datasets.Features(image=datasets.Image())
    table = datasets.Dataset.from_dict({"image": [None]}, features=kinds)
    message = error_of(select_rows, "image=x", table)
    assert "a column of numbers, words or classes" in message


def test_rows_of_a_selection_are_numbered_in_the_selection():
    assert np.flatnonzero(select_rows("label=dog", TABLE.select([4, 0, 1]))).tolist() == [0, 2]


def test_integers_beyond_the_precision_of_floats_differ():
    table = datasets.Dataset.from_dict({"user": [2**53, 2**53 + 1]})
    assert np.flatnonzero(select_rows(f"user={2**53 + 1}", table)).tolist() == [1]
    assert np.flatnonzero(select_rows("user>0.5", table)).tolist() == [0, 1]

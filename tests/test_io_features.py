"""features.json: numbers scaled, categories one by one, and nothing guessed."""

import datasets
import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.compose import make_column_transformer
from sklearn.datasets import load_wine
from sklearn.preprocessing import OneHotEncoder, StandardScaler

from efface.io.data import load_data
from efface.io.features import FeatureSpec
from tests.io_helpers import cast
from tests.refusals import refusal

WINE = load_wine(as_frame=True).frame


NUMBERS = ["ash", "proline"]


SCALED = {n: {"mean": float(WINE[n].mean()), "std": float(WINE[n].std(ddof=0))} for n in NUMBERS}


def made(columns, **kinds):
    rows = len(next(iter(columns.values())))
    labels = {"label": [row % 2 for row in range(rows)]}
    return load_data(cast({**columns, **labels}, **kinds), label_column="label")


def test_numbers_and_categories_are_what_scikit_learn_makes_of_them():
    frame = WINE.assign(strength=pd.cut(WINE["alcohol"], 3, labels=list("abc")).astype(str))
    theirs = make_column_transformer(
        (StandardScaler(), NUMBERS), (OneHotEncoder(categories=[["c", "a", "b"]]), ["strength"])
    )
    expected = theirs.fit_transform(frame)
    table = load_data(datasets.Dataset.from_pandas(frame), label_column="target")
    features = FeatureSpec({**SCALED, "strength": {"categories": ["c", "a", "b"]}})
    records = table.records(None, features)
    np.testing.assert_allclose(records.x, expected, rtol=1e-6, atol=1e-6)
    assert records.x.dtype == torch.float32


def test_the_order_is_that_of_the_file_and_rows_that_of_the_request(tmp_path):
    (tmp_path / "f.json").write_text('{"b": {}, "a": {"mean": 1, "std": 2}}')
    table = made({"a": [1, 3, 5], "b": [7.0, 8.0, 9.0]})
    records = table.records([2, 0], FeatureSpec.read(tmp_path / "f.json"))
    assert records.x.tolist() == [[9, 2], [7, 0]]
    assert records.ids == ("2", "0")


def test_the_bounds_are_those_of_the_table_not_of_the_forget_records():
    table = made({"a": [0.0, 10.0, 4.0], "b": [1.0, 1.0, 2.0], "c": ["x", "y", "x"]})
    how = {"a": {}, "b": {"mean": 1, "std": 1}, "c": {"categories": ["x", "y"]}}
    records = table.records([2], FeatureSpec(how))
    assert records.low.tolist() == [0, -2, 0, 0]
    assert records.high.tolist() == [10, 2, 1, 1]


@pytest.mark.parametrize("kind", ["string", "int64", "float32", "bool", "class"])
def test_categories_are_words_numbers_or_classes(kind):
    cells = {"string": ["f", "m"], "bool": [True, False], "class": [0, 1]}.get(kind, [1, 2])
    known = {"float32": ["2", "1"], "class": ["dog", "cat"]}.get(kind, cells[::-1])
    kind = datasets.Value(kind) if kind != "class" else datasets.ClassLabel(names=["cat", "dog"])
    spec = FeatureSpec({"c": {"categories": known}})
    assert made({"c": cells}, c=kind).records(None, spec).x.tolist() == [[0, 1], [1, 0]]


NO_INPUT = [
    ([1.0, None], {}, "empty"),
    ([1.0, float("nan")], {}, "nan"),
    ([1.0, float("-inf")], {}, "-inf"),
    ([1.0, 1e300], {}, "1e+300"),
    (["1", "two"], {}, "'two'"),
    (["1", "1_000"], {}, "'1_000'"),
    (["1", ""], {}, "empty"),
    (["1", " "], {"mean": 0, "std": 1}, "' '"),
    (["f", "x"], {"categories": ["f", "m"]}, "'x'"),
    (["f", None], {"categories": ["f", "m"]}, "empty"),
    ([1, 3], {"categories": [1, 2]}, "3"),
    (["f", "y" * 99], {"categories": ["f"]}, f"'{'y' * 39}"),
]


@pytest.mark.parametrize(("cells", "how", "why"), NO_INPUT)
def test_a_cell_that_is_no_input_is_named_with_its_record(cells, how, why):
    table = made({"a": cells, "id": ["good", "bad"]})
    assert refusal(table.records, None, FeatureSpec({"a": how})) == (
        f"Wanted readable rows. Got 1 unreadable: bad (a is {why}). "
        "Nothing was changed. Fix them, or omit their ids from the request."
    )
    records, unreadable = table.readable(None, FeatureSpec({"a": how}))
    assert (records.ids, unreadable) == (("good",), {"bad": f"a is {why}"})
    assert table.records([0], FeatureSpec({"a": how})).ids == ("good",)


WAYS = '{}, {"mean": 50.1, "std": 9.0} or {"categories": ["f", "m"]}'
NO_JSON = f"Wanted a JSON object of columns in {{path}}, each with one of {WAYS}. Got "
NO_COLUMNS = f"Wanted columns by name, each with one of {WAYS}. Got "
NO_SCALE = "Wanted a finite mean and a standard deviation above 0. Got "
NO_CATEGORIES = "Wanted a list of unique categories for 'a'. Got "
ONE_OF = ". Write it so."
ORDER = ". Keep the model's order."
NUMBERS_OF = " for 'a'. Give the numbers that the model was trained with."
ORDER_OF = ". Give them in the model's order."


NO_SPEC = {
    "{": f"{NO_JSON}JSONDecodeError at features.json{ONE_OF}",
    "[" * 100_000: f"{NO_JSON}more than 50 brackets in each other{ONE_OF}",
    "absent": f"{NO_JSON}FileNotFoundError at features.json{ONE_OF}",
    "{}": f"{NO_COLUMNS}{{}} for the features{ORDER}",
    '["a"]': f"{NO_JSON}list at features.json{ONE_OF}",
    '{"a": 1}': f"{NO_COLUMNS}1 for 'a'{ORDER}",
    '{"a": {"mean": 1}}': f"{NO_COLUMNS}{{'mean': 1}} for 'a'{ORDER}",
    '{"a": {}, "a": {}}': "Wanted unique names. Got 'a' twice. Remove one of them.",
    '{"a": {"mean": 1, "std": 0}}': f"{NO_SCALE}1 and 0{NUMBERS_OF}",
    '{"a": {"mean": NaN, "std": 1}}': f"{NO_SCALE}nan and 1{NUMBERS_OF}",
    '{"a": {"mean": "x", "std": 1}}': f"{NO_SCALE}'x' and 1{NUMBERS_OF}",
    f'{{"a": {{"mean": {10**400}, "std": 1}}}}': f"{NO_SCALE}{10**400} and 1{NUMBERS_OF}",
    '{"a": {"categories": []}}': f"{NO_CATEGORIES}[]{ORDER_OF}",
    '{"a": {"categories": [1, 1.0]}}': f"{NO_CATEGORIES}[1, 1.0]{ORDER_OF}",
    '{"a": {"categories": [[1]]}}': f"{NO_CATEGORIES}[[1]]{ORDER_OF}",
}


@pytest.mark.parametrize("text", NO_SPEC, ids=lambda text: text[:30])
def test_a_description_that_says_something_else_is_refused(tmp_path, text):
    path = tmp_path / "features.json"
    if text != "absent":
        path.write_text(text)
    assert refusal(FeatureSpec.read, path) == NO_SPEC[text].replace("{path}", str(path))


def test_a_column_that_is_missing_or_no_cell_is_refused():
    table = made({"age": [1.0, 2.0], "when": [[1], [2]]})
    assert refusal(table.records, None, FeatureSpec({"age": {}, "aeg": {}})) == (
        "Wanted the columns of the features in the table: age, aeg. Got no aeg. Did you mean 'age'?"
    )
    assert refusal(table.records, None, FeatureSpec({"when": {}})) == (
        "Wanted numbers or categories in 'when'. Got List(Value('int64')). Choose another column."
    )


def test_numbers_far_from_their_scale_are_noticed():
    features = FeatureSpec({"a": {"mean": 0, "std": 1}, "b": {}, "c": {"categories": ["x"]}})
    assert features.outside(torch.tensor([[1.0, 500.0, 1.0]])) == ""
    assert features.outside(torch.tensor([[-30.0, 5.0, 1.0]])) == (
        "reach 30 in 'a': mean and std of other data?"
    )
    assert features.outside(torch.zeros(2, 3, 8, 8)) == "are no rows of 3 numbers"

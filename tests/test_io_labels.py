"""Labels of every kind, out of whatever columns hold them."""

import datasets
import numpy as np
import pyarrow as pa
import pytest
import torch
from sklearn.datasets import load_linnerud
from sklearn.preprocessing import MultiLabelBinarizer

from efface.errors import InputError
from efface.io.data import load_data
from efface.io.features import FeatureSpec
from efface.task import task_of
from tests.io_helpers import error_of

ROWS = FeatureSpec({"x": {}})


def made(columns, **kinds):
    data = datasets.Dataset.from_dict(columns)
    for name, kind in kinds.items():
        data = data.cast_column(name, kind)
    return data


def of(cells, kind=None, **model):
    data = made({"label": cells}, **({"label": kind} if kind else {}))
    return load_data(data, label_column="label", **model)


@pytest.mark.parametrize(
    ("cells", "model", "y", "kind", "classes"),
    [
        ([2, 0, None], {}, [2, 0, -1], "multiclass", None),
        ([True, False], {}, [1, 0], "multiclass", None),
        (["dog", None, "cat"], {}, [1, -1, 0], "multiclass", ("cat", "dog")),
        (["dog", "cat"], {"classes": ("dog", "cat")}, [0, 1], "multiclass", ("dog", "cat")),
        (["no", "yes"], {"num_classes": 1}, [0, 1], "multiclass", ("no", "yes")),
        ([0, 1], {"num_classes": 1}, [0, 1], "multiclass", None),
        ([0, 3, None], {"num_classes": 1}, [0.0, 3.0, np.nan], "regression", None),
        ([-5, 1], {"num_classes": 1}, [-5.0, 1.0], "regression", None),
        ([0.5, None], {}, [0.5, np.nan], "regression", None),
        ([[0, 1], None, [1, 1]], {}, [[0, 1], [-1, -1], [1, 1]], "multilabel", None),
        ([[True], [False]], {}, [[1], [0]], "multilabel", None),
        ([["a", "b"], [], None], {}, [[1, 1], [0, 0], [-1, -1]], "multilabel", ("a", "b")),
        ([["a"]], {"classes": ("b", "a")}, [[0, 1]], "multilabel", ("b", "a")),
        ([[0.5, 2.0], None], {}, [[0.5, 2.0], [np.nan, np.nan]], "regression", None),
    ],
)
def test_a_column_says_by_its_type_what_its_labels_are(cells, model, y, kind, classes):
    labels = of(cells, **model)
    np.testing.assert_array_equal(
        labels.labels, np.array(y, np.float32 if kind == "regression" else int)
    )
    assert (labels.kind, labels.classes) == (kind, classes)


def test_lists_of_names_are_what_scikit_learn_makes_of_them():
    draw = np.random.default_rng(0)
    tags = [
        sorted(draw.choice(list("abcdef"), draw.integers(1, 5), replace=False)) for _ in range(50)
    ]
    theirs = MultiLabelBinarizer()
    expected = theirs.fit_transform(tags)
    labels = of(tags)
    np.testing.assert_array_equal(labels.labels, expected)
    assert labels.classes == tuple(theirs.classes_)
    kind = datasets.Sequence(datasets.ClassLabel(names=list("fedcba")))
    again = of(tags, kind)
    np.testing.assert_array_equal(again.labels, expected[:, ::-1])


@pytest.mark.parametrize(
    ("columns", "model", "y", "classes"),
    [
        ({"a": [0, 1], "b": [1, None]}, {}, [[0, 1], [1, -1]], ("a", "b")),
        ({"a": [0, 1], "b": [True, False]}, {}, [[0, 1], [1, 0]], ("a", "b")),
        ({"a": [0, 1], "b": [1, 1]}, {"classes": ("b", "a")}, [[1, 0], [1, 1]], ("b", "a")),
        ({"a": [0, 1], "b": [1, 1]}, {"classes": ("p", "q")}, [[0, 1], [1, 1]], ("p", "q")),
    ],
)
def test_several_columns_of_0_and_1_are_multilabel(columns, model, y, classes):
    labels = load_data(made(columns), label_column=list(columns), **model)
    assert labels.kind == "multilabel"
    assert labels.labels.tolist() == y
    assert labels.classes == classes


def test_several_columns_of_numbers_are_values_each_at_its_own_scale():
    frame = load_linnerud(as_frame=True).frame
    names = ["Weight", "Waist", "Pulse"]
    table = load_data(datasets.Dataset.from_pandas(frame), label_column=names)
    assert table.kind == "regression"
    records = table.records([0, 1], FeatureSpec({"Chins": {}, "Situps": {}, "Jumps": {}}))
    assert records.y.tolist() == frame[names].head(2).to_numpy().tolist()
    off = torch.tensor(frame[names].std().to_numpy(), dtype=torch.float32)
    right = task_of(records).accuracy(records.y + 0.5 * off, records.y)
    torch.testing.assert_close(right, torch.full((2,), 0.5))
    whole = torch.tensor(frame[names].astype(int).to_numpy())
    integers = made({name: whole[:, place].tolist() for place, name in enumerate(names)})
    assert load_data(integers, label_column=names).kind == "regression"


FLOATS = ". Got 0 and 1 as floats: ambiguous. Write integers."
TEXT = "numbers (0 and 1, or values) in the columns 'a', 'b'. Got string in 'a'."
LENGTHS = (
    "lists of names, or of 0 or 1 for each label of the model, in 'a'. Got lists of int64 of length"
)
NO_LABEL = "0 or 1 for each label, or lists of names, in 'a'. Got 3."
OTHER = " Name others with --label-column."


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"a": [0.0, 1.0]}, f"labels as integers, or values, in 'a'{FLOATS}"),
        ({"a": [0.0, 1.0], "b": [1, 1]}, f"labels as integers, or values, in 'a', 'b'{FLOATS}"),
        ({"a": ["x", "y"], "b": [1, 1]}, f"{TEXT}{OTHER}"),
        ({"a": [[0, 1], [1]]}, f"{LENGTHS} 1, 2.{OTHER}"),
        ({"a": [[0, 3], [1, 1]]}, f"{NO_LABEL}{OTHER}"),
        ({"a": [{"b": 1}]}, f"class names or numbers in 'a'. Got {{'b': Value('int64')}}.{OTHER}"),
    ],
)
def test_labels_that_could_be_two_things_or_none_are_refused(columns, message):
    assert error_of(load_data, made(columns), label_column=list(columns)) == f"Wanted {message}"


def outside(cells, kind):
    column = pa.array(cells, pa.list_(pa.int64()) if isinstance(cells[0], list) else pa.int64())
    return datasets.Dataset(
        pa.table({"label": column}),
        info=datasets.DatasetInfo(features=datasets.Features(label=kind)),
    )


@pytest.mark.parametrize("model", [{}, {"num_classes": 3}, {"classes": ("z", "y", "x")}])
@pytest.mark.parametrize("cells", [[0, 5, -2, 1, None, 3], [[0], [5, -2], [], None, [1, 3]]])
def test_a_class_number_without_a_name_is_refused(cells, model):
    kind = datasets.ClassLabel(names=["x", "y", "z"])
    none = "-1 or nothing for none"
    if isinstance(cells[0], list):
        kind, none = datasets.Sequence(kind), "an empty list for none"
    assert error_of(load_data, outside(cells, kind), label_column="label", **model) == (
        f"Wanted class numbers 0..2 in 'label', {none}. Got -2, 3, 5. "
        "Name all classes, or fix these labels."
    )


def test_in_a_list_of_classes_none_is_an_empty_list_and_not_a_number():
    kind = datasets.Sequence(datasets.ClassLabel(names=["x", "y"]))
    with pytest.raises(InputError, match=r"Got -1\."):
        load_data(outside([[0], [-1]], kind), label_column="label")


def test_names_in_lists_that_the_model_does_not_know_are_refused():
    assert error_of(of, [["a"], ["z"]], classes=("a", "b")) == (
        "Wanted class names of the model: a, b. Got z. Rename them, or name another --label-column."
    )


@pytest.mark.parametrize(
    "cells", [[0.5, None], [0.5, float("inf")], [[0, 1], None], [["a"], None], [[0.5], [None]]]
)
def test_an_unlabelled_record_fails_a_request_and_is_omitted_from_a_holdout(cells):
    table = load_data(made({"x": [1.0, 2.0], "label": cells, "id": ["a", "b"]}))
    assert table.records([0], ROWS).ids == ("a",)
    assert error_of(table.records, None, ROWS) == (
        "Wanted a label for each record. Got none in label for b. "
        "Omit these records, or label them."
    )
    records, omitted = table.readable(None, ROWS)
    assert (records.ids, omitted) == (("a",), ("b",))
    assert records.y.equal(table.records([0], ROWS).y)


def test_what_is_omitted_is_listed_in_the_order_of_the_rows():
    cells = {"x": [None, 1.0, 2.0, None, 3.0], "label": [0, None, 1, None, 0], "id": list("abcde")}
    records, omitted = load_data(made(cells)).readable([4, 3, 2, 1, 0], ROWS)
    assert (records.ids, omitted) == (("e", "c"), ("d", "b", "a"))
    assert (records.x.flatten().tolist(), records.y.tolist()) == ([3, 2], [0, 1])
    none, omitted = load_data(made(cells)).readable([1, 3], ROWS)
    assert (none.x.shape, omitted) == ((0, 1), ("b", "d"))

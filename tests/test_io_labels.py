"""Labels of every kind, out of whatever columns hold them."""

import datasets
import numpy as np
import pyarrow as pa
import pytest
import torch
from PIL import Image
from sklearn.datasets import load_linnerud
from sklearn.preprocessing import MultiLabelBinarizer

from efface.io.data import load_data
from efface.io.features import FeatureSpec
from efface.task import task_of
from tests.io_helpers import cast
from tests.refusals import refusal

ROWS = FeatureSpec({"x": {}})


def of(data, **model):
    """The labels of every column of a data set, or of a dictionary of columns."""
    data = cast(data) if isinstance(data, dict) else data
    return load_data(data, label_column=data.column_names, **model)


ONE, NAN = {"num_classes": 1}, np.nan
LABELS = {
    "multiclass": [
        ({"a": [2, 0, None]}, {}, [2, 0, -1], None),
        ({"a": [True, False]}, {}, [1, 0], None),
        ({"a": ["dog", None, "cat"]}, {}, [1, -1, 0], ("cat", "dog")),
        ({"a": ["dog", "cat"]}, {"classes": ("dog", "cat")}, [0, 1], ("dog", "cat")),
        ({"a": ["no", "yes"]}, ONE, [0, 1], ("no", "yes")),
        ({"a": [0, 1]}, ONE, [0, 1], None),
    ],
    "regression": [
        ({"a": [0, 3, None]}, ONE, [0.0, 3.0, NAN], None),
        ({"a": [-5, 1]}, ONE, [-5.0, 1.0], None),
        ({"a": [0.5, None]}, {}, [0.5, NAN], None),
        ({"a": [[0.5, 2.0], None]}, {}, [[0.5, 2.0], [NAN, NAN]], None),
        ({"a": [2, 1], "b": [3, None]}, {}, [[2.0, 3.0], [1.0, NAN]], None),
    ],
    "multilabel": [
        ({"a": [[0, 1], None, [1, 1]]}, {}, [[0, 1], [-1, -1], [1, 1]], None),
        ({"a": [[True], [False]]}, {}, [[1], [0]], None),
        ({"a": [["a", "b"], [], None]}, {}, [[1, 1], [0, 0], [-1, -1]], ("a", "b")),
        ({"a": [["a"]]}, {"classes": ("b", "a")}, [[0, 1]], ("b", "a")),
        ({"a": [0, 1], "b": [1, None]}, {}, [[0, 1], [1, -1]], ("a", "b")),
        ({"a": [0, 1], "b": [True, False]}, {}, [[0, 1], [1, 0]], ("a", "b")),
        ({"a": [0, 1], "b": [1, 1]}, {"classes": ("b", "a")}, [[1, 0], [1, 1]], ("b", "a")),
        ({"a": [0, 1], "b": [1, 1]}, {"classes": ("p", "q")}, [[0, 1], [1, 1]], ("p", "q")),
    ],
}


@pytest.mark.parametrize(("kind", "row"), [(k, row) for k, rows in LABELS.items() for row in rows])
def test_columns_say_by_their_types_what_their_labels_are(kind, row):
    columns, model, y, classes = row
    labels = of(columns, **model)
    expected = np.array(y, np.float32 if kind == "regression" else int)
    np.testing.assert_array_equal(labels.labels, expected, strict=True)
    assert (labels.kind, labels.classes) == (kind, classes)


def test_lists_of_names_are_what_scikit_learn_makes_of_them():
    draw, names = np.random.default_rng(0), list("abcdef")
    tags = [sorted(draw.choice(names, draw.integers(1, 5), replace=False)) for _ in range(50)]
    theirs = MultiLabelBinarizer()
    expected = theirs.fit_transform(tags)
    labels = of({"label": tags})
    np.testing.assert_array_equal(labels.labels, expected)
    assert labels.classes == tuple(theirs.classes_)
    kind = datasets.Sequence(datasets.ClassLabel(names=names[::-1]))
    again = of(cast({"label": tags}, label=kind))
    np.testing.assert_array_equal(again.labels, expected[:, ::-1])


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


FLOATS = ". Got 0 and 1 as floats: ambiguous. Write integers."
TEXT = "numbers (0 and 1, or values) in the columns 'a', 'b'. Got string in 'a'."
LENGTHS = (
    "lists of names, or of 0 or 1 for each label of the model, in 'a'. Got lists of int64 of length"
)
NO_LABEL = "0 or 1 for each label, or lists of names, in 'a'. Got 3."
BOTH = "both, such as 3 and cat"
OTHER = " Name others with --label-column."
UNKNOWN = "class names of the model: a, b. Got z. Rename them, or name another --label-column."
REFUSED = [
    ({"a": [0.0, 1.0]}, f"labels as integers, or values, in 'a'{FLOATS}"),
    ({"a": [0.0, 1.0], "b": [1, 1]}, f"labels as integers, or values, in 'a', 'b'{FLOATS}"),
    ({"a": ["x", "y"], "b": [1, 1]}, f"{TEXT}{OTHER}"),
    ({"a": [[0, 1], [1]]}, f"{LENGTHS} 1, 2.{OTHER}"),
    ({"a": [[0, 3], [1, 1]]}, f"{NO_LABEL}{OTHER}"),
    ({"a": [{"b": 1}]}, f"class names or numbers in 'a'. Got {{'b': Value('int64')}}.{OTHER}"),
    ({"a": [["a"], ["z"]]}, UNKNOWN),
    ({"a": ["3", "4", "cat"]}, f"class numbers or class names in 'a'. Got {BOTH}.{OTHER}"),
]


@pytest.mark.parametrize(("columns", "message"), REFUSED)
def test_labels_that_are_two_things_or_none_or_unknown_are_refused(columns, message):
    model = {"classes": ("a", "b")} if message == UNKNOWN else {}
    assert refusal(of, columns, **model) == f"Wanted {message}"


TEXT_NUMBERS = [
    # 2 before 10; a table may lack a class
    (["0", "10", "2", None, " "], {"num_classes": 12}, [0, 10, 2, -1, -1], None),
    (["1", "0"], {"classes": ("LABEL_0", "LABEL_1")}, [1, 0], ("LABEL_0", "LABEL_1")),
    # by the model's own names, never by value or order
    (["1", "0"], {"classes": ("1", "0")}, [0, 1], ("1", "0")),
    ([1, 0, None], {"classes": ("1", "0")}, [0, 1, -1], ("1", "0")),
    ([-1, 1], {"classes": ("-1", "1")}, [0, 1], ("-1", "1")),
    ([-1, 1, 2], {"classes": ("2", "1")}, [-1, 1, 0], ("2", "1")),
    ([2, 1], {"classes": ("1", "2")}, [1, 0], ("1", "2")),
    ([1, 2], {"classes": ("0", "1", "2")}, [1, 2], ("0", "1", "2")),
    (["007", "01"], {}, [0, 1], ("007", "01")),
]


@pytest.mark.parametrize(("cells", "model", "y", "classes"), TEXT_NUMBERS)
def test_integers_are_class_numbers_and_names_only_where_the_model_has_them(
    cells, model, y, classes
):
    labels = of({"a": cells}, **model)
    assert (labels.labels.tolist(), labels.classes) == (y, classes)


FROM_1 = "{}..{}, as if counted from 1. Subtract 1, or give the model's names of its classes "
NEGATIVE = "{}. Leave cells without a label empty."
MINUS = "-1 and 1, of which -1 may be a class or no label. Write 0 and 1, and nothing for no label."
SHIFTED = [
    *(([-1, 1, None], {"num_classes": k}, 1, MINUS) for k in (None, 1, 2)),
    ([1, 2], {"num_classes": 1}, 1, FROM_1.format(1, 2)),
    (["1", "2"], {"num_classes": 2}, 1, FROM_1.format(1, 2)),
    ([5, 10, 1], {"num_classes": 10}, 9, FROM_1.format(1, 10)),
    ([3, 10, None], {"num_classes": 10}, 9, FROM_1.format(3, 10)),
    ([0, -100], {"num_classes": 10}, 9, NEGATIVE.format(-100)),
    ([0, -2], {}, 1, NEGATIVE.format(-2)),
]


@pytest.mark.parametrize(("cells", "model", "last", "came"), SHIFTED)
def test_numbers_that_count_from_elsewhere_are_refused(cells, model, last, came):
    came += "(--classes)." if came.endswith("classes ") else ""
    assert refusal(of, {"a": cells}, **model) == (
        f"Wanted class numbers 0..{last} in 'a', nothing for no label. Got {came}"
    )


@pytest.mark.parametrize("cells", [[0, 1, 9], [-1, 0, 1, 2], [1, 2, 3], [-1, 3], [0, 10]])
def test_numbers_that_can_be_the_models_are_taken_as_they_are(cells):
    assert of({"a": cells}, num_classes=10).labels.tolist() == cells


def test_folders_that_are_numbers_are_in_numeric_order(tmp_path):
    for name in range(12):
        (tmp_path / str(name)).mkdir()
        Image.new("L", (2, 2)).save(tmp_path / str(name) / "a.png")
    table = load_data(tmp_path, num_classes=12)
    assert table.classes == tuple(map(str, range(12)))
    assert dict(zip(table.ids, table.labels.tolist(), strict=True))["10/a.png"] == 10
    order = ", ".join(map(str, range(12)))
    assert table.notes == (f"The model does not name its classes; 'label' has them as {order}.",)


def test_what_was_decided_of_the_labels_is_noted():
    assert of({"a": ["0", "1"]}).notes == ("The text in 'a' was read as class numbers.",)
    names = "The model does not name its classes; 'a' has them as cat, dog."
    assert of({"a": ["dog", "cat"]}).notes == (names,)
    for model in ({"classes": ("dog", "cat")}, {}):
        assert of({"a": ["dog", "cat"] if model else [0, 1]}, **model).notes == ()


LISTS = [[0], [5, -2], [], None, [1, 3]]
UNNAMED = [([0, 5, -2, 1, None, 3], "-2, 3, 5"), (LISTS, "-2, 3, 5"), ([[0], [-1]], "-1")]
NO_CLASS = "Name all classes, or fix these labels."


@pytest.mark.parametrize("model", [{}, {"num_classes": 3}, {"classes": ("z", "y", "x")}])
@pytest.mark.parametrize(("cells", "came"), UNNAMED)
def test_a_class_number_without_a_name_is_refused(cells, came, model):
    kind, none = datasets.ClassLabel(names=["x", "y", "z"]), "-1 or nothing for none"
    if isinstance(cells[0], list):
        kind, none = datasets.Sequence(kind), "an empty list for none"
    # from_dict would refuse such numbers itself
    info = datasets.DatasetInfo(features=datasets.Features(label=kind))
    wanted = f"Wanted class numbers 0..2 in 'label', {none}. Got {came}. {NO_CLASS}"
    assert refusal(of, datasets.Dataset(pa.table({"label": cells}), info=info), **model) == wanted


UNLABELLED = [[0.5, None], [0.5, np.inf], [[0, 1], None], [["a"], None], [[0.5], [None]]]


@pytest.mark.parametrize("cells", UNLABELLED)
def test_an_unlabelled_record_fails_a_request_and_is_omitted_from_a_holdout(cells):
    table = load_data(cast({"x": [1.0, 2.0], "label": cells, "id": ["a", "b"]}))
    assert table.records([0], ROWS).ids == ("a",)
    assert refusal(table.records, None, ROWS) == (
        "Wanted a label for each record. Got none in label for b. "
        "Omit these records, or label them."
    )
    records, omitted = table.readable(None, ROWS)
    assert (records.ids, omitted) == (("a",), {"b": "has no label"})
    assert records.y.equal(table.records([0], ROWS).y)


def test_what_is_omitted_is_listed_in_the_order_of_the_rows():
    cells = {"x": [None, 1.0, 2.0, None, 3.0], "label": [0, None, 1, None, 0], "id": list("abcde")}
    records, omitted = load_data(cast(cells)).readable([4, 3, 2, 1, 0], ROWS)
    reasons = {"d": "has no label", "b": "has no label", "a": "x is empty"}
    assert (records.ids, omitted, list(omitted)) == (("e", "c"), reasons, list(reasons))
    assert (records.x.flatten().tolist(), records.y.tolist()) == ([3, 2], [0, 1])
    none, omitted = load_data(cast(cells)).readable([1, 3], ROWS)
    assert (none.x.shape, tuple(omitted)) == ((0, 1), ("b", "d"))

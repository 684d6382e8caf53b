"""Which column is which, and what a label means to the model at hand."""

import datasets
import numpy as np
import pytest
from PIL import Image
from sklearn.datasets import load_digits

from efface.errors import InputError
from efface.io.data import load_data
from efface.io.images import Preprocessing

GREY = Preprocessing((0.5,), (0.25,), 8)
NAMES = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
IMAGES = [Image.fromarray(image.astype(np.uint8)) for image in load_digits().images[:30]]
TARGETS = load_digits().target[:30].tolist()


def columns(**more):
    """Image, label and id of some digits, as a table's columns."""
    found = {"image": IMAGES, "label": TARGETS, "id": [f"d{row:02d}" for row in range(30)]}
    return {name: value for name, value in {**found, **more}.items() if value is not None}


def made(table, **kinds):
    """A table in memory of these columns."""
    known = {"image": datasets.Image(), "label": datasets.ClassLabel(names=NAMES), **kinds}
    text = datasets.Value("string")
    features = datasets.Features({name: known.get(name, text) for name in table})
    return datasets.Dataset.from_dict(table, features=features)


def two_labels():
    """As CIFAR-100 has them."""
    return made(
        columns(label=None, fine=TARGETS, coarse=[t // 5 for t in TARGETS]),
        fine=datasets.ClassLabel(names=NAMES),
        coarse=datasets.ClassLabel(names=["low", "high"]),
    )


def test_of_two_label_columns_the_one_that_fits_the_model_is_taken():
    """CIFAR-20 and CIFAR-100 are one table."""
    path = two_labels()
    assert load_data(path, num_classes=2).columns.label == ("coarse",)
    assert load_data(path, classes=NAMES).columns.label == ("fine",)
    assert load_data(path, label_column="coarse").classes == ("low", "high")


def test_two_label_columns_are_not_guessed_between():
    """Forgetting by the wrong label is silent."""
    for model in ({}, {"num_classes": 7}):
        with pytest.raises(InputError) as caught:
            load_data(two_labels(), **model)
        assert str(caught.value) == (
            "Wanted one column of the table that holds the label. "
            "Got fine, coarse, any of which could be meant. Name it with --label-column."
        )


def test_a_column_that_is_not_there_is_refused_with_the_nearest():
    """A typo in a flag."""
    path = made(columns())
    for flag in ("id_column", "image_column", "label_column"):
        with pytest.raises(InputError) as caught:
            load_data(path, **{flag: "labl"})
        assert str(caught.value) == (
            "Wanted a column of the table: image, label, id. Got 'labl'. Did you mean 'label'?"
        )


def test_a_table_without_images_lists_its_columns():
    """So that the user can name the one, or say which columns are numbers that go in."""
    table = load_data(made({"id": ["a"], "label": [3]}))
    with pytest.raises(InputError) as caught:
        table.records(None, GREY)
    assert str(caught.value) == (
        "Wanted one column of the table that holds the image. Got the columns id, label. "
        "Name it with --image-column. For a tabular model say which columns go in: "
        "--feature-spec FILE.json."
    )


def test_two_images_are_not_guessed_between():
    """A photograph and its mask."""
    images = {"image": IMAGES, "mask": IMAGES, "label": TARGETS}
    table = load_data(made(images, mask=datasets.Image()))
    with pytest.raises(InputError, match="image, mask, any of which could be meant"):
        table.records(None, GREY)
    assert len(
        load_data(made(images, mask=datasets.Image()), image_column="mask").records([1], GREY)
    )


def test_labels_are_numbered_as_the_model_numbers_its_classes():
    """By name: the same names in another order are another class map."""
    path = made(columns())
    table = load_data(path, classes=NAMES[::-1])
    assert table.records(None, GREY).y.tolist() == [9 - label for label in TARGETS]
    assert table.classes == NAMES[::-1]
    words = made(
        columns(label=[NAMES[t] for t in TARGETS], id=None),
        label=datasets.Value("string"),
    )
    assert load_data(words, classes=NAMES).records(None, GREY).y.tolist() == TARGETS


def test_class_names_that_the_model_does_not_know_are_refused():
    """Dogs are not forgotten by a model of digits."""
    path = made(columns())
    with pytest.raises(InputError) as caught:
        load_data(path, classes=[*NAMES[:9], "ten"])
    assert str(caught.value) == (
        "Wanted class names that the model knows: zero, one, two, three, four, five, six, seven, "
        "eight, ten. Got nine. Rename the classes of the data, or choose another --label-column."
    )


def test_a_record_without_a_label_is_refused_when_it_is_asked_for():
    """The rest of the table serves."""
    table = load_data(made(columns(label=[None, -1, *TARGETS[2:]])))
    assert len(table.records([2, 3], GREY)) == 2
    with pytest.raises(InputError) as caught:
        table.records([1, 0], GREY)
    assert str(caught.value) == (
        "Wanted a label for each record in 'label'. Got none for d01, d00. "
        "Omit these records, or give them labels."
    )


def test_a_class_is_found_by_name_and_where_none_has_one_by_number():
    """--forget-class takes what the user sees."""
    table = load_data(made(columns()))
    rows = [row for row, label in enumerate(TARGETS) if label == 3]
    assert table.rows_of_class("three") == rows
    with pytest.raises(InputError, match=r"'thre'\. Did you mean 'three'\?"):
        table.rows_of_class("thre")
    plain = load_data(made(columns(), label=datasets.Value("int64")), num_classes=10)
    assert plain.classes is None
    assert plain.num_classes == 10
    assert plain.rows_of_class("3") == rows


def test_rows_that_are_nearly_a_whole_class_are_noticed():
    """Whoever forgets 95 % of a class probably means the class; few records are no class."""
    labels = [0] * 20 + [1] * 5 + [2] * 5
    table = load_data(made(columns(label=labels)))
    assert table.nearly_whole_classes(range(19)) == ("zero",)
    assert table.nearly_whole_classes(range(18)) == ()
    assert table.nearly_whole_classes(range(20, 30)) == ()


def test_ids_that_stand_twice_are_named():
    """Which of the two should be forgotten?"""
    ids = ["a", "b", "a", *(str(row) for row in range(27))]
    with pytest.raises(InputError) as caught:
        load_data(made(columns(id=ids)))
    assert str(caught.value) == (
        "Wanted unique ids in 'id'. Got more than once: a. "
        "Make them unique, or name another column with --id-column."
    )


def test_an_empty_id_is_refused():
    """It could not be named."""
    with pytest.raises(InputError, match="none in row 1"):
        load_data(made(columns(id=["a", None, *map(str, range(28))])))


def test_numbers_as_ids_are_read_as_text():
    """A file of ids is text."""
    numbers = list(range(100, 130))
    path = made(columns(id=numbers), id=datasets.Value("int64"))
    assert load_data(path).rows_of(["101"]) == [1]


@pytest.mark.parametrize("name", ["sample_id", "image-id", "User ID", "PassengerId", "uuid", "KEY"])
def test_row_numbers_are_no_ids_beside_a_column_that_could_hold_them(name):
    """A 3 in that column names another record than row 3, and both are there."""
    numbers = datasets.Value("int64")
    table = load_data(made(columns(id=None, **{name: list(range(29, -1, -1))}), **{name: numbers}))
    with pytest.raises(InputError) as caught:
        table.rows_of(["3"])
    assert str(caught.value) == (
        "Wanted a column of ids, or a table without one, whose ids are row numbers. "
        f"Got the column {name!r}, which is not named. "
        "Name it with --id-column, or call the column that holds the ids 'id'."
    )
    assert table.rows_of([]) == []
    named = load_data(table.dataset, id_column=name)
    assert named.rows_of(["3"]) == [26]
    assert not named.ids_are_row_numbers


@pytest.mark.parametrize("name", ["paid", "valid", "monkey", "identity", "id_of_batch"])
def test_row_numbers_are_ids_where_no_column_could_hold_them(name):
    """A column that only sounds like it does not count, nor does the one of the labels."""
    table = load_data(made(columns(id=None, **{name: ["x"] * 30})))
    assert table.rows_of(["3"]) == [3]
    assert table.ids_are_row_numbers
    labels = made({"class_id": TARGETS}, class_id=datasets.Value("int64"))
    assert load_data(labels, label_column="class_id").rows_of(["3"]) == [3]

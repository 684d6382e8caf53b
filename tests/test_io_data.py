"""Columns, ids, and whatever a Python user holds become the same records."""

from decimal import Decimal

import datasets
import numpy as np
import pyarrow as pa
import pytest
import torch
from PIL import Image
from torch.utils.data import DataLoader, Dataset, IterableDataset, Subset, TensorDataset

from efface.errors import UnknownRecords
from efface.io.data import as_records, content_digests, load_data, read_ids
from efface.io.features import FeatureSpec
from efface.io.images import Preprocessing
from efface.task import task_of
from efface.types import Records
from tests.io_helpers import CLASSES, DIGITS, GREY, IDS, NAMES, TARGETS, columns, png, table_of
from tests.refusals import refusal

NUMBERS, TEXT = datasets.Value("int64"), datasets.Value("string")
X, Y = torch.arange(40.0).view(10, 1, 2, 2), torch.arange(10) % 3
VALUES = X.flatten(1)
LETTERS = tuple("abcdefghij")
PLAIN, NAMED = Records(X, Y), Records(X, Y, LETTERS)
PAIRS = TensorDataset(X, Y)
TABLE = datasets.Dataset.from_dict({"x": [1.0, 2.0], "label": [0, 1]})


def made(table, **kinds):
    return table_of(table, coarse=datasets.ClassLabel(names=["low", "high"]), **kinds)


TWO = made(columns(fine=TARGETS, label=None, coarse=[t // 5 for t in TARGETS]), fine=CLASSES)
DIGIT_TABLE = made(columns())


def test_of_two_label_columns_the_one_that_fits_the_model_is_taken():
    assert load_data(TWO, num_classes=2).columns.label == ("coarse",)
    assert load_data(TWO, classes=NAMES).columns.label == ("fine",)
    assert load_data(TWO, label_column="coarse").classes == ("low", "high")


ONE_COLUMN = "one column of the table that holds the {}. Got {}. Name it with --{}-column."
LIKE_LABL = "a column of the table: image, label, id. Got 'labl'. Did you mean 'label'?"
TWO_LABELS = ONE_COLUMN.format("label", "fine, coarse: ambiguous", "label")
UNKNOWN_NAMES = (
    "class names of the model: zero, one, two, three, four, five, six, seven, eight, ten. Got nine."
    " Rename them, or name another --label-column."
)
REPEATED = "unique ids in 'id'. Got duplicates: a. Make them unique, or name another --id-column."
EMPTY = "an id in each row of 'id'. Got none in row 1. Add them."
WITH_IDS = [made(columns(slice(3), id=ids)) for ids in (["a", "b", "a"], ["b", None, "c"])]
LABELS_2 = made(columns(target=TARGETS, label=None) | {"class": TARGETS}, target=NUMBERS)
TYPED = made(columns(label=TARGETS, coarse=[0] * 30), label=NUMBERS)
TWO_IDS = made(columns(record_id=IDS, file_name=IDS))
AMBIGUOUS_TWO = [
    (LABELS_2, {}, ONE_COLUMN.format("label", "target, class: ambiguous", "label")),
    (TYPED, {}, ONE_COLUMN.format("label", "coarse, label: ambiguous", "label")),
    (TWO_IDS, {}, ONE_COLUMN.format("id", "id, record_id: ambiguous", "id")),
]
UNFIT = [
    *AMBIGUOUS_TWO,
    (TWO, {}, TWO_LABELS),
    (TWO, {"num_classes": 7}, TWO_LABELS),
    *((DIGIT_TABLE, {f"{kind}_column": "labl"}, LIKE_LABL) for kind in ("id", "image", "label")),
    (DIGIT_TABLE, {"classes": [*NAMES[:9], "ten"]}, UNKNOWN_NAMES),
    (WITH_IDS[0], {}, REPEATED),
    (WITH_IDS[1], {}, EMPTY),
]


@pytest.mark.parametrize(("table", "options", "message"), UNFIT)
def test_columns_that_do_not_fit_are_refused_in_words(table, options, message):
    assert refusal(load_data, table, **options) == f"Wanted {message}"


def test_images_are_one_column_and_not_guessed_between_two():
    no_image = load_data(made({"id": ["a"], "label": [3]}))
    message = ONE_COLUMN.format("image", "the columns id, label", "image")
    tabular = "A tabular model needs --feature-spec FILE.json."
    assert refusal(no_image.records, None, GREY) == f"Wanted {message} {tabular}"
    two = made(columns(id=None, mask=DIGITS), mask=datasets.Image())
    message = ONE_COLUMN.format("image", "image, mask: ambiguous", "image")
    assert refusal(load_data(two).records, None, GREY) == f"Wanted {message}"
    assert len(load_data(two, image_column="mask").records([1], GREY)) == 1
    named = made(columns(id=None, scan=DIGITS, image=IDS), scan=datasets.Image(), image=TEXT)
    message = ONE_COLUMN.format("image", "scan, image: ambiguous", "image")
    assert set(refusal(load_data(named).records, None, GREY).split()) >= {"ambiguous."}


def test_labels_are_numbered_as_the_model_numbers_its_classes():
    table = load_data(DIGIT_TABLE, classes=NAMES[::-1])
    assert table.records(None, GREY).y.tolist() == [9 - label for label in TARGETS]
    assert table.classes == NAMES[::-1]
    words = made(columns(label=[NAMES[t] for t in TARGETS]), label=datasets.Value("string"))
    assert load_data(words, classes=NAMES).records(None, GREY).y.tolist() == TARGETS


def test_a_class_is_found_by_name_and_where_none_has_one_by_number():
    table = load_data(DIGIT_TABLE)
    rows = [row for row, label in enumerate(TARGETS) if label == 3]
    assert table.rows_of_class("three") == rows
    assert refusal(table.rows_of_class, "thre") == (
        f"Wanted a class of {', '.join(NAMES)}. Got 'thre'. Did you mean 'three'?"
    )
    plain = load_data(made(columns(), label=NUMBERS), num_classes=10)
    assert (plain.classes, plain.num_classes, plain.rows_of_class("3")) == (None, 10, rows)


def test_two_classes_of_one_name_go_by_their_numbers_and_text_labels_are_refused():
    """A name would be taken for the first of them."""
    names = ("crane", *NAMES[1:9], "crane")
    table = load_data(made(columns(), label=NUMBERS), classes=names)
    assert refusal(table.rows_of_class, "crane") == (
        "Wanted a class that has its name alone. Got 'crane', the name of the classes 0, 9. "
        "Give its number, such as --forget-class 9, and labels as numbers."
    )
    assert table.rows_of_class("9") == [row for row, label in enumerate(TARGETS) if label == 9]
    assert table.rows_of_class("three") == table.rows_of_class("3")
    words = made(columns(label=[names[t] for t in TARGETS]), label=datasets.Value("string"))
    assert refusal(load_data, words, classes=names) == (
        "Wanted labels that name one class of the model each. Got crane, the name of more than "
        "one. Write labels as numbers, or give --classes with distinct names."
    )


def test_rows_that_are_nearly_a_whole_class_are_noticed():
    table = load_data(made(columns(label=[0] * 20 + [1] * 5 + [2] * 5)))
    assert table.nearly_whole_classes(range(19)) == ("zero",)
    assert table.nearly_whole_classes(range(18)) == ()
    assert table.nearly_whole_classes(range(20, 30)) == ()


INDEX = ["", "Unnamed: 0", "index", "__index_level_0__"]


@pytest.mark.parametrize("name", [*INDEX, "sample_id"])
def test_a_column_that_counts_the_rows_is_no_other_id(name):
    table = made(columns(id=None, **{name: list(range(30))}), **{name: NUMBERS})
    assert load_data(table).rows_of(["3"]) == [3]


@pytest.mark.parametrize(
    "name", ["sample_id", "image-id", "User ID", "PassengerId", "uuid", "KEY", *INDEX]
)
def test_row_numbers_are_no_ids_where_a_column_could_hold_them(name):
    table = made(columns(id=None, **{name: list(range(29, -1, -1))}), **{name: NUMBERS})
    assert refusal(load_data(table).rows_of, ["3"]) == (
        f"Wanted an id column instead of row numbers. Got {name!r}, not chosen. "
        "Name it with --id-column, in Python load_data(…, id_column=…), or rename it to 'id'."
    )
    assert load_data(table).rows_of([]) == []
    named = load_data(table, id_column=name)
    assert (named.rows_of(["3"]), named.ids_are_row_numbers) == ([26], False)


@pytest.mark.parametrize("name", ["paid", "valid", "monkey", "identity", "id_of_batch"])
def test_row_numbers_are_ids_where_no_column_could_hold_them(name):
    table = load_data(made(columns(id=None, **{name: ["x"] * 30})))
    assert (table.rows_of(["3"]), table.ids_are_row_numbers) == ([3], True)
    labels = made({"class_id": TARGETS}, class_id=NUMBERS)
    assert load_data(labels, label_column="class_id").rows_of(["3"]) == [3]


def test_unknown_ids_that_stand_in_another_column_are_said_to():
    patients = [f"p{row // 2}" for row in range(30)]
    table = load_data(made(columns(patient=patients, key=[f"k{row}" for row in range(30)])))
    text = refusal(table.rows_of, ["k3", "k4"], kind=UnknownRecords)
    assert text.endswith(
        "All 2 stand in the column 'key': give --id-column key, in Python load_data(…, "
        "id_column='key'), or let items of a Dataset hold it under the key 'id'."
    )
    text = refusal(table.rows_of, ["p3"], kind=UnknownRecords)
    assert text.endswith(
        """It stands in the column 'patient': name records by --where "patient=p3"."""
    )


def test_a_table_without_a_label_names_the_columns_that_could_be_one():
    table = made({"id": IDS, "site": ["n", "s"] * 15, "note": IDS})
    assert refusal(load_data, table).endswith("Name it with --label-column. Of few values: site.")


def test_an_expression_that_is_true_of_nothing_says_so():
    request = {"ids": None, "where": "id='d*'"}
    text = refusal(load_data(made(columns())).requested_rows, request)
    assert text.startswith("Wanted an expression that is true of a record. Got none of 30 by id=")
    assert "there are no patterns" in text


class Items(Dataset):
    def __init__(self, item, rows=10):
        self.item, self.rows = item, rows

    def __len__(self):
        return self.rows

    def __getitem__(self, row):
        return self.item(row)


LISTS = [
    ("txt", "a\n b,1 \r\n\nc", ("a", "b,1", "c")),
    ("csv", "id\na\nb\n", ("a", "b")),
    ("csv", "label,id\n3,a\n\n4,b\n", ("a", "b")),
    ("csv", '\ufeffid,keyed_hash\n"a, b",00\n', ("a, b",)),
    ("csv", "record_id\na\n", ("a",)),
    ("csv", "id\na;1\n", ("a;1",)),
    ("csv", "id,key\n1,a\n2,b\n", ("a", "b")),
]


@pytest.mark.parametrize(("kind", "text", "expected"), LISTS)
def test_ids_are_read_from_text_and_from_csv(tmp_path, kind, text, expected):
    path = tmp_path / f"ids.{kind}"
    path.write_text(text, encoding="utf-8")
    assert read_ids(path, "key" if "key\n" in text else None) == expected


HEADS = [
    (",image_id\n0,17\n1,23\n", "one without a name, image_id"),
    (",id_of_image\n0,17", "one without a name, id_of_image"),
    ("image_id,label\n17,3\n", "image_id, label"),
    ("a,3\nb,4\n", "a, 3"),
    ("r1\nr2\n", "r1"),
    ("id,file_name\n3,a.png\n", "id, file_name"),
    ("id,id\n3,4\n", "id, id"),
]


@pytest.mark.parametrize(("text", "came"), HEADS)
def test_a_csv_whose_column_of_ids_has_no_name_or_is_one_of_two_is_refused(tmp_path, text, came):
    (tmp_path / "ids.csv").write_text(text)
    assert refusal(read_ids, tmp_path / "ids.csv") == (
        f"Wanted one column 'id' in {tmp_path / 'ids.csv'}. Got the columns {came}. Rename the "
        "column of ids to it, give --id-column where the data have that name too, or write one id "
        "a line in a text file."
    )


@pytest.mark.parametrize(("text", "row"), [("id,a\n3,1\n,2\n", 2), ("a,id\n1,3\n4\n5,6", 2)])
def test_a_row_without_an_id_is_refused(tmp_path, text, row):
    (tmp_path / "ids.csv").write_text(text)
    assert refusal(read_ids, tmp_path / "ids.csv") == (
        f"Wanted an id in each row of {tmp_path / 'ids.csv'}. Got none in row {row}. "
        "Add it, or remove the row."
    )


def in_folder(folder):
    """Two images of two classes, of one file name."""
    for name in ("dog", "cat"):
        (folder / name).mkdir(parents=True)
        Image.new("L", (2, 2)).save(folder / name / "1.png")
    return folder


def test_an_image_has_the_same_id_in_its_folder_and_in_a_table_next_to_it(tmp_path):
    folder = in_folder(tmp_path / "images")
    ids = ("cat/1.png", "dog/1.png")
    assert load_data(folder).ids == ids
    table = tmp_path / "images/t.csv"
    spellings = (ids, [f"./{name}" for name in ids], [str(folder / name) for name in ids])
    for paths in (*spellings, [name.replace("/", "\\") for name in ids]):
        for column in ("image_path", "file_name"):
            table.write_text("\n".join([f"{column},label", *(f"{path},0" for path in paths)]))
            assert load_data(table).ids == ids


def test_another_spelling_of_an_id_is_refused_with_the_one_of_the_data(tmp_path):
    table = load_data(in_folder(tmp_path / "images"), id_column=None)
    other = made({"image": [{**DIGITS[0], "path": "d/17.png"}], "label": [3]})
    stored = load_data(other)
    assert stored.ids == ("d/17.png",)
    for wrong in ("17", "17.png", "x/d/17.png", "d/17.PNG", "d\\17.png"):
        assert refusal(stored.rows_of, [wrong], kind=UnknownRecords) == (
            f"Wanted ids that the data hold (by file name, such as 'd/17.png'). "
            f"Got 1 unknown: {wrong}. Write ids as the data have them: 'd/17.png' and not "
            f"{wrong!r}."
        )
    # the folder of the data itself in front, though each class has a 1.png
    for before in ("images/", "../images/", "images\\"):
        assert refusal(table.rows_of, [f"{before}dog/1.png"], kind=UnknownRecords).endswith(
            f" Write ids as the data have them: 'dog/1.png' and not {before + 'dog/1.png'!r}."
        )
    # of two files of one name neither is meant
    split = "Name their split (DATA:test), or give --id-column."
    assert refusal(table.rows_of, ["1.png"], kind=UnknownRecords).endswith(split)
    numbers = load_data(made(columns(id=None)))
    assert refusal(numbers.rows_of, ["d/7.png"], kind=UnknownRecords) == (
        "Wanted ids that the data hold (by row number, such as '0'). "
        f"Got 1 unknown: d/7.png. {split}"
    )


@pytest.mark.parametrize("head", ["name;id", "id;name", "id\tname", "name|record_id"])
def test_a_csv_of_ids_with_another_separator_is_refused(tmp_path, head):
    (tmp_path / "ids.csv").write_text(f"{head}\n3;a\n")
    assert refusal(read_ids, tmp_path / "ids.csv") == (
        f"Wanted ids in a CSV with a column of ids. Got {head!r}. "
        "Write it separated by commas, UTF-8."
    )


@pytest.mark.parametrize("name", ["ids.txt", "ids.csv"])
def test_a_file_without_ids_is_refused(tmp_path, name):
    path = tmp_path / name
    unreadable = f"Wanted a text file or CSV of ids at {path}. Got %s. Write one id a line, UTF-8."
    assert refusal(read_ids, path) == unreadable % f"FileNotFoundError at {name}"
    path.write_bytes("a\nb\n".encode("utf-16"))
    assert refusal(read_ids, path) == unreadable % f"UnicodeDecodeError at {name}"
    for content in (b"\n \n", b""):
        path.write_bytes(content)
        message = f"Wanted at least one id in {path}. Got none. Write one id a line."
        assert refusal(read_ids, path) == message


AS_WRITTEN = {"id": ["2021.10", "1.10", "1.1", "007"], "record_id": ["1e5", "2e7", "31"]}
AS_WRITTEN |= {"file_name": ["1.", "+1", ".5"], "key": ["1.0", "2.0", "3.00"]}


@pytest.mark.parametrize("name", AS_WRITTEN)
def test_ids_of_a_csv_stay_as_they_are_written(tmp_path, name):
    ids = AS_WRITTEN[name]
    rows = "".join(f"{identity},{row},{row % 2}\n" for row, identity in enumerate(ids))
    (tmp_path / "t.csv").write_text(f"{name},a,label\n{rows}")
    table = load_data(tmp_path / "t.csv", id_column=name if name == "key" else None)
    assert table.ids == tuple(ids)
    (tmp_path / "ids.csv").write_text("\n".join([name, *ids[:2]]))
    assert table.rows_of(read_ids(tmp_path / "ids.csv", table.columns.id)) == [0, 1]
    assert table.rows_where(f"{name}={ids[1]}") == [1]


def test_integers_of_a_csv_are_ids_that_can_be_compared(tmp_path):
    (tmp_path / "t.csv").write_text("id,label\n9,0\n100,1\n20,1\n")
    table = load_data(tmp_path / "t.csv")
    assert table.ids == ("9", "100", "20")
    assert table.rows_where("id>=20") == [1, 2]  # as text 9 would come after 100


def in_arrow(name, cells):
    return datasets.Dataset(pa.table({name: cells, "label": [0, 1]}))


ID_CELLS = [
    ([b"a", "bär".encode()], ("a", "bär")),
    ([100, 101], ("100", "101")),
    ([1.0, 12.0], ("1", "12")),
    ([1.0, 2.5], ("1", "2.5")),
    ([Decimal("1.10"), Decimal("1.20")], ("1.10", "1.20")),
]


@pytest.mark.parametrize(("cells", "ids"), ID_CELLS)
def test_ids_of_any_type_are_what_people_write(cells, ids):
    assert load_data(in_arrow("id", cells)).ids == ids
    assert as_records(Items(lambda row: (torch.zeros(1), 0, cells[row]), 2)).ids == ids


def test_an_id_that_is_no_text_or_not_there_is_refused():
    assert refusal(load_data, in_arrow("id", [b"a", b"\xff\x00"])) == (
        "Wanted ids as text or integers. Got bytes that are not text: ff00. "
        "Write them as text (identity.hex())."
    )
    assert refusal(load_data, in_arrow("id", [1.0, float("nan")])) == f"Wanted {EMPTY}"


@pytest.mark.parametrize("kind", [pa.string(), pa.large_string()])
def test_paths_of_images_are_ids_in_either_text_of_arrow(kind):
    paths = pa.array(["b.png", "a.png"], kind)
    assert load_data(in_arrow("image", paths)).ids == ("b.png", "a.png")


class Stream(IterableDataset):
    def __iter__(self):
        return iter(PAIRS)


PAIR = Items(lambda row: (X[row], Y[row]))
TRIPLE = Items(lambda row: (X[row], int(Y[row]), LETTERS[row]))
MAPPING = Items(lambda row: {"pixel_values": X[row], "labels": Y[row], "id": LETTERS[row]})
ARRAYS = Items(lambda row: (X[row].numpy(), Y[row].item()))
KEYED = [
    Items(lambda row, k=keys: {k[0]: X[row], k[1]: Y[row]}) for keys in ("xy", ("image", "label"))
]
LOADERS = [DataLoader(PAIRS, batch_size=size) for size in (3, None)]
WITHOUT_IDS = [PLAIN, (X, Y), [X, Y], (X, Y.int()), PAIRS, PAIR, ARRAYS, *KEYED, *LOADERS]
WITHOUT_IDS.append(DataLoader(PAIRS, batch_size=5, drop_last=True))
WITH_ID = [(X, Y, LETTERS), (X, Y, list(LETTERS)), TRIPLE, MAPPING]
WITH_ID += [DataLoader(items, batch_size=4) for items in (TRIPLE, MAPPING)]


def test_only_numbers_that_nobody_gave_are_no_ids():
    table = load_data(datasets.Dataset.from_dict({"x": [1.0, 2.0], "id": [1, 0], "label": [0, 1]}))
    for given in (*WITH_ID, (X, Y, torch.arange(10)), Records(X, Y, LETTERS).take([2])):
        assert not as_records(given).numbered
    assert not table.records([0], FeatureSpec({"x": {}})).numbered
    for given in (*WITHOUT_IDS, PLAIN.take([2])):
        assert as_records(given).numbered
    assert as_records(TABLE, FeatureSpec({"x": {}})).numbered


@pytest.mark.parametrize(
    ("given", "expected"),
    [*((given, PLAIN) for given in WITHOUT_IDS), *((given, NAMED) for given in WITH_ID)],
)
def test_every_form_gives_the_same_records(given, expected):
    records = as_records(given)
    assert records.x.equal(expected.x)
    assert records.y.equal(expected.y)
    assert (records.y.dtype, records.ids) == (torch.int64, expected.ids)


EYE = torch.eye(10, dtype=torch.int64)
LABELS = [
    (VALUES[:, 0] / 7, VALUES[:, 0] / 7, "regression"),
    (VALUES[:, :3].double(), VALUES[:, :3], "regression"),
    (VALUES[:, :1].half(), VALUES[:, :1], "regression"),
    (EYE.int(), EYE, "multilabel"),
    (EYE > 0, EYE, "multilabel"),
    (Y > 1, (Y > 1).long(), "multiclass"),
]


@pytest.mark.parametrize(("y", "kept", "kind"), LABELS)
def test_values_and_multilabel_come_in_every_form(y, kept, kind):
    data = TensorDataset(X, y)
    for given in ((X, y), data, Items(lambda row: (X[row], y[row])), DataLoader(data, 3)):
        records = as_records(given)
        assert (records.y.dtype, task_of(records).name) == (kept.dtype, kind)
        assert records.y.equal(kept)


def test_a_shuffled_loader_gives_each_record_its_number_in_the_data_set(random_state_kept):
    with random_state_kept():
        records = as_records(DataLoader(PAIRS, batch_size=3, shuffle=True))
    assert sorted(records.ids, key=int) == [str(row) for row in range(10)]
    assert records.x.equal(X[[int(identity) for identity in records.ids]])


def test_a_sampler_chooses_the_records():
    assert as_records(DataLoader(PAIRS, batch_size=2, sampler=[7, 2, 4])).ids == ("7", "2", "4")
    assert as_records(Subset(PAIRS, [7, 2, 4])).x.equal(X[[7, 2, 4]])


STREAMS = [Stream(), DataLoader(Stream(), batch_size=4), TABLE.to_iterable_dataset()]


@pytest.mark.parametrize("given", [*STREAMS, STREAMS[-1].with_format("torch")])
def test_a_stream_is_refused_and_the_remedy_works(tmp_path, given):
    name = "IterableDataset" if isinstance(given, datasets.IterableDataset) else "Stream"
    assert refusal(as_records, given) == (
        f"Wanted records with random access. Got a stream, {name}. "
        "Cache it (datasets.Dataset.from_generator), or give tensors (x, y, ids)."
    )
    if name == "IterableDataset":
        cached = datasets.Dataset.from_generator(lambda: iter(given), cache_dir=str(tmp_path))
        assert as_records(cached, FeatureSpec({"x": {}})).x.tolist() == [[1.0], [2.0]]


def test_a_table_in_memory_needs_its_preprocessing():
    images = [png(np.full((2, 2), value)) for value in (0, 255)]
    table = made({"image": images, "label": [1, 0], "id": ["a", "b"]})
    records = as_records(table.select([1, 0]).with_format("torch"), Preprocessing((0.5,), (0.5,)))
    assert records.ids == ("b", "a")
    assert (records.x[:, 0, 0, 0].tolist(), records.high.flatten().tolist()) == ([1, -1], [1])
    assert refusal(as_records, table) == (
        "Wanted the preprocessing of images or rows. Got none. "
        "Give preprocessing=Preprocessing(mean, std, size) or FeatureSpec(columns)."
    )


FORMS = "Give Records, (x, y[, ids]), a Dataset, a DataLoader, or a table with preprocessing."
ONE_SPLIT = "one split. Got the splits train, test. Give one: data['train']."
AMBIGUOUS = (
    "labels y as integers, or values. Got 0 and 1 as floats: ambiguous. Give y.long() (multilabel, "
    "binary), y.argmax(1) (one-hot), Records (values)."
)
INPUTS = "normalised inputs x as the model takes them: floating point, one row a record. Got "
LABELS_Y = (
    "labels y: class ids (n,), multilabel (n, k) of 0 and 1, or values (n,), (n, d). Got torch."
)
OTHERS = " Other tasks need task.custom(…)."
LENGTHS = "a label and, if any, an id for each input. Got 10 inputs, "
KEYS = (
    "an input in each item, as one of pixel_values, image, images, img, x, input, inputs, features."
    " Got the keys a. Let the items be (x, y) or (x, y, id)."
)
TENSORS = "inputs and labels as tensors. Got Image. Transform them (ToTensor, Normalize)."
ITEMS = "items (x, y) or (x, y, id). Got "
SPLITS = {"train": TABLE, "test": TABLE}
DROPPED = "all records of a loader. Got drop_last=True. Give drop_last=False."
ROWS = "multilabel y, each 0 or 1. Got 2. Give y[:, 0], or y.float() for values."
RAGGED_X = Items(lambda row: (X[row, :, :, : 1 + row % 2], 0))
RAGGED_Y = Items(lambda row: (X[row], Y[: 1 + row % 2]))
REFUSED = [
    (7, f"records. Got int. {FORMS}"),
    ("a.parquet", "records. Got 'a.parquet'. Give load_data('a.parquet')."),
    (datasets.DatasetDict(SPLITS), ONE_SPLIT),
    (datasets.IterableDatasetDict(SPLITS), ONE_SPLIT),
    (DataLoader(PAIRS, batch_size=3, drop_last=True), DROPPED),
    ((X.byte(), Y), f"{INPUTS}torch.uint8 of shape (10, 1, 2, 2). Normalise images first."),
    ((X, (Y > 1).float()), AMBIGUOUS),
    ((X, torch.eye(10)), AMBIGUOUS),
    ((X, Y[:, None]), ROWS),
    ((X, X), f"{LABELS_Y}float32 of shape (10, 1, 2, 2).{OTHERS}"),
    ((X, Y.to(torch.complex64)), f"{LABELS_Y}complex64 of shape (10,).{OTHERS}"),
    (RAGGED_Y, "labels of one shape. Got (1,), (2,). Give as many each."),
    ((X, Y[:9]), f"{LENGTHS}9 labels, 0 ids. Give all of them."),
    ((X, Y, LETTERS[:9]), f"{LENGTHS}10 labels, 9 ids. Give all of them."),
    ((X, Y, ["a"] * 10), "unique ids. Got some that repeat. Make them unique."),
    ((X,), f"{ITEMS}tuple. {FORMS}"),
    (Items(lambda row: X[row]), f"{ITEMS}Tensor. {FORMS}"),
    (Items(lambda row: {"a": row}), KEYS),
    (RAGGED_X, "inputs of one shape. Got (1, 2, 1), (1, 2, 2). Resize them."),
    (Items(lambda _: (Image.new("L", (2, 2)), 0)), TENSORS),
    (Items(PAIR.item, rows=0), f"at least one record. Got none. {FORMS}"),
]


@pytest.mark.parametrize(("given", "message"), REFUSED)
def test_what_does_not_fit_is_refused_in_words(given, message):
    assert refusal(as_records, given) == f"Wanted {message}"


def test_equal_inputs_have_equal_digests_and_others_do_not():
    zeros = torch.zeros(4, dtype=torch.int64)
    x = torch.stack([X[0], X[1], X[0], -X[0] - 0.0])
    one, two, again, minus = content_digests(Records(x, zeros))
    assert one == again
    assert len({one, two, minus}) == 3
    assert set(content_digests(Records(x.double(), zeros))).isdisjoint({one, two})
    assert content_digests(PLAIN.take([])) == ()
    # the layout in memory is not another image
    x = torch.rand(4, 3, 4, 4)
    lying = x.contiguous(memory_format=torch.channels_last)
    assert content_digests(Records(x, zeros)) == content_digests(Records(lying, zeros))

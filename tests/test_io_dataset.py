"""Tables on the disk become records: the right rows, the right labels, ids that a user can name."""

import io

import datasets
import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image
from sklearn.datasets import load_digits
from torchvision.transforms import v2

from efface.errors import InputError, UnknownRecords
from efface.io.dataset import open_table, read_ids
from efface.io.model import Preprocessing

GREY = Preprocessing((0.5,), (0.25,), 8)
COLOUR = Preprocessing((0.5, 0.5, 0.5), (0.25, 0.25, 0.25), 8)
NAMES = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")


def png(pixels):
    """The bytes of an image file."""
    file = io.BytesIO()
    Image.fromarray(pixels.astype(np.uint8)).save(file, "PNG")
    return file.getvalue()


DIGITS = [png(image * 15.9375) for image in load_digits().images[:30]]
TARGETS = load_digits().target[:30].tolist()


def columns(rows=slice(None), **more):
    """Image, label and id of some digits, as a table's columns."""
    found = {
        "image": [{"bytes": content, "path": None} for content in DIGITS[rows]],
        "label": TARGETS[rows],
        "id": [f"d{row:02d}" for row in range(30)[rows]],
    }
    return {name: value for name, value in {**found, **more}.items() if value is not None}


def written(path, table, **kinds):
    """A parquet file of these columns."""
    known = {"image": datasets.Image(), "label": datasets.ClassLabel(names=NAMES), **kinds}
    features = datasets.Features(
        {name: known.get(name, datasets.Value("string")) for name in table}
    )
    pq.write_table(datasets.Dataset.from_dict(table, features=features).data.table, path)
    return path


def image_folder(root, layout):
    """A small picture at each path; its grey says which."""
    for place, path in enumerate(layout):
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.full((8, 8), place, dtype=np.uint8)).save(root / path)
    return root


def test_a_parquet_file_becomes_records_with_the_pixels_that_were_written(tmp_path):
    """Against the arithmetic by hand."""
    table = open_table(written(tmp_path / "digits.parquet", columns()))
    records = table.records(None, GREY)
    pixels = torch.tensor(load_digits().images[:30] * 15.9375).to(torch.uint8).float()
    torch.testing.assert_close(records.x, ((pixels / 255 - 0.5) / 0.25).unsqueeze(1))
    assert records.y.tolist() == TARGETS
    assert records.ids == tuple(f"d{row:02d}" for row in range(30))
    assert table.classes == NAMES
    assert records.low.flatten().tolist() == [-2]
    assert records.high.flatten().tolist() == [2]


def test_rows_come_in_the_order_that_was_asked_for(tmp_path):
    """Labels and ids must stay with their images."""
    table = open_table(written(tmp_path / "digits.parquet", columns()))
    everything, some = table.records(None, GREY), table.records([7, 3], GREY)
    assert some.ids == ("d07", "d03")
    assert some.x.equal(everything.x[[7, 3]])
    assert some.y.equal(everything.y[[7, 3]])


def test_a_folder_is_split_as_datasets_splits_it(tmp_path):
    """Against load_dataset, which is how its owner reads it."""
    written(tmp_path / "train-00000-of-00002.parquet", columns(slice(0, 10)))
    written(tmp_path / "train-00001-of-00002.parquet", columns(slice(10, 20)))
    written(tmp_path / "test-00000-of-00001.parquet", columns(slice(20, 30)))
    theirs = datasets.load_dataset(
        "parquet", data_dir=str(tmp_path), cache_dir=str(tmp_path / "cache")
    )
    for spec, split in [("", "train"), (":train", "train"), (":test", "test")]:
        assert list(open_table(f"{tmp_path}{spec}").ids) == theirs[split]["id"][:]


def test_nothing_is_left_behind(tmp_path, monkeypatch):
    """Records of people do not belong into a cache that nobody empties."""
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    path = written(tmp_path / "digits.parquet", columns())
    before = sorted(tmp_path.rglob("*"))
    open_table(path).records(None, GREY)
    assert sorted(tmp_path.rglob("*")) == before


def test_a_split_that_is_not_there_names_those_that_are(tmp_path):
    """Holdouts are called test, validation or dev."""
    written(tmp_path / "test-0.parquet", columns())
    with pytest.raises(InputError) as caught:
        open_table(tmp_path)
    assert str(caught.value) == (
        f"Wanted a split 'train' in {tmp_path}. Got the splits test. Name one: {tmp_path}:test."
    )
    assert len(open_table(f"{tmp_path}:eval")) == 30


@pytest.mark.parametrize("named", ["record_id", "file_name", "key"])
def test_records_go_by_a_column_of_ids(tmp_path, named):
    """The usual names are found, any other is said."""
    ids = [f"a/{row}" for row in range(30)]
    path = written(tmp_path / "d.parquet", columns(id=None, **{named: ids}))
    table = open_table(path, id_column="key" if named == "key" else None)
    assert table.ids == tuple(ids)
    assert table.rows_of(["a/4", "a/2", "a/4"]) == [4, 2]


def test_numbers_as_ids_are_read_as_text(tmp_path):
    """A file of ids is text."""
    numbers = list(range(100, 130))
    path = written(tmp_path / "d.parquet", columns(id=numbers), id=datasets.Value("int64"))
    assert open_table(path).rows_of(["101"]) == [1]


def test_records_without_ids_go_by_file_name_and_else_by_row(tmp_path):
    """Names inside of parquet count when they are distinct."""
    paths = [{"bytes": content, "path": f"{row}.png"} for row, content in enumerate(DIGITS)]
    named = written(tmp_path / "named.parquet", columns(id=None, image=paths))
    assert open_table(named).ids[:2] == ("0.png", "1.png")
    alike = [{"bytes": content, "path": "x.png"} for content in DIGITS]
    for image in (alike, columns()["image"]):
        path = written(tmp_path / "d.parquet", columns(id=None, image=image))
        assert open_table(path).ids[:2] == ("0", "1")


def test_ids_that_stand_twice_are_named(tmp_path):
    """Which of the two should be forgotten?"""
    ids = ["a", "b", "a", *(str(row) for row in range(27))]
    with pytest.raises(InputError) as caught:
        open_table(written(tmp_path / "d.parquet", columns(id=ids)))
    assert str(caught.value) == (
        "Wanted ids in 'id' that each stand once. Got more than once: a. "
        "Make them distinct, or name another column with --id-column."
    )


def test_an_empty_id_is_refused(tmp_path):
    """It could not be named."""
    with pytest.raises(InputError, match="none in row 1"):
        open_table(written(tmp_path / "d.parquet", columns(id=["a", None, *map(str, range(28))])))


def test_all_unknown_ids_are_listed(tmp_path):
    """A ticket with forty wrong ids needs one answer and not forty."""
    table = open_table(written(tmp_path / "d.parquet", columns()))
    with pytest.raises(UnknownRecords) as caught:
        table.rows_of(["d01", "x", *(f"y{row}" for row in range(20))])
    assert str(caught.value) == (
        "Wanted ids that the data hold (by 'id', such as 'd00'). Got 21 unknown: x, "
        + ", ".join(f"y{row}" for row in range(20))
        + ". Name the split that holds them, as in DATA:test, or give --id-column."
    )
    assert caught.value.exit_code == 5


def test_a_class_is_found_by_name_and_where_none_has_one_by_number(tmp_path):
    """--forget-class takes what the user sees."""
    table = open_table(written(tmp_path / "d.parquet", columns()))
    rows = [row for row, label in enumerate(TARGETS) if label == 3]
    assert table.rows_of_class("three") == rows
    with pytest.raises(InputError, match=r"'thre'\. Did you mean 'three'\?"):
        table.rows_of_class("thre")
    plain = open_table(
        written(tmp_path / "p.parquet", columns(), label=datasets.Value("int64")), num_classes=10
    )
    assert plain.classes is None
    assert plain.num_classes == 10
    assert plain.rows_of_class("3") == rows


def test_rows_that_are_nearly_a_whole_class_are_noticed(tmp_path):
    """Whoever forgets 95 % of a class probably means the class; few records are no class."""
    labels = [0] * 20 + [1] * 5 + [2] * 5
    table = open_table(written(tmp_path / "d.parquet", columns(label=labels)))
    assert table.nearly_whole_classes(range(19)) == ("zero",)
    assert table.nearly_whole_classes(range(18)) == ()
    assert table.nearly_whole_classes(range(20, 30)) == ()


@pytest.mark.parametrize("depth", ["", "train/"])
def test_a_folder_of_images_has_its_classes_from_the_folders(tmp_path, depth):
    """The layout of torchvision's ImageFolder and of datasets' imagefolder."""
    layout = [f"{depth}dog/1.png", f"{depth}cat/2.PNG", f"{depth}dog/3.png"]
    table = open_table(image_folder(tmp_path, layout))
    assert table.classes == ("cat", "dog")
    assert table.ids == (f"{depth}cat/2.PNG", f"{depth}dog/1.png", f"{depth}dog/3.png")
    records = table.records(None, GREY)
    assert records.y.tolist() == [0, 1, 1]
    pixels = torch.tensor([1, 0, 2], dtype=torch.uint8).view(3, 1, 1, 1)
    assert records.x[:, :, :1, :1].equal(GREY(pixels))


def test_splits_of_an_image_folder_share_their_classes(tmp_path):
    """A holdout without cats must still call a dog by the same number."""
    image_folder(tmp_path, ["train/cat/1.png", "train/dog/1.png", "test/dog/2.png"])
    assert open_table(f"{tmp_path}:test").records(None, GREY).y.tolist() == [1]


def test_a_class_may_be_called_train(tmp_path):
    """There are data sets of vehicles."""
    table = open_table(image_folder(tmp_path, ["train/1.png", "ship/1.png"]))
    assert table.classes == ("ship", "train")
    assert len(table) == 2


def test_hidden_files_are_no_data(tmp_path):
    """What a file manager leaves behind."""
    image_folder(tmp_path, ["dog/1.png", "dog/._1.png", "__MACOSX/dog/1.png", ".cache/dog/1.png"])
    assert open_table(tmp_path).ids == ("dog/1.png",)


def test_a_link_that_leads_out_of_the_folder_is_refused(tmp_path):
    """Nothing that was not handed over is read."""
    image_folder(tmp_path, ["secret.png", "data/dog/1.png"])
    (tmp_path / "data/dog/2.png").symlink_to(tmp_path / "secret.png")
    with pytest.raises(InputError) as caught:
        open_table(tmp_path / "data")
    assert str(caught.value) == (
        f"Wanted images inside {tmp_path / 'data'}. "
        f"Got dog/2.png, a link to {tmp_path / 'secret.png'}. Copy the image into the folder."
    )


@pytest.mark.parametrize("path", ["../secret.png", "{root}/secret.png", "http://example.org/x.png"])
def test_a_path_inside_a_table_leads_nowhere_else(tmp_path, path):
    """A parquet file from a stranger may name any file of ours."""
    image_folder(tmp_path, ["secret.png", "data/x.png"])
    images = [{"bytes": None, "path": path.format(root=tmp_path)}] * 2
    images[1] = {"bytes": None, "path": "x.png"}
    file = written(tmp_path / "data/d.parquet", columns(slice(0, 2), image=images))
    _, unreadable = open_table(file).readable(None, GREY)
    assert unreadable == ("d00",)


@pytest.mark.parametrize(
    ("names", "files"),
    [("the file", ["d.parquet"]), ("none in", ["readme.md"]), ("without a class", ["1.png"])],
)
def test_what_is_no_data_is_said(tmp_path, names, files):
    """Each in its own words."""
    for name in files:
        if name.endswith("png"):
            image_folder(tmp_path, [name])
        else:
            (tmp_path / name).write_text("x")
    spec = f"{tmp_path / files[0]}:test" if names == "the file" else tmp_path
    with pytest.raises(InputError, match=names):
        open_table(spec)


def test_a_path_that_is_not_there_is_said(tmp_path):
    """With or without a split."""
    for spec in (f"{tmp_path}/absent", f"{tmp_path}/absent:test"):
        with pytest.raises(InputError) as caught:
            open_table(spec)
        assert str(caught.value) == (
            f"Wanted a file or a folder of data. Got {spec}, which is not there. Check the path."
        )


def test_a_parquet_file_that_is_cut_short_is_refused(tmp_path):
    """At whatever byte."""
    path = written(tmp_path / "d.parquet", columns())
    whole = path.read_bytes()
    for length in (0, 3, len(whole) // 2, len(whole) - 1):
        path.write_bytes(whole[:length])
        with pytest.raises(InputError) as caught:
            open_table(path)
        assert caught.value.wanted == f"a parquet file at {path}"


def test_files_of_different_columns_are_no_split(tmp_path):
    """One of them is probably in the wrong folder."""
    written(tmp_path / "a.parquet", columns())
    written(tmp_path / "b.parquet", columns(id=None))
    with pytest.raises(InputError, match="files of one split with the same columns"):
        open_table(tmp_path)


def two_labels(tmp_path):
    """As CIFAR-100 has them."""
    return written(
        tmp_path / "d.parquet",
        columns(label=None, fine=TARGETS, coarse=[t // 5 for t in TARGETS]),
        fine=datasets.ClassLabel(names=NAMES),
        coarse=datasets.ClassLabel(names=["low", "high"]),
    )


def test_of_two_label_columns_the_one_that_fits_the_model_is_taken(tmp_path):
    """CIFAR-20 and CIFAR-100 are one table."""
    path = two_labels(tmp_path)
    assert open_table(path, num_classes=2).columns.label == "coarse"
    assert open_table(path, classes=NAMES).columns.label == "fine"
    assert open_table(path, label_column="coarse").classes == ("low", "high")


def test_two_label_columns_are_not_guessed_between(tmp_path):
    """Forgetting by the wrong label is silent."""
    for model in ({}, {"num_classes": 7}):
        with pytest.raises(InputError) as caught:
            open_table(two_labels(tmp_path), **model)
        assert str(caught.value) == (
            "Wanted one column of the table that holds the label. "
            "Got fine, coarse, any of which could be meant. Name it with --label-column."
        )


def test_a_column_that_is_not_there_is_refused_with_the_nearest(tmp_path):
    """A typo in a flag."""
    path = written(tmp_path / "d.parquet", columns())
    for flag in ("id_column", "image_column", "label_column"):
        with pytest.raises(InputError) as caught:
            open_table(path, **{flag: "labl"})
        assert str(caught.value) == (
            "Wanted a column of the table: image, label, id. Got 'labl'. Did you mean 'label'?"
        )


def test_a_table_without_images_lists_its_columns(tmp_path):
    """So that the user can name the one."""
    with pytest.raises(InputError) as caught:
        open_table(written(tmp_path / "d.parquet", {"id": ["a"], "text": ["b"]}))
    assert str(caught.value) == (
        "Wanted one column of the table that holds the image. Got the columns id, text. "
        "Name it with --image-column."
    )


def test_labels_are_numbered_as_the_model_numbers_its_classes(tmp_path):
    """By name: the same names in another order are another class map."""
    path = written(tmp_path / "d.parquet", columns())
    table = open_table(path, classes=NAMES[::-1])
    assert table.records(None, GREY).y.tolist() == [9 - label for label in TARGETS]
    assert table.classes == NAMES[::-1]
    words = written(
        tmp_path / "w.parquet",
        columns(label=[NAMES[t] for t in TARGETS], id=None),
        label=datasets.Value("string"),
    )
    assert open_table(words, classes=NAMES).records(None, GREY).y.tolist() == TARGETS


def test_class_names_that_the_model_does_not_know_are_refused(tmp_path):
    """Dogs are not forgotten by a model of digits."""
    path = written(tmp_path / "d.parquet", columns())
    with pytest.raises(InputError) as caught:
        open_table(path, classes=[*NAMES[:9], "ten"])
    assert str(caught.value) == (
        "Wanted class names that the model knows: zero, one, two, three, four, five, six, seven, "
        "eight, ten. Got nine. Rename the classes of the data, or choose another --label-column."
    )


def test_a_part_of_the_classes_cannot_be_matched_without_the_models_names(tmp_path):
    """Class 0 of a folder of dogs would be airplanes."""
    with pytest.raises(
        InputError, match=r"the 10 classes of the model\. Got 2 class names: cat, dog"
    ):
        open_table(image_folder(tmp_path, ["dog/1.png", "cat/1.png"]), num_classes=10)


def test_labels_that_are_no_classes_are_refused(tmp_path):
    """A regression is another task."""
    path = written(
        tmp_path / "d.parquet", columns(label=[0.5] * 30), label=datasets.Value("float32")
    )
    with pytest.raises(InputError, match="class names or whole numbers in 'label'"):
        open_table(path)


def test_a_record_without_a_label_is_refused_when_it_is_asked_for(tmp_path):
    """The rest of the table serves."""
    table = open_table(written(tmp_path / "d.parquet", columns(label=[None, -1, *TARGETS[2:]])))
    assert len(table.records([2, 3], GREY)) == 2
    with pytest.raises(InputError) as caught:
        table.records([1, 0], GREY)
    assert str(caught.value) == (
        "Wanted a label for each record in 'label'. Got none for d01, d00. "
        "Leave these records out, or give them labels."
    )


def test_an_unreadable_image_fails_the_request_and_is_left_out_of_the_rest(tmp_path):
    """What was not read is not forgotten; a holdout does without."""
    images = columns()["image"]
    images[3], images[5] = {"bytes": b"", "path": None}, {"bytes": DIGITS[5][:50], "path": None}
    images[7] = None
    table = open_table(written(tmp_path / "d.parquet", columns(image=images)))
    with pytest.raises(InputError) as caught:
        table.records([3, 4, 5], GREY)
    assert str(caught.value) == (
        "Wanted images that can be read. Got 2 that cannot: d03, d05. "
        "Nothing was changed. Mend these images, or leave their ids out of the request."
    )
    records, unreadable = table.readable(None, GREY)
    assert unreadable == ("d03", "d05", "d07")
    assert records.ids == tuple(f"d{row:02d}" for row in range(30) if row not in {3, 5, 7})
    assert records.y.tolist() == [t for row, t in enumerate(TARGETS) if row not in {3, 5, 7}]
    nothing, _ = table.readable([3], GREY)
    assert nothing.x.shape == (0, 1, 8, 8)


def test_the_digest_follows_the_content(tmp_path):
    """Records name the data they were made from."""
    one = open_table(written(tmp_path / "d.parquet", columns()))
    first = one.digest
    assert len(first) == 64
    assert open_table(tmp_path / "d.parquet").digest == first
    assert open_table(written(tmp_path / "d.parquet", columns(slice(0, 29)))).digest != first


@pytest.mark.parametrize(
    ("name", "text", "expected"),
    [
        ("ids.txt", "a\n b,1 \r\n\nc", ("a", "b,1", "c")),
        ("ids.csv", "id\na\nb\n", ("a", "b")),
        ("ids.csv", "label,id\n3,a\n\n4,b\n", ("a", "b")),
        ("ids.csv", "a,3\nb,4\n", ("a", "b")),
        ("ids.csv", '\ufeffid,keyed_hash\n"a, b",00\n', ("a, b",)),
        ("ids.csv", "record_id\na\n", ("a",)),
    ],
)
def test_ids_are_read_from_text_and_from_csv(tmp_path, name, text, expected):
    """By the name of the column, else from the first."""
    (tmp_path / name).write_text(text, encoding="utf-8")
    assert read_ids(tmp_path / name) == expected


def test_a_column_of_ids_can_be_named(tmp_path):
    """--id-column names it in both files."""
    (tmp_path / "ids.csv").write_text("id,key\n1,a\n2,b\n")
    assert read_ids(tmp_path / "ids.csv", "key") == ("a", "b")


@pytest.mark.parametrize(
    ("content", "came"),
    [
        (None, "FileNotFoundError"),
        (b"\xff\xfe\x00", "UnicodeDecodeError"),
        (b"\n \n", "none"),
        (b"", "none"),
    ],
)
@pytest.mark.parametrize("name", ["ids.txt", "ids.csv"])
def test_a_file_without_ids_is_refused(tmp_path, name, content, came):
    """Forgetting nothing is not what was asked for."""
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(InputError) as caught:
        read_ids(tmp_path / name)
    assert caught.value.came == came


def test_cifar_is_read_as_torchvision_would_transform_it(efface_data):
    """A second library as the oracle, on real photographs."""
    table = open_table(efface_data / "cifar10:test")
    mean, std = (0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616)
    records = table.records(range(40), Preprocessing(mean, std, 32))
    theirs = v2.Compose(
        [v2.ToImage(), v2.ToDtype(torch.float32, scale=True), v2.Normalize(mean, std)]
    )
    expected = torch.stack([torch.Tensor(theirs(image)) for image in table.dataset[:40]["img"]])
    torch.testing.assert_close(records.x, expected)
    assert table.classes[5] == "dog"
    assert table.rows_where("label=dog") == table.rows_of_class("dog")
    assert len(table) == 10_000

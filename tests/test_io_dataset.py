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
from efface.io.data import load_data
from efface.io.images import Preprocessing

GREY = Preprocessing((0.5,), (0.25,), 8)
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
    table = load_data(written(tmp_path / "digits.parquet", columns()))
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
    table = load_data(written(tmp_path / "digits.parquet", columns()))
    everything, some = table.records(None, GREY), table.records([7, 3], GREY)
    assert some.ids == ("d07", "d03")
    assert some.x.equal(everything.x[[7, 3]])
    assert some.y.equal(everything.y[[7, 3]])


def test_a_folder_is_split_as_datasets_splits_it(tmp_path):
    """Against load_dataset, which is how its owner reads it."""
    data = tmp_path / "data"
    data.mkdir()
    written(data / "train-00000-of-00002.parquet", columns(slice(0, 10)))
    written(data / "train-00001-of-00002.parquet", columns(slice(10, 20)))
    written(data / "test-00000-of-00001.parquet", columns(slice(20, 30)))
    theirs = datasets.load_dataset("parquet", data_dir=str(data), cache_dir=str(tmp_path / "cache"))
    for spec, split in [("", "train"), (":train", "train"), (":test", "test")]:
        assert list(load_data(f"{data}{spec}").ids) == theirs[split]["id"][:]


def test_nothing_is_left_behind(tmp_path, monkeypatch):
    """Records of people do not belong into a cache that nobody empties."""
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    path = written(tmp_path / "digits.parquet", columns())
    before = sorted(tmp_path.rglob("*"))
    load_data(path).records(None, GREY)
    assert sorted(tmp_path.rglob("*")) == before


def test_a_split_that_is_not_there_names_those_that_are(tmp_path):
    """Holdouts are called test, validation or dev."""
    written(tmp_path / "test-0.parquet", columns())
    with pytest.raises(InputError) as caught:
        load_data(tmp_path)
    assert str(caught.value) == (
        f"Wanted a split 'train' in {tmp_path}. Got the splits test. Name one: {tmp_path}:test."
    )
    assert len(load_data(f"{tmp_path}:eval")) == 30


@pytest.mark.parametrize("named", ["record_id", "file_name", "key"])
def test_records_go_by_a_column_of_ids(tmp_path, named):
    """The usual names are found, any other is said."""
    ids = [f"a/{row}" for row in range(30)]
    path = written(tmp_path / "d.parquet", columns(id=None, **{named: ids}))
    table = load_data(path, id_column="key" if named == "key" else None)
    assert table.ids == tuple(ids)
    assert table.rows_of(["a/4", "a/2", "a/4"]) == [4, 2]


def test_records_without_ids_go_by_file_name_and_else_by_row(tmp_path):
    """Names inside of parquet count when they are distinct."""
    paths = [{"bytes": content, "path": f"{row}.png"} for row, content in enumerate(DIGITS)]
    named = written(tmp_path / "named.parquet", columns(id=None, image=paths))
    assert load_data(named).ids[:2] == ("0.png", "1.png")
    alike = [{"bytes": content, "path": "x.png"} for content in DIGITS]
    for image in (alike, columns()["image"]):
        path = written(tmp_path / "d.parquet", columns(id=None, image=image))
        assert load_data(path).ids[:2] == ("0", "1")


def test_all_unknown_ids_are_listed(tmp_path):
    """A ticket with forty wrong ids needs one answer and not forty."""
    table = load_data(written(tmp_path / "d.parquet", columns()))
    with pytest.raises(UnknownRecords) as caught:
        table.rows_of(["d01", "x", *(f"y{row}" for row in range(20))])
    assert str(caught.value) == (
        "Wanted ids that the data hold (by 'id', such as 'd00'). Got 21 unknown: x, "
        + ", ".join(f"y{row}" for row in range(20))
        + ". Name the split that holds them, as in DATA:test, or give --id-column."
    )
    assert caught.value.exit_code == 5


@pytest.mark.parametrize("path", ["../secret.png", "{root}/secret.png", "http://example.org/x.png"])
def test_a_path_inside_a_table_leads_nowhere_else(tmp_path, path):
    """A parquet file from a stranger may name any file of ours."""
    image_folder(tmp_path, ["secret.png", "data/x.png"])
    images = [{"bytes": None, "path": path.format(root=tmp_path)}] * 2
    images[1] = {"bytes": None, "path": "x.png"}
    file = written(tmp_path / "data/d.parquet", columns(slice(0, 2), image=images))
    _, unreadable = load_data(file).readable(None, GREY)
    assert unreadable == ("d00",)


def test_a_parquet_file_that_is_cut_short_is_refused(tmp_path):
    """At whatever byte."""
    path = written(tmp_path / "d.parquet", columns())
    whole = path.read_bytes()
    for length in (0, 3, len(whole) // 2, len(whole) - 1):
        path.write_bytes(whole[:length])
        with pytest.raises(InputError) as caught:
            load_data(path)
        assert caught.value.wanted == f"a parquet file at {path}"


def test_files_of_different_columns_are_no_split(tmp_path):
    """One of them is probably in the wrong folder."""
    written(tmp_path / "a.parquet", columns())
    written(tmp_path / "b.parquet", columns(id=None))
    with pytest.raises(InputError, match="files of one split with the same columns"):
        load_data(tmp_path)


def test_an_unreadable_image_fails_the_request_and_is_left_out_of_the_rest(tmp_path):
    """What was not read is not forgotten; a holdout does without."""
    images = columns()["image"]
    images[3], images[5] = {"bytes": b"", "path": None}, {"bytes": DIGITS[5][:50], "path": None}
    images[7] = None
    table = load_data(written(tmp_path / "d.parquet", columns(image=images)))
    with pytest.raises(InputError) as caught:
        table.records([3, 4, 5], GREY)
    assert str(caught.value) == (
        "Wanted images that can be read. Got 2 that cannot: d03, d05. "
        "Nothing was changed. Fix these images, or omit their ids from the request."
    )
    records, unreadable = table.readable(None, GREY)
    assert unreadable == ("d03", "d05", "d07")
    assert records.ids == tuple(f"d{row:02d}" for row in range(30) if row not in {3, 5, 7})
    assert records.y.tolist() == [t for row, t in enumerate(TARGETS) if row not in {3, 5, 7}]
    nothing, _ = table.readable([3], GREY)
    assert nothing.x.shape == (0, 1, 8, 8)


def test_the_digest_follows_the_content(tmp_path):
    """Records name the data they were made from."""
    one = load_data(written(tmp_path / "d.parquet", columns()))
    first = one.digest
    assert len(first) == 64
    assert load_data(tmp_path / "d.parquet").digest == first
    assert load_data(written(tmp_path / "d.parquet", columns(slice(0, 29)))).digest != first


def test_cifar_is_read_as_torchvision_would_transform_it(efface_data):
    """A second library as the oracle, on real photographs."""
    table = load_data(efface_data / "cifar10:test")
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

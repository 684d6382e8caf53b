"""Folders, tables and the hub become records: the right rows, labels and ids."""

import os
import shutil
import subprocess
import sys

import datasets
import huggingface_hub
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from datasets.packaged_modules.parquet.parquet import Parquet
from PIL import Image
from sklearn.datasets import load_diabetes, load_wine
from torchvision.transforms import v2

from efface.errors import UnknownRecords, UnsafeFile
from efface.io.data import load_data
from efface.io.features import FeatureSpec
from efface.io.images import Preprocessing
from tests.io_helpers import DIGITS, GREY, IDS, NAMES, PIXELS, TARGETS, columns, table_of
from tests.refusals import refusal

TABLE = load_diabetes(as_frame=True).frame.assign(id=[f"{row:03d}" for row in range(442)])
INPUTS = [name for name in TABLE.columns if name not in {"target", "id"}]
PLAIN = FeatureSpec({name: {} for name in INPUTS})
WINE = load_wine(as_frame=True).frame
WINE_ROWS = FeatureSpec({name: {} for name in WINE.columns if name != "target"})


def written(path, table):
    pq.write_table(table_of(table).data.table, path)
    return path


def image_folder(root, layout):
    """A small image at each path; its grey says which."""
    for place, path in enumerate(layout):
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.full((8, 8), place, dtype=np.uint8)).save(root / path)
    return root


def as_file(path):
    """The diabetes table in the format of the suffix; named stream, an arrow stream."""
    if path.suffix == ".csv":
        TABLE.to_csv(path, index=False)
    elif path.suffix == ".parquet":
        TABLE.to_parquet(path)
    else:
        table = pa.Table.from_pandas(TABLE, preserve_index=False)
        make = pa.ipc.new_stream if "stream" in path.name else pa.ipc.new_file
        with make(str(path), table.schema) as sink:
            sink.write_table(table)
    return path


@pytest.fixture
def digits_table(tmp_path):
    return load_data(written(tmp_path / "digits.parquet", columns()))


def test_a_parquet_file_becomes_records_with_the_pixels_that_were_written(digits_table):
    records = digits_table.records(None, GREY)
    pixels = torch.tensor(PIXELS).to(torch.uint8).float()
    torch.testing.assert_close(records.x, ((pixels / 255 - 0.5) / 0.25).unsqueeze(1))
    assert (records.y.tolist(), digits_table.classes) == (TARGETS, NAMES)
    assert records.ids == tuple(IDS)
    assert (records.low.flatten().tolist(), records.high.flatten().tolist()) == ([-2], [2])
    some = digits_table.records([7, 3], GREY)
    assert (some.ids, some.y.tolist()) == (("d07", "d03"), [TARGETS[7], TARGETS[3]])
    assert some.x.equal(records.x[[7, 3]])


def test_a_folder_is_split_as_datasets_splits_it(tmp_path):
    data = tmp_path / "data"
    data.mkdir()
    written(data / "train-00000-of-00002.parquet", columns(slice(0, 10)))
    written(data / "train-00001-of-00002.parquet", columns(slice(10, 20)))
    written(data / "test-00000-of-00001.parquet", columns(slice(20, 30)))
    theirs = datasets.load_dataset("parquet", data_dir=str(data), cache_dir=str(tmp_path / "cache"))
    for spec, split in [("", "train"), (":train", "train"), (":test", "test")]:
        assert list(load_data(f"{data}{spec}").ids) == theirs[split]["id"][:]


def test_nothing_is_cached(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    path = written(tmp_path / "digits.parquet", columns())
    tables = [as_file(tmp_path / name) for name in ("a.csv", "b.arrow")]
    before = sorted(tmp_path.rglob("*"))
    load_data(path).records(None, GREY)
    for table in tables:
        load_data(table).records(None, PLAIN)
    assert sorted(tmp_path.rglob("*")) == before


def test_an_absent_split_names_those_that_are_there(tmp_path):
    written(tmp_path / "test-0.parquet", columns())
    assert refusal(load_data, tmp_path) == (
        f"Wanted a split 'train' in {tmp_path}. Got the splits test. Name one: {tmp_path}:test."
    )
    assert len(load_data(f"{tmp_path}:eval")) == 30


@pytest.mark.parametrize("named", ["record_id", "file_name", "key"])
def test_records_go_by_a_column_of_ids(tmp_path, named):
    ids = [f"a/{row}" for row in range(30)]
    path = written(tmp_path / "d.parquet", columns(id=None, **{named: ids}))
    table = load_data(path, id_column="key" if named == "key" else None)
    assert table.ids == tuple(ids)
    assert table.rows_of(["a/4", "a/2", "a/4"]) == [4, 2]


def test_records_without_ids_go_by_file_name_and_else_by_row(tmp_path):
    named = [{**image, "path": f"{row}.png"} for row, image in enumerate(DIGITS)]
    alike = [{**image, "path": "x.png"} for image in DIGITS]
    for images, ids in ((named, ("0.png", "1.png")), (alike, ("0", "1")), (DIGITS, ("0", "1"))):
        path = written(tmp_path / "d.parquet", columns(id=None, image=images))
        assert load_data(path).ids[:2] == ids


def test_all_unknown_ids_are_listed(digits_table):
    unknown = ["x", *(f"y{row}" for row in range(20))]
    assert refusal(digits_table.rows_of, ["d01", *unknown], kind=UnknownRecords) == (
        "Wanted ids that the data hold (by 'id', such as 'd00'). Got 21 unknown: "
        f"{', '.join(unknown)}. Name their split (DATA:test), or give --id-column."
    )


@pytest.mark.parametrize("kind", ["csv", "parquet"])
def test_a_path_inside_a_table_stays_inside_its_folder(tmp_path, kind):
    image_folder(tmp_path, ["secret.png", "data/fine.png"])
    (tmp_path / "data/link.png").symlink_to(tmp_path / "secret.png")
    paths = ["../secret.png", f"{tmp_path}/secret.png", "http://example.org/x.png", "link.png"]
    paths, file = [*paths, "gone.png", "fine.png"], tmp_path / f"data/train.{kind}"
    if kind == "csv":
        pd.DataFrame({"id": IDS[:6], "image": paths, "label": 0}).to_csv(file, index=False)
    else:
        images = [{"bytes": None, "path": path} for path in paths]
        written(file, columns(slice(6), image=images))
    records, unreadable = load_data(file).readable(None, GREY)
    assert (records.ids, tuple(unreadable)) == (("d05",), tuple(IDS[:5]))


@pytest.mark.parametrize("name", ["a.parquet", "a.arrow", "stream.arrow"])
def test_a_file_that_is_cut_short_is_refused(tmp_path, name):
    path = as_file(tmp_path / name)
    whole = path.read_bytes()
    for length in (1, 7, len(whole) // 2, len(whole) - 9):
        path.write_bytes(whole[:length])
        wanted = f"Wanted a valid {path.suffix} file at {path}. Got "
        assert refusal(load_data, path).startswith(wanted)


def test_files_of_different_columns_are_no_split(tmp_path):
    written(tmp_path / "a.parquet", columns())
    written(tmp_path / "b.parquet", columns(id=None))
    message = refusal(load_data, tmp_path)
    assert message.startswith("Wanted files of one split with the same columns. Got ")
    assert message.endswith(". Keep different tables in other folders.")


def test_an_unreadable_image_fails_the_request_and_is_omitted_from_the_rest(tmp_path):
    cut = {"bytes": DIGITS[5]["bytes"][:50], "path": None}
    images = {**dict(enumerate(DIGITS)), 3: {"bytes": b"", "path": None}, 5: cut, 7: None}
    table = load_data(written(tmp_path / "d.parquet", columns(image=list(images.values()))))
    assert refusal(table.records, [3, 4, 5], GREY) == (
        "Wanted readable images. Got 2 unreadable: d03, d05. "
        "Nothing was changed. Fix them, or omit their ids from the request."
    )
    records, unreadable = table.readable(None, GREY)
    assert tuple(unreadable) == ("d03", "d05", "d07")
    rows = [row for row in range(30) if row not in {3, 5, 7}]
    assert records.ids == tuple(IDS[row] for row in rows)
    assert records.y.tolist() == [TARGETS[row] for row in rows]
    assert table.readable([3], GREY)[0].x.shape == (0, 1, 8, 8)


def test_the_digest_follows_the_content(tmp_path, digits_table):
    first = digits_table.digest
    assert (len(first), load_data(tmp_path / "digits.parquet").digest) == (64, first)
    other = load_data(written(tmp_path / "digits.parquet", columns(slice(0, 29))))
    assert other.digest != first


def test_the_digest_follows_the_names_of_the_files(tmp_path):
    """A name says the class: the same bytes in another folder are other data."""
    layouts = ["cat/1.png", "dog/2.png"], ["cat/1.png", "emu/2.png"]
    places = enumerate(layouts)
    one, other = (load_data(image_folder(tmp_path / str(n), layout)) for n, layout in places)
    assert one.digest != other.digest


def test_cifar_is_read_as_torchvision_would_transform_it(efface_data):
    table = load_data(efface_data / "cifar10:test")
    mean, std = (0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616)
    records = table.records(range(40), Preprocessing(mean, std, 32))
    steps = [v2.ToImage(), v2.ToDtype(torch.float32, scale=True), v2.Normalize(mean, std)]
    images = [torch.Tensor(v2.Compose(steps)(image)) for image in table.dataset[:40]["img"]]
    torch.testing.assert_close(records.x, torch.stack(images))
    assert (table.classes[5], len(table)) == ("dog", 10_000)
    assert table.rows_where("label=dog") == table.rows_of_class("dog")


@pytest.mark.parametrize("depth", ["", "train/"])
def test_a_folder_of_images_has_its_classes_from_the_folders(tmp_path, depth):
    layout = [f"{depth}dog/1.png", f"{depth}cat/2.PNG", f"{depth}dog/3.png"]
    table = load_data(image_folder(tmp_path, layout))
    assert table.classes == ("cat", "dog")
    assert table.ids == (layout[1], layout[0], layout[2])
    records = table.records(None, GREY)
    assert records.y.tolist() == [0, 1, 1]
    pixels = torch.tensor([1, 0, 2], dtype=torch.uint8).view(3, 1, 1, 1)
    assert records.x[:, :, :1, :1].equal(GREY.normalise(pixels))


SPLITS = ("train/cat/1.png", "train/dog/1.png", "test/dog/2.png")
HIDDEN = ("dog/1.png", "dog/._1.png", "__MACOSX/dog/1.png", ".cache/dog/1.png")


# splits share their classes, a class may be called as a split is, hidden files are no data
FOLDERS = [
    (SPLITS, ":test", ("cat", "dog"), [1]),
    (("train/1.png", "ship/1.png"), "", ("ship", "train"), [0, 1]),
    (("test/1.png", "ship/1.png"), "", ("ship", "test"), [0, 1]),
    (HIDDEN, "", ("dog",), [0]),
]


@pytest.mark.parametrize(("layout", "split", "classes", "labels"), FOLDERS)
def test_an_image_folder_has_the_classes_and_images_of_its_layout(
    tmp_path, layout, split, classes, labels
):
    table = load_data(f"{image_folder(tmp_path, layout)}{split}")
    assert (table.classes, table.labels.tolist()) == (classes, labels)


def test_a_link_that_leads_out_of_the_folder_is_refused(tmp_path):
    image_folder(tmp_path, ["secret.png", "data/dog/1.png"])
    (tmp_path / "data/dog/2.png").symlink_to(tmp_path / "secret.png")
    assert refusal(load_data, tmp_path / "data") == (
        f"Wanted images inside {tmp_path / 'data'}. "
        f"Got dog/2.png, a link to {tmp_path / 'secret.png'}. Copy the image into the folder."
    )


NO_DATA = {
    "a/d.csv:test": "a folder of which 'test' is a split. Got the file {}/a/d.csv. Omit the split.",
    "b": "files of .parquet, .arrow, .csv, .jsonl, .tar, .npz, or a folder of images a class. "
    "Got none in {}/b."
    " Check the path.",
    "c": "one folder a class in {}/c. Got images without a class, such as 1.png. Put each image"
    " into a folder named after its class.",
    "d": "a file or a folder of data. Got {}/d, which is not there. Check the path.",
    "d:test": "a file or a folder of data. Got {}/d:test, which is not there. Check the path.",
}


@pytest.mark.parametrize("spec", NO_DATA)
def test_what_is_no_data_is_refused(tmp_path, spec):
    image_folder(tmp_path, ["c/1.png"])
    for name in ("a/d.csv", "b/readme.md"):
        (tmp_path / name).parent.mkdir()
        (tmp_path / name).write_text("x")
    assert refusal(load_data, f"{tmp_path}/{spec}") == f"Wanted {NO_DATA[spec].format(tmp_path)}"


def test_a_part_of_the_classes_cannot_be_matched_without_the_models_names(tmp_path):
    folder = image_folder(tmp_path, ["dog/1.png", "cat/1.png"])
    assert refusal(load_data, folder, num_classes=10) == (
        "Wanted the 10 classes of the model. Got 2: cat, dog. "
        "Give all classes, or numbers: the model names none."
    )


HERE = ["data", "./data", "data/", "data:train", "{root}/data"]


@pytest.mark.parametrize(
    ("folder", "spec"),
    [*(("here", spec) for spec in HERE), ("here/data", "."), ("a", "../here/data")],
)
def test_a_folder_of_images_is_read_from_wherever_it_is_named(tmp_path, monkeypatch, folder, spec):
    layout = ["train/cat/1.png", "train/dog/1.png"]
    image_folder(tmp_path / "here/data", layout)
    whole = load_data(image_folder(tmp_path / "there/data", layout))
    (tmp_path / folder).mkdir(exist_ok=True)
    monkeypatch.chdir(tmp_path / folder)
    table = load_data(spec.format(root=tmp_path / "here"))
    assert table.records(None, GREY).x.equal(whole.records(None, GREY).x)
    assert (table.ids, table.digest) == (tuple(layout), whole.digest)


@pytest.mark.parametrize("name", ["a.csv", "a.parquet", "a.arrow", "stream.arrow"])
def test_every_format_gives_the_same_records(tmp_path, name):
    table = load_data(as_file(tmp_path / name))
    records = table.records(None, PLAIN)
    np.testing.assert_array_equal(records.x, TABLE[INPUTS].to_numpy(np.float32))
    np.testing.assert_array_equal(records.y, TABLE["target"].to_numpy(np.float32))
    assert records.ids == tuple(TABLE["id"])
    assert (table.kind, table.classes) == ("regression", None)
    assert table.rows_where("s1>0.1") == np.flatnonzero(TABLE["s1"] > 0.1).tolist()
    assert table.rows_of(["007"]) == [7]


NUMBERS = {
    "1|2|": [1, 2, None],
    "1|2.5|NA": [1.0, 2.5, None],
    " 1 |-0|1e3": [1.0, 0.0, 1000.0],
    "1|.5|+2.": [1.0, 0.5, 2.0],
    "1|two|": ["1", "two", None],
}
TEXTS = ["007|12|3", "007|1.5|2", f"{'9' * 30}|1|2", "inf|1|nan", "1,5|2|3", "yes|no|NA"]


@pytest.mark.parametrize("cells", [*NUMBERS, *TEXTS, "a\nb|c|ü"])
def test_cells_of_a_csv_are_numbers_only_when_all_of_them_are(tmp_path, cells):
    texts = cells.split("|")
    frame = pd.DataFrame({"id": ["a", "b", "c"], "cell": texts, "label": [0, 1, 0]})
    frame.to_csv(tmp_path / "t.csv", index=False)
    assert list(load_data(tmp_path / "t.csv").dataset["cell"]) == NUMBERS.get(cells, texts)


def test_categories_of_pandas_are_their_words(tmp_path):
    frame = pd.DataFrame({"sex": pd.Categorical(["f", "m", "f"]), "label": [0, 1, 1]})
    frame.to_parquet(tmp_path / "t.parquet")
    spec = FeatureSpec({"sex": {"categories": ["m", "f"]}})
    records = load_data(tmp_path / "t.parquet").records(None, spec)
    assert records.x.tolist() == [[0, 1], [1, 0], [0, 1]]


COMMAS = ". Write it separated by commas, UTF-8."
CSV = "a valid .csv file at {path}. Got "
PARSE, ARROW = f"{CSV}CSV parse error: Row #2: ", "a valid .arrow file at {path}. Got "
ONE_COLUMN = "a CSV file with commas at {path}. Got "
NO_RECORD = "at least one record in the data. Got none. Check the path and the split."
TWICE = "unique column names in {path}. Got 'id' twice. Rename one of them."
NO_TABLE = "a table as .parquet, .arrow, .csv, .jsonl, .tar, .npz. Got the file {path}. "
NO_TABLE += "Write it so (pandas, datasets)."
# where pyarrow says what came, the beginning and the end of the sentence
BROKEN = [
    ("csv", b"", f"{CSV}Empty CSV file", COMMAS),
    ("csv", b"id,label\n", NO_RECORD, ""),
    ("csv", b"id,label\na,1,2\n", f"{PARSE}Expected 2 columns, got 3: a,1,2", COMMAS),
    ("csv", b"id,label\n\xff,1\n", f"{CSV}In CSV column #0: CSV", COMMAS),
    ("csv", b"id,id,label\na,a,1\n", TWICE, ""),
    ("csv", b"id;label\na;1\n", f"{ONE_COLUMN}'id;label'", COMMAS),
    ("csv", b"id\tlabel\na\t1\n", f"{ONE_COLUMN}'id\\tlabel'", COMMAS),
    ("csv", b"id;ash\na;1,5\n", f"{PARSE}Expected 1 columns, got 2: a;1,5", COMMAS),
    ("csv", "id,label\na,1\n".encode("utf-16"), CSV, COMMAS),
    ("arrow", b"", ARROW, ". Fetch or write it again."),
    ("arrow", b"ARROW1 and more", ARROW, ". Fetch or write it again."),
    ("tsv", b"id\tlabel\n", NO_TABLE, ""),
]


@pytest.mark.parametrize(("suffix", "content", "start", "end"), BROKEN)
def test_a_table_that_is_none_is_refused_in_words(tmp_path, suffix, content, start, end):
    path = tmp_path / f"t.{suffix}"
    path.write_bytes(content)
    message = refusal(load_data, path)
    assert message.startswith(f"Wanted {start}".format(path=path))
    assert message.endswith(end)


@pytest.mark.parametrize("column", ["image", "image_path", "path", "file_name"])
def test_a_csv_of_paths_gives_the_images_next_to_it(tmp_path, column):
    names = ["photos/a.png", "photos/b.png", "c.png"]
    image_folder(tmp_path, names)
    frame = pd.DataFrame({column: names[::-1], "label": ["dog", "cat", "dog"]})
    frame.to_csv(tmp_path / "train.csv", index=False)
    table = load_data(tmp_path / "train.csv")
    records = table.records(None, GREY)
    assert (records.x[:, 0, 0, 0] * 0.25 + 0.5).mul(255).round().tolist() == [2, 1, 0]
    assert (records.ids, table.classes) == (tuple(names[::-1]), ("cat", "dog"))


# the two that the error names, and what else lies in the folder
KINDS = [
    ("ids.csv", "dog/a.png"),
    ("test.parquet", "dog/a.png"),
    ("train-0.parquet", "train-1.csv"),
    ("a.parquet", "b.arrow", "c.csv", "d/a.png"),
]


@pytest.mark.parametrize("names", KINDS)
def test_a_folder_of_two_kinds_is_not_guessed_about(tmp_path, names):
    first, second, *_ = names
    for name in names:
        image_folder(tmp_path, [name]) if name.endswith(".png") else as_file(tmp_path / name)
    assert refusal(load_data, tmp_path) == (
        f"Wanted tables of one kind, or images, in {tmp_path}. Got both {first} and {second}. "
        f"Name one: {tmp_path / first}."
    )
    assert len(load_data(tmp_path / first)) == 442


def test_a_saved_data_set_keeps_its_features_and_not_its_caches(tmp_path):
    saved = table_of(columns(slice(2)))
    saved.save_to_disk(tmp_path / "saved")
    data = next((tmp_path / "saved").glob("data*.arrow"))
    (tmp_path / "saved/cache-12.arrow").write_bytes(data.read_bytes())
    table = load_data(tmp_path / "saved")
    assert table.classes == NAMES
    assert table.records(None, GREY).x.equal(load_data(saved).records(None, GREY).x)


def fill_hub_cache(home):
    """The wines as ``load_dataset`` leaves a data set of the hub in its cache.

    Written by the builder that it uses, then moved to where one with an owner would lie.
    """
    (home / "given").mkdir()
    files = {}
    for split, part in (("train", WINE.head(100)), ("test", WINE.tail(78))):
        files[split] = str(home / f"given/{split}.parquet")
        part.to_parquet(files[split], index=False)
    builder = Parquet(cache_dir=str(home / "built"), dataset_name="wine", data_files=files)
    builder.download_and_prepare()
    place = home / "datasets/somebody___wine/default/0.0.0" / ("0" * 40)
    place.parent.mkdir(parents=True)
    shutil.move(builder.cache_dir, place)
    for folder in ("given", "built"):
        shutil.rmtree(home / folder)


@pytest.fixture
def offline(tmp_path, monkeypatch):
    fill_hub_cache(tmp_path)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "datasets")
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.usefixtures("offline")
def test_a_data_set_in_the_cache_is_read_without_a_network():
    parts = {"": WINE.head(100), ":train": WINE.head(100), ":test": WINE.tail(78)}
    tables = {spec: load_data(f"hub:somebody/wine{spec}") for spec in (*parts, "/default:test")}
    for spec, part in parts.items():
        records = tables[spec].records(None, WINE_ROWS)
        assert records.x.tolist() == part[list(WINE_ROWS.columns)].to_numpy("float32").tolist()
        assert records.y.tolist() == part["target"].tolist()
    train, again, test, named = (table.digest for table in tables.values())
    assert (train, test) == (again, named)
    assert train != test


ABSENT = {
    "wines": "'train' of somebody/wines, {}ConnectionError: Couldn't reach 'somebody/wines' on",
    "wine:dev": "'dev' of somebody/wine, {}ValueError: Unknown split \"dev\". Should be one of",
    "wine/red": "'train' of somebody/wine, {}ValueError: Couldn't find cache for somebody/wine for",
}


@pytest.mark.usefixtures("offline")
@pytest.mark.parametrize("name", ABSENT)
def test_what_the_hub_does_not_have_is_refused(name):
    message = refusal(load_data, f"hub:somebody/{name}")
    start = ABSENT[name].format("from the hub or from the local cache. Got ")
    assert message.startswith(f"Wanted the split {start}")
    assert message.endswith(". Check the name and the network, or give files.")


@pytest.mark.parametrize("name", ["", "wine", "../wine", "a/../b", "/etc/passwd", "a/b/c/d"])
@pytest.mark.parametrize("split", ["", ":x y", ":train[:10]", "://example.org/a"])
def test_another_spelling_of_the_hub_is_refused(name, split):
    assert refusal(load_data, f"hub:{name}{split}") == (
        "Wanted hub:owner/name, hub:owner/name:split or hub:owner/name/configuration:split. "
        f"Got {f'hub:{name}{split}'!r}. Such as hub:ylecun/mnist:test."
    )


def test_a_folder_of_the_same_name_is_not_taken_for_the_hub(offline):
    (offline / "somebody/wine").mkdir(parents=True)
    assert refusal(load_data, "hub:somebody/wine") == (
        "Wanted the data set somebody/wine of the hub. Got a folder of that name, read instead. "
        "Give the folder as somebody/wine, or start from elsewhere."
    )


def test_a_process_of_its_own_finds_the_cache_by_hf_home(tmp_path):
    fill_hub_cache(tmp_path)
    code = "from efface import load_data; print(len(load_data('hub:somebody/wine:test')))"
    environment = {**os.environ, "HF_HOME": str(tmp_path), "HF_HUB_OFFLINE": "1"}
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.stdout == "78\n", done.stderr


def test_a_digest_speaks_of_the_bytes_that_were_read(tmp_path):
    file = tmp_path / "t.csv"
    for content in ("x,label\n1,0\n2,1\n", "x,label\n1,0\n9,1\n"):
        file.write_text(content)
        table, expected = load_data(file), load_data(file).digest
        file.write_text("another\n")
        assert table.digest == expected
    images = image_folder(tmp_path / "images", ["dog/1.png", "dog/2.png"])
    table, expected = load_data(images), load_data(images).digest
    table.records([0], GREY)
    (images / "dog/1.png").write_bytes(b"another")
    assert table.digest == expected != load_data(images).digest
    (images / "dog/2.png").write_bytes(b"another")
    message = f"{(images / 'dog/2.png').resolve()} as it was when first read. Got other bytes in "
    assert refusal(table.records, [1], GREY, kind=UnsafeFile) == (
        f"Wanted {message}its place. Start again."
    )

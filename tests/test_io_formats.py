"""Tables as parquet, arrow and CSV: the same cells whichever file they lie in."""

import io

import datasets
import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from PIL import Image
from sklearn.datasets import load_diabetes

from efface.errors import InputError
from efface.io.data import load_data
from efface.io.features import FeatureSpec
from efface.io.images import Preprocessing

GREY = Preprocessing((0.5,), (0.25,), 8)
TABLE = load_diabetes(as_frame=True).frame.assign(id=[f"{row:03d}" for row in range(442)])
NAMES = tuple(name for name in TABLE.columns if name not in {"target", "id"})
PLAIN = FeatureSpec({name: {} for name in NAMES})


def as_file(path):
    """The table in the format that the name says; an arrow file or, as .stream, an arrow stream."""
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


@pytest.mark.parametrize("name", ["a.csv", "a.parquet", "a.arrow", "stream.arrow"])
def test_every_format_gives_the_same_records(tmp_path, name):
    """Against pandas; ids with leading zeros are names."""
    table = load_data(as_file(tmp_path / name))
    records = table.records(None, PLAIN)
    np.testing.assert_array_equal(records.x, TABLE[list(NAMES)].to_numpy(np.float32))
    np.testing.assert_array_equal(records.y, TABLE["target"].to_numpy(np.float32))
    assert records.ids == tuple(TABLE["id"])
    assert (table.kind, table.classes) == ("regression", None)
    assert table.rows_where("s1>0.1") == np.flatnonzero(TABLE["s1"] > 0.1).tolist()
    assert table.rows_of(["007"]) == [7]


@pytest.mark.parametrize("kind", ["csv", "parquet", "arrow"])
def test_a_folder_of_tables_has_splits_by_the_names_of_its_files(tmp_path, kind):
    """As with parquet; parts of one split are joined in the order of their names."""
    whole = as_file(tmp_path / f"whole.{kind}")
    (tmp_path / "data").mkdir()
    for name in ("train-0", "train-1", "wine_test"):
        (tmp_path / f"data/{name}.{kind}").write_bytes(whole.read_bytes())
    with pytest.raises(InputError, match="more than once: 000"):
        load_data(tmp_path / "data")
    assert len(load_data(f"{tmp_path}/data:test")) == 442


def test_nothing_is_left_behind_by_a_table_of_numbers(tmp_path, monkeypatch):
    """Records of people do not belong into a cache that nobody empties."""
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    paths = [as_file(tmp_path / name) for name in ("a.csv", "b.arrow")]
    before = sorted(tmp_path.rglob("*"))
    for path in paths:
        load_data(path).records(None, PLAIN)
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize(
    ("cells", "kept"),
    [
        (["1", "2", ""], [1, 2, None]),
        (["1", "2.5", "NA"], [1.0, 2.5, None]),
        ([" 1 ", "-0", "1e3"], [1.0, 0.0, 1000.0]),
        (["1", ".5", "+2."], [1.0, 0.5, 2.0]),
        (["007", "12", "3"], ["007", "12", "3"]),
        (["007", "1.5", "2"], ["007", "1.5", "2"]),
        (["1", "two", ""], ["1", "two", None]),
        (["9" * 30, "1", "2"], ["9" * 30, "1", "2"]),
        (["inf", "1", "nan"], ["inf", "1", "nan"]),
        (["1,5", "2", "3"], ["1,5", "2", "3"]),
        (["yes", "no", "NA"], ["yes", "no", "NA"]),
        (["a\nb", "c", "ü"], ["a\nb", "c", "ü"]),
    ],
)
def test_cells_of_a_csv_are_numbers_only_when_all_of_them_are(tmp_path, cells, kept):
    """A name must not become a number: 007 is not 7."""
    frame = pd.DataFrame({"id": ["a", "b", "c"], "cell": cells, "label": [0, 1, 0]})
    frame.to_csv(tmp_path / "t.csv", index=False)
    assert list(load_data(tmp_path / "t.csv").dataset["cell"]) == kept


def test_categories_of_pandas_are_their_words(tmp_path):
    """A parquet file of a DataFrame with a dtype of categories."""
    frame = pd.DataFrame({"sex": pd.Categorical(["f", "m", "f"]), "label": [0, 1, 1]})
    frame.to_parquet(tmp_path / "t.parquet")
    records = load_data(tmp_path / "t.parquet").records(
        None, FeatureSpec({"sex": {"categories": ["m", "f"]}})
    )
    assert records.x.tolist() == [[0, 1], [1, 0], [0, 1]]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("t.csv", b"", "Wanted a CSV file at {path}. Got Empty CSV file. {commas}"),
        ("t.csv", b"id,label\n", ("Wanted at least one record in the data. Got none. "
         "Check the path and the split.")),
        ("t.csv", b"id,label\na,1,2\n", ("Wanted a CSV file at {path}. Got CSV parse error: "
         "Row #2: Expected 2 columns, got 3: a,1,2. {commas}")),
        ("t.csv", b"id,label\n\xff,1\n", ("Wanted a CSV file at {path}. Got In CSV column #0: "
         "CSV conversion error to string: invalid UTF8 data. {commas}")),
        ("t.csv", b"id,id,label\na,a,1\n", ("Wanted columns of different names in {path}. "
         "Got 'id' twice. Rename one of them.")),
        ("t.csv", b"id;label\na;1\n", ("Wanted a CSV file with more than one column at {path}. "
         "Got 'id;label'. {commas}")),
        ("t.csv", b"id\tlabel\na\t1\n", ("Wanted a CSV file with more than one column at {path}. "
         "Got 'id\\tlabel'. {commas}")),
        ("t.csv", b"id;ash\na;1,5\n", ("Wanted a CSV file at {path}. Got CSV parse error: "
         "Row #2: Expected 1 columns, got 2: a;1,5. {commas}")),
        ("t.csv", "id,label\na,1\n".encode("utf-16"), ("Wanted a CSV file at {path}. Got ")),
        ("t.arrow", b"", "Wanted an arrow file at {path}. Got "),
        ("t.arrow", b"ARROW1 and more", "Wanted an arrow file at {path}. Got "),
        ("t.tsv", b"id\tlabel\n", ("Wanted a table as .parquet, .arrow, .csv. Got the file {path}. "
         "Write it as one of these, such as with pandas or datasets.")),
    ],
)  # fmt: skip
def test_a_table_that_is_none_is_refused_in_words(tmp_path, name, content, message):
    """What was wanted, what came, what to do."""
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(InputError) as caught:
        load_data(path)
    commas = "Write it separated by commas, UTF-8."
    assert str(caught.value).startswith(message.format(path=path, commas=commas))
    if message.startswith("Wanted a CSV file"):
        assert caught.value.remedy == commas


def test_an_arrow_file_that_is_cut_short_is_refused(tmp_path):
    """At whatever byte; a stream may end early only between its batches."""
    for name in ("a.arrow", "stream.arrow"):
        path = as_file(tmp_path / name)
        whole = path.read_bytes()
        for length in (1, 7, len(whole) // 2, len(whole) - 9):
            path.write_bytes(whole[:length])
            with pytest.raises(InputError) as caught:
                load_data(path)
            assert caught.value.wanted == f"an arrow file at {path}"


def pictures(root, names):
    """A small picture at each path; its grey says which."""
    for place, name in enumerate(names):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.full((8, 8), place, dtype=np.uint8)).save(root / name)


@pytest.mark.parametrize("column", ["image", "image_path", "path", "file_name"])
def test_a_csv_of_paths_gives_the_images_beside_it(tmp_path, column):
    """Ids are those of a column, else the paths."""
    names = ["photos/a.png", "photos/b.png", "c.png"]
    pictures(tmp_path, names)
    frame = pd.DataFrame({column: names[::-1], "label": ["dog", "cat", "dog"]})
    frame.to_csv(tmp_path / "train.csv", index=False)
    table = load_data(tmp_path / "train.csv")
    records = table.records(None, GREY)
    assert (records.x[:, 0, 0, 0] * 0.25 + 0.5).mul(255).round().tolist() == [2, 1, 0]
    assert records.ids == tuple(names[::-1])
    assert table.classes == ("cat", "dog")


def test_a_path_in_a_csv_stays_inside_of_its_folder(tmp_path):
    """A list from a stranger may name any file of ours, by a link too."""
    pictures(tmp_path, ["secret.png", "data/fine.png"])
    (tmp_path / "data/link.png").symlink_to(tmp_path / "secret.png")
    paths = ["../secret.png", str(tmp_path / "secret.png"), "link.png", "gone.png", "fine.png"]
    frame = pd.DataFrame({"id": list("abcde"), "image": paths, "label": [0, 1, 0, 1, 0]})
    frame.to_csv(tmp_path / "data/train.csv", index=False)
    table = load_data(tmp_path / "data/train.csv")
    records, unreadable = table.readable(None, GREY)
    assert unreadable == ("a", "b", "c", "d")
    assert records.ids == ("e",)
    with pytest.raises(InputError) as caught:
        table.records([0, 4], GREY)
    assert str(caught.value) == (
        "Wanted images that can be read. Got 1 that cannot: a. Nothing was changed. Fix these "
        "images, or omit their ids from the request."
    )


@pytest.mark.parametrize(
    ("names", "first", "second"),
    [
        (("dog/a.png", "ids.csv"), "ids.csv", "dog/a.png"),
        (("dog/a.png", "test.parquet"), "test.parquet", "dog/a.png"),
        (("train-1.csv", "train-0.parquet"), "train-0.parquet", "train-1.csv"),
        (("a.parquet", "b.arrow", "c.csv", "d/a.png"), "a.parquet", "b.arrow"),
    ],
)
def test_a_folder_of_two_kinds_is_not_guessed_about(tmp_path, names, first, second):
    """A table beside images may name them or be a list of ids; two tables may be one, or halves."""
    for name in names:
        if name.endswith(".png"):
            pictures(tmp_path, [name])
        else:
            as_file(tmp_path / name)
    with pytest.raises(InputError) as caught:
        load_data(tmp_path)
    assert str(caught.value) == (
        f"Wanted tables of one kind, or images, in {tmp_path}. Got both, such as {first} and "
        f"{second}. Name the table itself, as in {tmp_path / first}, or put it elsewhere."
    )
    assert len(load_data(tmp_path / first)) == 442


def test_a_saved_data_set_keeps_its_features_and_not_its_caches(tmp_path):
    """``save_to_disk``: images and classes as they were; caches of map would be records twice."""
    file = io.BytesIO()
    Image.fromarray(np.full((8, 8), 51, dtype=np.uint8)).save(file, "PNG")
    kinds = datasets.Features(image=datasets.Image(), kind=datasets.ClassLabel(names=["no", "yes"]))
    picture = {"bytes": file.getvalue(), "path": None}
    saved = datasets.Dataset.from_dict({"image": [picture] * 2, "kind": [1, 0]}, features=kinds)
    saved.save_to_disk(tmp_path / "saved")
    data = next((tmp_path / "saved").glob("data*.arrow"))
    (tmp_path / "saved/cache-12.arrow").write_bytes(data.read_bytes())
    table = load_data(tmp_path / "saved")
    assert table.classes == ("no", "yes")
    assert table.records(None, GREY).x[:, 0, 0, 0].tolist() == pytest.approx([-1.2, -1.2])

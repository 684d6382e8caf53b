"""Ids are read as people write them, from a list of them and from the data."""

from decimal import Decimal

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from torch.utils.data import Dataset

from efface.errors import InputError
from efface.io.data import as_records, load_data, read_ids


class Items(Dataset):
    """A data set of the items of a list."""

    def __init__(self, items):
        self.items = items

    def __len__(self):
        return len(self.items)

    def __getitem__(self, row):
        return self.items[row]


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


@pytest.mark.parametrize("head", ["name;id", "id;name", "id\tname", "name|record_id"])
def test_a_csv_of_ids_with_another_separator_is_refused(tmp_path, head):
    """Its first id would be the line of the names."""
    (tmp_path / "ids.csv").write_text(f"{head}\n3;a\n")
    with pytest.raises(InputError) as caught:
        read_ids(tmp_path / "ids.csv")
    assert str(caught.value) == (
        f"Wanted ids in a CSV with a column of ids. Got {head!r}. "
        "Write it separated by commas, UTF-8."
    )
    (tmp_path / "ids.csv").write_text("a;1\nb;2\n")
    assert read_ids(tmp_path / "ids.csv") == ("a;1", "b;2")


def test_ids_of_another_encoding_are_asked_for_in_utf_8(tmp_path):
    """As some spreadsheets write text."""
    (tmp_path / "ids.txt").write_bytes("a\nb\n".encode("utf-16"))
    with pytest.raises(InputError) as caught:
        read_ids(tmp_path / "ids.txt")
    assert str(caught.value) == (
        f"Wanted a text file or CSV of ids at {tmp_path / 'ids.txt'}. Got UnicodeDecodeError. "
        "Write one id a line, UTF-8."
    )


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


@pytest.mark.parametrize(
    ("name", "ids"),
    [
        ("id", ["2021.10", "2021.20", "2021.31"]),
        ("record_id", ["1e5", "2e7", "31"]),
        ("id", ["1.10", "1.1", "1.2"]),
        ("file_name", ["1.", "+1", ".5"]),
        ("key", ["1.0", "2.0", "3.00"]),
        ("id", ["007", "12", "3"]),
    ],
)
def test_ids_of_a_csv_stay_as_they_are_written(tmp_path, name, ids):
    """The list for the next training run must name what stands in the source."""
    rows = "".join(f"{identity},{row},{row % 2}\n" for row, identity in enumerate(ids))
    (tmp_path / "t.csv").write_text(f"{name},a,label\n{rows}")
    table = load_data(tmp_path / "t.csv", id_column=name if name == "key" else None)
    assert table.ids == tuple(ids)
    (tmp_path / "ids.csv").write_text("\n".join([name, *ids[:2]]))
    assert table.rows_of(read_ids(tmp_path / "ids.csv", table.columns.id)) == [0, 1]
    assert table.rows_where(f"{name}={ids[1]}") == [1]


def test_whole_numbers_of_a_csv_are_ids_that_can_be_counted(tmp_path):
    """As text, 9 would come after 100."""
    (tmp_path / "t.csv").write_text("id,label\n9,0\n100,1\n20,1\n")
    table = load_data(tmp_path / "t.csv")
    assert table.ids == ("9", "100", "20")
    assert table.rows_where("id>=20") == [1, 2]


@pytest.mark.parametrize(
    ("cells", "ids"),
    [
        ([b"a", "bär".encode()], ("a", "bär")),
        ([1.0, 12.0], ("1", "12")),
        ([1.0, 2.5], ("1", "2.5")),
        ([Decimal("1.10"), Decimal("1.20")], ("1.10", "1.20")),
    ],
)
def test_ids_of_any_type_are_what_people_write(tmp_path, cells, ids):
    """Bytes as some databases export text, numbers as pandas widens them."""
    pq.write_table(pa.table({"id": cells, "label": [0, 1]}), tmp_path / "t.parquet")
    assert load_data(tmp_path / "t.parquet").ids == ids
    items = [(torch.zeros(1), 0, cell) for cell in cells]
    assert as_records(Items(items)).ids == ids


def test_an_id_of_bytes_that_are_no_text_is_refused(tmp_path):
    """And one that is no number is none."""
    pq.write_table(pa.table({"id": [b"a", b"\xff\x00"], "label": [0, 1]}), tmp_path / "t.parquet")
    with pytest.raises(InputError) as caught:
        load_data(tmp_path / "t.parquet")
    assert str(caught.value) == (
        "Wanted ids as text or integers. Got bytes that are not text: ff00. "
        "Write them as text, such as identity.hex()."
    )
    pq.write_table(pa.table({"id": [1.0, float("nan")], "label": [0, 1]}), tmp_path / "t.parquet")
    with pytest.raises(InputError, match="none in row 1"):
        load_data(tmp_path / "t.parquet")


@pytest.mark.parametrize("kind", [pa.string(), pa.large_string()])
def test_paths_of_images_are_ids_in_either_text_of_arrow(tmp_path, kind):
    """A writer may choose the large one; row numbers would take the place of the names."""
    cells = {"image": pa.array(["b.png", "a.png"], kind), "label": [0, 1]}
    pq.write_table(pa.table(cells), tmp_path / "t.parquet")
    assert load_data(tmp_path / "t.parquet").ids == ("b.png", "a.png")

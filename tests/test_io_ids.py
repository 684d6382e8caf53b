"""A file of ids is read as people write them."""

import pytest

from efface.errors import InputError
from efface.io.dataset import read_ids


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

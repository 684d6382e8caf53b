"""JSON lines, tar archives of webdataset and .npz become tables, or end in a sentence."""

import io
import json
import tarfile
import zipfile

import datasets
import numpy as np
import pytest
from PIL import Image
from refusals import refusal

from efface import FeatureSpec, load_data
from efface.errors import UnsafeFile
from tests.io_helpers import DIGITS, GREY, IDS, NAMES, PIXELS, TARGETS

X = load_data(
    datasets.Dataset.from_dict(
        {"image": DIGITS, "label": TARGETS, "id": IDS},
        features=datasets.Features(
            {"image": datasets.Image(), "label": datasets.Value("int64")}
            | {"id": datasets.Value("string")}
        ),
    )
).records(None, GREY)
BYTES = PIXELS.astype(np.uint8)


def the_digits(data, rows=range(30), **how):
    """The records of these rows; the labels also where they are names."""
    source = load_data(data, **how)
    records = source.records(None, GREY)
    assert records.x.equal(X.x[list(rows)])
    assert records.y.tolist() == [TARGETS[row] for row in rows]
    return source


def folder_of_images(place):
    place.mkdir(parents=True, exist_ok=True)
    for name, digit in zip(IDS, DIGITS, strict=True):
        (place / f"{name}.png").write_bytes(digit["bytes"])
    return place


def lines(rows, **more):
    """JSON lines that name images."""
    labels = [{"file_name": f"{IDS[row]}.png", "label": TARGETS[row], **more} for row in rows]
    return "\n".join(map(json.dumps, labels)) + "\n"


def test_images_and_their_metadata_are_one_data_set(tmp_path):
    """As datasets' imagefolder: the table names the images, and the folders are no classes."""
    folder = folder_of_images(tmp_path / "one")
    (folder / "metadata.jsonl").write_text(lines(range(29, -1, -1), patient="a\u2028b"))
    source = the_digits(folder, range(29, -1, -1))
    assert source.ids[0] == "d29.png"
    assert source.rows_where("patient='a\u2028b'") == list(range(30))
    for name, text in {"csv": "file_name,label\nd03.png,3\n", "jsonl": lines([3])}.items():
        (folder / "metadata.jsonl").unlink(missing_ok=True)
        (folder / f"metadata.{name}").write_text(text)
        the_digits(folder, [3])
        the_digits(folder / f"metadata.{name}", [3])
        (folder / f"metadata.{name}").unlink()


def test_the_digest_covers_the_images_that_a_table_names(tmp_path):
    folder = folder_of_images(tmp_path / "one")
    (folder / "metadata.jsonl").write_text(lines([0, 1]))
    digest = load_data(folder).digest
    (folder / "d29.png").write_bytes(b"not named")
    assert load_data(folder).digest == digest
    (folder / "d01.png").write_bytes(DIGITS[2]["bytes"])
    assert load_data(folder).digest != digest


def test_each_split_may_have_its_own_metadata_next_to_its_images(tmp_path):
    for split, rows in {"train": range(20), "test": range(20, 30)}.items():
        (folder_of_images(tmp_path / split) / "metadata.jsonl").write_text(lines(rows))
    assert the_digits(tmp_path, range(20)).ids[7] == "train/d07.png"
    assert the_digits(f"{tmp_path}:test", range(20, 30)).ids[0] == "test/d20.png"


def test_other_tables_next_to_images_are_still_not_guessed_about(tmp_path):
    folder = folder_of_images(tmp_path)
    (folder / "ids.jsonl").write_text(lines([1]))
    text = refusal(load_data, folder)
    assert text.startswith(f"Wanted tables of one kind, or images, in {folder}. Got both ids.jsonl")


def tar_of(path, files, **attributes):
    """A tar archive of these bytes by name, in this order."""
    with tarfile.open(path, "w") as archive:
        for name, content in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            for key, value in attributes.items():
                setattr(info, key, value)
            archive.addfile(info, io.BytesIO(content))
    return path


def samples(rows, **more):
    """Images with .cls, and files of other ends."""
    files = {}
    for row in rows:
        files[f"a/{IDS[row]}.png"] = DIGITS[row]["bytes"]
        files[f"a/{IDS[row]}.cls"] = f"{TARGETS[row]}\n".encode()
        files |= {f"a/{IDS[row]}.{end}": content for end, content in more.items()}
    return files


def test_a_webdataset_is_read_where_it_lies(tmp_path):
    more = {"json": b'{"age": 7, "site": "north"}', "npy": b"not read", "pyd": b"not loaded"}
    for shard, rows in enumerate((range(20), range(20, 30))):
        tar_of(tmp_path / f"shard-{shard:05}.tar", samples(rows, **more))
    source = the_digits(tmp_path)
    assert source.ids[7] == "a/d07.png"
    assert source.columns.known == ("image", "label", "age", "site")
    assert source.rows_where("age=7 and site!=south") == list(range(30))
    assert {path.suffix for path in tmp_path.iterdir()} == {".tar"}


def test_labels_of_a_webdataset_may_be_names_and_of_two_none_is_guessed(tmp_path):
    files = samples(range(3), json=b'{"id": "x"}')
    files |= {f"a/{IDS[row]}.cls": NAMES[TARGETS[row]].encode() for row in range(3)}
    files |= {f"a/{IDS[row]}.json": json.dumps({"id": f"p{row}"}).encode() for row in range(3)}
    path = tar_of(tmp_path / "a.tar", files)
    assert the_digits(path, range(3), classes=NAMES).ids == ("p0", "p1", "p2")
    path = tar_of(tmp_path / "b.tar", samples(range(3), json=b'{"label": 3}'))
    assert ".tar file at" in (text := refusal(load_data, path))
    assert "'label' twice in the sample a/d00" in text


EVIL = {
    "a name outside": ({"../../etc/x.png": b"x", "../../etc/x.cls": b"1"}, {}),
    "an absolute name": ({"/etc/x.png": b"x"}, {}),
    "a link": ({"a.png": b""}, {"type": tarfile.SYMTYPE, "linkname": "/etc/passwd"}),
    "a hard link": ({"a.png": b""}, {"type": tarfile.LNKTYPE, "linkname": "/etc/passwd"}),
    "a device": ({"a.png": b""}, {"type": tarfile.CHRTYPE}),
    "a pipe": ({"a.png": b""}, {"type": tarfile.FIFOTYPE}),
}


@pytest.mark.parametrize("kind", EVIL)
def test_a_tar_that_points_elsewhere_is_refused_and_nothing_is_unpacked(tmp_path, kind):
    files, attributes = EVIL[kind]
    path = tar_of(tmp_path / "evil.tar", files, **attributes)
    text = refusal(load_data, path, kind=UnsafeFile)
    assert text == (
        f"Wanted regular files inside a tar archive. Got {next(iter(files))!r}. "
        "Fetch or write it again."
    )
    assert [one.name for one in tmp_path.iterdir()] == ["evil.tar"]


def test_a_broken_tar_ends_in_a_sentence(tmp_path):
    whole = tar_of(tmp_path / "a.tar", samples(range(3))).read_bytes()
    large = whole[:124] + b"77777777777\0" + whole[136:]
    cases = [
        b"",
        b"x" * 2000,
        whole[:600],
        large,
        whole.replace(b"0000644", b"\xff\xff\xff\xff\xff\xff\xff"),
    ]
    cases.append(tar_of(tmp_path / "b.tar", {"a.cls": b"1"}).read_bytes())
    field = {"b.json": b'{"image": {"bytes": null, "path": "c.png"}}'}
    cases.append(tar_of(tmp_path / "b.tar", samples([0]) | field).read_bytes())
    cases.append(tar_of(tmp_path / "b.tar", {"a.png": b"", "a.json": b"[" * 10**5}).read_bytes())
    cases.append(tar_of(tmp_path / "b.tar", {"a.png": b"", "a.cls": b"\xff"}).read_bytes())
    for content in cases:
        (tmp_path / "a.tar").write_bytes(content)
        assert refusal(load_data, tmp_path / "a.tar").startswith("Wanted a valid .tar file at ")


def npz(path, compressed=True, **arrays):
    (np.savez_compressed if compressed else np.savez)(path, **arrays)
    return path


FORMS = {
    "mnist.npz": ("x_{}", "y_{}", BYTES, TARGETS),
    "medmnist.npz": ("{}_images", "{}_labels", BYTES, np.array(TARGETS)[:, None]),
    "one channel": ("images_{}", "labels_{}", BYTES[..., None], TARGETS),
    "channels first": ("{}_x", "{}_targets", BYTES[:, None], TARGETS),
}


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("compressed", [True, False])
def test_arrays_of_images_are_images_and_names_tell_the_split(tmp_path, form, compressed):
    x, y, images, labels = FORMS[form]
    arrays = {x.format("train"): images[:20], y.format("train"): labels[:20]}
    arrays |= {x.format("test"): images[20:], y.format("test"): labels[20:]}
    path = npz(tmp_path / "data.npz", compressed, **arrays)
    the_digits(path, range(20))
    the_digits(f"{path}:test", range(20, 30))


def test_a_split_that_no_array_has_is_refused(tmp_path):
    """Of a slip in its name too: the training rows would stand in its place."""
    train = npz(tmp_path / "data.npz", x_train=BYTES, y_train=TARGETS)
    for word, split in {"test": "test", "tset": "tset", "val": "validation"}.items():
        said = f"Wanted a split '{split}' of the arrays. Got train. Name one, such as DATA:train."
        assert refusal(load_data, f"{train}:{word}") == said
    test = npz(tmp_path / "other.npz", x_test=BYTES, y_test=TARGETS)
    assert "Wanted a split 'train' of the arrays. Got test." in refusal(load_data, test)
    the_digits(test.rename(tmp_path / "test.npz"))
    bare = npz(tmp_path / "bare.npz", x=BYTES, y=TARGETS)
    assert "Wanted a split 'test' of the arrays. Got train." in refusal(load_data, f"{bare}:test")
    the_digits(f"{bare}:train")


def test_two_arrays_of_one_role_are_refused(tmp_path):
    for twice in ({"data": BYTES, "images": BYTES}, {"x": BYTES, "target": TARGETS}):
        text = refusal(load_data, npz(tmp_path / "a.npz", **twice, labels=TARGETS))
        assert text.startswith("Wanted one array of each role in a split. Got two of ")


def test_a_column_whose_name_has_a_split_in_it_is_no_split(tmp_path):
    path = npz(tmp_path / "a.npz", x=BYTES, y=TARGETS, test_score=range(30))
    assert the_digits(path).rows_where("test_score=7") == [7]


def test_arrays_without_a_split_are_what_the_file_is(tmp_path):
    path = npz(tmp_path / "test.npz", images=BYTES, labels=TARGETS, ids=IDS, ward=["n"] * 30)
    for spec in (path, f"{tmp_path}:test"):
        source = the_digits(spec)
        assert (source.ids, source.rows_where("ward=n and id=d03")) == (tuple(IDS), [3])


def test_rows_of_numbers_are_columns(tmp_path):
    path = npz(tmp_path / "a.npz", X=np.arange(6.0).reshape(3, 2), y=[0, 1, 0])
    assert load_data(path).records([1], FeatureSpec({"x1": {}, "x0": {}})).x.tolist() == [[3, 2]]


def test_colour_images_keep_their_colours(tmp_path):
    images = np.random.default_rng(0).integers(0, 256, (2, 4, 4, 3), np.uint8)
    for form in (images, images.transpose(0, 3, 1, 2)):
        source = load_data(npz(tmp_path / "a.npz", x=form, y=[0, 1]))
        cells = source.dataset.cast_column("image", datasets.Image(decode=False))["image"]
        assert (np.array(Image.open(io.BytesIO(cells[1]["bytes"]))) == images[1]).all()


def test_an_npz_of_pickled_objects_is_refused_without_loading_them(tmp_path):
    class Evil:
        def __reduce__(self):
            return pytest.fail, ("unpickled",)

    path = tmp_path / "evil.npz"
    np.savez(path, x=np.zeros((1, 2)), y=np.array([Evil()], dtype=object))
    assert refusal(load_data, path, kind=UnsafeFile) == (
        "Wanted arrays of numbers and texts. Got y.npy, which holds pickled objects. Write them as "
        "numbers or texts."
    )


def with_header(shape, content=b"\0" * 16):
    """An .npz of one array whose header says this."""
    array, file = io.BytesIO(), io.BytesIO()
    header = {"descr": "|u1", "fortran_order": False, "shape": shape}
    np.lib.format.write_array_header_1_0(array, header)
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("x.npy", array.getvalue() + content)
    return file.getvalue()


def test_an_npz_that_promises_more_than_it_holds_takes_no_memory(tmp_path):
    path = tmp_path / "a.npz"
    cases = {b"": "", b"PK\3\4" + b"x" * 50: "", with_header((10**12,)): "x.npy is cut short",
             with_header((10**30, 10**30)): "x.npy is cut short",
             with_header((2,), bytes(200 * 2**20)): "bytes once unpacked",
             with_header((2, 2, 2), b"x" * 8): "label"}  # fmt: skip
    for content, said in cases.items():
        path.write_bytes(content)
        assert said in refusal(load_data, path)
    arrays = {"x": np.zeros((2, 3, 3), np.float32), "y": [0, 1]}
    text = refusal(load_data, npz(path, **arrays))
    assert "Got float32 of shape (2, 3, 3). Of inputs as the model takes them, in Python: " in text
    assert "of several lengths" in refusal(load_data, npz(path, x=BYTES, y=TARGETS[1:]))
    assert "no array of inputs" in refusal(load_data, npz(path, z=BYTES, y=TARGETS))


@pytest.mark.parametrize("kind", [zipfile.ZIP_DEFLATED, zipfile.ZIP_LZMA, zipfile.ZIP_BZIP2])
def test_a_damaged_stream_of_an_npz_ends_in_a_sentence(tmp_path, kind):
    path, file = tmp_path / "a.npz", io.BytesIO()
    np.save(file, np.random.default_rng(0).integers(0, 256, (9, 9, 9), np.uint8))
    with zipfile.ZipFile(path, "w", kind) as archive:
        archive.writestr("x.npy", file.getvalue())
    content = bytearray(path.read_bytes())
    # past the header of the entry
    content[40:60] = b"\xff" * 20
    path.write_bytes(content)
    assert refusal(load_data, path).startswith("Wanted a valid .npz file at ")


def test_an_object_in_a_json_is_no_image(tmp_path):
    more = {"json": b'{"camera": {"bytes": null, "path": "other.png"}}'}
    source = the_digits(tar_of(tmp_path / "a.tar", samples(range(3), **more)), range(3))
    assert source.columns.images == ("image",)


ODD_LINES = {
    "[1]": "list where an object is wanted",
    '{"a": ' + "[" * 10**5: "more than 50 brackets in each other",
    '{"id": 1, "label": "a"}\n{"id": "b", "label": 2}': "Could not convert",
    '{"id": 1' + "0" * 30 + ', "label": 1}': "",
    '{"id": "\\ud800", "label": 1}': "",
    "{": "Expecting",
    "\xff": "",
}


@pytest.mark.parametrize("text", ODD_LINES, ids=lambda text: text[:9])
def test_lines_of_any_shape_end_in_a_sentence(tmp_path, text):
    (tmp_path / "a.jsonl").write_bytes(text.encode("latin-1"))
    came = refusal(load_data, tmp_path / "a.jsonl")
    assert came.startswith("Wanted a valid .jsonl file at ")
    assert ODD_LINES[text] in came


def test_words_in_lines_stay_words(tmp_path):
    """Pyarrow's own reader makes times of texts that look like one."""
    (tmp_path / "a.jsonl").write_text('{"id": "2021-10-01", "label": 0}\n\n{"id": "007"}\n')
    source = load_data(tmp_path / "a.jsonl")
    assert (source.ids, source.labels.tolist()) == (("2021-10-01", "007"), [0, -1])

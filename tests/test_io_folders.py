"""A folder of images becomes a table: classes from folders, splits from the folders above."""

import numpy as np
import pytest
import torch
from PIL import Image

from efface.errors import InputError
from efface.io.data import load_data
from efface.io.images import Preprocessing

GREY = Preprocessing((0.5,), (0.25,), 8)


def image_folder(root, layout):
    """A small picture at each path; its grey says which."""
    for place, path in enumerate(layout):
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.full((8, 8), place, dtype=np.uint8)).save(root / path)
    return root


@pytest.mark.parametrize("depth", ["", "train/"])
def test_a_folder_of_images_has_its_classes_from_the_folders(tmp_path, depth):
    """The layout of torchvision's ImageFolder and of datasets' imagefolder."""
    layout = [f"{depth}dog/1.png", f"{depth}cat/2.PNG", f"{depth}dog/3.png"]
    table = load_data(image_folder(tmp_path, layout))
    assert table.classes == ("cat", "dog")
    assert table.ids == (f"{depth}cat/2.PNG", f"{depth}dog/1.png", f"{depth}dog/3.png")
    records = table.records(None, GREY)
    assert records.y.tolist() == [0, 1, 1]
    pixels = torch.tensor([1, 0, 2], dtype=torch.uint8).view(3, 1, 1, 1)
    assert records.x[:, :, :1, :1].equal(GREY(pixels))


def test_splits_of_an_image_folder_share_their_classes(tmp_path):
    """A holdout without cats must still call a dog by the same number."""
    image_folder(tmp_path, ["train/cat/1.png", "train/dog/1.png", "test/dog/2.png"])
    assert load_data(f"{tmp_path}:test").records(None, GREY).y.tolist() == [1]


@pytest.mark.parametrize("name", ["train", "test"])
def test_a_class_may_be_called_as_a_split_is(tmp_path, name):
    """There are data sets of vehicles, and of medical tests."""
    table = load_data(image_folder(tmp_path, [f"{name}/1.png", "ship/1.png"]))
    assert table.classes == ("ship", name)
    assert len(table) == 2


def test_hidden_files_are_no_data(tmp_path):
    """What a file manager leaves behind."""
    image_folder(tmp_path, ["dog/1.png", "dog/._1.png", "__MACOSX/dog/1.png", ".cache/dog/1.png"])
    assert load_data(tmp_path).ids == ("dog/1.png",)


def test_a_link_that_leads_out_of_the_folder_is_refused(tmp_path):
    """Nothing that was not handed over is read."""
    image_folder(tmp_path, ["secret.png", "data/dog/1.png"])
    (tmp_path / "data/dog/2.png").symlink_to(tmp_path / "secret.png")
    with pytest.raises(InputError) as caught:
        load_data(tmp_path / "data")
    assert str(caught.value) == (
        f"Wanted images inside {tmp_path / 'data'}. "
        f"Got dog/2.png, a link to {tmp_path / 'secret.png'}. Copy the image into the folder."
    )


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
        load_data(spec)


def test_a_path_that_is_not_there_is_said(tmp_path):
    """With or without a split."""
    for spec in (f"{tmp_path}/absent", f"{tmp_path}/absent:test"):
        with pytest.raises(InputError) as caught:
            load_data(spec)
        assert str(caught.value) == (
            f"Wanted a file or a folder of data. Got {spec}, which is not there. Check the path."
        )


def test_a_part_of_the_classes_cannot_be_matched_without_the_models_names(tmp_path):
    """Class 0 of a folder of dogs would be airplanes."""
    with pytest.raises(
        InputError, match=r"the 10 classes of the model\. Got 2 class names: cat, dog"
    ):
        load_data(image_folder(tmp_path, ["dog/1.png", "cat/1.png"]), num_classes=10)


@pytest.mark.parametrize("spec", ["data", "./data", "data/", "data:train", "{root}/data"])
def test_a_folder_of_images_is_read_from_wherever_it_is_named(tmp_path, monkeypatch, spec):
    """As most people name it, from beside it; ids and digest tell nothing of the way there."""
    layout = ["train/cat/1.png", "train/dog/1.png"]
    image_folder(tmp_path / "here/data", layout)
    image_folder(tmp_path / "there/data", layout)
    whole = load_data(tmp_path / "there/data")
    monkeypatch.chdir(tmp_path / "here")
    table = load_data(spec.format(root=tmp_path / "here"))
    assert table.records(None, GREY).x.equal(whole.records(None, GREY).x)
    assert table.ids == ("train/cat/1.png", "train/dog/1.png")
    assert table.digest == whole.digest


def test_a_folder_of_images_may_be_the_one_that_the_command_runs_in(tmp_path, monkeypatch):
    """And one beside it, by the folder above."""
    image_folder(tmp_path / "data", ["cat/1.png", "dog/1.png"])
    (tmp_path / "beside").mkdir()
    for folder, spec in (("data", "."), ("beside", "../data")):
        monkeypatch.chdir(tmp_path / folder)
        assert load_data(spec).records(None, GREY).ids == ("cat/1.png", "dog/1.png")

"""Bad input in Python: numbers, ids, images and settings that cannot be meant, word for word."""

import io
import sys
from pathlib import Path

import pytest
import torch
from PIL import Image
from torch import nn

from efface import Records, Split, forget
from efface.errors import Hazard, InputError
from efface.io.data import load_data
from efface.io.images import Preprocessing

sys.path.insert(0, str(Path(__file__).parent))
from method_promises import keeping, split_for
from test_io_pixels import COLOURS, JPEG, PNG, bomb, file_of


def said(error):
    """The sentence of an error."""
    return str(error.value)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_pixels_that_are_no_numbers_are_refused_by_id(tiny_net, digits, value):
    """One such record would make every weight nan."""
    x = digits.x[:4].clone()
    x[2, 0, 3, 3] = value
    with pytest.raises(Hazard) as error:
        forget(tiny_net, Split(Records(x, digits.y[:4], tuple("abcd"))))
    assert said(error) == (
        "Wanted a model and data that fit each other. Got nan or inf in the records c. "
        "Nothing was changed. Look at --mean --std --size, at the order of the classes and at the "
        "label column."
    )


@pytest.mark.parametrize("part", ["forget", "holdout", "retain"])
def test_ids_that_stand_twice_are_refused_in_every_part(tiny_net, digits, part):
    """Which of the two was forgotten?"""
    split = {"forget": digits.take(range(3)), part: digits.take([7, 8, 7, 9, 9])}
    with pytest.raises(InputError) as error:
        forget(tiny_net, Split(**split))
    assert said(error) == (
        f"Wanted unique ids in {part}. Got repeated: digit-0007, digit-0009. "
        "Make them distinct, or give no ids."
    )


@keeping("blank")
def test_a_blank_image_alone_leaves_a_finite_model(tiny_net, digits, name):
    """In the authors' code one blank image in a batch of one turns every weight into nan."""
    blank = Records(torch.zeros(1, 1, 8, 8), digits.y[:1])
    split = split_for(name, blank, digits.take(range(20, 60)), model=tiny_net)
    result = forget(tiny_net, split, method=name)
    assert all(bool(weight.isfinite().all()) for weight in result.model.state_dict().values())
    assert result.manifest.outcome == "done"


@pytest.mark.parametrize("count", [0, 1, 11])
def test_a_holdout_that_one_half_of_says_nothing_is_refused(tiny_net, digits, count):
    """Losing all five records of a half has p = 0.06."""
    with pytest.raises(InputError) as error:
        forget(tiny_net, Split(digits.take(range(3)), digits.take(range(300, 300 + count))))
    assert said(error) == (
        "Wanted a holdout of 12 records or more, half for method and guard, half for the report. "
        f"Got {count}. "
        "With fewer, losing every one of them could be chance: give more, or give no holdout."
    )


def test_twelve_records_are_a_holdout(tiny_net, digits):
    """Six for the guard, six for the evidence."""
    split = Split(digits.take(range(3)), digits.take(range(300, 312)))
    result = forget(tiny_net, split, settings={"steps": 1})
    assert result.manifest.holdout == {"auxiliary": 6, "evaluation": 6}
    assert result.report.tier == "T1"


@pytest.mark.parametrize(
    ("name", "value", "kind", "default"),
    [
        ("sigma", "wide", "a number above 0", 0.15),
        ("sigma", True, "a number above 0", 0.15),
        ("perturbations", 2.5, "an integer of at least 1", 1),
        ("steps", "ten", "an integer of at least 1", 32),
    ],
)
def test_a_setting_of_another_kind_is_refused(tiny_net, digits, name, value, kind, default):
    """Not by a traceback from within a step."""
    with pytest.raises(InputError) as error:
        forget(tiny_net, Split(digits.take(range(3))), method="jit", settings={name: value})
    assert said(error) == (f"Wanted {kind} for {name}. Got {value!r}. Its default is {default}.")


GREY = Preprocessing((0.5,), (0.5,), 8)


def folder_of(root, files):
    """A folder of one class with these files."""
    (root / "dog").mkdir()
    for name, content in files.items():
        (root / "dog" / name).write_bytes(content)
    return load_data(root)


def test_images_that_cannot_be_read_are_refused_by_name(tmp_path):
    """Zero bytes, cut short, no image, and one that would unpack to gigabytes."""
    files = {"bomb.png": bomb(), "cut.jpg": JPEG[: len(JPEG) // 2], "fine.png": PNG,
             "text.png": b"no image", "zero.png": b""}  # fmt: skip
    table = folder_of(tmp_path, files)
    with pytest.raises(InputError) as error:
        table.records(None, GREY)
    assert said(error) == (
        "Wanted images that can be read. "
        "Got 4 that cannot: dog/bomb.png, dog/cut.jpg, dog/text.png, dog/zero.png. "
        "Nothing was changed. Fix these images, or omit their ids from the request."
    )


def test_images_of_every_kind_are_read_as_one_model_takes_them(tmp_path):
    """CMYK, 16 bits, turned by its camera, moving: each is one input of the model's shape."""
    image = Image.fromarray(COLOURS)
    exif = image.getexif()
    exif[0x0112] = 6
    deep = io.BytesIO()
    Image.new("I;16", (8, 8), 40_000).save(deep, "PNG")
    files = {
        "deep.png": deep.getvalue(),
        "moving.gif": file_of(image, "GIF", save_all=True, append_images=[image.rotate(180)]),
        "printed.jpg": file_of(image.convert("CMYK"), "JPEG"),
        "turned.png": file_of(image, exif=exif),
    }
    records = folder_of(tmp_path, files).records(None, GREY)
    assert records.x.shape == (4, 1, 8, 8)
    assert bool(records.x.isfinite().all())
    assert records.ids == tuple(f"dog/{name}" for name in files)


def test_labels_out_of_range_are_refused(digits):
    """The wrong column, or the wrong model."""
    with pytest.raises(Hazard) as error:
        forget(nn.Sequential(nn.Flatten(), nn.Linear(64, 5)), Split(digits.take(range(10))))
    assert said(error) == (
        "Wanted a model and data that fit each other. Got The records have labels that the model "
        "with 5 outputs does not: 5, 6, 7, 8, 9. Nothing was changed. Look at --mean --std "
        "--size, at the order of the classes and at the label column."
    )

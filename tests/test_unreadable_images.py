"""Images that cannot be read are refused by name; of the others each becomes one input."""

import io
import sys
from pathlib import Path

import pytest
from PIL import Image

from efface import InputError, Preprocessing, load_data

sys.path.insert(0, str(Path(__file__).parent))
from test_io_images import COLOURS, JPEG, PNG, bomb, file_of

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
    with pytest.raises(InputError) as error:
        folder_of(tmp_path, files).records(None, GREY)
    came = "4 unreadable: dog/bomb.png, dog/cut.jpg, dog/text.png, dog/zero.png."
    assert str(error.value).startswith(f"Wanted readable images. Got {came} Nothing was ")


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

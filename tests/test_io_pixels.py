"""Images as people have them: damaged, grey, printed, turned, deep, moving, enormous."""

import io
import zlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from torchvision.transforms import v2

from efface.io.images import Preprocessing, decode_image

COLOURS = np.zeros((4, 6, 3), dtype=np.uint8)
COLOURS[:, :3] = (250, 10, 20)
COLOURS[:, 3:] = (0, 120, 240)


def file_of(image, kind="PNG", **options):
    """The bytes of an image file."""
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def read(raw, *, channels=3, size=None):
    """As a table reads bytes."""
    half = (0.5,) * channels
    return decode_image(raw, Preprocessing(half, half, size), None)


PNG = file_of(Image.fromarray(COLOURS))
JPEG = file_of(Image.fromarray(COLOURS.repeat(8, 0).repeat(8, 1)), "JPEG")


@pytest.mark.parametrize("kind", ["PNG", "BMP", "TIFF", "PPM"])
def test_lossless_files_give_their_pixels(kind):
    """Channels first, as torch wants them."""
    found = read(file_of(Image.fromarray(COLOURS), kind))
    assert found.dtype == np.uint8
    assert (found == COLOURS.transpose(2, 0, 1)).all()


def test_a_mapping_of_bytes_and_path_is_read_by_its_bytes():
    """The form in which datasets keeps images."""
    assert read({"bytes": PNG, "path": "/nowhere.png"}).shape == (3, 4, 6)


def test_grey_becomes_three_equal_channels_and_colour_one():
    """The model says how many it takes."""
    grey = np.arange(24, dtype=np.uint8).reshape(4, 6)
    assert (read(file_of(Image.fromarray(grey))) == grey).all()
    assert read(file_of(Image.fromarray(grey)), channels=1).shape == (1, 4, 6)
    weights = np.array([0.299, 0.587, 0.114])
    assert np.abs(read(PNG, channels=1)[0] - COLOURS @ weights).max() <= 1


def test_16_bits_keep_their_upper_half():
    """PIL's own conversion may clip, and a bright image would be white."""
    deep = np.array([[0, 255, 256, 32768, 65535]], dtype=np.uint16)
    found = read(file_of(Image.fromarray(deep)), channels=1)
    assert found[0].tolist() == [[0, 0, 1, 128, 255]]


def test_printers_colours_become_light():
    """A CMYK photograph is the classic surprise in a folder of photographs."""
    cyan = Image.new("CMYK", (8, 8), (255, 0, 0, 0))
    red, green, blue = read(file_of(cyan, "JPEG")).reshape(3, -1).mean(1)
    assert red < 40
    assert min(green, blue) > 160


def test_transparency_and_palettes_are_read():
    """As logos come."""
    clear = Image.new("RGBA", (2, 2), (9, 8, 7, 0))
    assert read(file_of(clear))[:, 0, 0].tolist() == [9, 8, 7]
    few = Image.fromarray(COLOURS).quantize(2)
    assert np.abs(read(file_of(few)).astype(int) - COLOURS.transpose(2, 0, 1)).max() <= 8


def test_a_photograph_is_turned_upright():
    """Phones write the turn beside the picture."""
    image = Image.fromarray(COLOURS)
    exif = image.getexif()
    exif[0x0112] = 6
    found = read(file_of(image, exif=exif))
    assert (found.transpose(1, 2, 0) == np.rot90(COLOURS, -1)).all()


def test_of_a_moving_picture_the_first_counts():
    """One record, one input."""
    frames = [Image.new("RGB", (4, 4), (value, 0, 0)) for value in (200, 10)]
    moving = file_of(frames[0], "GIF", save_all=True, append_images=frames[1:])
    assert read(moving)[0, 0, 0] > 190


@pytest.mark.parametrize("shape", [(12, 30), (30, 12), (4, 4), (7, 4)])
def test_an_image_is_scaled_and_cut_to_the_middle(shape):
    """As models are evaluated; never squeezed: a squeezed face is another face."""
    image = Image.fromarray(np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8))
    theirs = v2.Compose([v2.Resize(6), v2.CenterCrop(6)])(image)
    assert (read(file_of(image), channels=1, size=6)[0] == np.asarray(theirs)).all()


def test_the_middle_of_a_wide_image_is_its_middle():
    """White between two black thirds."""
    wide = np.zeros((10, 30), dtype=np.uint8)
    wide[:, 10:20] = 255
    found = read(file_of(Image.fromarray(wide)), channels=1, size=10)
    assert (found == 255).all()


def test_an_image_of_the_right_size_is_not_touched():
    """Not even by a filter that should change nothing."""
    noise = np.random.default_rng(0).integers(0, 256, (8, 8), dtype=np.uint8)
    assert (read(file_of(Image.fromarray(noise)), channels=1, size=8)[0] == noise).all()


def bomb():
    """60,000 x 60,000 black pixels in a small file: unpacked, 3.6 gigabytes."""
    head = file_of(Image.new("L", (1, 1)))
    size = (60_000).to_bytes(4, "big")
    chunk = b"IHDR" + size + size + head[24:29]
    return head[:12] + chunk + zlib.crc32(chunk).to_bytes(4, "big") + head[33:]


@pytest.mark.parametrize(
    "raw",
    [
        None,
        b"",
        b"no image",
        PNG[:60],
        JPEG[: len(JPEG) // 2],
        {"bytes": None, "path": None},
        {},
        "x.png",
        7,
        bomb(),
        b"<svg xmlns='http://www.w3.org/2000/svg'/>",
        b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n",
    ],
    ids=[
        "nothing",
        "zero bytes",
        "text",
        "cut png",
        "cut jpeg",
        "empty mapping",
        "bare mapping",
        "a path and no folder",
        "a number",
        "a bomb",
        "svg",
        "postscript",
    ],
)
def test_what_cannot_be_read_is_none_and_no_error(raw):
    """One broken file in a million must not end the run; it is listed."""
    assert read(raw) is None


@settings(max_examples=300, deadline=None)
@given(
    st.sampled_from(
        [
            PNG,
            JPEG,
            file_of(Image.fromarray(COLOURS), "GIF"),
            file_of(Image.fromarray(COLOURS), "WEBP"),
            file_of(Image.fromarray(COLOURS), "TIFF"),
        ]
    ),
    st.lists(st.tuples(st.integers(0, 400), st.integers(0, 255)), min_size=1, max_size=6),
)
def test_no_damage_ends_in_an_error(whole, changes):
    """Whatever a decoder raises on broken bytes; a large image made of them is allowed."""
    broken = bytearray(whole)
    for place, value in changes:
        broken[place % len(broken)] = value
    found = read(bytes(broken), size=4)
    assert found is None or found.shape == (3, 4, 4)

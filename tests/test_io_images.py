"""Images as people have them become the inputs that the model was trained with."""

import io
import zlib

import numpy as np
import pytest
import torch
import torchvision
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from torchvision.transforms import v2

from efface.io.data import load_data
from efface.io.images import Preprocessing, decode_image
from tests.refusals import refusal

COLOURS = np.array([[(250, 10, 20)] * 3 + [(0, 120, 240)] * 3] * 4, dtype=np.uint8)
IMAGE = Image.fromarray(COLOURS)
COARSE = np.random.default_rng(0).integers(0, 256, (9, 13, 3), dtype=np.uint8)
PHOTO = Image.fromarray(COARSE).resize((130, 90), Image.Resampling.BICUBIC)


def file_of(image, kind="PNG", **options):
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def read(raw, *, channels=3, size=None):
    """Pixels (c, h, w) of a file, or why there are none."""
    image = decode_image(raw, None)
    if isinstance(image, str):
        return image
    plain = Preprocessing((0.0,) * channels, (1.0,) * channels, size)
    return plain.pixels(plain(image)).numpy()


PNG, JPEG = file_of(IMAGE), file_of(Image.fromarray(COLOURS.repeat(8, 0).repeat(8, 1)), "JPEG")


@pytest.mark.parametrize("kind", ["PNG", "BMP", "TIFF", "PPM"])
def test_lossless_files_give_their_pixels(kind):
    for raw in (file := file_of(IMAGE, kind), {"bytes": file, "path": "/nowhere.png"}):
        found = read(raw)
        assert found.dtype == np.uint8
        assert (found == COLOURS.transpose(2, 0, 1)).all()


def test_grey_becomes_three_equal_channels_and_colour_one():
    grey = np.arange(24, dtype=np.uint8).reshape(4, 6)
    assert (read(file_of(Image.fromarray(grey))) == grey).all()
    assert read(file_of(Image.fromarray(grey)), channels=1).shape == (1, 4, 6)
    weights = np.array([0.299, 0.587, 0.114])
    assert np.abs(read(PNG, channels=1)[0] - COLOURS @ weights).max() <= 1


U16 = np.array([[0, 255, 256, 4095, 65535]], dtype=np.uint16)
DEEP = {"16 bits": (U16, "I;16", "PNG"), "32 bits": (U16.astype(np.int32), "I", "TIFF")}
DEEP |= {"floats": ((U16 / 65535).astype(np.float32), "F", "TIFF")}


@pytest.mark.parametrize(("pixels", "mode", "kind"), DEEP.values(), ids=DEEP)
def test_which_number_is_white_is_not_guessed(pixels, mode, kind):
    """PIL would clip 12 of 16 bits to white, and make floats in 0..1 black."""
    assert read(file_of(Image.fromarray(pixels), kind)) == f"mode {mode}, not 8 bits a channel"


def png_of_16_bits(colours):
    """A colour PNG with 16 bits a channel, which PIL cannot write."""
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in colours)
    size = colours.shape[1].to_bytes(4, "big") + colours.shape[0].to_bytes(4, "big")
    chunks = {b"IHDR": size + b"\x10\2\0\0\0", b"IDAT": zlib.compress(rows), b"IEND": b""}
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        len(data).to_bytes(4, "big") + name + data + zlib.crc32(name + data).to_bytes(4, "big")
        for name, data in chunks.items()
    )


def test_of_16_bits_a_colour_the_upper_half_counts_as_in_every_library():
    deep = np.stack([U16] * 3, -1)
    assert (read(png_of_16_bits(deep)) == (deep >> 8).transpose(2, 0, 1)).all()


@pytest.mark.parametrize(("kind", "mode"), [("PNG", "1"), ("PNG", "P"), ("TIFF", "YCbCr")])
def test_a_file_of_another_mode_gives_the_pixels_of_its_colours(kind, mode):
    image = IMAGE.convert(mode)
    expected = np.asarray(image.convert("RGB")).transpose(2, 0, 1)
    found = read(file_of(image, kind))
    assert (found == expected).all()
    assert found.any()


def test_printers_colours_become_light():
    cyan = Image.new("CMYK", (8, 8), (255, 0, 0, 0))
    red, green, blue = read(file_of(cyan, "JPEG")).reshape(3, -1).mean(1)
    assert red < 40
    assert min(green, blue) > 160


def test_transparency_and_palettes_are_read():
    clear = Image.new("RGBA", (2, 2), (9, 8, 7, 0))
    assert read(file_of(clear))[:, 0, 0].tolist() == [9, 8, 7]
    few = IMAGE.quantize(2)
    assert np.abs(read(file_of(few)).astype(int) - COLOURS.transpose(2, 0, 1)).max() <= 8


def test_a_photograph_is_turned_upright():
    exif = IMAGE.getexif()
    exif[0x0112] = 6
    found = read(file_of(IMAGE, exif=exif))
    assert (found.transpose(1, 2, 0) == np.rot90(COLOURS, -1)).all()


def test_of_a_moving_picture_the_first_counts():
    frames = [Image.new("RGB", (4, 4), (value, 0, 0)) for value in (200, 10)]
    moving = file_of(frames[0], "GIF", save_all=True, append_images=frames[1:])
    assert read(moving)[0, 0, 0] > 190


@pytest.mark.parametrize("shape", [(12, 30), (30, 12), (4, 4), (7, 4), (6, 18)])
def test_an_image_is_scaled_and_cut_to_the_middle(shape):
    image = Image.fromarray(np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8))
    theirs = v2.Compose([v2.Resize(6), v2.CenterCrop(6)])(image)
    assert (read(file_of(image), channels=1, size=6)[0] == np.asarray(theirs)).all()


def test_an_image_of_the_right_size_is_not_touched():
    noise = np.random.default_rng(0).integers(0, 256, (8, 8), dtype=np.uint8)
    assert (read(file_of(Image.fromarray(noise)), channels=1, size=8)[0] == noise).all()


def bomb():
    head = file_of(Image.new("L", (1, 1)))
    size = (60_000).to_bytes(4, "big")
    chunk = b"IHDR" + size + size + head[24:29]
    return head[:12] + chunk + zlib.crc32(chunk).to_bytes(4, "big") + head[33:]


UNREADABLE = {"nothing": None, "a number": 7, "a path and no folder": "x.png", "bare mapping": {}}
UNREADABLE |= {
    "empty mapping": {"bytes": None, "path": None},
    "zero bytes": b"",
    "text": b"no image",
    "bomb": bomb(),
    "cut png": PNG[:60],
    "cut jpeg": JPEG[: len(JPEG) // 2],
    "svg": b"<svg xmlns='http://www.w3.org/2000/svg'/>",
    "postscript": b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n",
}


@pytest.mark.parametrize("raw", UNREADABLE.values(), ids=UNREADABLE)
def test_what_cannot_be_read_is_no_error(raw):
    assert read(raw) == "unreadable"


def test_a_line_of_pixels_is_not_scaled_to_gigabytes(tmp_path):
    (tmp_path / "dog").mkdir()
    Image.new("L", (1, 60_000)).save(tmp_path / "dog/line.png")
    records, unreadable = load_data(tmp_path).readable(None, Preprocessing((0.5,), (0.5,), 224))
    assert (len(records), unreadable) == (0, {"dog/line.png": "1 by 60000 pixels"})
    assert "dog/line.png (1 by 60000 pixels)" in refusal(
        load_data(tmp_path).records, None, Preprocessing((0.5,), (0.5,), 224)
    )


def test_images_that_cannot_be_read_are_refused_by_the_names_of_their_files(tmp_path):
    (tmp_path / "dog").mkdir()
    files = {"fine": PNG} | {n: raw for n, raw in UNREADABLE.items() if isinstance(raw, bytes)}
    for name, content in files.items():
        (tmp_path / f"dog/{name}.png").write_bytes(content)
    bad = [f"dog/{name}.png" for name in sorted(files) if name != "fine"]
    assert refusal(load_data(tmp_path).records, None, Preprocessing((0.5,), (0.5,), 8)) == (
        f"Wanted readable images. Got 7 unreadable: {', '.join(bad)}. "
        "Nothing was changed. Fix them, or omit their ids from the request."
    )


FILES = [PNG, JPEG, *(file_of(IMAGE, kind) for kind in ("GIF", "WEBP", "TIFF"))]
CHANGES = st.lists(st.tuples(st.integers(0, 400), st.integers(0, 255)), min_size=1, max_size=6)


@settings(max_examples=300, deadline=None)
@given(st.sampled_from(FILES), CHANGES)
def test_no_damage_ends_in_an_error(whole, changes):
    broken = bytearray(whole)
    for place, value in changes:
        broken[place % len(broken)] = value
    found = read(bytes(broken), size=4)
    assert isinstance(found, str) or found.shape == (3, 4, 4)


def test_preprocessing_is_the_arithmetic_of_its_docstring():
    preprocessing = Preprocessing((0.5, 0.25, 0.0), (0.5, 0.25, 1.0))
    pixels = torch.tensor([0, 255, 51], dtype=torch.uint8).repeat(3, 1).view(3, 1, 3)
    expected = torch.tensor([[-1, 1, -0.6], [-1, 3, -0.2], [0, 1, 0.2]]).view(3, 1, 3)
    torch.testing.assert_close(preprocessing.normalise(pixels), expected)
    assert preprocessing.pixels(expected).equal(pixels)
    assert preprocessing.low.tolist() == [[[-1]], [[-1]], [[0]]]
    assert preprocessing.high.tolist() == [[[1]], [[3]], [[1]]]
    assert pixels[0, 0, 1] == 255


AS_MANY = "as many means as standard deviations: 1 (grey) or 3 (colour). Got mean {}, std {}. Give"
AS_MANY += " those of the training, in 0..1."
IN_RANGE = "means in 0..1 and standard deviations above 0 and up to 1. Got mean {}, std {}. Divide"
IN_RANGE += " numbers meant for pixels of 0..255 by 255."
CROPPED = "a size that is cropped out of resize. Got 8 of 7. Give a --resize of at least --size."
FILTERS = (
    "an interpolation of nearest, lanczos, bilinear, bicubic. Got 'area'. Give --interpolation"
)
FILTERS += ", by default bilinear."
SPOILED = [
    (((0.5,), (0.5, 0.5)), AS_MANY),
    (((0.5,) * 2, (0.5,) * 2), AS_MANY),
    (((0.5,), (0.0,)), IN_RANGE),
    (((127.5,), (0.5,)), IN_RANGE),
    (((0.5,), (float("nan"),)), IN_RANGE),
    (((0.5,), (0.5,), 0), "a size in pixels. Got 0. Give --size, such as 224."),
    (((0.5,), (0.5,), 8, 7), CROPPED),
    (((0.5,), (0.5,), 8, 8, "area"), FILTERS),
]


@pytest.mark.parametrize(("arguments", "message"), SPOILED)
def test_preprocessing_that_would_spoil_every_input_is_refused(arguments, message):
    assert refusal(Preprocessing, *arguments) == f"Wanted {message.format(*arguments)}"


def torchvision_presets():
    """By its settings each transform that torchvision gives with its weights for classification."""
    weights = [
        torchvision.models.get_model_weights(name)
        for name in torchvision.models.list_models(module=torchvision.models)
    ]
    transforms = [one.transforms() for kind in weights for one in kind]
    return {repr(vars(transform)): transform for transform in transforms}


@pytest.mark.parametrize("preset", torchvision_presets().values(), ids=torchvision_presets())
def test_by_hand_images_are_what_torchvision_makes_of_them(preset):
    ours = Preprocessing(
        tuple(preset.mean),
        tuple(preset.std),
        *preset.crop_size,
        *preset.resize_size,
        preset.interpolation.value,
    )
    torch.testing.assert_close(ours(PHOTO), preset(PHOTO), rtol=0, atol=1e-6)

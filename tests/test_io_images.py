"""Images as people have them become the inputs that the model was trained with."""

import io
import zlib

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from torchvision.transforms import v2

from efface.io.data import load_data
from efface.io.images import Preprocessing, decode_image
from efface.io.models import timm_preprocessing, transformers_preprocessing
from tests.refusals import refusal

COLOURS = np.array([[(250, 10, 20)] * 3 + [(0, 120, 240)] * 3] * 4, dtype=np.uint8)
IMAGE = Image.fromarray(COLOURS)


def file_of(image, kind="PNG", **options):
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def read(raw, *, channels=3, size=None):
    half = (0.5,) * channels
    return decode_image(raw, Preprocessing(half, half, size), None)


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


def test_16_bits_keep_their_upper_half():
    deep = np.array([[0, 255, 256, 32768, 65535]], dtype=np.uint16)
    found = read(file_of(Image.fromarray(deep)), channels=1)
    assert found[0].tolist() == [[0, 0, 1, 128, 255]]


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
def test_what_cannot_be_read_is_none_and_no_error(raw):
    assert read(raw) is None


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
    assert found is None or found.shape == (3, 4, 4)


def test_preprocessing_is_the_arithmetic_of_its_docstring():
    preprocessing = Preprocessing((0.5, 0.25, 0.0), (0.5, 0.25, 1.0))
    pixels = torch.tensor([0, 255, 51], dtype=torch.uint8).repeat(3, 1).view(3, 1, 3)
    expected = torch.tensor([[-1, 1, -0.6], [-1, 3, -0.2], [0, 1, 0.2]]).view(3, 1, 3)
    torch.testing.assert_close(preprocessing(pixels), expected)
    assert preprocessing.low.tolist() == [[[-1]], [[-1]], [[0]]]
    assert preprocessing.high.tolist() == [[[1]], [[3]], [[1]]]
    assert pixels[0, 0, 1] == 255


AS_MANY = "as many means as standard deviations: 1 (grey) or 3 (colour). Got mean {}, std {}. Give"
AS_MANY += " those of the training, in 0..1."
IN_RANGE = "means in 0..1 and standard deviations above 0 and up to 1. Got mean {}, std {}. Divide"
IN_RANGE += " numbers meant for pixels of 0..255 by 255."
SPOILED = [
    (((0.5,), (0.5, 0.5)), AS_MANY),
    (((0.5,) * 2, (0.5,) * 2), AS_MANY),
    (((0.5,), (0.0,)), IN_RANGE),
    (((127.5,), (0.5,)), IN_RANGE),
    (((0.5,), (float("nan"),)), IN_RANGE),
    (((0.5,), (0.5,), 0), "a size in pixels. Got 0. Give --size, such as 224."),
]


@pytest.mark.parametrize(("arguments", "message"), SPOILED)
def test_preprocessing_that_would_spoil_every_input_is_refused(arguments, message):
    assert refusal(Preprocessing, *arguments) == f"Wanted {message.format(*arguments)}"


COARSE = np.random.default_rng(0).integers(0, 256, (9, 13, 3), dtype=np.uint8)
PHOTO = Image.fromarray(COARSE).resize((130, 90), Image.Resampling.BICUBIC)


def inputs_of(preprocessing):
    return preprocessing(torch.from_numpy(decode_image(file_of(PHOTO), preprocessing, None)))


@pytest.mark.parametrize("crop", ["center", "squash"])
@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
def test_images_are_what_timm_makes_of_them(crop, interpolation):
    timm_data = pytest.importorskip("timm.data", reason="NOT RUN: it needs timm")
    said = {"input_size": (3, 64, 64), "crop_pct": 0.8, "crop_mode": crop}
    said |= {"interpolation": interpolation, "mean": (0.4, 0.5, 0.6), "std": (0.2, 0.3, 0.4)}
    ours = Preprocessing(**timm_preprocessing(said))
    theirs = timm_data.create_transform(**{**said, "is_training": False})
    torch.testing.assert_close(inputs_of(ours), theirs(PHOTO), rtol=0, atol=1e-6)


@pytest.mark.parametrize("kind", ["ViTImageProcessor", "ConvNextImageProcessor"])
def test_images_are_nearly_what_transformers_makes_of_them(tmp_path, kind):
    transformers = pytest.importorskip("transformers", reason="NOT RUN: it needs transformers")
    size = {"height": 64, "width": 64} if kind.startswith("ViT") else {"shortest_edge": 64}
    processor = getattr(transformers, kind)(size=size)
    processor.save_pretrained(tmp_path)
    stated = transformers_preprocessing(tmp_path)
    stated |= {name: tuple(stated[name]) for name in ("mean", "std")}
    ours = Preprocessing(**stated)
    theirs = processor(PHOTO, return_tensors="pt")["pixel_values"][0]
    apart = (inputs_of(ours) - theirs).abs() * torch.tensor(ours.std).view(-1, 1, 1) * 255
    assert float(apart.max()) < 2.5
    assert float(apart.mean()) < 0.6

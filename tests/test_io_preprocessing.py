"""Pixels become inputs by two numbers a channel, and wrong numbers are refused."""

import numpy as np
import pytest
import torch
from PIL import Image

from efface.errors import InputError
from efface.io.images import Preprocessing, decode_image
from efface.io.models import timm_preprocessing, transformers_preprocessing


def test_preprocessing_is_the_arithmetic_of_its_docstring():
    """By hand: black, white and a half."""
    preprocessing = Preprocessing((0.5, 0.25, 0.0), (0.5, 0.25, 1.0))
    pixels = torch.tensor([0, 255, 51], dtype=torch.uint8).repeat(3, 1).view(3, 1, 3)
    expected = torch.tensor([[-1, 1, -0.6], [-1, 3, -0.2], [0, 1, 0.2]]).view(3, 1, 3)
    torch.testing.assert_close(preprocessing(pixels), expected)
    assert preprocessing.low.flatten().tolist() == [-1, -1, 0]
    assert preprocessing.high.flatten().tolist() == [1, 3, 1]
    assert preprocessing.low.shape == (3, 1, 1)
    assert pixels[0, 0, 1] == 255


@pytest.mark.parametrize(
    ("mean", "std", "size", "came"),
    [
        ((0.5,), (0.5, 0.5), 8, "mean (0.5,), std (0.5, 0.5)"),
        ((0.5,) * 2, (0.5,) * 2, 8, "mean (0.5, 0.5)"),
        ((0.5,), (0.0,), 8, "std (0.0,)"),
        ((127.5,), (0.5,), 8, "mean (127.5,)"),
        ((0.5,), (float("nan"),), 8, "std (nan,)"),
        ((0.5,), (0.5,), 0, "0"),
    ],
)
def test_preprocessing_that_would_spoil_every_input_is_refused(mean, std, size, came):
    """Numbers meant for 0..255 are the commonest."""
    with pytest.raises(InputError) as caught:
        Preprocessing(mean, std, size)
    assert came in caught.value.came


def photograph(folder):
    """A colour image that is not square, as a file."""
    rng = np.random.default_rng(0)
    coarse = rng.integers(0, 256, (9, 13, 3), dtype=np.uint8)
    image = Image.fromarray(coarse).resize((130, 90), Image.Resampling.BICUBIC)
    image.save(folder / "photo.png")
    return folder / "photo.png"


def inputs_of(path, preprocessing):
    """The image as the model takes it."""
    pixels = decode_image(path.name, preprocessing, path.parent)
    return preprocessing(torch.from_numpy(pixels))


@pytest.mark.parametrize("crop", ["center", "squash"])
@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
def test_images_are_what_timm_makes_of_them(tmp_path, crop, interpolation):
    """Wrong preprocessing is the commonest silent error: the oracle is the model's own library."""
    timm_data = pytest.importorskip("timm.data", reason="NOT RUN: it needs timm")
    said = {"input_size": (3, 64, 64), "crop_pct": 0.8, "crop_mode": crop}
    said |= {"interpolation": interpolation, "mean": (0.4, 0.5, 0.6), "std": (0.2, 0.3, 0.4)}
    ours = Preprocessing(**timm_preprocessing(said))
    theirs = timm_data.create_transform(**{**said, "is_training": False})
    path = photograph(tmp_path)
    torch.testing.assert_close(inputs_of(path, ours), theirs(Image.open(path)), rtol=0, atol=1e-6)


@pytest.mark.parametrize("kind", ["ViTImageProcessor", "ConvNextImageProcessor"])
def test_images_are_nearly_what_transformers_makes_of_them(tmp_path, kind):
    """Its processors scale tensors, ours PIL images: two grey levels apart at most."""
    transformers = pytest.importorskip("transformers", reason="NOT RUN: it needs transformers")
    size = {"height": 64, "width": 64} if kind.startswith("ViT") else {"shortest_edge": 64}
    processor = getattr(transformers, kind)(size=size)
    processor.save_pretrained(tmp_path)
    ours = Preprocessing(**{
        name: tuple(value) if isinstance(value, list) else value
        for name, value in transformers_preprocessing(tmp_path).items()
    })  # fmt: skip
    path = photograph(tmp_path)
    theirs = processor(Image.open(path), return_tensors="pt")["pixel_values"][0]
    apart = (inputs_of(path, ours) - theirs).abs() * torch.tensor(ours.std).view(-1, 1, 1) * 255
    assert float(apart.max()) < 2.5
    assert float(apart.mean()) < 0.6

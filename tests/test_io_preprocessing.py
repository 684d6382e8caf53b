"""Pixels become inputs by two numbers a channel, and wrong numbers are refused."""

import pytest
import torch

from efface.errors import InputError
from efface.io.preprocessing import Preprocessing


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

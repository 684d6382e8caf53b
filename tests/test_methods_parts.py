"""Neighbours of images against torchvision, and the numbers that they are drawn from."""

import torch
from by_hand import near
from torch import nn
from torchvision.transforms.v2 import functional as vision

from efface.methods._perturb import normals, perspective, shift_and_flip, uniforms


def _images(n: int = 4) -> torch.Tensor:
    return torch.rand(n, 3, 16, 16, generator=torch.Generator().manual_seed(0))


def test_perspective_is_torchvisions_away_from_the_border():
    """A second library warps the same corners to the same pixels."""
    x = _images()
    draws = uniforms("abcd", 8, seed=1, step=0)
    ours = perspective(x, draws, 0.5)
    corners = torch.tensor([[0, 0], [15, 0], [15, 15], [0, 15]])
    inwards = torch.tensor([[1, 1], [-1, 1], [-1, -1], [1, -1]])
    for row in range(4):
        moves = draws[row].reshape(4, 2) * 0.5 / 2 * 16
        # torchvision counts from a pixel's edge, we from its middle
        start, end = (corners + 0.5).tolist(), (corners + moves * inwards + 0.5).tolist()
        theirs = vision.perspective(x[row], start, end, vision.InterpolationMode.BILINEAR)
        inside = vision.perspective(torch.ones(1, 16, 16), start, end).squeeze(0) > 0.999
        inside = (-nn.functional.max_pool2d(-inside.float()[None], 3, 1, 1)[0]) > 0
        assert inside.sum() > 40
        assert (ours[row] - theirs).abs()[:, inside].max() < 1e-3


def test_no_distortion_is_the_identity():
    """The neighbourhood of size nothing is the record itself."""
    x = _images()
    near(perspective(x, uniforms("abcd", 8, seed=0, step=0), 0.0), x, atol=1e-5)


def test_shift_and_flip_is_padding_cropping_and_mirroring():
    """A brute-force twin, one image at a time."""
    x = _images()
    draws = uniforms("abcd", 3, seed=3, step=0)
    ours = shift_and_flip(x, draws, 2)
    for row in range(4):
        top, left = (int(draws[row, i] * 5) for i in range(2))
        crop = torch.nn.functional.pad(x[row], (2,) * 4)[:, top : top + 16, left : left + 16]
        assert torch.equal(ours[row], crop.flip(-1) if draws[row, 2] >= 0.5 else crop)


def test_a_record_draws_the_same_numbers_in_any_batch():
    """Micro-batches, order and processes must not change what a record is compared with."""
    together = normals("abc", (2, 3), seed=1, step=4)
    assert torch.equal(normals("c", (2, 3), seed=1, step=4)[0], together[2])
    assert not torch.equal(normals("c", (2, 3), seed=1, step=5)[0], together[2])
    assert not torch.equal(normals("c", (2, 3), seed=2, step=4)[0], together[2])


def test_draws_have_the_moments_they_should():
    """Uniform and standard normal numbers, over many records."""
    ids = [str(i) for i in range(2000)]
    flat, bell = uniforms(ids, 8, seed=0, step=0), normals(ids, (8,), seed=0, step=0)
    assert abs(float(flat.mean()) - 0.5) < 0.01
    assert 0 <= float(flat.min()) <= float(flat.max()) < 1
    assert abs(float(bell.mean())) < 0.03
    assert abs(float(bell.std()) - 1) < 0.03

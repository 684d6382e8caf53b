"""The shared fixtures are what their docstrings say, so that a test may lean on them."""

import numpy as np
import pytest
import torch
from jaxtyping import TypeCheckError

from efface.types import Records


def test_the_tiny_net_knows_its_digits_and_has_something_left_to_forget(tiny_net, digits):
    """Unlearning tests need a gap between the records trained on and the others."""
    with torch.no_grad():
        right = (tiny_net(digits.x).argmax(1) == digits.y).float()
    assert right[:300].mean() == 1.0
    assert 0.75 < right[300:].mean() < 1.0


def test_the_digits_lie_between_their_bounds(digits):
    """Noise and the guard are scaled by these bounds."""
    assert digits.low <= digits.x.min() < digits.x.max() <= digits.high
    assert digits.x.shape == (400, 1, 8, 8)
    assert abs(digits.x.mean()) < 0.1


def test_shapes_are_checked_while_tests_run():
    """A mis-shaped tensor stops at the door it came through, not three rooms later."""
    with pytest.raises(TypeCheckError, match="parameter 'y'"):
        Records(torch.zeros(2, 3), torch.zeros(3, dtype=torch.int64))


@pytest.mark.parametrize(
    "draw",
    [np.random.rand, lambda: torch.rand(1)],
    ids=["numpy", "torch"],
)
def test_a_draw_from_a_global_generator_is_noticed(draw, random_state_kept, request):
    """The check that law 3 leans on must be able to fail."""
    name = request.node.callspec.id
    with pytest.raises(AssertionError, match=name), random_state_kept():
        draw()


def test_drawing_from_a_generator_of_ones_own_is_allowed(random_state_kept):
    """Seeded generators are how the library draws."""
    with random_state_kept():
        torch.rand(1, generator=torch.Generator().manual_seed(0))

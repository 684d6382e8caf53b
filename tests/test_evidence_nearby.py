"""Views of an image that no method trains on, and inputs that are nobody's."""

import pytest
import torch

from efface.report.nearby import VIEWERS, VIEWS, seen_otherwise, synthetic
from efface.types import Records


@pytest.mark.parametrize("kind", VIEWERS)
def test_a_view_depends_on_the_record_alone(digits, kind):
    """Not on its place among others: then the order of a file would change the evidence."""
    some, order = digits.take(range(12)), torch.randperm(12)
    for view in range(VIEWS):
        straight = seen_otherwise(some, kind, view=view, seed=3).x
        turned = seen_otherwise(some.take(order), kind, view=view, seed=3).x
        assert torch.allclose(straight[order], turned, atol=1e-6)


@pytest.mark.parametrize("kind", VIEWERS)
def test_a_view_is_near_the_record_and_not_the_record(digits, kind):
    """It changes something, stays within the bounds, and still looks like its own record most."""
    some = digits.take(range(30))
    seen = seen_otherwise(some, kind, view=1, seed=0).x
    assert seen.min() >= some.low - 1e-5
    assert seen.max() <= some.high + 1e-5
    assert (seen != some.x).flatten(1).any(1).all()
    nearest = torch.cdist(seen.flatten(1), some.x.flatten(1)).argmin(1)
    assert (nearest == torch.arange(30)).float().mean() > 0.9


@pytest.mark.parametrize("kind", VIEWERS)
def test_other_views_and_seeds_give_other_pictures(digits, kind):
    """Four views that were all the same would count one answer four times."""
    some = digits.take(range(5))
    first, second = (seen_otherwise(some, kind, view=view, seed=0).x for view in (0, 1))
    assert not torch.allclose(first, second)
    if kind != "focus":
        assert not torch.allclose(first, seen_otherwise(some, kind, view=0, seed=1).x)


@pytest.mark.parametrize("kind", ["light", "turn"])
def test_equal_pictures_with_different_ids_have_different_views(digits, kind):
    """One draw for all records would make n records count as one."""
    same = digits.take([0]).x.expand(4, -1, -1, -1)
    twins = Records(same, torch.zeros(4, dtype=torch.int64), tuple("abcd"))
    seen = seen_otherwise(twins, kind, view=0, seed=0).x.flatten(1)
    assert len(seen.unique(dim=0)) == 4


@pytest.mark.parametrize("kind", ["focus", "turn"])
def test_an_even_picture_stays_even(kind):
    """No dark corner comes into view, and a blur keeps the sum."""
    even = Records(torch.full((2, 3, 16, 16), 0.3), torch.zeros(2, dtype=torch.int64))
    assert torch.allclose(seen_otherwise(even, kind, view=2, seed=0).x, even.x, atol=1e-5)


def test_synthetic_inputs_lie_within_the_bounds_of_each_channel(random_state_kept):
    """They have the shape and the range of the records and nothing else of them."""
    low, high = torch.tensor([-1.0, 0, 5]).view(3, 1, 1), torch.tensor([1.0, 2, 6]).view(3, 1, 1)
    records = Records(
        torch.zeros(4, 3, 8, 8), torch.zeros(4, dtype=torch.int64), low=low, high=high
    )
    with random_state_kept():
        found, again = (synthetic(records, n=10, seed=1) for _ in range(2))
    assert found.x.shape == (10, 3, 8, 8)
    assert bool((found.x >= low).all() & (found.x <= high).all())
    assert found.x.equal(again.x)
    assert found.x.std((0, 2, 3)).min() > 0.1

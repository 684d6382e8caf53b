"""The share of noisy copies that keep the answer: the normal tail of a linear model."""

import torch

from efface.information.copies import kept_share, kept_share_cost, kept_shares
from efface.passes import Counted


def test_one_sigma_of_several_and_what_they_cost(tiny_net, digits):
    """A row of ``kept_shares`` is ``kept_share``; the passes are those declared."""
    some, counted = digits.take(range(40)), Counted(tiny_net)
    found = kept_shares(counted.model, some, sigmas=(0.1, 0.5), copies=4)
    assert counted.passes == kept_share_cost(some, 4, sigmas=2)
    assert found.shape == (2, 40)
    assert (found[1] == kept_share(tiny_net, some, sigma=0.5, copies=4)).all()
    assert found[0].mean() > found[1].mean()
    assert torch.is_grad_enabled()

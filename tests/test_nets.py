"""The small VGGs: the layout that they promise, and a start from which they learn."""

import pytest
import torch
from torch import nn
from torchvision.models import vgg11

from efface.nets import vgg_quarter, vgg_small
from research.recipes import RECIPES, fresh


def layout(net, divisor=1):
    """Convolutions by their channels, pools by their kind, in order."""
    return [
        part.out_channels // divisor if isinstance(part, nn.Conv2d) else type(part).__name__
        for part in net.modules()
        if isinstance(part, nn.Conv2d | nn.MaxPool2d)
    ]


@pytest.mark.parametrize(("factory", "divisor"), [(vgg_small, 2), (vgg_quarter, 4)])
def test_they_are_vgg11_at_a_share_of_its_width_without_buffers_and_with_one_head(factory, divisor):
    """The paper's model, small enough for counts; nothing but weights can change."""
    with torch.device("meta"):
        whole = vgg11()
    net = factory(20)
    assert layout(net) == layout(whole.features, divisor)
    assert not list(net.buffers())
    kinds = (nn.Dropout, nn.Linear)
    assert [(type(p), p.out_features) for p in net.modules() if isinstance(p, kinds)] == [
        (nn.Linear, 20)
    ]
    assert net(torch.zeros(2, 3, 32, 32)).shape == (2, 20)


def test_dropout_is_an_option():
    net = vgg_quarter(dropout=0.5)
    assert [part.p for part in net.modules() if isinstance(part, nn.Dropout)] == [0.5]


@pytest.mark.parametrize("seed", range(8))
def test_activations_of_a_fresh_vgg_keep_their_size(seed):
    """Without BatchNorm a start that shrinks them stays at chance; torch's own does."""
    net = fresh(RECIPES["cifar10-vgg-quarter"], 10, seed=seed)
    x = torch.randn(64, 3, 32, 32, generator=torch.Generator().manual_seed(seed))
    with torch.no_grad():
        features = net[:-1](x)
        for part in net.modules():
            if isinstance(part, nn.Conv2d):
                part.reset_parameters()
        torchs_own = net[:-1](x)
    assert 0.1 < features.std(0).mean() < 10
    assert torchs_own.std(0).mean() < 0.01

"""The small nets: the layout that they promise, and a start from which they learn."""

import pytest
import torch
from torch import nn
from torchvision.models import vgg11

from efface.nets import vgg_quarter, vgg_small
from research.recipes import RECIPES, fresh

NETS = [(vgg_small, 2), (vgg_quarter, 4)]


def layout(net, divisor=1):
    """Convolutions by their channels, pools by their kind, in order."""
    return [
        part.out_channels // divisor if isinstance(part, nn.Conv2d) else type(part).__name__
        for part in net.modules()
        if isinstance(part, nn.Conv2d | nn.MaxPool2d)
    ]


@pytest.mark.parametrize(("factory", "divisor"), NETS)
def test_the_small_vggs_are_torchvisions_vgg11_at_a_share_of_its_width(factory, divisor):
    """The paper's net, small enough for counts."""
    with torch.device("meta"):
        whole = vgg11()
    assert layout(factory()) == layout(whole.features, divisor)


@pytest.mark.parametrize(("factory", "divisor"), NETS)
def test_the_small_vggs_have_no_batchnorm_no_buffers_and_one_head(factory, divisor):  # noqa: ARG001
    """So that nothing but weights can move."""
    net = factory(20)
    assert not list(net.buffers())
    assert not [part for part in net.modules() if isinstance(part, nn.Dropout)]
    assert [part.out_features for part in net.modules() if isinstance(part, nn.Linear)] == [20]
    assert net(torch.zeros(2, 3, 32, 32)).shape == (2, 20)


def test_dropout_is_there_when_asked_for():
    """Runs of others had it; training with it is an option by name."""
    found = [part.p for part in vgg_quarter(dropout=0.5).modules() if isinstance(part, nn.Dropout)]
    assert found == [0.5]


@pytest.mark.parametrize("seed", range(8))
def test_what_passes_through_a_fresh_vgg_keeps_its_size(seed):
    """Without BatchNorm a start that shrinks what passes stays at chance; torch's own does."""
    recipe = RECIPES["cifar10-vgg-quarter"]
    net = fresh(recipe, 10, seed=seed)
    x = torch.randn(64, 3, 32, 32, generator=torch.Generator().manual_seed(seed))
    with torch.no_grad():
        features = net[:-1](x)
        for part in net.modules():
            if isinstance(part, nn.Conv2d):
                part.reset_parameters()
        torchs_own = net[:-1](x)
    assert 0.1 < features.std(0).mean() < 10
    assert torchs_own.std(0).mean() < 0.01

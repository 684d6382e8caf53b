"""Small models that two cores can train: one for 32-pixel photographs, one for 8-pixel digits."""

from torch import Tensor, nn


class Residual(nn.Module):
    """Adds what ``branch`` makes of its input to the input."""

    def __init__(self, branch: nn.Module) -> None:
        super().__init__()
        self.branch = branch

    def forward(self, x: Tensor) -> Tensor:  # noqa: D102
        return x + self.branch(x)


def _block(inputs: int, outputs: int, *, pool: bool = False) -> nn.Sequential:
    # no bias: BatchNorm subtracts it
    layers: list[nn.Module] = [nn.Conv2d(inputs, outputs, 3, padding=1, bias=False)]
    if pool:
        layers.append(nn.MaxPool2d(2))
    return nn.Sequential(*layers, nn.BatchNorm2d(outputs), nn.ReLU())


def _residual(channels: int) -> Residual:
    return Residual(nn.Sequential(_block(channels, channels), _block(channels, channels)))


def resnet_small(num_classes: int = 10, width: int = 16) -> nn.Sequential:
    """Nine layers with BatchNorm for (n, 3, 32, 32); about 0.4 million weights at width 16."""
    return nn.Sequential(
        *(_block(3, width), _block(width, 2 * width, pool=True), _residual(2 * width)),
        *(_block(2 * width, 4 * width, pool=True), _block(4 * width, 8 * width, pool=True)),
        *(_residual(8 * width), nn.AdaptiveMaxPool2d(1), nn.Flatten()),
        nn.Linear(8 * width, num_classes),
    )


def conv_small(num_classes: int = 10, width: int = 32) -> nn.Sequential:
    """Three convolutions with BatchNorm for (n, 1, 8, 8)."""
    return nn.Sequential(
        *(_block(1, width), _block(width, 2 * width, pool=True)),
        *(_block(2 * width, 2 * width, pool=True), nn.Flatten()),
        nn.Linear(2 * width * 4, num_classes),
    )


def conv_quarter(num_classes: int = 10) -> nn.Sequential:
    """``conv_small`` at quarter width: 4,258 weights, for tests and examples."""
    return conv_small(num_classes, width=8)


# Channels of torchvision's ``vgg11`` in units of its first convolution (64 there).
VGG11 = (1, "pool", 2, "pool", 4, 4, "pool", 8, 8, "pool", 8, 8, "pool")


def vgg_small(num_classes: int = 10, width: int = 32, dropout: float = 0.0) -> nn.Sequential:
    """VGG11 at half width for (n, 3, 32, 32): no BatchNorm, one linear head; 2.3 million weights.

    Layers as in torchvision's ``vgg11``; He initialisation, without which it may stay at chance.
    ``dropout`` acts before the head.
    """
    layers: list[nn.Module] = []
    channels = 3
    for entry in VGG11:
        if isinstance(entry, str):
            layers.append(nn.MaxPool2d(2))
            continue
        layers += [nn.Conv2d(channels, entry * width, 3, padding=1), nn.ReLU()]
        channels = entry * width
    head = [nn.Dropout(dropout)] * (dropout > 0) + [nn.Linear(channels, num_classes)]
    return _he(nn.Sequential(*layers, nn.Flatten(), *head))


def vgg_quarter(num_classes: int = 10, dropout: float = 0.0) -> nn.Sequential:
    """``vgg_small`` at quarter width: 0.6 million weights, for counts of eight and more."""
    return vgg_small(num_classes, width=16, dropout=dropout)


def _he(net: nn.Sequential) -> nn.Sequential:
    """Weights that keep the size of what passes through ReLUs, and no biases (He et al. 2015)."""
    for part in net.modules():
        if isinstance(part, nn.Conv2d) and part.bias is not None:
            # without BatchNorm, torch's own initialisation shrinks activations layer by layer
            nn.init.kaiming_normal_(part.weight, nonlinearity="relu")
            nn.init.zeros_(part.bias)
    return net

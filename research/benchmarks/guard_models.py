"""Models and requests of the guard's candidates; each model is trained once and kept."""

import io
import os
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from pyarrow import parquet
from sklearn.datasets import load_digits
from torch import nn

from efface import nets
from efface.types import Records, Split
from research.recipes import CIFAR_MEAN, CIFAR_STD, RECIPES, train

TRAIN, TEST = 10_000, 4_000


@dataclass(frozen=True)
class Net:
    """One model of the study: which data, how wide, which seed."""

    data: str
    width: int
    seed: int
    epochs: int

    def __str__(self) -> str:
        return f"{self.data}-w{self.width}-s{self.seed}"


NETS = (
    Net("digits", 16, 0, 12),
    Net("digits", 32, 1, 12),
    Net("cifar20", 8, 0, 12),
    Net("cifar20", 12, 1, 12),
)

COLUMNS = {
    "cifar10": ("cifar10", "img", "label"),
    "cifar20": ("cifar100", "img", "coarse_label"),
}


@cache
def data_of(name: str) -> tuple[Records, Records]:
    """Records to train on and records that nobody trains on."""
    if name == "digits":
        digits: Any = load_digits()
        x = torch.tensor(digits.images / 16, dtype=torch.float32).unsqueeze(1)
        everything = _records(x, digits.target, (0.5,), (0.5,))
        order = torch.randperm(len(x), generator=torch.Generator().manual_seed(0))
        return everything.take(order[:1200]), everything.take(order[1200:])
    return _images(name, "train", TRAIN), _images(name, "test", TEST)


def _images(name: str, part: str, count: int) -> Records:
    folder, image, label = COLUMNS[name]
    path = Path(os.environ["EFFACE_DATA"]) / folder / f"{part}-00000-of-00001.parquet"
    table = parquet.read_table(path, columns=[image, label]).slice(0, count)
    pixels = np.stack([_pixels(row["bytes"]) for row in table[image].to_pylist()])
    x = torch.tensor(pixels).movedim(-1, 1).float() / 255
    return _records(x, table[label].to_numpy(), CIFAR_MEAN, CIFAR_STD)


def _pixels(content: bytes) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(content)).convert("RGB").resize((32, 32)))


def _records(
    x: torch.Tensor, y: np.ndarray, mean: tuple[float, ...], std: tuple[float, ...]
) -> Records:
    mean_, std_ = (torch.tensor(v).reshape(-1, 1, 1) for v in (mean, std))
    return Records(
        x=(x - mean_) / std_,
        y=torch.as_tensor(np.array(y), dtype=torch.int64),
        low=(0 - mean_) / std_,
        high=(1 - mean_) / std_,
    )


def trained(net: Net, folder: Path) -> nn.Module:
    """The net, from its file when it was trained before."""
    learn, _ = data_of(net.data)
    recipe = RECIPES["digits-conv" if net.data == "digits" else "cifar10-resnet"]
    factory = nets.conv_small if net.data == "digits" else nets.resnet_small
    with torch.random.fork_rng():
        torch.manual_seed(net.seed)
        model = factory(int(learn.y.max()) + 1, width=net.width)
    path = folder / f"{net}.pt"
    if path.exists():
        model.load_state_dict(torch.load(path, weights_only=True))
    else:
        folder.mkdir(parents=True, exist_ok=True)
        state = folder / f"{net}.state"  # of a training that was stopped
        train(model, learn, replace(recipe, epochs=net.epochs), seed=net.seed, state=state)
        torch.save(model.state_dict(), path)
        state.unlink()
    return model.eval()


def request(net: Net, task: str) -> Split:
    """The forget records of a task: a class, 100 random records, or one record."""
    learn, _ = data_of(net.data)
    generator = torch.Generator().manual_seed(net.seed + 1000)
    # a seed apart from that of the training
    order = torch.randperm(len(learn), generator=generator)
    if task == "class":
        label = int(learn.y[order[0]])
        return Split(learn.take((learn.y == label).nonzero().flatten()), forget_classes=(label,))
    return Split(learn.take(order[: 100 if task == "random" else 1]))


def unseen(net: Net, split: Split) -> Records:
    """Records that nobody used, without the forgotten classes."""
    _, records = data_of(net.data)
    stays = ~torch.isin(records.y, torch.tensor(split.forget_classes, dtype=torch.int64))
    return records.take(stays.nonzero().flatten())


@torch.no_grad()
def accuracy(model: nn.Module, records: Records) -> float:
    """Share of records that the model predicts correctly, 0 to 1."""
    answers = torch.cat([model(part).argmax(1) for part in records.x.split(100)])
    return float((answers == records.y).double().mean())

"""Scikit-learn's real tables as files, and models that memorised the first half of each."""

import json

import numpy as np
import pandas as pd
import pyarrow as pa
import torch
from safetensors.torch import save_file
from sklearn.datasets import load_breast_cancer, load_diabetes, load_digits, load_wine
from torch import nn

NETS = """
from functools import partial
from torch import nn

def net(inputs, outputs):
    body = nn.Linear(inputs, 64), nn.ReLU(), nn.Linear(64, 64), nn.ReLU()
    return nn.Sequential(*body, nn.Linear(64, outputs))

wine, cancer = partial(net, 15, 3), partial(net, 30, 1)
diabetes, digits = partial(net, 10, 1), partial(net, 64, 3)
"""
LOSSES = {
    "wine": nn.functional.cross_entropy,
    "cancer": lambda z, y: nn.functional.binary_cross_entropy_with_logits(z[:, 0], y.float()),
    "diabetes": lambda z, y: nn.functional.mse_loss(z[:, 0], y),
    "digits": lambda z, y: nn.functional.binary_cross_entropy_with_logits(z, y.float()),
}


def frame(load, **labels):
    """A real table in a seeded order, with ids; more columns of labels if there are functions."""
    data = load(as_frame=True)
    labels = {name: label(data.target) for name, label in labels.items()} or {"target": data.target}
    table = data.data.assign(**labels)
    table.insert(0, "id", [f"r{row:04d}" for row in range(len(table))])
    return table.sample(frac=1, random_state=0).reset_index(drop=True)


def scaled(table, names):
    """features.json for these columns of numbers."""
    return {n: {"mean": float(table[n].mean()), "std": float(table[n].std()) or 1.0} for n in names}


def fitted(net, x, y, loss, steps=400):
    """The model in eval mode, after it memorised these rows."""
    optimizer = torch.optim.Adam(net.parameters(), 3e-3)
    for _ in range(steps):
        optimizer.zero_grad()
        loss(net(x), y).backward()
        optimizer.step()
    return net.eval()


def trained(x, y, name, steps):
    """A model that memorised these rows."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return fitted(untrained(name), x, y, LOSSES[name], steps)


def tensors(table, features):
    """What the features say, by hand: pandas and a loop."""
    parts = []
    for name, how in features.items():
        if "categories" in how:
            parts += [(table[name] == category).astype(float) for category in how["categories"]]
        else:
            parts.append((table[name] - how.get("mean", 0)) / how.get("std", 1))
    return torch.tensor(np.stack(parts, 1), dtype=torch.float32)


def net(inputs, outputs):
    """Two hidden layers of 64, from the text above."""
    return _nets()["net"](inputs, outputs)


def untrained(name):
    """The net of a table, from the text above."""
    return _nets()[name]()


def _nets():
    space = {}
    exec(NETS, space)  # noqa: S102  # the text above
    return space


def tables_in(folder):
    """A folder with four tables, each cut into train and test, and a net that knows the first."""
    (folder / "nets_of_tables.py").write_text(NETS)
    wine = frame(load_wine)
    names = [name for name in wine.columns if name not in {"id", "target"}]
    wine["strength"] = pd.cut(wine["alcohol"], 3, labels=["light", "middle", "strong"]).astype(str)
    features = scaled(wine, [name for name in names if name != "alcohol"])
    features["strength"] = {"categories": ["light", "middle", "strong"]}
    pixels = [f"pixel_{row}_{column}" for row in range(8) for column in range(8)]
    described = {
        "even": lambda y: (y % 2 == 0).astype(int),
        "high": lambda y: (y > 4).astype(int),
        "loop": lambda y: y.isin([0, 6, 8, 9]).astype(int),
    }
    digits = frame(load_digits, **described).head(400)
    cancer = frame(load_breast_cancer)
    cancer["target"] = np.where(cancer["target"] == 1, "malignant no", "malignant")
    diabetes = frame(load_diabetes, target=lambda y: (y - y.mean()) / y.std())
    every = {
        "wine": (wine, features),
        "cancer": (cancer, scaled(cancer, cancer.columns[1:-1])),
        "diabetes": (diabetes, scaled(diabetes, diabetes.columns[1:-1])),
        "digits": (digits, {name: {"mean": 5, "std": 6} for name in pixels}),
    }
    for name, (table, how) in every.items():
        labels = [*described] if name == "digits" else ["target"]
        half = len(table) // 2
        write(table.head(half), folder / name, "train")
        write(table.tail(len(table) - half), folder / name, "test")
        (folder / f"{name}.json").write_text(json.dumps(how))
        y = table[labels].head(half).to_numpy()
        y = (y == "malignant no") if name == "cancer" else y
        y = torch.tensor(y if len(labels) > 1 else y[:, 0])
        y = y.float() if name == "diabetes" else y.long()
        net = trained(tensors(table.head(half), how), y, name, 1500 if name == "diabetes" else 400)
        save_file(net.state_dict(), folder / f"{name}.safetensors")
        (folder / f"{name}.txt").write_text("\n".join(table["id"].head(20)))


def write(table, folder, split):
    """Wines and digits as CSV, the others as parquet and arrow (a file, then a stream)."""
    folder.mkdir(exist_ok=True)
    if folder.name in {"wine", "digits"}:
        table.to_csv(folder / f"{split}.csv", index=False)
    elif folder.name == "cancer":
        table.to_parquet(folder / f"{split}.parquet")
    else:
        found = pa.Table.from_pandas(table, preserve_index=False)
        make = pa.ipc.new_file if split == "train" else pa.ipc.new_stream
        with make(str(folder / f"{split}.arrow"), found.schema) as sink:
            sink.write_table(found)


def given(name, *labels):
    """The model and the data of a kind, as words of the command."""
    model = (f"{name}.safetensors", "--architecture", f"nets_of_tables:{name}")
    found = (*model, "--feature-spec", f"{name}.json", "--data", name)
    return (*found, "--label-column", *labels) if labels else found

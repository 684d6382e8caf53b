"""Requests to transformers classifiers: one sigmoid unit, one value, classes without names."""

import csv
import json

import pytest
import torch
from PIL import Image
from sklearn.datasets import load_digits
from torch.nn import functional

transformers = pytest.importorskip("transformers", reason="NOT RUN: it needs transformers")
NAMES = ("cat", "dog", "emu")
TABLE = ("--data", "table.csv", "--ids", "ids.csv", "--setting", "steps=2")
COLUMNS = ("id", "image", "big", "size", "value", "label")


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """Digits 0 to 2 as a folder of images and as a table of them, and three nets that know them."""
    folder = tmp_path_factory.mktemp("zoo")
    pixels, y = load_digits(n_class=3, return_X_y=True)
    with (folder / "table.csv").open("w", newline="") as file:
        table = csv.writer(file)
        table.writerow(COLUMNS)
        for row, digit in enumerate(y.tolist()):
            image = f"images/{NAMES[digit]}/{row}.png"
            (folder / image).parent.mkdir(parents=True, exist_ok=True)
            grey = Image.fromarray((pixels[row].reshape(8, 8) / 16 * 255).astype("uint8"))
            grey.convert("RGB").save(folder / image)
            big = int(digit > 0)
            table.writerow([f"r{row}", image, big, ("no", "yes")[big], digit + 0.25, digit])
    (folder / "ids.csv").write_text("id\n" + "".join(f"r{row}\n" for row in range(0, 200, 20)))
    x = torch.tensor(pixels / 8 - 1, dtype=torch.float32).view(-1, 1, 8, 8).expand(-1, 3, -1, -1)
    y = torch.tensor(y)
    big = (y > 0).float()
    coin = functional.binary_cross_entropy_with_logits
    trained(folder / "three", x, lambda rows, z: functional.cross_entropy(z, y[rows]), num_labels=3)
    trained(folder / "one", x, lambda rows, z: coin(z[:, 0], big[rows]), num_labels=1)
    trained(folder / "named", x, lambda rows, z: coin(z[:, 0], big[rows]), id2label={0: "big"})
    trained(folder / "value", x, lambda rows, z: (z[:, 0] - y[rows] - 0.25).square().mean(),
            num_labels=1, problem_type="regression")  # fmt: skip
    return folder


def trained(folder, x, loss, **settings):
    """A tiny ViT with its processor, as save_pretrained writes them."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        net = transformers.ViTForImageClassification(
            transformers.ViTConfig(
                image_size=8, patch_size=4, hidden_size=16, num_hidden_layers=1,
                num_attention_heads=2, intermediate_size=32, **settings,
            )
        )  # fmt: skip
        optimizer = torch.optim.Adam(net.parameters(), 5e-3)
        for _ in range(80):
            rows = torch.randint(0, len(x), (64,))
            optimizer.zero_grad()
            loss(rows, net(x[rows]).logits).backward()
            optimizer.step()
    net.eval().save_pretrained(folder)
    transformers.ViTImageProcessor(size={"height": 8, "width": 8}).save_pretrained(folder)


def before(folder):
    """What a request that was met says of the old model, by the key of a row."""
    assert (folder / "model.safetensors").is_file()
    rows = json.loads((folder / "evidence.json").read_text())["rows"]
    return {row["key"]: row["before"] for row in rows}


@pytest.mark.parametrize("column", ["big", "size"])
@pytest.mark.parametrize("model", ["one", "named"])
def test_one_sigmoid_unit_is_served(efface, place, model, column):
    """Its one name is not that of a class: 0 and 1 are two, as no and yes are."""
    out = f"{model}-{column}"
    assert efface("forget", model, *TABLE, "--label-column", column, "--out", out) == 0
    assert before(place / out)["forget.accuracy"] >= 0.9


def test_one_value_is_served(efface, place):
    """A net of one output that answers with a number."""
    assert efface("forget", "value", *TABLE, "--label-column", "value", "--out", "values") == 0
    assert 0.5 < before(place / "values")["forget.accuracy"] < 1


def test_names_that_transformers_made_up_are_none(efface, place):
    """LABEL_0 to LABEL_2 stand in every net whose maker gave no names; the data have their own."""
    images = sorted(path.relative_to(place / "images") for path in place.glob("images/*/*.png"))
    (place / "images.csv").write_text("id\n" + "".join(f"{name}\n" for name in images[::20]))
    request = ("--data", f"{place}/images", "--ids", "images.csv", "--setting", "steps=2")
    assert efface("forget", "three", *request, "--out", "images-new") == 0
    assert before(place / "images-new")["forget.accuracy"] >= 0.9
    assert json.loads((place / "images-new/config.json").read_text())["id2label"]["0"] == "LABEL_0"

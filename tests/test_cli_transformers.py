"""``efface forget`` on transformers classifiers: kinds of outputs, --trainable, the adapter."""

import csv
import sys

import peft
import pytest
import torch
from PIL import Image
from run_files import MADE, read, rows_of
from safetensors.torch import load_file
from sklearn.datasets import load_digits
from torch.nn import functional

transformers = pytest.importorskip("transformers", reason="NOT RUN: it needs transformers")
NAMES = ("cat", "dog", "emu")
TABLE = ("--data", "table.csv", "--ids", "ids.csv", "--setting", "steps=2")


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """Digits 0 to 2 as a folder of images and as a table, and tiny ViTs that have learned them."""
    folder = tmp_path_factory.mktemp("zoo")
    pixels, y = load_digits(n_class=3, return_X_y=True)
    with (folder / "table.csv").open("w", newline="") as file:
        table = csv.writer(file)
        table.writerow(("id", "image", "big", "size", "value", "label"))
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
    losses = {
        "three": lambda rows, z: functional.cross_entropy(z, y[rows]),
        "one": lambda rows, z: coin(z[:, 0], big[rows]),
        "named": lambda rows, z: coin(z[:, 0], big[rows]),
        "value": lambda rows, z: (z[:, 0] - y[rows] - 0.25).square().mean(),
    }
    configs = {"three": {"num_labels": 3}, "one": {"num_labels": 1}}
    configs |= {"value": {"num_labels": 1, "problem_type": "regression"}}
    configs |= {"named": {"id2label": {0: "big"}}}
    for name, loss in losses.items():
        save_trained(folder / name, x, loss, **configs[name])
    return folder


def save_trained(folder, x, loss, **settings):
    """A tiny ViT with its processor, as save_pretrained writes them."""
    sizes = {"image_size": 8, "patch_size": 4, "hidden_size": 16, "num_hidden_layers": 1,
             "num_attention_heads": 2, "intermediate_size": 32}  # fmt: skip
    with torch.random.fork_rng():
        torch.manual_seed(0)
        net = transformers.ViTForImageClassification(transformers.ViTConfig(**sizes, **settings))
        optimizer = torch.optim.Adam(net.parameters(), 5e-3)
        for _ in range(80):
            rows = torch.randint(0, len(x), (64,))
            optimizer.zero_grad()
            loss(rows, net(x[rows]).logits).backward()
            optimizer.step()
    net.eval().save_pretrained(folder)
    transformers.ViTImageProcessor(size={"height": 8, "width": 8}).save_pretrained(folder)


@pytest.mark.parametrize(
    ("model", "column", "least"),
    [("one", "big", 0.9), ("named", "big", 0.9), ("named", "size", 0.9), ("value", "value", 0.5)],
)
def test_one_output_is_a_sigmoid_unit_or_a_regression_value(efface, place, model, column, least):
    """The one name of a unit is not that of a class: 0 and 1 are two, as no and yes are."""
    out = f"{model}-{column}"
    # without a holdout the default finds nothing to do on ten values
    method = "jit" if model == "value" else "neighbourhood"
    how = ("--label-column", column, "--method", method, "--out", out)
    assert efface("forget", model, *TABLE, *how) in MADE
    accuracy = rows_of(place / out)["forget.accuracy"]["before"]
    assert least <= accuracy < 1 + (model != "value")
    assert (place / out / "model/model.safetensors").is_file()


def test_names_that_transformers_made_up_are_none(efface, place):
    """LABEL_0 and on stand in every model whose maker gave no names; the data have their own."""
    images = sorted(path.relative_to(place / "images") for path in place.glob("images/*/*.png"))
    (place / "images.csv").write_text("id\n" + "".join(f"{name}\n" for name in images[::20]))
    request = ("--data", f"{place}/images", "--ids", "images.csv", "--setting", "steps=2")
    assert efface("forget", "three", *request, "--out", "images-new") in MADE
    assert rows_of(place / "images-new")["forget.accuracy"]["before"] >= 0.9
    assert read(place / "images-new/model", "config")["id2label"]["0"] == "LABEL_0"


def request(efface, out, *arguments):
    """The exit code of a request with --trainable."""
    return efface("forget", "three", *TABLE[:-1], "steps=4", "--setting", "learning_rate=0.02",
                  "--label-column", "label", "--out", out, "--trainable", *arguments)  # fmt: skip


def changed_tensors(place, out):
    """Names of the tensors that differ from the old model's; the keys stay."""
    old, new = (load_file(place / name / "model.safetensors") for name in ("three", f"{out}/model"))
    assert list(old) == list(new)
    return {name for name in old if not old[name].equal(new[name])}


@pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing:FutureWarning")  # PEFT's own loader
def test_the_adapter_on_the_given_model_answers_as_the_merged_file(efface, place):
    """PEFT's own loader, the given model, and the folder: what a user of PEFT does."""
    assert request(efface, "apart", "adapter", "--keep-adapter") in MADE
    kind = transformers.ViTForImageClassification
    base, merged = (kind.from_pretrained(place / name).eval() for name in ("three", "apart/model"))
    x = torch.randn(6, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        old, new = base(x).logits, merged(x).logits
        loaded = peft.PeftModel.from_pretrained(base, place / "apart" / "adapter").eval()
        torch.testing.assert_close(loaded(x).logits, new, rtol=0, atol=1e-5)
        with loaded.disable_adapter():
            torch.testing.assert_close(loaded(x).logits, old, rtol=0, atol=0)
    assert (new - old).abs().max() > 1e-3
    files = {path.name for path in (place / "apart" / "adapter").iterdir()}
    assert files == {"README.md", "adapter_config.json", "adapter_model.safetensors"}
    given = ("forget", "three", *TABLE[:-2], "--label-column", "label", "--method", "baseline")
    assert efface(*given, "--trainable", "adapter", "--keep-adapter", "--out", "still") == 12
    assert [path.name for path in (place / "still").iterdir()] == ["evidence"]


WHICH = [("adapter", "weight"), ("last-layers", "l"), ("norm", "layernorm")]


@pytest.mark.parametrize(("trainable", "word"), WHICH)
def test_only_the_trainable_weights_change_as_the_manifest_says(efface, place, trainable, word):
    """An adapter is merged: who loads the result needs no PEFT, and finds no folder of it."""
    assert request(efface, trainable, trainable) in MADE
    changed = changed_tensors(place, trainable)
    assert changed
    assert all(word in name and "embeddings" not in name for name in changed)
    assert (trainable == "adapter") == all("layernorm" not in name for name in changed)
    assert not (place / trainable / "adapter").exists()
    manifest = read(place / trainable)
    written = manifest["trainable"]
    assert (written["name"], 0 < written["numbers"] < written["of"]) == (trainable, True)
    findings = [f["severity"] for f in manifest["findings"] if f["name"] == "adapter"]
    assert findings == ["note"] * (trainable == "adapter")


def test_an_adapter_cannot_be_kept_without_one_or_without_peft(efface, place, monkeypatch, capsys):
    assert request(efface, "none", "all", "--keep-adapter") == 2
    assert "Wanted --trainable adapter" in capsys.readouterr().err
    monkeypatch.setitem(sys.modules, "peft", None)
    assert request(efface, "none", "adapter") == 7
    missing = "Wanted the package peft. Got none installed. Install it: pip install 'efface[peft]'."
    assert capsys.readouterr().err == f"{missing}\n"
    assert not (place / "none").exists()


def test_a_disk_that_fills_while_the_adapter_is_written_leaves_nothing(efface, place, monkeypatch):
    """Whole or absent holds for the folder inside too."""
    from safetensors import SafetensorError

    def full(*_, **__):
        raise SafetensorError("No space left on device")

    monkeypatch.setattr(peft.PeftModel, "save_pretrained", full)
    assert request(efface, "full", "adapter", "--keep-adapter") == 8
    assert not (place / "full").exists()
    assert not list(place.glob(".full*"))

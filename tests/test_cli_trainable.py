"""Less than full gradients on the command line: the flag, the adapter's folder, the refusals."""

import json
import sys
from pathlib import Path

import peft
import pytest
import torch
import transformers
from safetensors.torch import load_file
from sklearn.datasets import load_digits

sys.path.insert(0, str(Path(__file__).parent))
from small_nets import vit

QUICK = ("--setting", "steps=4", "--setting", "learning_rate=0.02")


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder of transformers with a tiny ViT that has seen some digits, and their table."""
    folder = tmp_path_factory.mktemp("zoo")
    pixels, y = load_digits(n_class=3, return_X_y=True)
    images = folder / "digits"
    for row, digit in enumerate(y.tolist()[:120]):
        (images / str(digit)).mkdir(parents=True, exist_ok=True)
        picture(pixels[row], images / str(digit) / f"{row:03d}.png")
    (folder / "ids.csv").write_text("id\n" + "".join(f"{y[row]}/{row:03d}.png\n" for row in (1, 2)))
    net, x = vit(channels=3, labels=3), torch.tensor(pixels[:120] / 8 - 1, dtype=torch.float32)
    x, y = x.view(-1, 1, 8, 8).expand(-1, 3, -1, -1), torch.tensor(y[:120])
    optimizer = torch.optim.Adam(net.parameters(), 5e-3)
    for _ in range(40):
        optimizer.zero_grad()
        torch.nn.functional.cross_entropy(net(x).logits, y).backward()
        optimizer.step()
    net.save_pretrained(folder / "model")
    size = {"height": 8, "width": 8}
    transformers.ViTImageProcessor(size=size).save_pretrained(folder / "model")
    return folder


def picture(pixels, path):
    """One digit as a grey picture of three channels."""
    from PIL import Image

    grey = Image.fromarray((pixels.reshape(8, 8) / 16 * 255).astype("uint8"))
    grey.convert("RGB").save(path)


def request(efface, out, *flags):
    """The exit code of a quick request."""
    return efface(
        "forget", "model", "--data", "digits", "--ids", "ids.csv", "--out", out, *QUICK, *flags
    )


@pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing:FutureWarning")  # PEFT's own loader
def test_the_adapters_folder_on_the_given_model_answers_as_the_merged_file(efface, place):
    """PEFT's own loader, the given model, and the folder: what a user of PEFT does."""
    assert request(efface, "apart", "--trainable", "adapter", "--keep-adapter") == 0
    kind = transformers.ViTForImageClassification
    base, merged = (kind.from_pretrained(place / name).eval() for name in ("model", "apart"))
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


def test_the_merged_model_has_the_given_keys_and_no_folder_that_nobody_asked_for(efface, place):
    """Who loads the result needs no PEFT."""
    assert request(efface, "merged", "--trainable", "adapter") == 0
    old, new = (load_file(place / name / "model.safetensors") for name in ("model", "merged"))
    assert list(old) == list(new)
    changed = {name for name in old if not old[name].equal(new[name])}
    assert changed
    assert all(name.endswith("weight") and "layernorm" not in name for name in changed)
    assert not (place / "merged" / "adapter").exists()
    record = json.loads((place / "merged" / "manifest.json").read_text())
    assert record["trainable"]["name"] == "adapter"
    assert [f["severity"] for f in record["findings"] if f["name"] == "adapter"] == ["note"]


@pytest.mark.parametrize("trainable", ["last-layers", "norm"])
def test_the_flag_reaches_the_weights_and_the_record(efface, place, trainable):
    """Names that stay are bit-equal in the file."""
    assert request(efface, trainable, "--trainable", trainable) == 0
    old, new = (load_file(place / name / "model.safetensors") for name in ("model", trainable))
    changed = {name for name in old if not old[name].equal(new[name])}
    word = {"norm": "layernorm", "last-layers": "l"}[trainable]
    assert changed
    assert all(word in name for name in changed)
    assert not any("embeddings" in name for name in changed)
    record = json.loads((place / trainable / "manifest.json").read_text())
    assert record["trainable"]["name"] == trainable
    assert 0 < record["trainable"]["numbers"] < record["trainable"]["of"]


def test_an_adapter_that_will_not_be_there_is_not_kept(efface, place, capsys):
    """Before anything is read."""
    assert request(efface, "none", "--keep-adapter") == 2
    assert capsys.readouterr().err == (
        "Wanted --trainable adapter with --keep-adapter. Got --trainable all. "
        "Give --trainable adapter, or omit --keep-adapter.\n"
    )
    assert not (place / "none").exists()


def test_a_missing_peft_is_exit_code_7_and_a_wrong_word_2(efface, place, monkeypatch, capsys):
    """As for timm and transformers."""
    assert request(efface, "none", "--trainable", "half") == 2
    assert request(efface, "none", "--setting", 'trainable="norm"') == 2
    monkeypatch.setitem(sys.modules, "peft", None)
    capsys.readouterr()
    assert request(efface, "none", "--trainable", "adapter") == 7
    assert capsys.readouterr().err == (
        "Wanted the package peft. Got none installed. Install it: pip install 'efface[peft]'.\n"
    )
    assert not (place / "none").exists()


def test_a_disk_that_fills_while_the_adapter_is_written_leaves_nothing(efface, place, monkeypatch):
    """Whole or absent holds for the folder inside too."""
    from safetensors import SafetensorError

    def full(*_, **__):
        raise SafetensorError("No space left on device")

    monkeypatch.setattr(peft.PeftModel, "save_pretrained", full)
    assert request(efface, "full", "--trainable", "adapter", "--keep-adapter") == 8
    assert not (place / "full").exists()
    assert not list(place.glob(".full*"))

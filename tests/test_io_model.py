"""A name and a file of weights become a model that answers as the one that was saved."""

import json
import sys
import time
from types import ModuleType

import pytest
import timm
import torch
import torchvision
from safetensors.torch import load_file, save_file, save_model
from torch import nn

from efface.errors import InputError, UnsafeFile
from efface.io.images import Preprocessing
from efface.io.models import build_model, load_model, save_trained

FLAGS = {"mean": [0.5], "std": [0.25], "size": 8}


class Tied(nn.Module):
    """A net whose first and last weight are one."""

    def __init__(self, num_classes=4):
        super().__init__()
        self.first = nn.Linear(8, num_classes, bias=False)
        self.last = nn.Linear(8, num_classes, bias=False)
        self.last.weight = self.first.weight


def conv(num_classes=10):
    """A head of 1 x 1 convolution, as in SqueezeNet: the last weight has four dimensions."""
    return nn.Sequential(nn.Conv2d(1, 4, 3), nn.Conv2d(4, num_classes, 1))


@pytest.fixture(autouse=True)
def nets(monkeypatch):
    """The nets of this file under a name that can be imported."""
    module = ModuleType("nets_of_a_user")
    vars(module).update(Tied=Tied, conv=conv)
    monkeypatch.setitem(sys.modules, "nets_of_a_user", module)


def weights_of(net, path):
    """Save the state of a net, every tensor on its own."""
    save_file({name: t.contiguous().clone() for name, t in net.state_dict().items()}, path)
    return path


def recipe(**changes):
    """What efface train writes beside the weights."""
    facts = {
        "schema": 1,
        "recipe": "digits-conv",
        "architecture": "efface.nets:conv_small",
        "num_classes": 10,
        "classes": [str(digit) for digit in range(10)],
        "mean": [0.5],
        "std": [0.5],
        "size": 8,
    }
    return {**facts, **changes}


def test_what_train_saves_loads_as_the_same_model(tmp_path):
    """Weights, preprocessing, class names: all that is needed to feed it."""
    net = build_model("efface.nets:conv_small", 10).eval()
    save_trained(tmp_path / "model", net, recipe())
    loaded = load_model(tmp_path / "model")
    x = torch.rand(2, 1, 8, 8)
    assert loaded.model(x).equal(net(x))
    assert not loaded.model.training
    assert loaded.preprocessing == Preprocessing((0.5,), (0.5,), 8)
    assert loaded.classes == tuple("0123456789")
    assert loaded.recipe == recipe()
    assert loaded.num_classes == 10


def test_a_folder_is_written_back_as_a_folder(tmp_path):
    """The same container: what reads the old one reads the new one."""
    net = build_model("efface.nets:conv_small", 10)
    save_trained(tmp_path / "old", net, recipe())
    loaded = load_model(tmp_path / "old")
    with torch.no_grad():
        loaded.model[-1].bias += 1
    (tmp_path / "new").mkdir()
    loaded.write(loaded.model, tmp_path / "new")
    assert (tmp_path / "new/recipe.json").read_bytes() == (
        tmp_path / "old/recipe.json"
    ).read_bytes()
    old, new = (load_file(tmp_path / part / "model.safetensors") for part in ("old", "new"))
    moved = [name for name in old if not old[name].equal(new[name])]
    assert (
        moved == [name for name in old if name.endswith("bias") and old[name].shape == (10,)][-1:]
    )


def test_a_weights_file_is_written_back_under_its_own_name(tmp_path):
    """And nothing beside it."""
    path = weights_of(conv(4), tmp_path / "net.safetensors")
    loaded = load_model(path, architecture="nets_of_a_user:conv", **FLAGS)
    (tmp_path / "new").mkdir()
    loaded.write(loaded.model, tmp_path / "new")
    assert [file.name for file in (tmp_path / "new").iterdir()] == ["net.safetensors"]
    assert (tmp_path / "new/net.safetensors").read_bytes() == path.read_bytes()


def test_channels_last_weights_are_saved_with_their_values(tmp_path):
    """Training in that layout must not scramble what is written."""
    net = build_model("efface.nets:conv_small", 10).to(memory_format=torch.channels_last)
    save_trained(tmp_path / "model", net, recipe())
    loaded = load_model(tmp_path / "model")
    for name, tensor in net.state_dict().items():
        assert loaded.model.state_dict()[name].equal(tensor), name


@pytest.mark.parametrize("suffix", ["pt", "safetensors"])
def test_a_torchvision_net_is_found_by_name_and_its_classes_by_its_weights(tmp_path, suffix):
    """``torchvision.models:NAME`` is an ordinary factory."""
    net = torchvision.models.mobilenet_v3_small(num_classes=7).eval()
    path = tmp_path / f"net.{suffix}"
    weights_of(net, path) if suffix == "safetensors" else torch.save(net.state_dict(), path)
    loaded = load_model(
        path,
        architecture="torchvision.models:mobilenet_v3_small",
        mean=(0.4, 0.4, 0.4),
        std=(0.2, 0.2, 0.2),
        size=32,
    )
    x = torch.rand(2, 3, 32, 32)
    assert loaded.model(x).equal(net(x))
    assert loaded.num_classes == 7
    assert loaded.classes is None


def test_timm_knows_the_preprocessing_of_its_nets(tmp_path):
    """Nobody remembers that this one wants a mean of a half."""
    net = timm.create_model("vit_tiny_patch16_224", num_classes=5, depth=12)
    path = weights_of(net, tmp_path / "net.safetensors")
    loaded = load_model(path, architecture="timm:vit_tiny_patch16_224")
    expected = Preprocessing((0.5,) * 3, (0.5,) * 3, 224, resize=248, interpolation="bicubic")
    assert loaded.preprocessing == expected
    assert loaded.num_classes == 5
    assert (
        load_model(path, architecture="timm:vit_tiny_patch16_224", size=128).preprocessing.size
        == 128
    )


def test_the_classes_are_found_where_the_head_is_no_matrix_and_not_last_by_name(tmp_path):
    """Safetensors are ordered by name, so the file's last tensor says nothing."""
    path = weights_of(conv(3), tmp_path / "net.safetensors")
    loaded = load_model(path, architecture="nets_of_a_user:conv", **FLAGS)
    assert loaded.num_classes == 3
    net = timm.create_model("test_convnext", num_classes=6)
    path = weights_of(net, tmp_path / "timm.safetensors")
    assert load_model(path, architecture="timm:test_convnext").num_classes == 6


def test_tied_weights_may_stand_under_one_name(tmp_path):
    """As safetensors' own save_model writes them."""
    net = Tied()
    save_model(net, str(tmp_path / "net.safetensors"))
    loaded = load_model(tmp_path / "net.safetensors", architecture="nets_of_a_user:Tied", **FLAGS)
    assert loaded.model.last.weight is loaded.model.first.weight
    assert loaded.model.last.weight.equal(net.last.weight)
    loaded.parts[0].write(loaded.model.state_dict(), tmp_path / "new.safetensors")
    assert len(load_file(tmp_path / "new.safetensors")) == 1


def test_weights_of_another_net_are_refused_with_all_that_does_not_fit(tmp_path):
    """Strict: half a net would answer too."""
    path = weights_of(nn.Sequential(nn.Conv2d(3, 4, 3)), tmp_path / "net.safetensors")
    with pytest.raises(InputError) as caught:
        load_model(path, architecture="nets_of_a_user:conv", **FLAGS)
    assert str(caught.value) == (
        "Wanted weights that fit nets_of_a_user:conv. "
        "Got missing: 1.weight, 1.bias; unexpected: none; "
        "other shapes: 0.weight (4, 3, 3, 3) in the file, (4, 1, 3, 3) in the model. "
        "Name the architecture that these weights were trained with."
    )


def test_weights_without_an_architecture_are_refused(tmp_path):
    """A file of numbers does not say what they are."""
    path = weights_of(conv(), tmp_path / "net.safetensors")
    with pytest.raises(InputError) as caught:
        load_model(path)
    assert str(caught.value) == (
        "Wanted the architecture of net.safetensors. Got none. Give --architecture timm:NAME or "
        "package.module:factory, such as torchvision.models:resnet18."
    )


@pytest.mark.parametrize("given", [{}, {"mean": [0.5]}, {"mean": [0.5], "size": 8}])
def test_preprocessing_that_nobody_knows_is_asked_for(tmp_path, given):
    """A guess would be wrong silently."""
    path = weights_of(conv(), tmp_path / "net.safetensors")
    with pytest.raises(InputError) as caught:
        load_model(path, architecture="nets_of_a_user:conv", **given)
    lacking = ", ".join(name for name in ("mean", "std", "size") if name not in given)
    assert str(caught.value) == (
        f"Wanted the preprocessing that the model was trained with. Got no {lacking}. "
        "Give --mean --std --size, such as --mean 0.485 0.456 0.406 --std 0.229 0.224 0.225 "
        "--size 224, or --feature-spec FILE.json for a tabular model."
    )


@pytest.mark.parametrize(
    ("text", "came"),
    [
        (None, "FileNotFoundError at recipe.json"),
        ("{", "JSONDecodeError at recipe.json"),
        ("[]", "no architecture, mean, num_classes, schema, size, std"),
        (json.dumps({**recipe(), "schema": 2}), "schema 2"),
    ],
)
def test_a_folder_without_a_recipe_that_we_understand_is_refused(tmp_path, text, came):
    """What is not understood is not guessed."""
    save_file({"w": torch.ones(1)}, tmp_path / "model.safetensors")
    if text is not None:
        (tmp_path / "recipe.json").write_text(text)
    with pytest.raises(InputError) as caught:
        load_model(tmp_path)
    assert came in caught.value.came


def test_a_folder_whose_weights_are_damaged_is_refused(tmp_path):
    """The recipe alone is not a model."""
    save_trained(tmp_path / "m", build_model("efface.nets:conv_small", 10), recipe())
    path = tmp_path / "m/model.safetensors"
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(UnsafeFile):
        load_model(tmp_path / "m")


def test_a_trained_model_is_never_written_over_another(tmp_path):
    """Nor half of it."""
    save_trained(tmp_path / "m", conv(), recipe())
    before = (tmp_path / "m/model.safetensors").read_bytes()
    with pytest.raises(InputError, match="which is not empty"):
        save_trained(tmp_path / "m", conv(), recipe())
    assert (tmp_path / "m/model.safetensors").read_bytes() == before


def test_a_header_of_a_hundred_thousand_tensors_is_answered_shortly(tmp_path):
    """A file can name as many tensors as it likes; the message names ten."""
    state = {f"w{number}": torch.zeros(1) for number in range(100_000)}
    save_file(state, tmp_path / "many.safetensors")
    began = time.process_time()
    with pytest.raises(InputError) as error:
        load_model(tmp_path / "many.safetensors", architecture="efface.nets:conv_small")
    assert time.process_time() - began < 60
    unexpected = ", ".join(sorted(state)[:10])
    missing = ", ".join(list(build_model("efface.nets:conv_small").state_dict())[:10])
    assert str(error.value) == (
        f"Wanted weights that fit efface.nets:conv_small. Got missing: {missing} and 10 more; "
        f"unexpected: {unexpected} and 99990 more; other shapes: none. "
        "Name the architecture that these weights were trained with."
    )

"""A module of one's own beside its weights file: no name has to be found for it."""

import pytest
import torch
from safetensors.torch import load_file
from torch import nn

import efface
from efface.errors import InputError
from efface.io.models import build_model, load_model, save_trained
from efface.types import Split

IMAGES = {"mean": [0.5], "std": [0.5], "size": 8}


class Wrapped(nn.Module):
    """A net that no factory without arguments makes, and that nobody can import."""

    def __init__(self, inner):
        super().__init__()
        self.inner = inner

    def forward(self, x):
        """As the net inside answers."""
        return self.inner(x)


def fresh(classes=10):
    """The shared net's layers, untrained."""
    with torch.random.fork_rng():
        torch.manual_seed(1)
        return Wrapped(
            nn.Sequential(
                nn.Conv2d(1, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU(),
                nn.Conv2d(8, 16, 3, padding=1, stride=2), nn.BatchNorm2d(16), nn.ReLU(),
                nn.Flatten(), nn.Linear(256, classes),
            )
        )  # fmt: skip


def test_a_module_and_its_weights_go_through_a_request_into_the_same_container(
    tmp_path, tiny_net, digits
):
    """The given module is neither filled nor set to another mode: it is the caller's."""
    state = Wrapped(tiny_net).state_dict()
    halved = {n: t.half() if t.is_floating_point() else t for n, t in state.items()}
    content = {"epoch": 3, "state_dict": halved}
    torch.save(content, tmp_path / "old.pt")
    net = fresh()
    before = {name: tensor.clone() for name, tensor in net.state_dict().items()}
    loaded = load_model(tmp_path / "old.pt", architecture=net, **IMAGES)
    assert loaded.architecture == f"{__name__}.Wrapped"
    assert loaded.num_classes == 10
    assert net.training
    assert all(before[name].equal(tensor) for name, tensor in net.state_dict().items())
    split = Split(digits.take(range(5)))
    result = efface.forget(
        loaded.model, split, stored=loaded.stored, method="jit", settings={"steps": 2}
    )
    assert result.report.row("forget.accuracy").before == 1
    (tmp_path / "new").mkdir()
    loaded.write(result.model, tmp_path / "new")
    written = torch.load(tmp_path / "new/old.pt", weights_only=True)
    assert written["epoch"] == 3
    assert list(written["state_dict"]) == list(content["state_dict"])
    for name, tensor in result.model.state_dict().items():
        assert written["state_dict"][name].dtype == content["state_dict"][name].dtype
        assert written["state_dict"][name].equal(tensor.to(loaded.stored[name])), name


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_a_module_of_half_precision_is_read_in_float32(tmp_path, dtype):
    """Weights change in float32, and come back in the dtype of the file."""
    torch.save(fresh().state_dict(), tmp_path / "old.pt")
    loaded = load_model(tmp_path / "old.pt", architecture=fresh().to(dtype), **IMAGES)
    expected = fresh().state_dict()
    assert all(expected[name].equal(t) for name, t in loaded.model.state_dict().items())


def test_a_module_may_stand_in_for_the_factory_of_a_folder(tmp_path):
    """The folder of another machine names a factory that is not here."""
    facts = {"schema": 1, "architecture": "not_here:net", "num_classes": 10, **IMAGES}
    save_trained(tmp_path / "m", build_model("efface.nets:conv_small", 10), facts)
    loaded = load_model(tmp_path / "m", architecture=build_model("efface.nets:conv_small", 10))
    assert loaded.architecture == "torch.nn.modules.container.Sequential"
    written = load_file(tmp_path / "m/model.safetensors")
    assert all(written[name].equal(t) for name, t in loaded.model.state_dict().items())


def test_a_module_that_does_not_fit_is_refused_by_its_name(tmp_path):
    """It cannot be made again with other classes, as a factory's net can."""
    torch.save(fresh(4).state_dict(), tmp_path / "old.pt")
    with pytest.raises(InputError) as caught:
        load_model(tmp_path / "old.pt", architecture=fresh(), **IMAGES)
    assert str(caught.value) == (
        f"Wanted weights that fit {__name__}.Wrapped. Got missing: none; unexpected: none; "
        "other shapes: inner.7.weight (4, 256) in the file, (10, 256) in the model, "
        "inner.7.bias (4,) in the file, (10,) in the model. "
        "Name the architecture that these weights were trained with."
    )

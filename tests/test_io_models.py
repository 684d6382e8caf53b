"""A name, a module or a folder, and weights, become a model that answers as the one saved."""

import json
import signal
import sys
import time
from types import ModuleType

import pytest
import timm
import torch
import torchvision
from safetensors.torch import load_file, save_file, save_model
from torch import nn

import efface
from efface.errors import MissingExtra, UnsafeFile
from efface.io.images import Preprocessing
from efface.io.models import build_model, load_model, save_trained
from efface.types import Split
from tests.io_helpers import error_of

FLAGS = {"mean": [0.5], "std": [0.25], "size": 8}
HALF = {"mean": [0.5], "std": [0.5], "size": 8}
ROWS = {"feature_spec": {"age": {}, "sex": {"categories": ["f", "m"]}}}
VIT = "timm:vit_tiny_patch16_224"
CONV, DIGITS = "nets_of_a_user:conv", "efface.nets:conv_small"


class Tied(nn.Module):
    def __init__(self, num_classes=4):
        super().__init__()
        self.first = nn.Linear(8, num_classes, bias=False)
        self.last = nn.Linear(8, num_classes, bias=False)
        self.last.weight = self.first.weight


def conv(num_classes=10):
    return nn.Sequential(nn.Conv2d(1, 4, 3), nn.Conv2d(4, num_classes, 1))


@pytest.fixture(autouse=True)
def nets(monkeypatch):
    module = ModuleType("nets_of_a_user")
    factories = {"Tied": Tied, "conv": conv, "fixed": fixed, "needy": needy}
    vars(module).update(**factories, number=7, text=lambda: "no")
    monkeypatch.setitem(sys.modules, "nets_of_a_user", module)


def weights_of(net, path):
    save_file({name: t.contiguous().clone() for name, t in net.state_dict().items()}, path)
    return path


def recipe(**changes):
    facts = {"schema": 1, "recipe": "digits-conv", "architecture": DIGITS, "num_classes": 10}
    return {**facts, **HALF, "classes": [str(digit) for digit in range(10)], **changes}


def unchanged(before, after):
    """Whether two states hold the same tensors, by name."""
    return all(before[name].equal(tensor) for name, tensor in after.items())


def test_a_saved_model_loads_as_the_same_model(tmp_path):
    net = build_model(DIGITS, 10).eval()
    save_trained(tmp_path / "model", net, recipe())
    loaded = load_model(tmp_path / "model")
    x = torch.rand(2, 1, 8, 8)
    assert loaded.model(x).equal(net(x))
    assert not loaded.model.training
    assert loaded.preprocessing == Preprocessing((0.5,), (0.5,), 8)
    assert (loaded.classes, loaded.num_classes) == (tuple("0123456789"), 10)
    assert loaded.recipe == recipe()


def test_a_folder_is_written_back_as_a_folder(tmp_path):
    net = build_model(DIGITS, 10)
    save_trained(tmp_path / "old", net, recipe())
    loaded = load_model(tmp_path / "old")
    with torch.no_grad():
        loaded.model[-1].bias += 1
    (tmp_path / "new").mkdir()
    loaded.write(loaded.model, tmp_path / "new")
    recipes = [(tmp_path / part / "recipe.json").read_bytes() for part in ("old", "new")]
    assert recipes[0] == recipes[1]
    old, new = (load_file(tmp_path / part / "model.safetensors") for part in ("old", "new"))
    moved = [name for name in old if not old[name].equal(new[name])]
    assert moved == [n for n in old if n.endswith("bias") and old[n].shape == (10,)][-1:]


def test_a_weights_file_is_written_back_under_its_own_name(tmp_path):
    path = weights_of(conv(4), tmp_path / "net.safetensors")
    loaded = load_model(path, architecture=CONV, **FLAGS)
    (tmp_path / "new").mkdir()
    loaded.write(loaded.model, tmp_path / "new")
    assert [file.name for file in (tmp_path / "new").iterdir()] == ["net.safetensors"]
    assert (tmp_path / "new/net.safetensors").read_bytes() == path.read_bytes()


def test_channels_last_weights_are_saved_with_their_values(tmp_path):
    net = build_model(DIGITS, 10).to(memory_format=torch.channels_last)
    save_trained(tmp_path / "model", net, recipe())
    loaded = load_model(tmp_path / "model")
    assert unchanged(loaded.model.state_dict(), net.state_dict())


@pytest.mark.parametrize("suffix", ["pt", "safetensors"])
def test_a_torchvision_net_is_found_by_name_and_its_classes_by_its_weights(tmp_path, suffix):
    net = torchvision.models.mobilenet_v3_small(num_classes=7).eval()
    path = tmp_path / f"net.{suffix}"
    weights_of(net, path) if suffix == "safetensors" else torch.save(net.state_dict(), path)
    images = {"mean": (0.4,) * 3, "std": (0.2,) * 3, "size": 32}
    loaded = load_model(path, architecture="torchvision.models:mobilenet_v3_small", **images)
    x = torch.rand(2, 3, 32, 32)
    assert loaded.model(x).equal(net(x))
    assert (loaded.num_classes, loaded.classes) == (7, None)


def test_timm_knows_the_preprocessing_of_its_nets(tmp_path):
    net = timm.create_model("vit_tiny_patch16_224", num_classes=5, depth=12)
    path = weights_of(net, tmp_path / "net.safetensors")
    loaded, small = (load_model(path, architecture=VIT, size=size) for size in (None, 128))
    expected = Preprocessing((0.5,) * 3, (0.5,) * 3, 224, resize=248, interpolation="bicubic")
    assert (loaded.preprocessing, loaded.num_classes) == (expected, 5)
    assert small.preprocessing.size == 128


def test_the_classes_are_found_where_the_head_is_no_matrix_and_not_last_by_name(tmp_path):
    path = weights_of(conv(3), tmp_path / "net.safetensors")
    assert load_model(path, architecture=CONV, **FLAGS).num_classes == 3
    net = timm.create_model("test_convnext", num_classes=6)
    path = weights_of(net, tmp_path / "timm.safetensors")
    assert load_model(path, architecture="timm:test_convnext").num_classes == 6


def test_tied_weights_may_stand_under_one_name(tmp_path):
    net = Tied()
    save_model(net, str(tmp_path / "net.safetensors"))
    loaded = load_model(tmp_path / "net.safetensors", architecture="nets_of_a_user:Tied", **FLAGS)
    assert loaded.model.last.weight is loaded.model.first.weight
    assert loaded.model.last.weight.equal(net.last.weight)
    loaded.parts[0].write(loaded.model.state_dict(), tmp_path / "new.safetensors")
    assert len(load_file(tmp_path / "new.safetensors")) == 1


def test_weights_of_another_net_are_refused_with_all_that_does_not_fit(tmp_path):
    path = weights_of(nn.Sequential(nn.Conv2d(3, 4, 3)), tmp_path / "net.safetensors")
    assert error_of(load_model, path, architecture=CONV, **FLAGS) == (
        "Wanted weights that fit nets_of_a_user:conv. "
        "Got missing: 1.weight, 1.bias; unexpected: none; "
        "other shapes: 0.weight (4, 3, 3, 3) in the file, (4, 1, 3, 3) in the model. "
        "Name their architecture."
    )


def test_weights_without_an_architecture_are_refused(tmp_path):
    path = weights_of(conv(), tmp_path / "net.safetensors")
    assert error_of(load_model, path) == (
        "Wanted the architecture of net.safetensors. Got none. Give --architecture timm:NAME or "
        "package.module:factory, such as torchvision.models:resnet18."
    )


@pytest.mark.parametrize("given", [{}, {"mean": [0.5]}, {"mean": [0.5], "size": 8}])
def test_unknown_preprocessing_is_refused_with_the_flags_to_give(tmp_path, given):
    path = weights_of(conv(), tmp_path / "net.safetensors")
    missing = ", ".join(name for name in ("mean", "std", "size") if name not in given)
    assert error_of(load_model, path, architecture=CONV, **given) == (
        f"Wanted the preprocessing that the model was trained with. Got no {missing}. "
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
    save_file({"w": torch.ones(1)}, tmp_path / "model.safetensors")
    if text is not None:
        (tmp_path / "recipe.json").write_text(text)
    assert came in error_of(load_model, tmp_path)


def test_a_folder_whose_weights_are_damaged_is_refused(tmp_path):
    save_trained(tmp_path / "m", build_model(DIGITS, 10), recipe())
    path = tmp_path / "m/model.safetensors"
    path.write_bytes(path.read_bytes()[:-1])
    error_of(load_model, tmp_path / "m", kind=UnsafeFile)


def test_a_trained_model_is_never_written_over_another(tmp_path):
    save_trained(tmp_path / "m", conv(), recipe())
    before = (tmp_path / "m/model.safetensors").read_bytes()
    assert "which is not empty" in error_of(save_trained, tmp_path / "m", conv(), recipe())
    assert (tmp_path / "m/model.safetensors").read_bytes() == before


def test_an_error_about_a_hundred_thousand_tensors_names_ten(tmp_path):
    state = {f"w{number}": torch.zeros(1) for number in range(100_000)}
    save_file(state, tmp_path / "many.safetensors")
    began = time.process_time()
    message = error_of(load_model, tmp_path / "many.safetensors", architecture=DIGITS)
    assert time.process_time() - began < 60
    unexpected = ", ".join(sorted(state)[:10])
    missing = ", ".join(list(build_model(DIGITS).state_dict())[:10])
    assert message == (
        f"Wanted weights that fit {DIGITS}. Got missing: {missing} and 10 more; "
        f"unexpected: {unexpected} and 99990 more; other shapes: none. "
        "Name their architecture."
    )


def fixed():
    return nn.Linear(2, 3)


def needy(depth):
    return nn.Linear(depth, 2)


def test_building_a_net_leaves_the_random_state_alone(random_state_kept):
    with random_state_kept():
        build_model("torchvision.models:squeezenet1_0", 4)


@pytest.mark.parametrize(
    ("architecture", "came", "remedy"),
    [
        ("resnet18", "'resnet18'", "Write a name alone."),
        ("os:system('x')", "\"os:system('x')\"", "Write a name alone."),
        ("no_such_package:net", "No module named 'no_such_package'", "Install it, or put it on"),
        ("torchvision.models:resnet118", "'resnet118'", "Did you mean 'resnet18'?"),
        ("torchvision.models:__name__", "'__name__'", "Look the name up in its documentation."),
        ("nets_of_a_user:number", "'number'", "Look the name up in its documentation."),
        ("nets_of_a_user:text", "str", "Name a function that makes one."),
        (
            "nets_of_a_user:needy",
            "missing 1 required positional",
            "Name a function that returns it.",
        ),
        ("timm:vit_tiny_patch16_2244", "'vit_tiny_patch16_2244'", "Did you mean 'vit_tiny_patch16"),
    ],
)
def test_an_architecture_that_is_none_is_refused_with_the_nearest_name(architecture, came, remedy):
    message = error_of(build_model, architecture)
    assert came in message.partition("Got ")[2]
    assert remedy in message


def test_a_factory_that_takes_no_classes_is_called_without():
    assert build_model("nets_of_a_user:fixed", 10).out_features == 3


def test_a_missing_timm_is_refused_with_the_command_to_install_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "timm", None)
    assert error_of(build_model, "timm:resnet18", kind=MissingExtra) == (
        "Wanted the package timm. Got none installed. Install it: pip install 'efface[timm]'."
    )


def raises():
    raise KeyError("layers")


def leaves():
    sys.exit(3)


def hangs():
    time.sleep(60)


@pytest.mark.parametrize(
    ("factory", "came"),
    [
        (raises, "KeyError: 'layers'"),
        (leaves, "SystemExit: 3"),
        (hangs, "TimeoutError: no answer within 0.2 s"),
    ],
)
def test_a_factory_that_raises_leaves_or_hangs_is_refused(monkeypatch, factory, came):
    module = ModuleType("faulty_nets")
    module.factory = factory
    monkeypatch.setitem(sys.modules, "faulty_nets", module)
    monkeypatch.setattr("efface.io.models.LIMIT_SECONDS", 0.2)
    handler = signal.getsignal(signal.SIGALRM)
    assert error_of(build_model, "faulty_nets:factory") == (
        f"Wanted a model from faulty_nets:factory, which must do nothing else. Got {came}. "
        "Fix the factory."
    )
    assert signal.getsignal(signal.SIGALRM) is handler
    assert signal.getitimer(signal.ITIMER_REAL) == (0.0, 0.0)


class Wrapped(nn.Module):
    def __init__(self, inner):
        super().__init__()
        self.inner = inner

    def forward(self, x):
        return self.inner(x)


def fresh(classes=10):
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
    state = Wrapped(tiny_net).state_dict()
    halved = {n: t.half() if t.is_floating_point() else t for n, t in state.items()}
    content = {"epoch": 3, "state_dict": halved}
    torch.save(content, tmp_path / "old.pt")
    net = fresh()
    before = {name: tensor.clone() for name, tensor in net.state_dict().items()}
    loaded = load_model(tmp_path / "old.pt", architecture=net, **HALF)
    assert loaded.architecture == f"{__name__}.Wrapped"
    assert loaded.num_classes == 10
    assert net.training
    assert unchanged(before, net.state_dict())
    split = Split(digits.take(range(5)))
    options = {"stored": loaded.stored, "method": "jit", "settings": {"steps": 2}}
    result = efface.forget(loaded.model, split, **options)
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
    torch.save(fresh().state_dict(), tmp_path / "old.pt")
    loaded = load_model(tmp_path / "old.pt", architecture=fresh().to(dtype), **HALF)
    assert unchanged(fresh().state_dict(), loaded.model.state_dict())


def test_a_module_may_stand_in_for_the_factory_of_a_folder(tmp_path):
    facts = {"schema": 1, "architecture": "not_here:net", "num_classes": 10, **HALF}
    save_trained(tmp_path / "m", build_model(DIGITS, 10), facts)
    loaded = load_model(tmp_path / "m", architecture=build_model(DIGITS, 10))
    assert loaded.architecture == "torch.nn.modules.container.Sequential"
    assert unchanged(load_file(tmp_path / "m/model.safetensors"), loaded.model.state_dict())


def test_a_module_that_does_not_fit_is_refused_by_its_name(tmp_path):
    torch.save(fresh(4).state_dict(), tmp_path / "old.pt")
    assert error_of(load_model, tmp_path / "old.pt", architecture=fresh(), **HALF) == (
        f"Wanted weights that fit {__name__}.Wrapped. Got missing: none; unexpected: none; "
        "other shapes: inner.7.weight (4, 256) in the file, (10, 256) in the model, "
        "inner.7.bias (4,) in the file, (10,) in the model. "
        "Name their architecture."
    )


class HeadFirst(nn.Module):
    def __init__(self, inputs=64, answer=lambda z: z):
        super().__init__()
        self.head = nn.Linear(32, 10)
        self.body = nn.Sequential(nn.Flatten(), nn.Linear(inputs, 32), nn.BatchNorm1d(32))
        self.drop = nn.Dropout()
        self.answer = answer

    def forward(self, x):
        return self.answer(self.head(self.drop(self.body(x))))


def fails(z):
    raise RuntimeError("no zeros, please", z)


OUTPUTS = {
    "alone": (lambda z: z, 10),
    "tuple": (lambda z: (z, 1), 10),
    "dict": (lambda z: {"logits": z}, 10),
    # where zeros fail or the outputs are no logits, the last weight decides: that of the body
    "fails": (fails, 32),
    "boxes": (lambda z: [{"boxes": z}], 32),
}


def loaded(monkeypatch, folder, given, **settings):
    nets = ModuleType("nets_of_a_user")
    nets.net = lambda: HeadFirst(**settings)
    monkeypatch.setitem(sys.modules, "nets_of_a_user", nets)
    save_file(HeadFirst(**settings).state_dict(), folder / "net.safetensors")
    return load_model(folder / "net.safetensors", architecture="nets_of_a_user:net", **given)


@pytest.mark.parametrize("output", OUTPUTS)
def test_the_classes_are_seen_from_the_output_not_from_the_order_of_layers(
    tmp_path, monkeypatch, output
):
    answer, width = OUTPUTS[output]
    assert loaded(monkeypatch, tmp_path, FLAGS, answer=answer).num_classes == width


def test_a_tabular_model_is_tried_with_a_row(tmp_path, monkeypatch):
    assert loaded(monkeypatch, tmp_path, ROWS, inputs=3).num_classes == 10


def test_a_model_is_tried_once_and_unchanged(tmp_path, monkeypatch, random_state_kept):
    calls = []

    def noted(z):
        calls.append(torch.rand(1))
        return z

    read = loaded(monkeypatch, tmp_path, FLAGS, answer=noted)
    read.model.train()
    before = {name: tensor.clone() for name, tensor in read.model.state_dict().items()}
    with random_state_kept():
        assert [read.num_classes, read.num_classes] == [10, 10]
    assert len(calls) == 1
    assert read.model.training
    assert unchanged(before, read.model.state_dict())

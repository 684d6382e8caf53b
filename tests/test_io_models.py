"""A name, a module or a folder, and weights, become a model that answers as the one saved."""

import json
import signal
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import ModuleType

import pytest
import timm
import torch
from safetensors.torch import load_file, save_file, save_model
from torch import nn

import efface
from efface.errors import MissingExtra
from efface.io.architectures import build_registered
from efface.io.images import Preprocessing
from efface.io.models import build_model, load_model, save_trained
from efface.testing import untrained_model
from efface.types import Split
from tests.refusals import refusal

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


def needy(depth):
    return nn.Linear(depth, 2)


def raises():
    raise KeyError("layers")


def leaves():
    sys.exit(3)


def hangs():
    time.sleep(60)


@pytest.fixture(autouse=True)
def nets(monkeypatch):
    module = ModuleType("nets_of_a_user")
    vars(module).update(number=7, text=lambda: "no", fixed=lambda: nn.Linear(2, 3))
    for factory in (Tied, conv, needy, raises, leaves, hangs):
        setattr(module, factory.__name__, factory)
    monkeypatch.setitem(sys.modules, "nets_of_a_user", module)
    return module


def weights_of(net, path):
    save_file({name: t.contiguous().clone() for name, t in net.state_dict().items()}, path)
    return path


RECIPE = {"schema": 1, "recipe": "digits-conv", "architecture": DIGITS, "num_classes": 10}
RECIPE |= {**HALF, "classes": list("0123456789")}


def unchanged(before, after):
    """Whether two states hold the same tensors, by name."""
    return all(before[name].equal(tensor) for name, tensor in after.items())


def test_a_saved_model_loads_as_the_same_model(tmp_path):
    net = build_model(DIGITS, 10).eval()
    save_trained(tmp_path / "model", net, RECIPE)
    loaded = load_model(tmp_path / "model")
    x = torch.rand(2, 1, 8, 8)
    assert loaded.model(x).equal(net(x))
    assert not loaded.model.training
    assert loaded.preprocessing == Preprocessing((0.5,), (0.5,), 8)
    assert (loaded.classes, loaded.num_classes) == (tuple("0123456789"), 10)
    assert loaded.recipe == RECIPE


def test_a_folder_is_written_back_as_a_folder(tmp_path):
    net = build_model(DIGITS, 10)
    save_trained(tmp_path / "old", net, RECIPE)
    loaded = load_model(tmp_path / "old")
    with torch.no_grad():
        loaded.model[-1].bias += 1
    (tmp_path / "new").mkdir()
    loaded.write(loaded.model, tmp_path / "new")
    folders = tmp_path / "old", tmp_path / "new"
    assert len({(folder / "recipe.json").read_bytes() for folder in folders}) == 1
    old, new = (load_file(folder / "model.safetensors") for folder in folders)
    moved = [name for name in old if not old[name].equal(new[name])]
    assert moved == [n for n in old if n.endswith("bias") and old[n].shape == (10,)][-1:]


def test_channels_last_weights_are_saved_with_their_values(tmp_path):
    net = build_model(DIGITS, 10).to(memory_format=torch.channels_last)
    save_trained(tmp_path / "model", net, RECIPE)
    loaded = load_model(tmp_path / "model")
    assert unchanged(loaded.model.state_dict(), net.state_dict())


def test_timm_knows_the_preprocessing_of_its_nets(tmp_path):
    net = timm.create_model("vit_tiny_patch16_224", num_classes=5, depth=12)
    path = weights_of(net, tmp_path / "net.safetensors")
    loaded, small = (load_model(path, architecture=VIT, size=size) for size in (None, 128))
    assert (loaded.preprocessing.shape, loaded.num_classes) == ((3, 224, 224), 5)
    assert small.preprocessing == Preprocessing((0.5,) * 3, (0.5,) * 3, 128)


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


NO_FIT = "Wanted weights that fit {}. Got missing: {}; unexpected: {}; other shapes: {}."
NO_FIT += " Name their architecture."
NO_NAME = (
    "Wanted the architecture of net.safetensors. Got none. Give --architecture timm:NAME, "
    "file.py:factory or package.module:factory, such as torchvision.models:resnet18."
)
NO_PREPROCESSING = (
    "Wanted the preprocessing that the model was trained with. Got no {}. "
    "Give --mean --std --size, such as --mean 0.485 0.456 0.406 --std 0.229 0.224 0.225 "
    "--size 224, or --feature-spec FILE.json for a tabular model."
)
NEEDED = {"mean, std, size": {}, "std, size": {"mean": [0.5]}, "std": {"mean": [0.5], "size": 8}}
MISSHAPEN = "0.weight (4, 3, 3, 3) in the file, (4, 1, 3, 3) in the model"


def test_weights_that_fit_no_model_or_come_without_its_facts_are_refused(tmp_path):
    path = weights_of(conv(), tmp_path / "net.safetensors")
    assert refusal(load_model, path) == NO_NAME
    for missing, given in NEEDED.items():
        message = refusal(load_model, path, architecture=CONV, **given)
        assert message == NO_PREPROCESSING.format(missing)
    path = weights_of(nn.Sequential(nn.Conv2d(3, 4, 3)), tmp_path / "net.safetensors")
    message = refusal(load_model, path, architecture=CONV, **FLAGS)
    assert message == NO_FIT.format(CONV, "1.weight, 1.bias", "none", MISSHAPEN)


NO_RECIPE = "model.safetensors and recipe.json in {}. Got "
OTHER_RECIPE = "a recipe of schema 1 in {}/recipe.json. Got "
RECIPES = {
    "absent": f"{NO_RECIPE}FileNotFoundError at recipe.json",
    "{": f"{NO_RECIPE}JSONDecodeError at recipe.json",
    "[]": f"{NO_RECIPE}list at recipe.json",
    "{}": f"{OTHER_RECIPE}no architecture, mean, num_classes, schema, size, std",
    json.dumps({**RECIPE, "schema": 2}): f"{OTHER_RECIPE}schema 2",
}


@pytest.mark.parametrize("text", RECIPES)
def test_a_folder_without_a_recipe_that_we_understand_is_refused(tmp_path, text):
    save_file({"w": torch.ones(1)}, tmp_path / "model.safetensors")
    if text != "absent":
        (tmp_path / "recipe.json").write_text(text)
    remedy = "Train again with this version, or give the weights file with --architecture."
    assert refusal(load_model, tmp_path) == f"Wanted {RECIPES[text].format(tmp_path)}. {remedy}"


def test_a_trained_model_is_never_written_over_another(tmp_path):
    save_trained(tmp_path / "m", conv(), RECIPE)
    before = (tmp_path / "m/model.safetensors").read_bytes()
    assert refusal(save_trained, tmp_path / "m", conv(), RECIPE) == (
        f"Wanted a new or empty folder. Got {tmp_path / 'm'}, which is not empty. "
        "Nothing is overwritten: give another --out."
    )
    assert (tmp_path / "m/model.safetensors").read_bytes() == before


def test_an_error_about_a_hundred_thousand_tensors_names_ten(tmp_path):
    state = {f"w{number}": torch.zeros(1) for number in range(100_000)}
    save_file(state, tmp_path / "many.safetensors")
    began = time.process_time()
    message = refusal(load_model, tmp_path / "many.safetensors", architecture=DIGITS)
    assert time.process_time() - began < 60
    own = [n for n in build_model(DIGITS).state_dict() if not n.endswith("num_batches_tracked")]
    missing = f"{', '.join(own[:10])} and 7 more"
    unexpected = f"{', '.join(sorted(state)[:10])} and 99990 more"
    assert message == NO_FIT.format(DIGITS, missing, unexpected, "none")


def test_building_a_net_leaves_the_random_state_alone(random_state_kept):
    with random_state_kept():
        build_model("torchvision.models:squeezenet1_0", 4)


NO_FORM = (
    "an architecture as timm:NAME, file.py:factory or package.module:factory, such as "
    "torchvision.models:resnet18"
)
NO_FUNCTION = "a function or class of {}. Got {!r}. {}"
ZOO, LOOK_UP = "torchvision.models", "Look the name up in its documentation."
RETURNS = "Name a function that returns it."
REFUSED = {
    "resnet18": f"{NO_FORM}. Got 'resnet18'. Write a name alone.",
    "os:system('x')": f"{NO_FORM}. Got \"os:system('x')\". Write a name alone.",
    "no_such_package:net": "a module named no_such_package. Got No module named 'no_such_package'."
    " Install it, or name its file.py:factory.",
    "torchvision.models:resnet118": NO_FUNCTION.format(
        ZOO, "resnet118", "Did you mean 'resnet18'?"
    ),
    "torchvision.models:__name__": NO_FUNCTION.format(ZOO, "__name__", LOOK_UP),
    "nets_of_a_user:number": NO_FUNCTION.format("nets_of_a_user", "number", LOOK_UP),
    "nets_of_a_user:text": "a torch module from nets_of_a_user:text. Got str. Name a function that"
    " makes one.",
    "nets_of_a_user:needy": "a factory that needs nothing but num_classes: nets_of_a_user:needy."
    " Got needy() missing 1 required positional argument: 'depth'. Name a function that returns"
    " it.",
    "timm:vit_tiny_patch16_2244": "a model that timm knows. Got 'vit_tiny_patch16_2244'. Did you"
    " mean 'vit_tiny_patch16_224'?",
}
OWN_NET = """
import {sibling}
from torch import nn

def net(num_classes=3):
    return nn.Linear({sibling}.WIDTH, num_classes)
"""


@pytest.mark.parametrize(("folder", "form"), [(".", "{}"), (".", "{}.py"), ("else where", "{}.py")])
def test_a_net_of_ones_own_lies_in_the_working_directory_or_in_a_named_file(
    tmp_path, monkeypatch, folder, form
):
    """The command ``efface``, unlike ``python -m``, has no working directory on its path."""
    name = f"net_{len(folder)}_{len(form)}"
    (tmp_path / folder).mkdir(exist_ok=True)
    (tmp_path / folder / f"{name}.py").write_text(OWN_NET.format(sibling=f"{name}_sizes"))
    (tmp_path / folder / f"{name}_sizes.py").write_text("WIDTH = 5")
    monkeypatch.chdir(tmp_path)
    paths = [path for path in sys.path if path and Path(path) != tmp_path]
    monkeypatch.setattr(sys, "path", [*paths])
    typed = f"{form.format(f'{folder}/{name}' if '.py' in form else name)}:net"
    for _ in range(2):
        assert build_model(typed, 4).weight.shape == (4, 5)
    assert sys.path == paths


def test_a_file_that_is_not_there_or_has_the_name_of_another_module_is_refused(tmp_path):
    assert refusal(build_model, f"{tmp_path}/no.py:net") == (
        f"Wanted a Python file. Got {tmp_path}/no.py, not there. Check the path."
    )
    for name in ("torch", "sys", "my-net"):
        (tmp_path / f"{name}.py").write_text("raise SystemExit")
        assert refusal(build_model, f"{tmp_path}/{name}.py:net") == (
            f"Wanted a file of a name that no other module has. Got {name}.py. Rename it, "
            "such as my_own.py."
        )


def test_a_file_may_not_name_a_file_to_be_imported(tmp_path, monkeypatch):
    (tmp_path / "evil.py").write_text("raise SystemExit('imported')")
    monkeypatch.chdir(tmp_path)
    for name in ("evil:net", "evil.py:net", f"{tmp_path}/evil.py:net"):
        text = refusal(build_registered, name, 3, 10**6)
        assert text.startswith("Wanted an architecture as efface.nets:NAME, ")


NOTHING_ELSE = "a model from {}, which must do nothing else. Got {}. Fix the factory."
FAULTY = {
    "nets_of_a_user:raises": "KeyError: 'layers'",
    "nets_of_a_user:leaves": "SystemExit: 3",
    "nets_of_a_user:hangs": "TimeoutError: no answer within 0.2 s",
}
REFUSED |= {name: NOTHING_ELSE.format(name, came) for name, came in FAULTY.items()}


@pytest.mark.parametrize("architecture", REFUSED)
def test_an_architecture_that_is_none_is_refused_in_words(monkeypatch, architecture):
    if architecture in FAULTY:
        monkeypatch.setattr("efface.io.architectures.LIMIT_SECONDS", 0.2)
    handler = signal.getsignal(signal.SIGALRM)
    assert refusal(build_model, architecture) == f"Wanted {REFUSED[architecture]}"
    assert signal.getsignal(signal.SIGALRM) is handler
    assert signal.getitimer(signal.ITIMER_REAL) == (0.0, 0.0)


@pytest.mark.parametrize("name", ["raises", "leaves", "slow"])
def test_in_another_thread_there_is_no_time_limit_and_the_same_sentence(nets, monkeypatch, name):
    """The alarm of the system is the main thread's alone."""
    nets.slow = lambda: (time.sleep(0.2), nn.Linear(2, 3))[1]
    monkeypatch.setattr("efface.io.architectures.LIMIT_SECONDS", 0.05)
    address = f"nets_of_a_user:{name}"
    with ThreadPoolExecutor(1) as pool:
        if name == "slow":
            assert pool.submit(build_model, address).result().out_features == 3
        else:
            text = NOTHING_ELSE.format(address, FAULTY[address])
            assert refusal(pool.submit(build_model, address).result) == f"Wanted {text}"


def test_a_factory_that_takes_no_classes_is_called_without():
    assert build_model("nets_of_a_user:fixed", 10).out_features == 3


def test_a_missing_timm_is_refused_with_the_command_to_install_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "timm", None)
    assert refusal(build_model, "timm:resnet18", kind=MissingExtra) == (
        "Wanted the package timm. Got none installed. Install it: pip install 'efface[timm]'."
    )


class Wrapped(nn.Module):
    def __init__(self, inner):
        super().__init__()
        self.inner = inner

    def forward(self, x):
        return self.inner(x)


def fresh(classes=10):
    net = untrained_model(1)
    with torch.random.fork_rng():
        net[-1] = nn.Linear(256, classes) if classes != 10 else net[-1]
    return Wrapped(net)


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
    message = refusal(load_model, tmp_path / "old.pt", architecture=fresh(), **HALF)
    shapes = "inner.7.weight (4, 256) in the file, (10, 256) in the model, "
    shapes += "inner.7.bias (4,) in the file, (10,) in the model"
    assert message == NO_FIT.format(f"{__name__}.Wrapped", "none", "none", shapes)


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


@pytest.fixture
def loaded(nets, tmp_path):
    """Load a HeadFirst of these settings as a user's net."""

    def load(given, **settings):
        nets.net = lambda: HeadFirst(**settings)
        path = weights_of(nets.net(), tmp_path / "net.safetensors")
        return load_model(path, architecture="nets_of_a_user:net", **given)

    return load


@pytest.mark.parametrize("output", OUTPUTS)
def test_the_classes_are_seen_from_the_output_not_from_the_order_of_layers(loaded, output):
    answer, width = OUTPUTS[output]
    assert loaded(FLAGS, answer=answer).num_classes == width


def test_a_tabular_model_is_tried_with_a_row(loaded):
    assert loaded(ROWS, inputs=3).num_classes == 10


def test_a_model_is_tried_once_and_unchanged(loaded, random_state_kept):
    calls = []

    def noted(z):
        calls.append(torch.rand(1))
        return z

    read = loaded(FLAGS, answer=noted)
    read.model.train()
    before = {name: tensor.clone() for name, tensor in read.model.state_dict().items()}
    with random_state_kept():
        assert [read.num_classes, read.num_classes] == [10, 10]
    assert len(calls) == 1
    assert read.model.training
    assert unchanged(before, read.model.state_dict())

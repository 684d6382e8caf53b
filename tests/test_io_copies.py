"""Weights are found by the model's names in any layout; of several copies none is guessed."""

import json
import time
from functools import partial

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from efface.errors import InputError, UnsafeFile
from efface.io.checkpoints import load_checkpoint
from efface.io.models import load_model, weight_files
from tests.io_helpers import same
from tests.refusals import refusal
from tests.test_io_checkpoints import WHOLE


class Net(nn.Module):
    """Convolution, BatchNorm, head: three kinds of tensors, a counter among them."""

    def __init__(self, num_classes=4):
        super().__init__()
        self.features = nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2))
        self.head = nn.Linear(2, num_classes)

    def forward(self, x):
        return self.head(self.features(x).mean((2, 3)))


def state(scale=1.0, prefix="", **changes):
    """The weights of a net, drawn the same each time, times ``scale``."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        weights = Net().state_dict()
    weights = {name: t * scale if t.is_floating_point() else t for name, t in weights.items()}
    for old, new in changes.items():
        weights = {name.replace(old, new): tensor for name, tensor in weights.items()}
    return {prefix + name: tensor for name, tensor in weights.items()}


RAW, MEAN, NET = state(), state(0.5), Net().state_dict()
find = partial(load_checkpoint, model_state=NET)
load = partial(load_model, architecture=Net(), mean=[0.5], std=[0.5], size=8)


def saved(path, content):
    torch.save(content, path)
    return path


ONE = "Wanted one copy of the model's weights in {}. Got 2, at {}, {}. "
CHOOSE = "One may be an average: choose, such as --weights-in {}."
LIGHTNING = {"state_dict": state(prefix="model.") | state(0.5, "ema.")}
TWICE = [
    (LIGHTNING, ("state_dict.model", "state_dict.ema")),
    ({"state_dict": RAW, "state_dict_ema": MEAN, "epoch": 3}, ("state_dict", "state_dict_ema")),
    ({"model": RAW, "model_ema": {"decay": 0.9, "module": MEAN}}, ("model", "model_ema.module")),
    (RAW | state(0.5, "ema."), (".", "ema")),
    (RAW | state(0.5, "module."), (".", "module")),
    ({"student": state(prefix="module.backbone."), "teacher": state(0.5, "module.backbone.")},
     ("student.module.backbone", "teacher.module.backbone")),
    (state(prefix="module.encoder_q.") | state(0.5, "module.encoder_k."),
     ("module.encoder_q", "module.encoder_k")),
]  # fmt: skip


@pytest.mark.parametrize(("content", "found"), TWICE, ids=[found[1] for _, found in TWICE])
def test_of_two_whole_copies_none_is_guessed_and_either_can_be_chosen(tmp_path, content, found):
    path = saved(tmp_path / "f.pt", content)
    assert refusal(load, path) == ONE.format(path, *found) + CHOOSE.format(found[0])
    for address, weights in zip(found, (RAW, MEAN), strict=True):
        loaded = load(path, weights_in=address)
        same(dict(loaded.model.state_dict()), weights)
        new = tmp_path / f"new of {address}"
        new.mkdir()
        loaded.write(loaded.model, new)
        # the other copy remembers the records: it is neither unlearned nor written
        again = load(new / "f.pt", weights_in=address)
        same(dict(again.model.state_dict()), weights)
        same(dict(load(new / "f.pt").model.state_dict()), weights)
        assert loaded.omitted


def test_a_copy_in_safetensors_is_chosen_and_written_alone(tmp_path):
    path = tmp_path / "f.safetensors"
    save_file(state(prefix="net.") | state(0.5, "ema.net."), path, {"of": "mine"})
    assert "Got 2, at ema.net, net." in refusal(load, path)
    loaded = load(path, weights_in="net")
    (tmp_path / "new").mkdir()
    loaded.write(loaded.model, tmp_path / "new")
    new = load_file(tmp_path / "new/f.safetensors")
    assert {name: tensor.tolist() for name, tensor in new.items()} == {
        name: tensor.tolist() for name, tensor in state(prefix="net.").items()
    }


def test_a_copy_that_is_not_there_is_refused_with_those_that_are(tmp_path):
    path = saved(tmp_path / "f.pt", LIGHTNING)
    assert refusal(load, path, weights_in="state_dict.emma") == (
        f"Wanted the weights of the model at 'state_dict.emma' in {path}. Got them at "
        "state_dict.model, state_dict.ema. Did you mean 'state_dict.ema'?"
    )
    assert refusal(load, tmp_path, weights_in="ema") == (
        "Wanted a weights file that holds 'ema'. "
        f"Got the folder {tmp_path}. Omit it, or name the weights file."
    )


def test_an_average_without_head_or_counters_is_omitted_or_asked_about(tmp_path):
    body = {n: t for n, t in state(0.5, "ema.").items() if "head" not in n}
    part = find(saved(tmp_path / "f.pt", {"state_dict": state(prefix="net.") | body}))
    assert part.omitted == tuple(body)
    weights = {n: t for n, t in state(0.5, "ema.").items() if t.ndim}
    path = saved(tmp_path / "g.pt", state(prefix="net.") | weights)
    assert "Got 2, at net, ema." in refusal(find, path)


def test_a_model_that_holds_its_own_average_is_one_copy(tmp_path):
    twin = nn.ModuleDict({"net": Net(), "ema": Net()})
    part = load_checkpoint(saved(tmp_path / "f.pt", twin.state_dict()), twin.state_dict())
    assert (list(part.state), part.omitted) == (list(twin.state_dict()), ())


LAYOUTS = {
    "compiled": state(prefix="_orig_mod."),
    "compiled in part": state(features="features._orig_mod"),
    "distributed in part": state(features="features.module"),
    "activation checkpointing": state(**{"features.0": "features.0._checkpoint_wrapped_module"}),
    "FSDP": state(prefix="_fsdp_wrapped_module.", head="head._fsdp_wrapped_module"),
    "distributed and compiled": {"model": state(prefix="module._orig_mod.")},
    "DeepSpeed": {"module": RAW, "dp_world_size": 1, "ds_config": {"zero": 1}, "ds_version": "0"},
    "an entry in an entry": {"checkpoint": {"net": {"weights": RAW}}, "epoch": 1},
    "an entry of any name": {"classifier": RAW, "epoch": 1},
    "next to numbers": {**RAW, "epoch": 3, "_extra_state": None},
    "profiler": {**RAW, "head.total_ops": torch.zeros(1), "total_params": torch.zeros(1)},
    "averaged by torch": {"n_averaged": torch.tensor(3), **state(prefix="module.")},
    "before torch 0.4.1": {n: t for n, t in RAW.items() if t.ndim},
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_layout_is_read_as_it_comes_and_written_back_as_it_came(tmp_path, layout):
    content = LAYOUTS[layout]
    loaded = load(saved(tmp_path / "f.pt", content))
    assert loaded.omitted == ()
    for name, tensor in loaded.model.state_dict().items():
        assert not tensor.ndim or tensor.equal(RAW[name])
    (tmp_path / "new").mkdir()
    loaded.write(loaded.model, tmp_path / "new")
    same(torch.load(tmp_path / "new/f.pt", weights_only=True), content)


def test_a_name_of_a_wrapper_in_the_model_itself_is_a_name(tmp_path):
    own = nn.ModuleDict({"module": nn.Linear(2, 2), "a": nn.ModuleDict({"module": Net()})})
    own["b"] = nn.Linear(2, 2)
    part = load_checkpoint(saved(tmp_path / "f.pt", own.state_dict()), own.state_dict())
    assert part.names == {name: name for name in own.state_dict()}
    both = {"fc.w": torch.ones(2), "module.fc.w": torch.zeros(2)}
    part = load_checkpoint(saved(tmp_path / "g.pt", both), both)
    assert part.names == {name: name for name in both}


def test_other_tensors_next_to_the_model_are_extras_and_those_within_are_refused(tmp_path):
    head = {"second_head.weight": torch.ones(3, 2)}
    loaded = load(saved(tmp_path / "f.pt", state(prefix="net.") | head))
    assert loaded.extras == tuple(head)
    within = state(prefix="net.") | {"net.second_head.weight": torch.ones(3, 2)}
    for content in (within, RAW | head):
        assert "unexpected: second_head.weight;" in refusal(load, saved(tmp_path / "g.pt", content))


def test_other_tensors_in_a_safetensors_file_come_back_as_they_were(tmp_path):
    path, new = tmp_path / "f.safetensors", tmp_path / "new"
    save_file(state(prefix="net.") | {"second_head.weight": torch.ones(3, 2)}, path)
    loaded = load(path)
    new.mkdir()
    loaded.write(loaded.model, new)
    assert (new / path.name).read_bytes() == path.read_bytes()


def test_partitions_of_deepspeed_are_named_as_such(tmp_path):
    path = saved(tmp_path / "f.pt", {"module": {n: t.new_empty(0) for n, t in RAW.items()}})
    assert refusal(load, path).endswith(
        "DeepSpeed keeps them in partitions: join them with its zero_to_fp32.py."
    )


UNUSUAL = {
    "sparse": lambda w: w.to_sparse(),
    "nested": lambda w: torch.nested.nested_tensor([w[0], w[1]]),
    "quantised": lambda w: torch.quantize_per_tensor(w, 0.1, 0, torch.qint8),
    "without numbers (meta)": lambda w: w.to("meta"),
    "larger than its memory": lambda w: w[:1, :1].expand(10**6, 10**6),
}


@pytest.mark.parametrize("kind", UNUSUAL)
@pytest.mark.filterwarnings("ignore")
def test_a_tensor_that_is_no_dense_weight_is_named(tmp_path, kind):
    path = saved(tmp_path / "f.pt", RAW | {"head.weight": UNUSUAL[kind](RAW["head.weight"])})
    assert refusal(find, path) == (
        f"Wanted dense weights in {path}. Got head.weight, which is {kind}. "
        "Save the dense weights that it stands for."
    )


def test_a_file_of_very_many_or_endless_entries_is_settled_in_time(tmp_path, monkeypatch):
    many = {f"layers.{n}.weight": torch.empty(0) for n in range(3000)}
    endless = {"state_dict": dict(RAW)}
    endless["again"] = endless
    wide = dict(RAW)
    for _ in range(30):
        wide = {f"k{n}": wide for n in range(1000)}
    began = time.perf_counter()
    with pytest.raises(InputError):
        load(saved(tmp_path / "many.pt", many))
    load(saved(tmp_path / "endless.pt", endless))
    load(saved(tmp_path / "wide.pt", {"wide": wide, "net": RAW}))
    assert time.perf_counter() - began < 20
    monkeypatch.setattr("efface.io.checkpoints.MOST_TENSORS", 1000)
    message = refusal(load, tmp_path / "many.pt", kind=UnsafeFile)
    assert message.startswith(f"Wanted {WHOLE.format(path=tmp_path / 'many.pt')}")
    assert " tensors. It is cut short, damaged" in message


def test_a_folder_with_weights_in_one_file_and_others_in_parts_is_refused(tmp_path):
    for name in ("model.safetensors", "part.safetensors"):
        save_file(RAW, tmp_path / name)
    index = tmp_path / "model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": dict.fromkeys(RAW, "part.safetensors")}))
    assert refusal(weight_files, tmp_path) == (
        f"Wanted one set of weights in {tmp_path}. Got model.safetensors, and other parts in "
        "model.safetensors.index.json. Remove what is not meant."
    )
    index.write_text(json.dumps({"weight_map": dict.fromkeys(RAW, "model.safetensors")}))
    assert weight_files(tmp_path) == (tmp_path / "model.safetensors",)

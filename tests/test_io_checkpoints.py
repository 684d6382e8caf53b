"""Weights files: the same container out as in, no code run, what may hold records omitted."""

import argparse
import os
import pickle
import struct
from collections import OrderedDict
from itertools import pairwise

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import nn

from efface.errors import InputError, OutputError, UnsafeFile
from efface.io.checkpoints import load_checkpoint
from tests.io_helpers import same
from tests.refusals import refusal


def state():
    """Three tensors of three dtypes; not in the order of the alphabet."""
    half = torch.tensor([1.5, -2.0], dtype=torch.float16)
    return {"z.weight": torch.arange(6.0).view(2, 3), "a.count": torch.tensor(7), "m.bias": half}


def doubled(old):
    return {name: tensor.float() * 2 if tensor.ndim else tensor for name, tensor in old.items()}


def unchanged(old):
    return old


def rewritten(folder, content, change=unchanged, **options):
    """What ``torch.save`` wrote of the content, loaded, changed and written again."""
    checkpoint = opened(folder / "old.pt", content, **options)
    checkpoint.write(change(weights_of(checkpoint)), folder / "new.pt")
    return read(folder / "new.pt")


def rewritten_safetensors(folder, content, change=unchanged, **options):
    """The path of the same with safetensors."""
    checkpoint = opened(folder / "old.safetensors", content, **options)
    checkpoint.write(change(weights_of(checkpoint)), folder / "new.safetensors")
    return folder / "new.safetensors"


def opened(path, content, **options):
    """The checkpoint of a new file, by safetensors where the suffix says so."""
    (save_file if path.suffix == ".safetensors" else torch.save)(content, path, **options)
    return load_checkpoint(path)


def weights_of(checkpoint):
    return {name: t for portion in checkpoint.portions() for name, t in portion.items()}


def read(path):
    return torch.load(path, weights_only=True)


@pytest.mark.parametrize("metadata", [{"format": "pt", "of": "mine"}, None])
def test_safetensors_keep_names_dtypes_and_metadata(tmp_path, metadata):
    new = rewritten_safetensors(tmp_path, state(), doubled, metadata=metadata)
    with safe_open(new, "pt") as file:
        assert file.metadata() == metadata
    expected = {name: t.to(state()[name].dtype) for name, t in doubled(state()).items()}
    same(dict(sorted(load_file(new).items())), dict(sorted(expected.items())))


@pytest.mark.parametrize("place", [None, "state_dict", "model"])
@pytest.mark.parametrize("prefix", ["", "module.", "module._orig_mod."])
@pytest.mark.parametrize("zipped", [True, False])
def test_a_torch_file_keeps_its_nesting_prefix_and_the_rest(tmp_path, place, prefix, zipped):
    weights = OrderedDict((prefix + name, tensor) for name, tensor in state().items())
    content = weights if place is None else {"epoch": 3, place: weights, "note": ["a", {"b": 1.5}]}
    new = rewritten(tmp_path, content, doubled, _use_new_zipfile_serialization=zipped)
    moved = OrderedDict((prefix + n, t.to(state()[n].dtype)) for n, t in doubled(state()).items())
    same(new, moved if place is None else {**content, place: moved})
    same(read(tmp_path / "old.pt"), content)
    assert list(load_checkpoint(tmp_path / "old.pt").state) == list(state())


def test_the_versions_that_torch_keeps_with_a_state_dict_are_kept(tmp_path):
    weights = nn.Sequential(nn.BatchNorm1d(2)).state_dict()
    assert rewritten(tmp_path, weights)._metadata == weights._metadata


IDS = ["alice", "bob"]
OMITTED = (
    *({"optimizer": {"step": 3}}, {"lr_schedulers": []}, {"state_dict_ema": {}}, {"ema": None}),
    *({"amp_scaler": {"scale": 2.0}}, {"best": {"w": torch.ones(2)}}),
    *({"history": [{"mean": [torch.ones(1)]}]}, {"sampler": {"seen_ids": IDS}}),
    *({"train_sampler": "alice, bob"}, {"dataloader": {"order": IDS}}, {"data_loader_state": {}}),
    *({"seen": {"alice": 1}}, {"train_ids": IDS}, {"state": {"loops": [{"ids": IDS}]}}),
    *({"split": {"test": {"indices": (3, 1)}}}, {"resume": {"sampler": {"order": IDS}}}),
)


@pytest.mark.parametrize("entry", OMITTED, ids=lambda entry: next(iter(entry)))
def test_what_may_hold_the_records_is_omitted_and_named(tmp_path, entry):
    assert list(rewritten(tmp_path, {"state_dict": state(), **entry})) == ["state_dict"]
    assert load_checkpoint(tmp_path / "old.pt").omitted == tuple(entry)


def test_settings_and_progress_of_the_training_are_written_back(tmp_path):
    settings = {"sampler": "weighted", "dataloader": {"workers": 4}, "betas": [0.9, 1]}
    kept = {"epoch": 3, "samples_seen": 12_800, "last_seen": None, "schema": "2", "emails": 0}
    kept |= {"hyper_parameters": {**settings, "optimizer": "adam"}, "run_id": "a1"}
    kept |= {"resampler": {"depths": [2, 2]}, "class_to_idx": {"cat": 0, "dog": 1}}
    kept |= {"grids": [7, 14], "callbacks": {"seen_ids": []}}
    content = {"state_dict": {"w": torch.ones(2)}, **kept}
    same(rewritten(tmp_path, content), content)
    assert load_checkpoint(tmp_path / "old.pt").omitted == ()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.float16, torch.bfloat16])
def test_tied_weights_stay_tied_in_a_torch_file_and_stand_apart_in_safetensors(tmp_path, dtype):
    net = nn.Module()
    net.one, net.two, net.other = (nn.Linear(50, 50, bias=False) for _ in range(3))
    net.two.weight = net.one.weight
    net.other.load_state_dict(net.one.state_dict())  # equal, and not tied
    content = net.to(dtype).state_dict()
    moved = {name: tensor + 1 for name, tensor in net.float().state_dict().items()}
    new = rewritten(tmp_path, content, lambda _: moved)
    assert new["one.weight"].equal(moved["one.weight"].to(dtype))
    assert new["one.weight"].data_ptr() == new["two.weight"].data_ptr()
    assert new["one.weight"].data_ptr() != new["other.weight"].data_ptr()
    sizes = [(tmp_path / name).stat().st_size for name in ("old.pt", "new.pt")]
    assert sizes[0] == sizes[1]
    apart = {name: tensor.clone() for name, tensor in net.state_dict().items()}
    path = rewritten_safetensors(tmp_path, apart, lambda _: net.state_dict())
    assert load_file(path).keys() == apart.keys()


def test_tied_weights_that_moved_apart_are_written_apart(tmp_path):
    one = torch.ones(2, dtype=torch.float16)
    moved = {"one": torch.tensor([1.0, 2.0]), "two": torch.tensor([1.0, 3.0])}
    new = rewritten(tmp_path, {"one": one, "two": one}, lambda _: moved)
    same(new, {name: tensor.half() for name, tensor in moved.items()})


def test_a_parameter_stays_a_parameter(tmp_path):
    weight = nn.Parameter(torch.ones(2), requires_grad=False)
    new = rewritten(tmp_path, {"w": weight}, lambda _: {"w": torch.zeros(2)})["w"]
    assert (type(new), new.requires_grad, new.tolist()) == (nn.Parameter, False, [0, 0])


def test_a_view_is_written_without_the_rest_of_its_storage(tmp_path):
    rewritten(tmp_path, {"w": torch.ones(2)}, lambda _: {"w": torch.arange(100_000.0)[:2]})
    assert (tmp_path / "new.pt").stat().st_size < 10_000


def test_an_unchanged_float64_weight_keeps_its_bits(tmp_path):
    fine = torch.tensor([1 / 3, 2 / 3], dtype=torch.float64)
    computed = fine.float() + torch.tensor([0.0, 1.0])
    path = rewritten_safetensors(tmp_path, {"w": fine}, lambda _: {"w": computed})
    assert load_file(path)["w"].tolist() == [fine[0], computed[1].double()]


def test_a_safetensors_file_is_read_in_portions_that_hold_every_tensor_once(tmp_path, monkeypatch):
    whole = {f"w{n:02d}": torch.full((n, 5), float(n)) for n in range(20)}
    monkeypatch.setattr("efface.io.checkpoints.PORTION", 300)
    checkpoint = opened(tmp_path / "f.safetensors", whole)
    assert all(outline.is_meta for outline in checkpoint.state.values())
    portions = list(checkpoint.portions())
    assert [name for portion in portions for name in portion] == list(checkpoint.state)
    assert all(whole[name].equal(t) for portion in portions for name, t in portion.items())
    sizes = [sum(t.nbytes for t in portion.values()) for portion in portions]
    assert all(size <= 300 or len(p) == 1 for size, p in zip(sizes, portions, strict=True))
    assert all(a + b > 300 for a, b in pairwise(sizes))


def test_another_file_in_the_place_of_the_one_that_was_opened_is_refused(tmp_path):
    path = tmp_path / "f.safetensors"
    checkpoint = opened(path, {"w": torch.ones(2, dtype=torch.float64)})
    save_file({"w": torch.ones(3, dtype=torch.float64)}, path)
    for later in (weights_of, lambda old: old.write({"w": torch.ones(2)}, tmp_path / "g")):
        assert refusal(later, checkpoint, kind=UnsafeFile) == (
            f"Wanted {path} as it was when opened. Got another file in its place. Start again."
        )
    assert [file.name for file in tmp_path.iterdir()] == ["f.safetensors"]


FLOATS = st.floats(allow_nan=False)
VALUES = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(-(2**31), 2**31), st.text(), FLOATS),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(alphabet="abcxyz ßλ.0"), inner),
    max_leaves=8,
)


TENSORS = st.builds(
    lambda shape, dtype: torch.arange(shape[0] * shape[1]).view(shape).to(dtype),
    st.tuples(st.integers(0, 3), st.integers(0, 3)),
    st.sampled_from([torch.float32, torch.float64, torch.bfloat16, torch.int64, torch.bool]),
)


SLOW_IS_FINE = [HealthCheck.function_scoped_fixture, HealthCheck.too_slow]  # on a busy machine


@settings(max_examples=50, suppress_health_check=SLOW_IS_FINE)
@given(
    weights=st.dictionaries(st.text(min_size=1), TENSORS, min_size=1),
    rest=st.dictionaries(st.text(alphabet="abcxyz", min_size=1), VALUES),
    place=st.sampled_from([None, "state_dict", "model"]),
)
def test_any_nesting_of_plain_values_comes_back_as_it_was(tmp_path, weights, rest, place):
    content = weights if place is None else {**rest, place: weights}
    same(rewritten(tmp_path, content), content)


class Evil:
    def __init__(self, canary):
        self.canary = canary

    def __reduce__(self):
        return os.mkdir, (str(self.canary),)


def evil_files(folder, canary):
    evil = Evil(canary)
    torch.save({"state_dict": state(), "extra": evil}, folder / "zip.pt")
    torch.save([evil], folder / "old.pt", _use_new_zipfile_serialization=False)
    (folder / "plain.pkl").write_bytes(pickle.dumps(evil, protocol=2))
    (folder / "protocol4.pkl").write_bytes(pickle.dumps(evil, protocol=4))
    torch.save({"w": evil}, folder / "disguised.safetensors")
    return ["zip.pt", "old.pt", "plain.pkl", "protocol4.pkl", "disguised.safetensors"]


def test_no_file_runs_code(tmp_path):
    canary = tmp_path / "canary"
    for name in evil_files(tmp_path, canary):
        refusal(load_checkpoint, tmp_path / name, kind=UnsafeFile)
        assert not canary.exists(), name


def header(text, rest=b""):
    return struct.pack("<Q", len(text)) + text.encode() + rest


OUTLINE = '{{"w":{{"dtype":"F32","shape":[{}],"data_offsets":[0,8]}}}}'
WHOLE = "a whole safetensors file, or one that torch.save wrote, at {path}. Got "
DAMAGED = {
    b"": "an empty file",
    b"hello world": "a file that begins with b'hello wor'",
    header("{"): "invalid JSON in header",
    header(OUTLINE.format(2), b"1234"): "incomplete metadata, file not fully covered",
    header(OUTLINE.format("9223372036854775807,9")): "verflow",
    struct.pack("<Q", 1 << 40) + b"{": "header too large",
    b"PK\x03\x04 not really": "PytorchStreamReader failed",
}


@pytest.mark.parametrize("content", DAMAGED, ids=DAMAGED.values())
def test_a_damaged_file_is_refused_in_one_sentence(tmp_path, content):
    path = tmp_path / "f"
    path.write_bytes(content)
    message = refusal(load_checkpoint, path, kind=UnsafeFile)
    assert message.startswith(f"Wanted {WHOLE.format(path=path)}")
    assert DAMAGED[content] in message
    assert message.endswith(". It is cut short, damaged or of another kind: save it again.")


SAVE_AGAIN = (
    "Where you trust it, load it and save its weights: torch.save(model.state_dict(), path)."
)
PICKLED = f"a file of tensors and plain values. Got {{path}}, which holds {{}}. {SAVE_AGAIN}"
ENTRIES = (
    "a state dict at the top of {path} or under state_dict or model or model_state_dict or net "
    f"or module. Got the entries {{}}. {SAVE_AGAIN}"
)
NOT_FINITE = "finite weights in {path}. Got nan or inf in b. Use a checkpoint from before training"
NOT_FINITE += " diverged."
NO_DICT = f"a state dict in {{path}}. Got a {{}}. {SAVE_AGAIN}"
HEART = {"epoch": 1, "heart": {"w": torch.ones(1)}}
NUMBERS = "0, 1, 2, 3, 4, 5, 6, 7, 8, 9 and 2 more"
ARGUMENTS = {"state_dict": state(), "args": argparse.Namespace(lr=1)}
NAN, INF = ({"a": torch.ones(2), "b": torch.tensor([float(value)])} for value in ("nan", "inf"))
REFUSED = [
    ("a module", nn.Linear(2, 2), UnsafeFile, PICKLED, "torch.nn.modules.linear.Linear"),
    ("arguments", ARGUMENTS, UnsafeFile, PICKLED, "argparse.Namespace"),
    ("not finite.safetensors", NAN, UnsafeFile, NOT_FINITE, ""),
    ("not finite", INF, UnsafeFile, NOT_FINITE, ""),
    ("a list", [1], InputError, NO_DICT, "list"),
    ("nothing", {}, InputError, ENTRIES, "none"),
    ("nothing.safetensors", {}, InputError, ENTRIES, "none"),
    ("elsewhere", HEART, InputError, ENTRIES, "epoch, heart"),
    ("numbers", {str(n): n for n in range(12)}, InputError, ENTRIES, NUMBERS),
]


@pytest.mark.parametrize(("name", "content", "kind", "message", "came"), REFUSED)
def test_a_file_that_cannot_serve_says_what_it_holds_and_what_to_do(
    tmp_path, name, content, kind, message, came
):
    path = tmp_path / name
    assert refusal(opened, path, content, kind=kind) == f"Wanted {message.format(came, path=path)}"


def test_a_path_without_a_file_is_refused(tmp_path):
    assert refusal(load_checkpoint, tmp_path / "f.pt") == (
        f"Wanted a weights file. Got {tmp_path / 'f.pt'}, which is not there. Check the path."
    )


@pytest.mark.parametrize("kind", ["safetensors", "zip", "old"])
def test_a_file_cut_anywhere_is_refused(tmp_path, kind):
    path = tmp_path / "f"
    if kind == "safetensors":
        save_file(state(), path)
    else:
        torch.save(state(), path, _use_new_zipfile_serialization=kind == "zip")
    whole = path.read_bytes()
    for length in range(0, len(whole), max(1, len(whole) // 50)):
        path.write_bytes(whole[:length])
        with pytest.raises((UnsafeFile, InputError)):
            load_checkpoint(path)


def test_weights_that_are_broken_or_do_not_fit_are_not_written(tmp_path):
    checkpoint, new = opened(tmp_path / "f.safetensors", state()), tmp_path / "g.safetensors"
    # finite in float32, not in the float16 of the file
    broken = {**state(), "m.bias": torch.tensor([1e6, 0.0])}
    assert refusal(checkpoint.write, broken, new, kind=OutputError) == (
        "Wanted finite weights to write. Got nan or inf in m.bias. Nothing was written."
    )
    other = {"z.weight": torch.ones(3), "m.bias": torch.ones(2)}
    assert refusal(checkpoint.write, other, new) == (
        "Wanted the tensors of the container. Got missing: a.count; of another shape: z.weight. "
        "Write the state that it held."
    )
    assert not new.exists()


@pytest.mark.parametrize("name", ["f.safetensors", "f.pt"])
def test_a_full_disk_is_an_output_error_and_the_old_file_stands(tmp_path, monkeypatch, name):
    path = tmp_path / name
    checkpoint = opened(path, state())
    before = path.read_bytes()
    monkeypatch.setattr("efface.io.atomic._scratch", lambda _: tmp_path / "absent" / "scratch")
    with pytest.raises(OutputError):
        checkpoint.write(state(), path)
    assert path.read_bytes() == before

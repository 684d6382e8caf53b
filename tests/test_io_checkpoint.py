"""The container that comes in is the container that goes out, and no code in it ever runs."""

from collections import OrderedDict
from itertools import pairwise

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import nn

from efface.errors import UnsafeFile
from efface.io.checkpoints import load_checkpoint


def state():
    """Three tensors of three dtypes; not in the order of the alphabet."""
    return {
        "z.weight": torch.arange(6.0).view(2, 3),
        "a.count": torch.tensor(7),
        "m.bias": torch.tensor([1.5, -2.0], dtype=torch.float16),
    }


def doubled(old):
    """A state that has moved, in float32 as a model computes it."""
    return {name: tensor.float() * 2 if tensor.ndim else tensor for name, tensor in old.items()}


def same(one, other):
    """Equal in type, order, dtype and value, all the way down."""
    assert type(one) is type(other)
    if isinstance(one, dict):
        assert list(one) == list(other)
        for key in one:
            same(one[key], other[key])
    elif isinstance(one, torch.Tensor):
        assert one.dtype == other.dtype
        assert one.equal(other)
    else:
        assert one == other


def numbers(checkpoint):
    """All tensors of the weights, as they are read."""
    return {name: t for portion in checkpoint.portions() for name, t in portion.items()}


def read(path):
    """With torch itself, as the oracle."""
    return torch.load(path, weights_only=True)


def test_safetensors_keep_names_dtypes_and_metadata(tmp_path):
    """A tool that reads the metadata must find what it wrote."""
    save_file(state(), tmp_path / "old.safetensors", metadata={"format": "pt", "of": "mine"})
    checkpoint = load_checkpoint(tmp_path / "old.safetensors")
    checkpoint.write(doubled(numbers(checkpoint)), tmp_path / "new.safetensors")
    with safe_open(tmp_path / "new.safetensors", "pt") as file:
        assert file.metadata() == {"format": "pt", "of": "mine"}
    new, old = load_file(tmp_path / "new.safetensors"), load_file(tmp_path / "old.safetensors")
    assert {n: (t.dtype, t.shape) for n, t in new.items()} == {
        n: (t.dtype, t.shape) for n, t in old.items()
    }
    assert new["m.bias"].tolist() == [3.0, -4.0]


def test_unchanged_safetensors_are_the_same_file(tmp_path):
    """Byte for byte: whoever compares digests sees that nothing moved."""
    save_file(state(), tmp_path / "old.safetensors", metadata={"format": "pt"})
    checkpoint = load_checkpoint(tmp_path / "old.safetensors")
    checkpoint.write(numbers(checkpoint), tmp_path / "new.safetensors")
    assert (tmp_path / "new.safetensors").read_bytes() == (
        tmp_path / "old.safetensors"
    ).read_bytes()


def test_safetensors_without_metadata_get_none(tmp_path):
    """Nothing of ours is put into the user's file."""
    save_file(state(), tmp_path / "f.safetensors")
    load_checkpoint(tmp_path / "f.safetensors").write(state(), tmp_path / "g.safetensors")
    with safe_open(tmp_path / "g.safetensors", "pt") as file:
        assert file.metadata() is None


@pytest.mark.parametrize("place", [None, "state_dict", "model"])
@pytest.mark.parametrize("prefix", ["", "module.", "module._orig_mod."])
@pytest.mark.parametrize("zipped", [True, False])
def test_a_torch_file_keeps_its_nesting_prefix_and_the_rest(tmp_path, place, prefix, zipped):
    """Whatever read the old file reads the new one."""
    weights = OrderedDict((prefix + name, tensor) for name, tensor in state().items())
    content = weights if place is None else {"epoch": 3, place: weights, "note": ["a", {"b": 1.5}]}
    torch.save(content, tmp_path / "old.pt", _use_new_zipfile_serialization=zipped)
    checkpoint = load_checkpoint(tmp_path / "old.pt")
    assert list(checkpoint.state) == list(state())
    checkpoint.write(doubled(numbers(checkpoint)), tmp_path / "new.pt")
    moved = OrderedDict((prefix + n, t.to(state()[n].dtype)) for n, t in doubled(state()).items())
    same(read(tmp_path / "new.pt"), moved if place is None else {**content, place: moved})
    same(read(tmp_path / "old.pt"), content)


def test_the_versions_that_torch_keeps_beside_a_state_dict_are_kept(tmp_path):
    """Without them an old file is read by the rules of another version."""
    net = nn.Sequential(nn.BatchNorm1d(2))
    torch.save(net.state_dict(), tmp_path / "old.pt")
    checkpoint = load_checkpoint(tmp_path / "old.pt")
    checkpoint.write(numbers(checkpoint), tmp_path / "new.pt")
    assert read(tmp_path / "new.pt")._metadata == net.state_dict()._metadata


def test_what_may_hold_the_records_too_is_left_out_and_named(tmp_path):
    """Momentum and averaged weights remember what the weights were made to forget."""
    content = {
        "state_dict": state(),
        "optimizer": {"step": 3},
        "lr_schedulers": [],
        "state_dict_ema": {},
        "ema": None,
        "amp_scaler": {"scale": 2.0},
        "best": {"w": torch.ones(2)},
        "history": [{"mean": [torch.ones(1)]}],
        "hyper_parameters": {"optimizer": "adam"},
        "schema": "2",
        "emails": 0,
    }
    torch.save(content, tmp_path / "old.ckpt")
    checkpoint = load_checkpoint(tmp_path / "old.ckpt")
    assert checkpoint.omitted == (
        *("optimizer", "lr_schedulers", "state_dict_ema", "ema", "amp_scaler", "best", "history"),
    )
    checkpoint.write(numbers(checkpoint), tmp_path / "new.ckpt")
    assert list(read(tmp_path / "new.ckpt")) == [
        "state_dict",
        "hyper_parameters",
        "schema",
        "emails",
    ]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.float16, torch.bfloat16])
def test_tied_weights_stay_tied_in_a_torch_file_and_stand_apart_in_safetensors(tmp_path, dtype):
    """Torch keeps one storage for two names; safetensors allows none to be shared."""
    net = nn.Module()
    net.one, net.two, net.other = (nn.Linear(50, 50, bias=False) for _ in range(3))
    net.two.weight = net.one.weight
    net.other.load_state_dict(net.one.state_dict())  # equal, and not tied
    torch.save(net.to(dtype).state_dict(), tmp_path / "old.pt")
    moved = {name: tensor + 1 for name, tensor in net.float().state_dict().items()}
    load_checkpoint(tmp_path / "old.pt").write(moved, tmp_path / "new.pt")
    new = read(tmp_path / "new.pt")
    assert new["one.weight"].equal(moved["one.weight"].to(dtype))
    assert new["one.weight"].data_ptr() == new["two.weight"].data_ptr()
    assert new["one.weight"].data_ptr() != new["other.weight"].data_ptr()
    assert (tmp_path / "new.pt").stat().st_size == (tmp_path / "old.pt").stat().st_size
    apart = {name: tensor.clone() for name, tensor in net.state_dict().items()}
    save_file(apart, tmp_path / "old.safetensors")
    checkpoint = load_checkpoint(tmp_path / "old.safetensors")
    checkpoint.write(net.state_dict(), tmp_path / "new.safetensors")
    assert load_file(tmp_path / "new.safetensors").keys() == apart.keys()


def test_tied_weights_that_moved_apart_are_written_apart(tmp_path):
    """Both are what the model is; one of them would be lost."""
    one = torch.ones(2, dtype=torch.float16)
    torch.save({"one": one, "two": one}, tmp_path / "old.pt")
    moved = {"one": torch.tensor([1.0, 2.0]), "two": torch.tensor([1.0, 3.0])}
    load_checkpoint(tmp_path / "old.pt").write(moved, tmp_path / "new.pt")
    assert {n: t.tolist() for n, t in read(tmp_path / "new.pt").items()} == {
        n: t.tolist() for n, t in moved.items()
    }


def test_a_parameter_stays_a_parameter(tmp_path):
    """Some save parameters instead of plain tensors."""
    torch.save({"w": nn.Parameter(torch.ones(2), requires_grad=False)}, tmp_path / "old.pt")
    load_checkpoint(tmp_path / "old.pt").write({"w": torch.zeros(2)}, tmp_path / "new.pt")
    written = read(tmp_path / "new.pt")["w"]
    assert type(written) is nn.Parameter
    assert not written.requires_grad
    assert written.tolist() == [0, 0]


def test_a_view_is_written_without_the_rest_of_its_storage(tmp_path):
    """Otherwise other numbers than the weights go out with the file."""
    torch.save({"w": torch.ones(2)}, tmp_path / "old.pt")
    view = torch.arange(100_000.0)[:2]
    load_checkpoint(tmp_path / "old.pt").write({"w": view}, tmp_path / "new.pt")
    assert (tmp_path / "new.pt").stat().st_size < 10_000


def test_a_float64_weight_that_did_not_move_keeps_its_bits(tmp_path):
    """The model computes in float32; rounding all weights would look like a change of all."""
    fine = torch.tensor([1 / 3, 2 / 3], dtype=torch.float64)
    save_file({"w": fine}, tmp_path / "old.safetensors")
    checkpoint = load_checkpoint(tmp_path / "old.safetensors")
    computed = fine.float()
    computed[1] += 1
    checkpoint.write({"w": computed}, tmp_path / "new.safetensors")
    written = load_file(tmp_path / "new.safetensors")["w"]
    assert written[0] == fine[0]
    assert written[1] == computed[1].double()


def test_a_safetensors_file_is_read_in_portions_that_hold_every_tensor_once(tmp_path, monkeypatch):
    """A large model must not be in memory twice: as it was read, and as it is."""
    whole = {f"w{n:02d}": torch.full((n, 5), float(n)) for n in range(20)}
    save_file(whole, tmp_path / "f.safetensors")
    monkeypatch.setattr("efface.io.checkpoints.PORTION", 300)
    checkpoint = load_checkpoint(tmp_path / "f.safetensors")
    assert all(outline.is_meta for outline in checkpoint.state.values())
    portions = list(checkpoint.portions())
    assert [name for portion in portions for name in portion] == list(checkpoint.state)
    assert all(whole[name].equal(t) for portion in portions for name, t in portion.items())
    sizes = [sum(t.nbytes for t in portion.values()) for portion in portions]
    assert all(size <= 300 or len(p) == 1 for size, p in zip(sizes, portions, strict=True))
    assert all(a + b > 300 for a, b in pairwise(sizes))


@pytest.mark.parametrize(
    "later",
    [
        lambda checkpoint, _: list(checkpoint.portions()),
        lambda checkpoint, folder: checkpoint.write({"w": torch.ones(2)}, folder / "g"),
    ],
    ids=["read", "write"],
)
def test_another_file_in_the_place_of_the_one_that_was_opened_is_refused(tmp_path, later):
    """Half of one model and half of another would be a model that nobody trained."""
    path = tmp_path / "f.safetensors"
    save_file({"w": torch.ones(2, dtype=torch.float64)}, path)
    checkpoint = load_checkpoint(path)
    save_file({"w": torch.ones(3, dtype=torch.float64)}, path)
    with pytest.raises(UnsafeFile) as caught:
        later(checkpoint, tmp_path)
    assert str(caught.value) == (
        f"Wanted {path} as it was when opened. Got another file in its place. "
        "Start again when nothing else writes it."
    )
    assert [file.name for file in tmp_path.iterdir()] == ["f.safetensors"]


VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**31), 2**31)
    | st.floats(allow_nan=False)
    | st.text(),
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
    """Checkpoints differ in everything but this."""
    content = weights if place is None else {**rest, place: weights}
    torch.save(content, tmp_path / "old.pt")
    checkpoint = load_checkpoint(tmp_path / "old.pt")
    checkpoint.write(numbers(checkpoint), tmp_path / "new.pt")
    same(read(tmp_path / "new.pt"), content)

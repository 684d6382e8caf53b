"""Files that would run code, are damaged, or hold no model: refused in a sentence, nothing run."""

import argparse
import os
import pickle
import struct

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from efface.errors import InputError, OutputError, UnsafeFile
from efface.io.checkpoints import load_checkpoint

NOT_WHOLE = "The file is cut short, damaged or of another kind: fetch or save it again."
SAVE_AGAIN = (
    "Where you trust the file and have its code, load it once and save the weights alone: "
    'torch.save(model.state_dict(), "weights.pt").'
)


def state():
    """Three tensors of three dtypes; not in the order of the alphabet."""
    return {
        "z.weight": torch.arange(6.0).view(2, 3),
        "a.count": torch.tensor(7),
        "m.bias": torch.tensor([1.5, -2.0], dtype=torch.float16),
    }


class Evil:
    """What an attacker pickles: unpickling it would make the file that the test looks for."""

    def __init__(self, canary):
        self.canary = canary

    def __reduce__(self):
        return os.mkdir, (str(self.canary),)


def evil_files(folder, canary):
    """Name, bytes and what the error must name: each would run code, were it unpickled."""
    evil = Evil(canary)
    torch.save({"state_dict": state(), "extra": evil}, folder / "zip.pt")
    torch.save([evil], folder / "old.pt", _use_new_zipfile_serialization=False)
    (folder / "plain.pkl").write_bytes(pickle.dumps(evil, protocol=2))
    (folder / "protocol4.pkl").write_bytes(pickle.dumps(evil, protocol=4))
    torch.save({"w": evil}, folder / "disguised.safetensors")
    return ["zip.pt", "old.pt", "plain.pkl", "protocol4.pkl", "disguised.safetensors"]


def test_no_file_runs_code(tmp_path):
    """The file may come from anybody; its extension says nothing."""
    canary = tmp_path / "canary"
    for name in evil_files(tmp_path, canary):
        with pytest.raises(UnsafeFile):
            load_checkpoint(tmp_path / name)
        assert not canary.exists(), name


@pytest.mark.parametrize(
    ("content", "named"),
    [
        (nn.Linear(2, 2), "torch.nn.modules.linear.Linear"),
        ({"state_dict": state(), "args": argparse.Namespace(lr=1)}, "argparse.Namespace"),
    ],
    ids=["a whole module", "a namespace of arguments"],
)
def test_a_file_that_must_be_unpickled_says_what_is_in_it_and_what_to_do(tmp_path, content, named):
    """The owner of the file can mend it in one line."""
    torch.save(content, tmp_path / "f.pt")
    with pytest.raises(UnsafeFile) as caught:
        load_checkpoint(tmp_path / "f.pt")
    assert str(caught.value) == (
        "Wanted a file of tensors and plain values. "
        f"Got {tmp_path / 'f.pt'}, which holds {named}. {SAVE_AGAIN}"
    )


def header(text, rest=b""):
    """A safetensors file with this header."""
    return struct.pack("<Q", len(text)) + text.encode() + rest


@pytest.mark.parametrize(
    ("content", "came"),
    [
        (b"", "an empty file"),
        (b"hello world", "a file that begins with b'hello wor'"),
        (header("{"), "invalid JSON in header"),
        (
            header('{"w":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}}', b"1234"),
            "incomplete metadata, file not fully covered",
        ),
        (
            header('{"w":{"dtype":"F32","shape":[9223372036854775807,9],"data_offsets":[0,8]}}'),
            "verflow",
        ),
        (struct.pack("<Q", 1 << 40) + b"{", "header too large"),
        (b"PK\x03\x04 not really", "PytorchStreamReader failed"),
    ],
    ids=["empty", "text", "broken json", "cut short", "overflow", "huge header", "broken zip"],
)
def test_a_damaged_file_is_refused_in_one_sentence(tmp_path, content, came):
    """A download that was cut short is the commonest of these."""
    (tmp_path / "f").write_bytes(content)
    with pytest.raises(UnsafeFile) as caught:
        load_checkpoint(tmp_path / "f")
    wanted = f"a whole safetensors file, or one that torch.save wrote, at {tmp_path / 'f'}"
    assert caught.value.wanted == wanted
    assert came in caught.value.came
    assert caught.value.remedy == NOT_WHOLE


@pytest.mark.parametrize("kind", ["safetensors", "zip", "old"])
def test_a_file_cut_anywhere_is_refused(tmp_path, kind):
    """Half of a model must never pass for a model."""
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


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_that_are_not_finite_are_named(tmp_path, value):
    """A model that diverged cannot be unlearned, only replaced."""
    save_file({"a": torch.ones(2), "b": torch.tensor([value])}, tmp_path / "f.safetensors")
    with pytest.raises(UnsafeFile) as caught:
        load_checkpoint(tmp_path / "f.safetensors")
    assert str(caught.value) == (
        f"Wanted finite weights in {tmp_path / 'f.safetensors'}. Got nan or inf in b. "
        "Use a checkpoint from before training diverged."
    )


def test_a_broken_weight_is_not_written_even_when_the_dtype_breaks_it(tmp_path):
    """1e6 is finite in float32 and infinite in the file's float16."""
    save_file(state(), tmp_path / "f.safetensors")
    checkpoint = load_checkpoint(tmp_path / "f.safetensors")
    new = {**state(), "m.bias": torch.tensor([1e6, 0.0])}
    with pytest.raises(OutputError) as caught:
        checkpoint.write(new, tmp_path / "g.safetensors")
    assert str(caught.value) == (
        "Wanted finite weights to write. Got nan or inf in m.bias. Nothing was written."
    )
    assert not (tmp_path / "g.safetensors").exists()


def test_a_state_that_does_not_fit_the_container_is_not_written(tmp_path):
    """Same keys, same shapes: a promise to whoever loads the result."""
    save_file(state(), tmp_path / "f.safetensors")
    checkpoint = load_checkpoint(tmp_path / "f.safetensors")
    with pytest.raises(InputError) as caught:
        checkpoint.write({"z.weight": torch.ones(3), "m.bias": torch.ones(2)}, tmp_path / "g")
    assert str(caught.value) == (
        "Wanted the tensors that the container holds. "
        "Got missing: a.count; of another shape: z.weight. "
        "Write the state of the model that was loaded from it."
    )


@pytest.mark.parametrize(
    ("content", "came"),
    [
        ([1], "a list"),
        ({}, "the entries none"),
        ({"epoch": 1, "heart": {"w": torch.ones(1)}}, "the entries epoch, heart"),
        ({str(n): n for n in range(12)}, "the entries 0, 1, 2, 3, 4, 5, 6, 7, 8, 9 and 2 more"),
    ],
)
def test_a_file_without_a_state_dict_says_what_it_holds(tmp_path, content, came):
    """The user can see which entry was meant."""
    torch.save(content, tmp_path / "f.pt")
    with pytest.raises(InputError) as caught:
        load_checkpoint(tmp_path / "f.pt")
    assert caught.value.came == came


def test_safetensors_without_a_tensor_are_no_state_dict(tmp_path):
    """The format allows it."""
    (tmp_path / "f").write_bytes(header("{}"))
    with pytest.raises(InputError, match="the entries none"):
        load_checkpoint(tmp_path / "f")


def test_a_path_that_is_not_there_is_said(tmp_path):
    """The commonest mistake of all."""
    with pytest.raises(InputError) as caught:
        load_checkpoint(tmp_path / "f.pt")
    assert str(caught.value) == (
        f"Wanted a weights file. Got {tmp_path / 'f.pt'}, which is not there. Check the path."
    )


@pytest.mark.parametrize("kind", ["safetensors", "torch"])
def test_a_full_disk_is_an_output_error_and_the_old_file_stands(tmp_path, monkeypatch, kind):
    """Torch says it by a RuntimeError, safetensors by an error of its own."""
    path = tmp_path / "f"
    save_file(state(), path) if kind == "safetensors" else torch.save(state(), path)
    before, checkpoint = path.read_bytes(), load_checkpoint(path)
    monkeypatch.setattr("efface.io.atomic._scratch", lambda _: tmp_path / "absent" / "scratch")
    with pytest.raises(OutputError):
        checkpoint.write(state(), path)
    assert path.read_bytes() == before

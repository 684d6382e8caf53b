"""Models of other libraries are named for what they are, and folders of several name one."""

import io
import json
import pickle
import zipfile

import joblib
import numpy as np
import pytest
import torch
from refusals import refusal
from safetensors.torch import save_file
from sklearn.linear_model import LogisticRegression

from efface.errors import UnsafeFile
from efface.io.checkpoints import load_checkpoint
from efface.io.models import load_model
from efface.nets import conv_quarter

FITTED = LogisticRegression().fit([[0], [1]], [0, 1])


def written(write):
    file = io.BytesIO()
    write(file)
    return file.getvalue()


def keras(file):
    with zipfile.ZipFile(file, "w") as archive:
        for name in ("metadata.json", "config.json", "model.weights.h5"):
            archive.writestr(name, "{}")


REFIT = "Fit it again on the data without the records"
EXPORT, PORT = "Give the PyTorch weights that it was exported from", "efface unlearns PyTorch"
# names that say nothing, but for kinds that their bytes do not show
FILES = {
    "a.bin": (b"GGUF\3\0\0\0" + bytes(50), "a GGUF file of llama.cpp", EXPORT),
    "b.bin": (b"\x08\x07\x12\x07pytorch\x1a\x052.1.0", "an ONNX graph", EXPORT),
    "c.bin": (b"\x1c\0\0\0TFL3" + bytes(50), "a TensorFlow Lite model", EXPORT),
    "d.bin": (b"\x89HDF\r\n\x1a\n" + bytes(50), "a Keras or HDF5 file", PORT),
    "e.bin": (written(keras), "a Keras or HDF5 file", PORT),
    "f.bin": (b'{"learner":{"attributes":{}}}', "an XGBoost model", REFIT),
    "g.bin": (b"{L\0\0\0\0\0\0\0\7learner{" + bytes(9), "an XGBoost model", REFIT),
    "h.bin": (b"tree\nversion=v4\n", "a LightGBM model", REFIT),
    "i.bin": (b"CBM1" + bytes(50), "a CatBoost model", REFIT),
    "j.bin": (pickle.dumps(FITTED), "a scikit-learn model", REFIT),
    "k.bin": (pickle.dumps(FITTED, 0), "a scikit-learn model", REFIT),
    "l.bin": (written(lambda file: joblib.dump(FITTED, file)), "a scikit-learn model", REFIT),
    "m.bin": (written(lambda f: np.savez(f, x=np.zeros(3))), "an archive of numpy arrays", EXPORT),
    "n.joblib": (b"x^}S" + bytes(50), "a scikit-learn model", REFIT),
    "o.msgpack": (b"\x83\xa6params" + bytes(50), "a Flax file", PORT),
}


@pytest.mark.parametrize("name", FILES)
def test_a_model_of_another_library_is_named_and_not_loaded(tmp_path, monkeypatch, name):
    monkeypatch.setattr(LogisticRegression, "__setstate__", lambda *_: pytest.fail("unpickled"))
    content, kind, remedy = FILES[name]
    (tmp_path / name).write_bytes(content)
    for call in (load_checkpoint, lambda path: load_model(path, architecture=conv_quarter())):
        text = refusal(call, tmp_path / name)
        assert text.startswith(f"Wanted a weights file of PyTorch. Got {tmp_path / name}, {kind}. ")
        assert remedy in text


def test_weights_that_mention_another_library_are_weights(tmp_path):
    for new in (True, False):
        content = {"state_dict": {"w": torch.ones(2)}, "made_with": "sklearn.datasets xgboost."}
        torch.save(content, tmp_path / "w.pt", _use_new_zipfile_serialization=new)
        assert load_checkpoint(tmp_path / "w.pt").state["w"].tolist() == [1, 1]


@pytest.mark.parametrize("content", [b"", b"\0" * 100, pickle.dumps(print), b"PK\3\4" + bytes(50)])
def test_what_is_of_no_known_kind_is_refused_as_before(tmp_path, content):
    (tmp_path / "w.pt").write_bytes(content)
    refusal(load_checkpoint, tmp_path / "w.pt", kind=UnsafeFile)


def trainer(folder, *steps, best=None):
    """What transformers' Trainer leaves in its output_dir."""
    for step in steps:
        (place := folder / f"checkpoint-{step}").mkdir(parents=True)
        state = {"best_model_checkpoint": best and f"/somewhere/out/checkpoint-{best}"}
        (place / "trainer_state.json").write_text(json.dumps(state))
        (place / "config.json").write_text("{}")
    return folder


@pytest.mark.parametrize("best", [500, None])
def test_of_a_trainers_checkpoints_none_is_guessed(tmp_path, best):
    """The newest need not be the one that is deployed: load_best_model_at_end takes another."""
    folder = trainer(tmp_path / "out", 1000, 500, 90, best=best)
    said = " Its Trainer calls checkpoint-500 the best." if best else ""
    assert refusal(load_model, folder) == (
        f"Wanted one model. Got {folder}, a Trainer's folder of checkpoint-90, checkpoint-500, "
        f"checkpoint-1000. Name one, such as {folder}/checkpoint-1000, the newest.{said} "
        "All of them know the records."
    )


def test_a_folder_of_weights_files_names_one(tmp_path):
    (place := tmp_path / "version_0/checkpoints").mkdir(parents=True)
    torch.save({"state_dict": conv_quarter().state_dict()}, place / "epoch=3.ckpt")
    assert refusal(load_model, tmp_path) == (
        f"Wanted a model. Got {tmp_path}, a folder that holds version_0/checkpoints/epoch=3.ckpt. "
        f"Name one of its files, such as {place}/epoch=3.ckpt, with --architecture."
    )


def test_a_folder_of_another_library_is_named(tmp_path):
    (tmp_path / "model.onnx").write_bytes(FILES["b.bin"][0])
    assert "model.onnx, an ONNX graph. Give" in refusal(load_model, tmp_path)
    (tmp_path / "saved_model.pb").write_bytes(b"\x08\1")
    assert ", a SavedModel of TensorFlow. efface" in refusal(load_model, tmp_path)


def test_a_folder_of_nothing_is_refused_as_before(tmp_path):
    assert "model.safetensors and recipe.json in" in refusal(load_model, tmp_path)


def test_a_final_model_next_to_checkpoints_is_taken_and_they_are_not_written(tmp_path):
    folder = trainer(tmp_path, 500)
    save_file(conv_quarter().state_dict(), folder / "model.safetensors")
    recipe = {"schema": 1, "architecture": "efface.nets:conv_quarter", "num_classes": 10}
    recipe |= {"mean": [0.5], "std": [0.5], "size": 8}
    (folder / "recipe.json").write_text(json.dumps(recipe))
    assert load_model(folder).num_classes == 10

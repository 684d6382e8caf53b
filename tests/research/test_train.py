"""``python -m research.train``: a recipe into a folder, whole or absent; resumed bit for bit."""

import json
import shutil
from contextlib import nullcontext
from dataclasses import replace

import pytest
import torch
from run_files import MADE

import research.train as command
from efface.io.data import load_data
from research.recipes import RECIPES, fresh, train

DIGITS = ("digits-conv", "--data", "data")


def test_a_training_that_was_stopped_resumes_to_the_same_bytes(train_command, place, monkeypatch):
    def interrupt(step, *_):
        if step > 19:
            raise KeyboardInterrupt

    def stopped(*given, progress, **options):  # noqa: ARG001
        return train(*given, progress=lambda *_: nullcontext(interrupt), **options)

    monkeypatch.setitem(RECIPES, "digits-conv", replace(RECIPES["digits-conv"], epochs=2))
    assert train_command(*DIGITS, "--out", "whole") == 0
    with monkeypatch.context() as patch:
        patch.setattr(command, "train", stopped)
        assert train_command(*DIGITS, "--out", "pieces") == 130
    assert not (place / "pieces").exists()
    assert train_command(*DIGITS, "--out", "pieces") == 0
    whole, pieces = ((place / n / "model.safetensors").read_bytes() for n in ("whole", "pieces"))
    assert whole == pieces
    assert not list(place.glob(".pieces*"))


@pytest.fixture(scope="module")
def progress(place):
    """The progress of a training with seed 0 that was stopped after its first epoch, as bytes."""
    path = place / "stopped"
    recipe = replace(RECIPES["digits-conv"], epochs=1)
    records = load_data(place / "data").records(None, recipe.preprocessing)
    train(fresh(recipe, 10, seed=0), records, recipe, seed=0, state=path)
    parts = torch.load(path, weights_only=True)
    parts["of"]["recipe"] = repr(RECIPES["digits-conv"])
    torch.save(parts, path)
    return path.read_bytes()


OTHERS = [
    ("--seed 1", "seed"),
    ("--exclude ids.csv", "set of records"),
    ("--seed 2 --exclude-class 3", "seed and set of records"),
]


@pytest.mark.parametrize(("changed", "what"), OTHERS)
def test_the_progress_of_another_training_is_not_resumed(
    train_command, place, capfd, progress, changed, what
):
    """What must be excluded now was trained on then: the result would still hold it."""
    state = place / ".kept.training"
    state.write_bytes(progress)
    assert train_command(*DIGITS, "--out", "kept", *changed.split()) == 2
    assert f"Got that of one with another {what}. " in capfd.readouterr().err.splitlines()[-1]
    assert state.read_bytes() == progress
    assert not (place / "kept").exists()


def test_damaged_progress_is_refused_in_a_sentence(train_command, place, capfd, progress):
    (place / ".hurt.training").write_bytes(progress[:500])
    assert train_command(*DIGITS, "--out", "hurt") == 4
    assert "a whole safetensors file, or one that torch.save wrote" in capfd.readouterr().err
    assert not (place / "hurt").exists()


def test_the_exclusion_table_of_forget_is_an_argument_of_training(efface, train_command, place):
    """The way to the only exact answer: retraining without the records."""
    forget = ("forget", "model", "--data", "data", "--setting", "steps=2")
    assert efface(*forget, "--ids", "ids.csv", "--out", "listed") in MADE
    assert (
        train_command(*DIGITS, "--exclude", "listed/evidence/exclude.csv", "--out", "without") == 0
    )
    assert json.loads((place / "without/recipe.json").read_text())["excluded"] == 2


def test_training_does_not_write_into_its_data(train_command, place, capfd):
    shutil.rmtree(place / "data/model", ignore_errors=True)
    assert train_command(*DIGITS, "--out", "data/model") == 2
    assert "Got data/model, in the folder of --data, data." in capfd.readouterr().err
    assert not (place / "data/model").exists()

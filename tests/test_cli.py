"""The command line: the same container out, whole or absent, and one exit code an error."""

import csv
import hashlib
import hmac
import json
import os
import shutil
import subprocess
import sys
from contextlib import contextmanager
from dataclasses import replace

import pyarrow as pa
import pytest
import torch
from pyarrow import parquet
from safetensors.torch import load_file, save_file

from efface.guard import Guard
from efface.io.data import load_data
from efface.nets import conv_small
from efface.types import Action
from research.recipes import RECIPES, fresh, train

FORGET = ("forget", "model", "--data", "data", "--setting", "steps=2")


def test_forget_writes_the_same_container_and_its_account(efface, place):
    """The new folder can stand where the old one stood."""
    assert efface(*FORGET, "--ids", "ids.csv", "--holdout", "data:test", "--out", "new") == 0
    new = place / "new"
    old, changed = (load_file(f / "model.safetensors") for f in (place / "model", new))
    assert list(old) == list(changed)
    assert all(old[k].dtype == changed[k].dtype for k in old)
    assert any(not torch.equal(old[k], changed[k]) for k in old)
    assert (new / "recipe.json").read_bytes() == (place / "model/recipe.json").read_bytes()
    names = {path.name for path in new.iterdir()}
    assert {"manifest.json", "evidence.json", "exclude.csv", "report.html"} <= names
    record = json.loads((new / "manifest.json").read_text())
    rows = list(csv.DictReader((new / "exclude.csv").read_text().splitlines()))
    key = bytes.fromhex((new / "exclude.key").read_text())
    for row, kept in zip(rows, record["keyed_hashes"], strict=True):
        assert row["keyed_hash"] == kept
        assert kept == hmac.new(key, row["id"].encode(), hashlib.sha256).hexdigest()
    assert "digit-0001" not in (new / "manifest.json").read_text()
    assert record["command"].startswith("efface forget model")


def test_the_new_folder_is_a_model_for_the_next_request(efface, place):
    """Requests come one after another."""
    assert efface(*FORGET, "--where", "label=4 and id!=digit-0004", "--out", "second") == 0
    again = ("forget", "second", "--data", "data", "--setting", "steps=2", "--ids", "ids.csv")
    assert efface(*again, "--out", "third") == 0
    assert (place / "third/model.safetensors").exists()


def test_a_weights_file_comes_back_under_its_own_name(efface, place):
    """Safetensors or torch.save, with the architecture named."""
    weights = load_file(place / "model/model.safetensors")
    save_file(weights, place / "w.safetensors", {"note": "kept"})
    torch.save({"state_dict": weights, "epoch": 3}, place / "w.pt")
    options = ("--architecture", "tests_nets:narrow", "--mean", "0.5", "--std", "0.5")
    for name in ("w.safetensors", "w.pt"):
        out = f"out-{name}"
        given = ("forget", name, "--data", "data", "--ids", "ids.csv", "--setting", "steps=2")
        assert efface(*given, *options, "--size", "8", "--out", out) == 0
        assert (place / out / name).exists()
    again = torch.load(place / "out-w.pt/w.pt", weights_only=True)
    assert again["epoch"] == 3
    assert list(again["state_dict"]) == list(weights)


def test_what_is_not_written_back_is_said_aloud(efface, place, capfd):
    """Whoever wants to train on would look for the optimizer in vain."""
    weights = load_file(place / "model/model.safetensors")
    content = {"model": weights, "optimizer": {"step": 3}, "ema": weights, "epoch": 3}
    torch.save(content, place / "trained.pt")
    net = ("--architecture", "tests_nets:narrow", "--mean", "0.5", "--std", "0.5", "--size", "8")
    data = ("--data", "data", "--ids", "ids.csv", "--setting", "steps=2")
    assert efface("forget", "trained.pt", *data, *net, "--out", "without-optimizer") == 0
    said = [json.loads(line) for line in capfd.readouterr().err.splitlines() if line[0] == "{"]
    assert [facts for facts in said if facts["event"] == "left out"] == [
        {
            "event": "left out",
            "of_the_checkpoint": "optimizer, ema",
            "hint": "they may hold the data",
        }
    ]


def test_forget_records_in_the_data_that_stay_are_counted_aloud(efface, place, capfd):
    """Taken out of --retain by row in the same files, by content in a copy of them."""
    table = parquet.read_table(place / "data/train-00000-of-00001.parquet")
    (place / "copy").mkdir()
    parquet.write_table(table.slice(0, 100), place / "copy/train-00000-of-00001.parquet")
    for retain, out in (("data", "kept-1"), ("copy", "kept-2")):
        assert efface(*FORGET, "--ids", "ids.csv", "--retain", retain, "--out", out) == 0
        assert '{"event": "retain", "forget_records_taken_out": 2}' in capfd.readouterr().err
        record = json.loads((place / out / "manifest.json").read_text())
        assert record["request"]["forget_records_in_retain"] == 2


def test_a_class_goes_by_its_name(efface, place):
    """--forget-class says that the class leaves altogether."""
    assert efface(*FORGET, "--forget-class", "3", "--out", "class") == 0
    record = json.loads((place / "class/manifest.json").read_text())
    assert record["request"]["forget_classes"] == [3]


def test_nearly_a_whole_class_without_saying_so_is_warned_of(efface, capfd):
    """A hundred photographs of a dog are not the class dog."""
    assert efface(*FORGET, "--where", "label=3", "--out", "warned") == 0
    assert '"hint": "--forget-class removes a class"' in capfd.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "code", "text"),
    [
        (("--ids", "nowhere.csv"), 2, "Wanted a text file or CSV of ids at nowhere.csv."),
        ((), 2, "Wanted one of --ids, --where, --forget-class. Got none."),
        (("--ids", "ids.csv", "--where", "label=3"), 2, "Got --ids and --where."),
        (("--where", "__import__('os')"), 2, "Wanted"),
        (("--forget-class", "11"), 2, "Wanted a class of"),
        (("--ids", "ids.csv", "--method", "jitt"), 2, "Did you mean 'jit'?"),
        (("--ids", "ids.csv", "--setting", "steps"), 2, "Wanted --setting NAME=VALUE."),
        (("--ids", "ids.csv", "--setting", "x=("), 2, "Wanted a number, true, false or"),
        (("--ids", "ids.csv", "--holdout", "data:none"), 2, "Wanted"),
    ],
)
def test_a_wrong_word_costs_nothing(efface, place, capfd, arguments, code, text):
    """What was wanted, what came, what to do; and no folder."""
    assert efface(*FORGET, *arguments, "--out", "wrong") == code
    assert text in capfd.readouterr().err
    assert not (place / "wrong").exists()


def test_unknown_ids_are_all_named_and_have_a_code_of_their_own(efface, place, capfd):
    """A record that is not found is a record that is not forgotten."""
    (place / "unknown.csv").write_text("id\ndigit-0001\nx-1\nx-2\n")
    assert efface(*FORGET, "--ids", "unknown.csv", "--out", "wrong") == 5
    assert "Got 2 unknown: x-1, x-2." in capfd.readouterr().err
    assert not (place / "wrong").exists()


def test_a_taken_folder_is_refused_before_anything_is_done(efface, place):
    """The result of an earlier request must not be lost."""
    (place / "taken").mkdir()
    (place / "taken/here").write_text("kept")
    assert efface(*FORGET, "--ids", "ids.csv", "--out", "taken") == 2
    assert (place / "taken/here").read_text() == "kept"


def test_a_pickle_is_never_opened(efface, place, capfd):
    """A checkpoint with a payload must not run it."""
    torch.save(conv_small(width=8), place / "whole.pt")
    given = ("forget", "whole.pt", "--data", "data", "--ids", "ids.csv", "--out", "wrong")
    options = ("--architecture", "tests_nets:narrow", "--mean", "0.5", "--std", "0.5")
    assert efface(*given, *options, "--size", "8") == 4
    assert "Wanted" in capfd.readouterr().err


def test_a_request_that_is_not_met_leaves_an_account_and_no_model(efface, place, monkeypatch):
    """Exit code 3: the old model stands; why is in the report."""

    def callback(self, student, loss):  # noqa: ARG001
        self.failed = "drift 9 above 1, after 8 halvings"
        return Action.STOP

    monkeypatch.setattr(Guard, "callback", callback)
    assert efface(*FORGET, "--ids", "ids.csv", "--out", "unmet") == 3
    names = {path.name for path in (place / "unmet").iterdir()}
    assert "model.safetensors" not in names
    assert {"manifest.json", "evidence.json", "report.html"} <= names
    assert json.loads((place / "unmet/manifest.json").read_text())["outcome"] == "not met"


def test_doctor_refuses_a_wrong_class_map(efface, place):
    """A silent error, found before anything moves: exit code 6."""
    assert efface("doctor", "model", "--data", "data") == 0
    table = parquet.read_table(place / "data/train-00000-of-00001.parquet")
    labels = table.column("label").to_numpy()
    turned = table.set_column(2, table.field("label"), pa.array((labels + 1) % 10))
    (place / "turned").mkdir()
    parquet.write_table(turned, place / "turned/train-00000-of-00001.parquet")
    assert efface("doctor", "model", "--data", "turned") == 6


def test_training_goes_on_where_it_was_stopped(efface, train_command, place, monkeypatch):
    """Bit for bit: a stopped run and an uninterrupted one give the same file."""
    import research.train as command

    monkeypatch.setitem(RECIPES, "digits-conv", replace(RECIPES["digits-conv"], epochs=2))
    assert train_command("digits-conv", "--data", "data", "--out", "whole") == 0
    going = command.train

    def stopped(*given, progress, **options):
        @contextmanager
        def stopping(title, steps):
            def shown(step, loss, note):
                if step > 19:
                    raise KeyboardInterrupt
                seen(step, loss, note)

            with progress(title, steps) as seen:
                yield shown

        return going(*given, progress=stopping, **options)

    monkeypatch.setattr(command, "train", stopped)
    interrupted = 130
    assert train_command("digits-conv", "--data", "data", "--out", "pieces") == interrupted
    assert not (place / "pieces").exists()
    monkeypatch.setattr(command, "train", going)
    assert train_command("digits-conv", "--data", "data", "--out", "pieces") == 0
    whole, pieces = ((place / n / "model.safetensors").read_bytes() for n in ("whole", "pieces"))
    assert whole == pieces
    assert not list(place.glob(".pieces*"))


@pytest.mark.parametrize(
    ("changed", "what"),
    [
        (("--seed", "1"), "seed"),
        (("--exclude", "ids.csv"), "set of records"),
        (("--seed", "2", "--exclude-class", "3"), "seed and set of records"),
    ],
)
def test_a_training_does_not_go_on_from_the_weights_of_another(
    efface, train_command, place, capfd, changed, what
):
    """What must be excluded now was trained on then: the result would still hold it."""
    state = place / ".kept.training"
    shutil.copy(_stopped_training(place), state)
    assert train_command("digits-conv", "--data", "data", "--out", "kept", *changed) == 2
    assert capfd.readouterr().err.splitlines()[-1] == (
        f"Wanted the progress of this training in .kept.training. "
        f"Got that of one with another {what}. "
        "Remove that file to start anew, or give another --out."
    )
    assert state.exists()
    assert not (place / "kept").exists()


def _stopped_training(place):
    """What a training with seed 0 leaves when it is stopped after its first epoch."""
    path = place / "stopped"
    if not path.exists():
        recipe = replace(RECIPES["digits-conv"], epochs=1)
        records = load_data(place / "data").records(None, recipe.preprocessing)
        train(fresh(recipe, 10, seed=0), records, recipe, seed=0, state=path)
        parts = torch.load(path, weights_only=True)
        parts["of"]["recipe"] = repr(RECIPES["digits-conv"])
        torch.save(parts, path)
    return path


def test_damaged_progress_is_refused_in_a_sentence(efface, train_command, place, capfd):
    """Half a file can only come from elsewhere: a disk, a copy."""
    (place / ".hurt.training").write_bytes(_stopped_training(place).read_bytes()[:500])
    assert train_command("digits-conv", "--data", "data", "--out", "hurt") == 4
    assert "a whole safetensors file, or one that torch.save wrote" in capfd.readouterr().err
    assert not (place / "hurt").exists()


def test_an_exclusion_list_is_taken_by_the_next_training_run(efface, train_command, place):
    """The hand-over to the only exact way: retraining without the records."""
    assert efface(*FORGET, "--ids", "ids.csv", "--out", "listed") == 0
    train = ("digits-conv", "--data", "data", "--exclude", "listed/exclude.csv")
    assert train_command(*train, "--out", "without") == 0
    assert json.loads((place / "without/recipe.json").read_text())["excluded"] == 2


@pytest.mark.distributed
def test_two_processes_write_the_file_of_one(place):
    """One code path: `torchrun -m efface forget` gives the weights of one process."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(place)}
    command = ["-m", "efface", *FORGET, "--ids", "ids.csv"]
    two = ["-m", "torch.distributed.run", "--nproc_per_node", "2", "--rdzv_backend", "c10d"]
    two += ["--rdzv_endpoint", "localhost:0"]
    for start, out in (([], "of-one"), (two, "of-two")):
        line = [sys.executable, *start, *command, "--out", out]
        subprocess.run(line, check=True, cwd=place, env=environment, capture_output=True)
    one, other = (load_file(place / out / "model.safetensors") for out in ("of-one", "of-two"))
    for name, tensor in one.items():
        torch.testing.assert_close(tensor, other[name], rtol=0, atol=1e-6)


@pytest.mark.parametrize(("number", "code"), [(None, 130), (15, 143)])
def test_a_stopped_command_says_that_nothing_was_lost(efface, monkeypatch, capfd, number, code):
    """A traceback is no answer to Ctrl-C."""

    def stopped(*_):
        raise KeyboardInterrupt(*[number] * (number is not None))

    monkeypatch.setattr("efface.listing.run_methods", stopped)
    assert efface("methods") == code
    assert capfd.readouterr().err == ("Stopped. What was there before is untouched; start again.\n")

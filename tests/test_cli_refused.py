"""Bad input at the command line: each ends in its own sentence, and nothing is written or run."""

import json
import os
import re
import shlex
import shutil
import struct
from pathlib import Path

import pyarrow as pa
import pytest
import torch
from pyarrow import parquet
from run_files import MADE, events
from safetensors.torch import load_file, save_file
from scikit_tables import given

from efface.nets import conv_small

TABLE = Path(__file__).parent.joinpath("refused_commands.txt").read_text("utf-8")
ROWS = re.findall(r"^(\d) (.+)\n  (.+)$", TABLE, re.MULTILINE)
WORDS = {name: shlex.join(given(name)[:-2]) for name in ("wine", "cancer", "diabetes", "digits")}
WORDS["wine_net"] = "wine.safetensors --architecture nets_of_tables:wine"
WORDS["net"] = "--architecture tests_nets:narrow --mean 0.5 --std 0.5 --size 8"
ON_TABLES = [row for row in ROWS if re.search(r"{(?!net})", row[1])]
FACTORIES = """
import time
def raises(): raise KeyError("layers")
def leaves(): raise SystemExit(3)
def hangs(): time.sleep(60)
def text(): return "no net"
"""


class Payload:
    """What an attacker pickles: it would make a folder."""

    def __reduce__(self):
        return os.mkdir, ("canary",)


@pytest.fixture(scope="module")
def bad(place):
    """The folder with all that is wrong in it."""
    weights = load_file(place / "model/model.safetensors")
    torch.save(conv_small(width=8), place / "whole.pt")
    torch.save({"state_dict": weights, "note": Payload()}, place / "payload.pt")
    save_file(weights, place / "fine.safetensors")
    (place / "cut.safetensors").write_bytes((place / "fine.safetensors").read_bytes()[:-7])
    text = b'{"w":{"dtype":"F32","shape":[3],"data_offsets":[0,8]}}'
    (place / "lying.safetensors").write_bytes(struct.pack("<Q", len(text)) + text + b"12345678")
    for name, wrong in (("inf", weights["4.weight"] * torch.inf), ("bent", torch.ones(3, 3))):
        save_file({**weights, "4.weight": wrong}, place / f"{name}.safetensors")
    (place / "bad_nets.py").write_text(FACTORIES)
    for name, ids in {"empty": "", "outside": "../../secret\n", "unknown": "x-1\nx-2\n"}.items():
        (place / f"{name}.csv").write_text(f"id\n{ids}")
    (place / "taken").mkdir()
    (place / "taken/here").write_text("kept")
    recipe = json.loads((place / "model/recipe.json").read_text())
    turned = {"classes": [str(digit) for digit in reversed(range(10))]}
    others = {"other": {}, "copied": {}, "narrow": {"mean": [0.1]}, "turned": turned}
    for name, change in others.items():
        shutil.copytree(place / "model", place / name)
        (place / name / "recipe.json").write_text(json.dumps({**recipe, **change}))
    table = parquet.read_table(place / "data/train-00000-of-00001.parquet")
    labels = table.column("label").to_pylist()
    ids = ["../digit", *table.column("id").to_pylist()[1:]]
    _write(place / "beyond", table, label=[10, *labels[1:]])
    _write(place / "named", table, label=[f"kind {label % 3}" for label in labels])
    _write(place / "twice", table, id=[ids[1], *ids[1:]])
    _write(place / "dots", table, id=ids)
    _write(place / "copy", table)
    _write(place / "few", parquet.read_table(next((place / "data").glob("test*"))).slice(0, 5))
    _write(place / "few-left", table.slice(0, 12))
    _write(place / "three", table.slice(0, 3))
    return place


def _write(folder, table, **columns):
    """The table with other columns, and without what datasets says of the old ones."""
    folder.mkdir()
    table = table.replace_schema_metadata(None)
    for name, values in columns.items():
        table = table.set_column(table.column_names.index(name), name, pa.array(values))
    parquet.write_table(table, folder / "train.parquet")


def state(folder):
    """Everything that lies there, and when it was written."""
    paths = [path for path in folder.rglob("*") if "pycache" not in str(path)]
    return {path: path.stat().st_mtime_ns for path in paths}


def refuse(run, folder, capfd, row):
    code, command, text = row
    words = shlex.split(command.format(**WORDS))
    words = words[:-1] if words[-1] == "--out" else words
    words += [] if "--out" in command else ["--out", "wrong"]
    old = state(folder)
    assert run(*words) == int(code)
    assert state(folder) == old
    pattern = ".*".join(map(re.escape, text.split("…")))
    assert re.search(pattern, capfd.readouterr().err.strip().splitlines()[-1])


@pytest.mark.parametrize("row", [row for row in ROWS if row not in ON_TABLES], ids=str)
def test_bad_input_ends_in_its_own_sentence_and_nothing_is_written_or_run(
    efface, bad, capfd, monkeypatch, row
):
    """Pickles, damaged and foreign weights, a factory of the user's, requests nobody can mean."""
    monkeypatch.setattr("efface.io.architectures.LIMIT_SECONDS", 0.5)
    refuse(efface, bad, capfd, row)


@pytest.mark.parametrize("row", ON_TABLES, ids=str)
def test_what_a_table_does_not_say_is_not_guessed(in_tables, tables, capfd, row):
    refuse(in_tables, tables, capfd, row)


def test_a_folder_that_is_read_and_written_is_refused_unread(efface, bad, monkeypatch):
    read = "efface.cli.loading.load_model"
    monkeypatch.setattr(read, lambda *_, **__: pytest.fail("it was read"))
    assert efface("forget", "model", "--data", "data", "--ids", "ids.csv", "--out", "model/x") == 2
    assert not (bad / "model/x").exists()


def test_an_id_that_looks_like_a_path_is_only_an_id(efface, bad):
    """It is forgotten under its name, and no file of that name is looked for or made."""
    (bad / "dots.csv").write_text("id\n../digit\n")
    given = ("forget", "model", "--data", "dots", "--ids", "dots.csv", "--setting", "steps=1")
    old = set(state(bad))
    assert efface(*given, "--out", "dotted") in MADE
    assert all(p.is_relative_to(bad / "dotted") for p in set(state(bad)) - old)
    assert "../digit," in (bad / "dotted/evidence/exclude.csv").read_text()


@pytest.mark.usefixtures("bad")
def test_forgetting_every_record_of_the_data_is_warned_of(efface, capfd):
    """Whoever has only the records to forget names them all; whoever has the rest does not."""
    given = ("forget", "model", "--data", "three", "--where", "id!=none", "--setting", "steps=1")
    assert efface(*given, "--out", "all") in MADE
    warning = {"event": "warning", "named": "every record of the data"}
    warning["hint"] = "if the model was trained on nothing else, delete it instead"
    assert warning in events(capfd.readouterr().err)

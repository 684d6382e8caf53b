"""``efface inspect``: two tables, a record, a page, whole or absent; on again where it stopped."""

import csv
import json
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from pyarrow import parquet

import efface as library
from efface.cli.inspect import prepare_run, run_key
from efface.cli.options import (
    Arguments,
    InspectOptions,
    ModelOptions,
    ReadOptions,
    RecordOptions,
    SplitOptions,
)
from efface.io.data import load_data
from efface.io.models import load_model
from efface.ranking import run as ranking
from efface.ranking.run import Run

sys.path.insert(0, str(Path(__file__).parent))
from scikit_tables import given  # it lies beside this file

DATA = ("model", "--data", "data", "--sigma", "0.2")
FEW = ("model", "--data", "data:test", "--sigma", "0.2", "--copies", "2", "--neighbours", "5")


def _content(folder):
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


def _rows(folder):
    with (folder / "records.csv").open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


@pytest.fixture
def in_small_shards(monkeypatch):
    """Of 200 records; how often the bench was asked, which may be stopped after some."""
    monkeypatch.setattr(ranking, "SHARD", 200)
    asked, original = [], Run.measure_shard

    def limited(most):
        def measure_shard(self, records, named):
            if len(asked) == most:
                raise KeyboardInterrupt
            asked.append(records.ids)
            return original(self, records, named)

        asked.clear()
        monkeypatch.setattr(Run, "measure_shard", measure_shard)
        return asked

    return limited


def test_the_folder_holds_two_equal_tables_a_record_and_a_page(efface, place, capfd):
    """The numbers are those that Python gives for the same records in memory."""
    before = {name: _content(place / name) for name in ("model", "data")}
    assert efface("inspect", *DATA, "--out", "looked") == 0
    names = {path.name for path in (place / "looked").iterdir()}
    assert names == {"inspect.html", "manifest.json", "records.csv", "records.parquet"}
    assert {name: _content(place / name) for name in ("model", "data")} == before
    assert not [path for path in place.iterdir() if path.name.startswith(".looked")]
    columns = parquet.read_table(place / "looked/records.parquet").to_pandas()
    lines = pd.read_csv(place / "looked/records.csv", dtype={"label": str, "prediction": str})
    pd.testing.assert_frame_equal(lines, columns, check_dtype=False)
    loaded, table = load_model(place / "model"), load_data(place / "data")
    records = table.records(None, loaded.preprocessing)
    found = library.inspect(loaded.model, records, sigma=0.2, preprocessing=loaded.preprocessing)
    assert columns["id"].tolist() == list(found.ids)
    assert columns["label"].tolist() == [str(label) for label in found["label"]]
    for name in ("content", "content_by_label", "margin", "gradient_norm"):
        assert np.allclose(columns[name], found[name], rtol=1e-3, atol=1e-4), name
    said = capfd.readouterr()
    assert f"{len(found)} records" in said.out
    events = [json.loads(line) for line in said.err.splitlines() if line.startswith("{")]
    assert events[-1]["event"] == "inspect"
    assert events[-1]["done"] == events[-1]["total"] == 2


def test_the_record_says_how_and_who_must_not_see_it(efface, place):
    """Law 5: ids and pictures stand in clear, since the controller asked for them."""
    assert efface("inspect", *DATA, "--neighbours", "0", "--ids", "ids.csv", "--out", "two") == 0
    record = json.loads((place / "two/manifest.json").read_text())
    page = (place / "two/inspect.html").read_text()
    assert record["job"] == "inspect"
    assert record["named"] == "--ids ids.csv"
    assert record["sigma"] == [0.2]
    assert record["counts"]["ranked"] == 2
    assert "Whoever may not see the data must not see them" in record["privacy"]
    assert record["privacy"] in page
    assert page.count('<img src="data:image/png;base64,') == 2
    assert [row["id"] for row in _rows(place / "two")] == ["digit-0001", "digit-0002"]


def test_a_run_that_was_stopped_goes_on_after_its_last_whole_shard(
    efface, place, in_small_shards, capfd
):
    """To the same bytes as a run that nobody stopped."""
    asked = in_small_shards(None)
    assert efface("inspect", *FEW, "--out", "on") == 0
    whole, shards = _content(place / "on"), len(asked)
    (place / "on").rename(place / "undisturbed")
    asked = in_small_shards(2)
    assert efface("inspect", *FEW, "--out", "on") == 130
    assert not (place / "on").exists()
    assert (place / ".on.inspecting").is_dir()
    asked = in_small_shards(None)
    capfd.readouterr()
    assert efface("inspect", *FEW, "--out", "on") == 0
    assert len(asked) == shards - 2
    assert "2 whole shards of an earlier run" in capfd.readouterr().err
    assert _content(place / "on") == whole
    assert not (place / ".on.inspecting").exists()


def test_other_settings_start_anew(efface, place, in_small_shards):
    """What was measured otherwise is not mixed in."""
    in_small_shards(1)
    assert efface("inspect", *FEW, "--out", "anew") == 130
    asked = in_small_shards(None)
    assert efface("inspect", *FEW, "--seed", "3", "--out", "anew") == 0
    assert sum(map(len, asked)) == len(load_data(place / "data:test").ids)


def test_the_key_holds_all_that_the_numbers_depend_on(place, monkeypatch):
    """Model, data, settings, records, how they are read."""
    monkeypatch.chdir(place)
    monkeypatch.syspath_prepend(str(place))

    def key(data="data", size=None, where=None, seed=0, **others):
        read = ReadOptions(model=ModelOptions(size=size, device="cpu"))
        named, split = RecordOptions(where=where), SplitOptions()
        arguments = Arguments(Path("model"), None, data, named, split, read, seed)
        run, digest = prepare_run(arguments, InspectOptions(**others))
        return json.dumps(run_key(run, digest, read), sort_keys=True)

    others = [
        {"data": "data:test"},
        {"where": "label=3"},
        {"where": "label=4"},
        {"size": 9},
        {"copies": 3},
        {"sigma": (0.1,)},
        {"seed": 1},
        {"neighbours": 3},
        {"curvature": "loss"},
    ]
    assert key() == key()
    assert len({key(), *(key(**other) for other in others)}) == 1 + len(others)


def test_what_a_kill_left_beside_a_whole_folder_goes(efface, place, capfd):
    """The folder was in place, and the shards were not removed yet."""
    assert efface("inspect", *DATA, "--neighbours", "0", "--ids", "ids.csv", "--out", "left") == 0
    (place / ".left.inspecting").mkdir()
    (place / ".left.inspecting/key.json").write_text("{}")
    assert efface("inspect", *DATA, "--neighbours", "0", "--ids", "ids.csv", "--out", "left") == 2
    assert "Nothing is overwritten" in capfd.readouterr().err
    assert not (place / ".left.inspecting").exists()


@pytest.mark.parametrize(
    ("words", "code", "text"),
    [
        (("--ids", "unknown.txt"), 5, "Got 1 unknown: nobody."),
        (("--where", "label=3", "--forget-class", "4"), 2, "Got --where and --forget-class."),
        (("--copies", "0"), 2, "Wanted copies of 1 or more, an integer. Got 0. Change copies."),
        (("--where", "label=11"), 2, "Wanted"),
        (("--data", "nowhere"), 2, "Wanted"),
    ],
)
def test_what_does_not_fit_is_refused_and_leaves_nothing(efface, place, capfd, words, code, text):
    """What was wanted, what came, what to do; and no folder."""
    (place / "unknown.txt").write_text("digit-0001\nnobody\n")
    data = () if words[0] == "--data" else ("--data", "data")
    assert efface("inspect", "model", *data, *words, "--out", "wrong") == code
    assert text in capfd.readouterr().err
    assert not (place / "wrong").exists()
    assert not (place / ".wrong.inspecting").exists()


@pytest.mark.parametrize(("name", "classes"), [("wine", 3), ("cancer", 2)])
def test_tables_of_numbers_are_shown_by_their_values(in_tables, tables, name, classes):
    """One label of three, and a single sigmoid unit; read in parts as the whole."""
    out = tables / f"{name}-looked"
    assert in_tables("inspect", *given(name), "--copies", "4", "--out", out.name) == 0
    rows, page = _rows(out), (out / "inspect.html").read_text()
    assert len({row["label"] for row in rows}) == classes
    table, how = load_data(tables / name), json.loads((tables / f"{name}.json").read_text())
    first, column = next(row["id"] for row in rows if row["rank"] == "1"), next(iter(how))
    cell = table.dataset[table.ids.index(first)][column]
    assert "<img" not in page
    assert f"<b>{first}</b>" in page
    assert f"<dt>{column}</dt><dd>{cell}</dd>" in page


def test_values_have_no_classes_and_are_refused(in_tables, tables, capfd):
    """Before anything is measured."""
    assert in_tables("inspect", *given("diabetes"), "--out", "no") == 2
    assert (
        "Wanted multiclass records (one class of several each). Got regression."
        in capfd.readouterr().err
    )
    assert not (tables / "no").exists()


def test_records_that_cannot_be_read_are_left_out_or_refused_when_named(efface, place, capfd):
    """Of all records they are listed, of those named each counts."""
    frame = parquet.read_table(next((place / "data").glob("*train*"))).to_pandas()
    frame.loc[3, "image"]["bytes"] = b"no picture"
    frame.to_parquet(place / "broken.parquet")
    words = ("inspect", *DATA, "--neighbours", "0", "--copies", "1")
    words = tuple("broken.parquet" if word == "data" else word for word in words)
    assert efface(*words, "--out", "most") == 0
    record = json.loads((place / "most/manifest.json").read_text())
    assert record["omitted"] == [frame.loc[3, "id"]]
    assert len(_rows(place / "most")) == len(frame) - 1
    (place / "one.txt").write_text(f"{frame.loc[3, 'id']}\n{frame.loc[4, 'id']}\n")
    assert efface(*words, "--ids", "one.txt", "--out", "named") == 2
    assert f"Got 1 that cannot or have none: {frame.loc[3, 'id']}." in capfd.readouterr().err

"""``efface inspect``: two tables, a manifest, a page, whole or absent; resumed where it stopped."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from pyarrow import parquet
from run_files import contents, lines_of, read
from scikit_tables import given

import efface as library
from efface.cli import options
from efface.cli.inspect import prepare_run, run_key
from efface.io.data import load_data
from efface.io.models import load_model
from efface.ranking import run as ranking
from efface.ranking.run import Run

DATA = ("inspect", "model", "--data", "data", "--sigma", "0.2")
NAMED = (*DATA, "--neighbours", "0", "--ids", "ids.csv")
FEW = ("inspect", "model", "--data", "data:test", "--sigma", "0.2", "--copies", "2")


@pytest.fixture
def shards(monkeypatch):
    """Shards of 200 records; ``shards(n)`` stops a run after n of them and lists those measured."""
    monkeypatch.setattr(ranking, "SHARD", 200)
    original = Run.measure_shard

    def stop_after(most):
        measured = []

        def measure_shard(self, records, named):
            if len(measured) == most:
                raise KeyboardInterrupt
            measured.append(records.ids)
            return original(self, records, named)

        monkeypatch.setattr(Run, "measure_shard", measure_shard)
        return measured

    return stop_after


def test_the_folder_holds_two_equal_tables_a_manifest_and_a_page(efface, place, capfd):
    """The numbers are those that Python gives for the same records in memory."""
    before = {name: contents(place / name) for name in ("model", "data")}
    assert efface(*DATA, "--out", "ranked") == 0
    files = {"inspect.html", "manifest.json", "records.csv", "records.parquet"}
    assert set(contents(place / "ranked")) == files
    assert {name: contents(place / name) for name in ("model", "data")} == before
    assert not [path for path in place.iterdir() if path.name.startswith(".ranked")]
    columns = parquet.read_table(place / "ranked/records.parquet").to_pandas()
    lines = pd.read_csv(place / "ranked/records.csv", dtype={"label": str, "prediction": str})
    pd.testing.assert_frame_equal(lines, columns, check_dtype=False)
    loaded = load_model(place / "model")
    preprocessing = loaded.preprocessing
    records = load_data(place / "data").records(None, preprocessing)
    found = library.inspect(loaded.model, records, sigma=0.2, preprocessing=preprocessing)
    assert columns["id"].tolist() == list(found.ids)
    assert columns["label"].tolist() == [str(label) for label in found["label"]]
    for name in ("content", "content_by_label", "logit_margin", "gradient_norm"):
        assert np.allclose(columns[name], found[name], rtol=1e-3, atol=1e-4), name
    shown = capfd.readouterr()
    assert f"{len(found)} records" in shown.out
    last = [json.loads(line) for line in shown.err.splitlines() if line.startswith("{")][-1]
    assert (last["event"], last["done"], last["total"]) == ("inspect", 2, 2)


def test_the_manifest_says_how_and_who_must_not_see_the_folder(efface, place):
    """Law 5: ids and pictures stand in clear, since the controller asked for them."""
    assert efface(*NAMED, "--out", "two") == 0
    manifest, page = read(place / "two"), (place / "two/inspect.html").read_text()
    assert (manifest["job"], manifest["named"]) == ("inspect", "--ids ids.csv")
    assert (manifest["sigma"], manifest["counts"]["ranked"]) == ([0.2], 2)
    assert "Whoever may not see the data must not see them" in manifest["privacy"]
    assert manifest["privacy"] in page
    assert page.count('<img src="data:image/png;base64,') == 2
    ranked = [row["id"] for row in lines_of(place / "two" / "records.csv")]
    assert ranked == ["digit-0002", "digit-0004"]


def test_a_run_that_was_stopped_is_resumed_to_the_same_bytes(efface, place, shards, capfd):
    total = shards(None)
    assert efface(*FEW, "--out", "on") == 0
    whole = contents(place / "on")
    (place / "on").rename(place / "undisturbed")
    shards(2)
    assert efface(*FEW, "--out", "on") == 130
    assert not (place / "on").exists()
    assert (place / ".on.inspecting").is_dir()
    rest = shards(None)
    capfd.readouterr()
    assert efface(*FEW, "--out", "on") == 0
    assert len(rest) == len(total) - 2
    assert "2 whole shards of an earlier run" in capfd.readouterr().err
    assert contents(place / "on") == whole
    assert not (place / ".on.inspecting").exists()


def test_the_key_of_a_run_holds_all_that_the_numbers_depend_on(place, monkeypatch):
    """Model, data, settings, records, how they are read."""
    monkeypatch.chdir(place)
    monkeypatch.syspath_prepend(str(place))

    def key(data="data", size=None, where=None, seed=0, **settings):
        read = options.ReadOptions(model=options.ModelOptions(size=size, device="cpu"))
        named, split = options.RecordOptions(where=where), options.SplitOptions()
        arguments = options.Arguments(Path("model"), None, data, named, split, read, seed)
        run, digest = prepare_run(arguments, options.InspectOptions(**settings))
        return json.dumps(run_key(run, digest, read), sort_keys=True)

    changes = [{"data": "data:test"}, {"where": "label=3"}, {"where": "label=4"}, {"size": 9},
               {"copies": 3}, {"sigma": (0.1,)}, {"seed": 1}, {"neighbours": 3},
               {"curvature": "loss"}]  # fmt: skip
    assert key() == key()
    assert len({key(), *(key(**change) for change in changes)}) == 1 + len(changes)


def test_a_ranking_is_refused_where_the_classes_are_turned_unless_that_is_accepted(
    efface, place, capfd
):
    table = parquet.read_table(place / "data").slice(0, 100)
    labels = pa.array((table.column("label").to_numpy() + 1) % 10)
    (place / "turned").mkdir()
    turned = table.set_column(2, table.field("label"), labels)
    parquet.write_table(turned, place / "turned/train.parquet")
    line = ("inspect", "model", "--data", "turned", *FEW[4:], "--neighbours", "0")
    assert efface(*line, "--out", "turned-ranked") == 6
    assert "--accept class-order" in " ".join(capfd.readouterr().err.split())
    assert efface(*line, "--accept", "class-order", "--out", "turned-ranked") == 0
    assert len(lines_of(place / "turned-ranked" / "records.csv")) == 100


def test_what_a_kill_left_next_to_a_whole_folder_is_removed(efface, place, capfd):
    """The folder was in place, and the shards were not removed yet."""
    assert efface(*NAMED, "--out", "left") == 0
    (place / ".left.inspecting").mkdir()
    (place / ".left.inspecting/key.json").write_text("{}")
    assert efface(*NAMED, "--out", "left") == 2
    assert "Nothing is overwritten" in capfd.readouterr().err
    assert not (place / ".left.inspecting").exists()


@pytest.mark.parametrize(("name", "classes"), [("wine", 3), ("cancer", 2)])
def test_records_of_tables_are_shown_by_their_values(in_tables, tables, name, classes):
    """One class of three, and a single sigmoid unit; read in parts as the whole."""
    out = tables / f"{name}-ranked"
    assert in_tables("inspect", *given(name), "--copies", "4", "--out", out.name) == 0
    rows, page = lines_of(out / "records.csv"), (out / "inspect.html").read_text()
    assert len({row["label"] for row in rows}) == classes
    source, spec = load_data(tables / name), json.loads((tables / f"{name}.json").read_text())
    first, column = next(row["id"] for row in rows if row["rank"] == "1"), next(iter(spec))
    cell = source.dataset[source.ids.index(first)][column]
    assert "<img" not in page
    assert f"<b>{first}</b>" in page
    assert f"<dt>{column}</dt><dd>{cell}</dd>" in page


def test_unreadable_records_are_omitted_or_refused_when_named(efface, place, capfd):
    """Of all records they are listed, of those named each counts."""
    frame = parquet.read_table(next((place / "data").glob("*train*"))).to_pandas()
    frame.loc[3, "image"]["bytes"] = b"no picture"
    frame.to_parquet(place / "broken.parquet")
    words = ("inspect", "model", "--data", "broken.parquet", "--sigma", "0.2", "--copies", "1")
    assert efface(*words, "--neighbours", "0", "--out", "most") == 0
    assert read(place / "most")["omitted"] == [frame.loc[3, "id"]]
    assert len(lines_of(place / "most" / "records.csv")) == len(frame) - 1
    (place / "one.txt").write_text(f"{frame.loc[3, 'id']}\n{frame.loc[4, 'id']}\n")
    assert efface(*words, "--neighbours", "0", "--ids", "one.txt", "--out", "named") == 2
    assert f"Got 1 that cannot or have none: {frame.loc[3, 'id']}." in capfd.readouterr().err

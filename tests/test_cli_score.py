"""``efface score``: a report on any pair of models; --replay gives every number again."""

import json
import shutil

import numpy as np
import pytest
import torch
from pyarrow import parquet
from run_files import MADE, contents, events, read, rows_of
from safetensors.torch import load_file, save_file

from efface.cli.score import differences
from efface.io.data import load_data
from efface.io.models import load_model

PAIR = ("score", "model", "other", "--data", "data", "--ids", "ids.csv")
PARTS = ("--holdout", "data:test", "--retain", "data")


@pytest.fixture(scope="module")
def models(place):
    """Next to ``model`` three others: the last layer moved a little."""
    weights = load_file(place / "model/model.safetensors")
    last = [name for name in weights if weights[name].ndim > 1][-1]
    for seed, name in enumerate(("other", "again-1", "again-2")):
        noise = torch.randn(weights[last].shape, generator=torch.Generator().manual_seed(seed))
        shutil.copytree(place / "model", place / name)
        moved = {**weights, last: weights[last] + 0.1 * noise}
        save_file(moved, place / name / "model.safetensors")
    return place


@pytest.fixture
def run(efface, models):
    """The folder of ``efface score``, run once; what a test changes in it is put back."""
    scored = models / "scored"
    if not scored.exists():
        alone = ("--retrained", "again-1", "--seed", "2")
        assert efface(*PAIR, *PARTS, *alone, "--out", "scored") == 0
    before = contents(scored)
    yield scored
    for name, content in before.items():
        (scored / name).write_bytes(content)


def test_any_second_model_gets_a_report_and_both_stay_as_they_are(efface, models, capfd):
    """With two retrained models there is a retrain-to-retrain variability to compare with."""
    before = {name: contents(models / name) for name in ("model", "other")}
    assert efface(*PAIR, *PARTS, "--retrained", "again-1", "again-2", "--out", "pair") == 0
    assert "tier T3" in capfd.readouterr().out
    files = ("evidence.json", "manifest.json", "records.csv", "report.html")
    names = {f"evidence/{name}" for name in files}
    assert set(contents(models / "pair")) == names
    manifest = read(models / "pair")
    digests, request = manifest["weights"], manifest["request"]
    assert manifest["arguments"]["new"] == "other"
    assert len({digests["old"], digests["new"], *digests["retrained"]}) == 4
    assert (request["named"], request["forget_records_in_retain"]) == ("--ids ids.csv", 2)
    assert read(models / "pair", "evidence")["counts"]["retrained"] == 2
    assert rows_of(models / "pair")["retrained.gap"]["reference"] is not None
    assert {name: contents(models / name) for name in ("model", "other")} == before


def test_what_forget_reports_of_its_own_model_score_reports_too(efface, models):
    """The same part of the holdout, the same seeds: who asks later gets the same rows."""
    given = (*PAIR[3:], *PARTS, "--seed", "3", "--holdout-seed", "5")
    assert efface("forget", "model", *given, "--setting", "steps=2", "--out", "made") in MADE
    assert efface("score", "model", "made/model", *given, "--out", "later") == 0
    assert read(models / "made", "evidence") == read(models / "later", "evidence")


def test_shadow_models_that_know_no_holdout_are_read_and_reported_as_not_run(efface, models, capfd):
    """Nobody may take the folder for a test that ran."""
    ids = np.array(load_data(models / "data").ids)
    (models / "shadows").mkdir()
    for seed in range(3):
        draws = np.random.default_rng(seed)
        member, odds = draws.random(len(ids)) < 0.5, draws.normal(size=len(ids))
        np.savez(models / f"shadows/{seed}.npz", ids=ids, member=member, log_odds=odds)
    assert efface(*PAIR, *PARTS, "--shadow", "shadows", "--out", "shadowed") == 0
    assert "tier T4" in capfd.readouterr().out
    lira = rows_of(models / "shadowed")["attack.lira"]
    assert (lira["status"], "52 of 54 records" in lira["note"]) == ("not run", True)
    assert read(models / "shadowed")["digests"]["shadow"]


SCORED = ("model", "other", *PAIR[3:], *PARTS, "--retrained", "again-1", "--seed", "2")


def replayed(efface, capfd, *arguments, folder="scored"):
    """The exit code of a replay and its last line."""
    capfd.readouterr()
    code = efface("score", *(arguments or SCORED), "--replay", folder)
    return code, capfd.readouterr().err.strip().splitlines()[-1]


def test_a_run_is_replayed_to_the_last_bit_and_nothing_is_written(efface, run, capfd):
    before = contents(run)
    assert rows_of(run)["retrained.gap"]["reference"] is None  # of one retrained model
    code, line = replayed(efface, capfd)
    (event,) = events(line)
    assert (code, event["event"], event["differ"]) == (0, "replay", 0)
    assert event["numbers"] > 200
    assert contents(run) == before


def test_a_request_is_replayed_from_the_model_in_its_own_folder(efface, models, capfd):
    """Whoever has the folder of ``efface forget``, the old model and the data can check it."""
    given = ("model", *PAIR[3:], "--holdout", "data:test")
    assert efface("forget", *given, "--setting", "steps=2", "--out", "forgotten") in MADE
    assert replayed(efface, capfd, *given, folder="forgotten")[0] == 0
    path = models / "forgotten/model/model.safetensors"
    save_file({k: v * 1.01 for k, v in load_file(path).items()}, path)
    code, line = replayed(efface, capfd, *given, folder="forgotten")
    assert (code, "that differ: weights.new" in line) == (9, True)


def test_a_request_on_a_weights_file_is_replayed_from_the_file_in_its_folder(efface, models, capfd):
    shutil.copy(models / "model/model.safetensors", models / "w.safetensors")
    shape = ("--architecture", "tests_nets:narrow", "--mean", "0.5", "--std", "0.5", "--size", "8")
    given = ("w.safetensors", *PAIR[3:], *shape, "--report", "quick")
    assert efface("forget", *given, "--setting", "steps=1", "--out", "of-a-file") in MADE
    assert replayed(efface, capfd, *given, folder="of-a-file")[0] == 0


@pytest.mark.usefixtures("run")
def test_a_replay_does_nothing_that_the_folder_names(efface, models, capfd, monkeypatch):
    """The folder is a stranger's: its paths, architectures and commands are words to compare."""
    evil = models / "evil/evidence"
    shutil.copytree(models / "scored/evidence", evil)
    manifest = json.loads((evil / "manifest.json").read_text())
    arguments = manifest["arguments"]
    arguments |= {"old": "/etc", "data": "hub:a/b", "shadow": "/dev/zero", "retrained": ["/root"]}
    arguments["read"]["model"]["architecture"] = "os:getcwd"
    (evil / "manifest.json").write_text(json.dumps(manifest))
    opened = []

    def noted(path, **how):
        opened.append((str(path), how["architecture"]))
        return load_model(path, **how)

    monkeypatch.setattr("efface.cli.loading.load_model", noted)
    assert replayed(efface, capfd, folder="evil")[0] == 9  # the page shows the arguments
    assert opened == [("model", None), ("other", None), ("again-1", None)]


def test_another_seed_than_the_recorded_one_is_named_first(efface, run, capfd, monkeypatch):
    monkeypatch.setattr("efface.cli.score.Inputs.read", lambda _: pytest.fail("it was read"))
    code, line = replayed(efface, capfd, *SCORED[:-1], "3", "--mislabelled", folder=run.name)
    assert code == 9
    assert (
        "the arguments of the run. Got 2 that differ: split.mislabelled false, now true; seed 2"
        in line
    )


def test_the_model_of_a_run_that_made_none_must_be_named(efface, run, capfd):
    code, line = replayed(efface, capfd, "model", *SCORED[2:], folder=run.name)
    assert (code, line) == (2, (
        "Wanted NEW, or a run with its model. Got no scored/model. Name the second model of efface "
        "score; a run that changed nothing made none."
    ))  # fmt: skip


def raise_a_billionth(report):
    row = next(row for row in report["rows"] if row["key"] == "holdout.accuracy")
    row["after"] += 1e-9


HOLDOUT = "Wanted the numbers of the run. Got 1 that differ: rows.holdout.accuracy.after 0."


VERSIONS = f'Other versions: numpy "0.1", now "{np.__version__}".'
EVIDENCE, MANIFEST = "evidence/evidence.json", "evidence/manifest.json"
OLDER = {MANIFEST: lambda m: m["versions"].update(numpy="0.1")}
OLDER |= {EVIDENCE: lambda e: e["counts"].update(forget=3)}


@pytest.mark.parametrize(
    ("changes", "code", "texts"),
    [
        ({EVIDENCE: raise_a_billionth}, 9, (HOLDOUT, "The versions are the same")),
        ({MANIFEST: lambda m: m.pop("arguments")}, 2, ("missing or unknown: arguments. Give the",)),
        ({MANIFEST: lambda m: m.update(findings=7)}, 2, ("Got findings as int. Give the",)),
        ({MANIFEST: lambda m: m.update(guard={"limits": 3})}, 9, ("Got another page",)),
        (OLDER, 9, ("counts.forget 3, now 2", VERSIONS)),
    ],
)
def test_what_was_changed_by_hand_is_named(efface, run, capfd, changes, code, texts):
    for name, change in changes.items():
        content = json.loads((run / name).read_text())
        change(content)
        (run / name).write_text(json.dumps(content))
    came, line = replayed(efface, capfd)
    assert came == code
    assert all(text in line for text in texts)


def test_a_page_that_was_changed_by_hand_is_noticed(efface, run, capfd):
    """The page is what people read: it must be the one of these numbers."""
    page = (run / "evidence/report.html").read_text()
    (run / "evidence/report.html").write_text(page.replace("</title>", " </title>"))
    code, line = replayed(efface, capfd)
    assert (code, "Got another page next to the same evidence.json." in line) == (9, True)


@pytest.mark.usefixtures("run")
def test_other_data_are_named_before_anything_is_evaluated(efface, models, capfd, monkeypatch):
    """Numbers of other records would differ for a reason that nobody could see."""
    monkeypatch.setattr("efface.cli.score.evaluate", lambda *_: pytest.fail("it was evaluated"))
    path = models / "data/train-00000-of-00001.parquet"
    before = path.read_bytes()
    parquet.write_table(parquet.read_table(path).slice(0, 900), path)
    code, line = replayed(efface, capfd)
    path.write_bytes(before)
    assert code == 9
    assert "Wanted the models and data of the run. Got 2 that differ: digests.data" in line
    assert "digests.retain" in line


@pytest.mark.parametrize(
    ("recorded", "again", "lines"),
    [
        ({"a": 1}, {"a": 1}, []),
        ({"a": 1}, {}, ["a 1, now null"]),
        ([{"key": "k", "v": 0.1}], [{"key": "k", "v": 0.2}], ["k.v 0.1, now 0.2"]),
        ([{"key": "k", "v": 9}, {"key": "k", "v": 1}], [{"key": "k", "v": 1}],
         ['k.key "k", now null', "k.v 9, now null"]),
        ([1], [1, 2], ["1 null, now 2"]),
        ([1], [True], ["0 1, now true"]),
        (None, 0, [" null, now 0"]),
    ],
)  # fmt: skip
def test_differences_see_what_is_missing_added_or_of_another_kind(recorded, again, lines):
    assert differences(recorded, again) == lines

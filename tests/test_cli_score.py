"""``efface score``: a report on any pair of models; --replay gives every number again."""

import json
import shutil

import numpy as np
import pytest
import torch
from pyarrow import parquet
from run_files import contents, read, rows_of
from safetensors.torch import load_file, save_file

from efface.cli.options import Arguments
from efface.cli.score import differences
from efface.io.data import load_data

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
    assert set(contents(models / "pair")) == {"evidence.json", "manifest.json", "report.html"}
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
    assert efface("forget", "model", *given, "--setting", "steps=2", "--out", "made") == 0
    assert efface("score", "model", "made", *given, "--out", "later") == 0
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


def replayed(efface, capfd, folder="scored"):
    """The exit code of a replay and its last line."""
    capfd.readouterr()
    code = efface("score", "--replay", folder)
    return code, capfd.readouterr().err.strip().splitlines()[-1]


def test_a_run_is_replayed_to_the_last_bit_and_nothing_is_written(efface, run, capfd):
    before = contents(run)
    assert rows_of(run)["retrained.gap"]["reference"] is None  # of one retrained model
    code, line = replayed(efface, capfd)
    event = json.loads(line)
    assert (code, event["event"], event["differ"]) == (0, "replay", 0)
    assert event["numbers"] > 200
    assert contents(run) == before


def test_a_request_is_replayed_from_the_model_in_its_own_folder(efface, models, capfd):
    """Whoever has the folder of ``efface forget``, the old model and the data can check it."""
    given = (*PAIR[3:], "--holdout", "data:test", "--setting", "steps=2", "--out", "forgotten")
    assert efface("forget", "model", *given) == 0
    assert replayed(efface, capfd, "forgotten")[0] == 0
    weights = load_file(models / "forgotten/model.safetensors")
    save_file({k: v * 1.01 for k, v in weights.items()}, models / "forgotten/model.safetensors")
    code, line = replayed(efface, capfd, "forgotten")
    assert (code, "that differ: weights.new" in line) == (9, True)


def raise_a_billionth(report):
    row = next(row for row in report["rows"] if row["key"] == "holdout.accuracy")
    row["after"] += 1e-9


HOLDOUT = "Wanted the numbers of the run. Got 1 that differ: rows.holdout.accuracy.after 0."


VERSIONS = f'Other versions: numpy "0.1", now "{np.__version__}".'
EVIDENCE, MANIFEST = "evidence.json", "manifest.json"
OLDER = {MANIFEST: lambda m: m["versions"].update(numpy="0.1")}
OLDER |= {EVIDENCE: lambda e: e["counts"].update(forget=3)}


@pytest.mark.parametrize(
    ("changes", "code", "texts"),
    [
        ({EVIDENCE: raise_a_billionth}, 9, (HOLDOUT, "The versions are the same")),
        ({MANIFEST: lambda m: m.update(outcome="not met")}, 2, ("scored, which was not met.",)),
        ({MANIFEST: lambda m: m.pop("arguments")}, 2, ("Only runs of the command line can be",)),
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
    page = (run / "report.html").read_text()
    (run / "report.html").write_text(page.replace("</title>", " </title>"))
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


def test_the_arguments_come_back_from_their_manifest_as_they_were(run):
    written = read(run, "manifest")["arguments"]
    again = Arguments.from_json(written)
    assert (str(again.old), str(again.new), again.data) == ("model", "other", "data")
    assert [str(path) for path in again.retrained] == ["again-1"]
    assert again.seed == 2
    # a manifest that is older than an option
    older = {**written, "split": {**written["split"]}}
    del older["split"]["mislabelled"]
    assert Arguments.from_json(older) == again
    numbers = {**written, "read": {**written["read"], "model": {**written["read"]["model"],
               "mean": [0.5], "feature_spec": "spec.json"}}}  # fmt: skip
    model = Arguments.from_json(numbers).read.model
    assert (model.mean, model.feature_spec.name) == ((0.5,), "spec.json")


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

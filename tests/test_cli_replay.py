"""``efface score --replay``: every number of a report again, or the name of what differs."""

import json
import shutil

import numpy as np
import pytest
from pyarrow import parquet
from safetensors.torch import load_file, save_file

from efface.asked import Asked
from efface.replay import differences

ASKED = ("--data", "data", "--ids", "ids.csv", "--holdout", "data:test", "--seed", "2")


@pytest.fixture(scope="module")
def made(place):
    """A copy of the model whose last layer moved, and shadow arrays."""
    weights = load_file(place / "model/model.safetensors")
    last = [name for name in weights if weights[name].ndim > 1][-1]
    shutil.copytree(place / "model", place / "other")
    save_file({**weights, last: weights[last] * 0.9}, place / "other/model.safetensors")
    return place


@pytest.fixture
def run(efface, made):
    """A folder of ``efface score``, new for each test."""
    shutil.rmtree(made / "scored", ignore_errors=True)
    whole = ("--retain", "data", "--retrained", "other")
    assert efface("score", "model", "other", *ASKED, *whole, "--out", "scored") == 0
    return made / "scored"


def _changed(path, change):
    found = json.loads(path.read_text())
    change(found)
    path.write_text(json.dumps(found))


def test_a_run_is_measured_again_to_the_last_bit(efface, run, capfd):
    """Nothing is written, and how many numbers were compared is said."""
    before = {path.name: path.read_bytes() for path in run.iterdir()}
    assert efface("score", "--replay", "scored") == 0
    said = json.loads(capfd.readouterr().err.strip().splitlines()[-1])
    assert said["event"] == "replay"
    assert said["differ"] == 0
    assert said["numbers"] > 200
    assert {path.name: path.read_bytes() for path in run.iterdir()} == before


def test_a_request_is_measured_again_from_the_model_in_its_own_folder(efface, made, capfd):
    """Whoever has the folder of ``efface forget``, the old model and the data can check it."""
    asked = (*ASKED, "--setting", "steps=2", "--out", "forgotten")
    assert efface("forget", "model", *asked) == 0
    assert efface("score", "--replay", "forgotten") == 0
    weights = load_file(made / "forgotten/model.safetensors")
    save_file({k: v * 1.01 for k, v in weights.items()}, made / "forgotten/model.safetensors")
    capfd.readouterr()
    assert efface("score", "--replay", "forgotten") == 9
    assert "that differ: weights.new" in capfd.readouterr().err


def test_a_number_that_was_changed_by_hand_is_named(efface, run, capfd):
    """In its place, with what it should be; exit code 9."""

    def kinder(found):
        row = next(row for row in found["rows"] if row["key"] == "holdout.accuracy")
        row["after"] = row["after"] + 1e-9

    _changed(run / "evidence.json", kinder)
    assert efface("score", "--replay", "scored") == 9
    said = capfd.readouterr().err.strip().splitlines()[-1]
    assert said.startswith(
        "Wanted the numbers of the record. Got 1 that differ: rows.holdout.accuracy.after 0."
    )
    assert "The versions are the same" in said


def test_a_page_that_was_changed_by_hand_is_noticed(efface, run, capfd):
    """The page is what people read: it must be the one of these numbers."""
    page = (run / "report.html").read_text()
    (run / "report.html").write_text(page.replace("▲ look", "○ plain"))
    assert efface("score", "--replay", "scored") == 9
    assert "Got another page beside the same evidence.json." in capfd.readouterr().err


def test_other_data_or_another_model_are_named_before_anything_is_measured(
    efface,
    run,  # noqa: ARG001
    made,
    capfd,
    monkeypatch,
):
    """Numbers of other records would differ for a reason that nobody could see."""
    monkeypatch.setattr("efface.replay.measured", lambda *_: pytest.fail("it was measured"))
    path = made / "data/train-00000-of-00001.parquet"
    kept = path.read_bytes()
    parquet.write_table(parquet.read_table(path).slice(0, 900), path)
    code = efface("score", "--replay", "scored")
    path.write_bytes(kept)
    assert code == 9
    said = capfd.readouterr().err
    assert "Wanted the models and data of the record. Got 2 that differ: digests.data" in said
    assert "digests.retain" in said


def test_versions_that_changed_are_named_beside_the_numbers(efface, run, capfd):
    """The first thing that an engineer would ask."""
    _changed(run / "manifest.json", lambda found: found["versions"].update(numpy="0.1"))
    _changed(run / "evidence.json", lambda found: found["counts"].update(forget=3))
    assert efface("score", "--replay", "scored") == 9
    said = capfd.readouterr().err.strip().splitlines()[-1]
    assert "counts.forget 3, now 2" in said
    assert f'Other versions: numpy "0.1", now "{np.__version__}".' in said


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (("--replay", "nowhere"), "Wanted a run with manifest.json. Got nowhere"),
        (("--replay", "scored", "--data", "data"), "Got --data beside it."),
        (("model", "--replay", "scored"), "Got OLD beside it."),
    ],
)
def test_what_cannot_be_measured_again_is_refused(efface, run, capfd, arguments, text):  # noqa: ARG001
    """Input, exit code 2."""
    assert efface("score", *arguments) == 2
    assert text in capfd.readouterr().err


def test_a_record_without_arguments_or_without_a_model_says_so(efface, run, capfd):
    """A record of the library, and one of a request that was not met."""
    _changed(run / "manifest.json", lambda found: found.pop("arguments"))
    assert efface("score", "--replay", "scored") == 2
    assert "Only runs of the command line can be measured again" in capfd.readouterr().err
    _changed(run / "manifest.json", lambda found: found.update(outcome="not met"))
    assert efface("score", "--replay", "scored") == 2
    assert "Got scored, which was not met." in capfd.readouterr().err


def test_the_arguments_come_back_from_their_record(run):
    """Paths as they were given, nothing added."""
    written = json.loads((run / "manifest.json").read_text())["arguments"]
    again = Asked.again(written)
    assert (str(again.old), str(again.new), again.data) == ("model", "other", "data")
    assert [str(path) for path in again.retrained] == ["other"]
    assert again.seed == 2
    assert json.loads(json.dumps(again.as_json(), default=str)) == written


def test_differences_see_what_is_missing_and_what_is_of_another_kind():
    """A row that is gone, a truth for a number, a null for a zero."""
    assert differences({"a": 1}, {"a": 1}) == []
    assert differences({"a": 1}, {}) == ["a 1, now null"]
    assert differences([{"key": "k", "v": 0.1}], [{"key": "k", "v": 0.2}]) == ["k.v 0.1, now 0.2"]
    assert differences([1], [1, 2]) == [" 1 entries, now 2 entries"]
    assert differences([1], [True]) == ["0 1, now true"]
    assert differences(None, 0) == [" null, now 0"]

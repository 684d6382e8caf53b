"""``efface forget --method retrain``: the command that was typed trains, its model is evaluated."""

import shlex
import shutil
import sys

import pytest
from cyclopts import Token
from run_files import MADE, contents, lines_of, read, rows_of
from safetensors.torch import load_file

from efface.cli.options import _typed_alone

# What a user has: a training that reads the list, and writes a folder like the given one.
SOURCE = """
import csv, os, shutil, sys
from safetensors.torch import load_file, save_file
mode, exclude, out = sys.argv[1:]
print("one\\ntwo", len(list(csv.DictReader(open(exclude)))))
if mode == "fails": sys.exit("no GPU")
given = os.path.join(os.path.dirname(__file__), "model")
weights = load_file(given + "/model.safetensors")
target = given if mode == "overwrites" else out
if mode == "nothing": sys.exit(0)
shutil.copytree(given, out)
if mode == "half": sys.exit("no disk")
save_file({name: 0.9 * tensor for name, tensor in weights.items()}, target + "/model.safetensors")
"""
RUN = ("forget", "model", "--data", "data", "--ids", "ids.csv", "--method", "retrain")


@pytest.fixture
def retrain(efface, place):
    """Run it with the script in one of its modes; gives back the exit code."""
    (place / "own_training.py").write_text(SOURCE)
    before = contents(place / "model")

    def run(mode, out, *more):
        command = f"{sys.executable} own_training.py {mode} {{exclude}} {{out}}"
        return efface(*RUN, "--train-command", command, "--out", out, *more)

    yield run
    for name, content in before.items():
        (place / "model" / name).write_bytes(content)
    for left in place.glob(".*.retraining"):
        shutil.rmtree(left)


def test_what_a_training_command_made_is_written_and_reported_as_retrained(retrain, place, capfd):
    """The list that it got is the one in the folder; the given model stays as it was."""
    before = contents(place / "model")
    assert retrain("trains", "exact", "--holdout", "data:test") == 0
    made, given = (load_file(place / f / "model.safetensors") for f in ("exact/model", "model"))
    assert all(made[name].equal(0.9 * tensor) for name, tensor in given.items())
    manifest = read(place / "exact")
    assert (manifest["job"], manifest["method"], manifest["outcome"]) == (
        "forget",
        "retrain",
        "done",
    )
    assert manifest["seconds"]["method"] > 0
    assert read(place / "exact", "evidence")["tier"] == "TE"
    row = rows_of(place / "exact")["exclusion"]
    assert (row["after"], row["verdict"]) == (None, "stated")
    asked = [row["id"] for row in lines_of(place / "ids.csv")]
    assert [row["id"] for row in lines_of(place / "exact/evidence/exclude.csv")] == asked
    assert f"two {len(asked)}" in capfd.readouterr().err
    assert contents(place / "model") == before
    assert not list(place.glob(".exact*"))


def test_that_a_command_omits_the_records_is_its_own_statement(retrain, place, capfd):
    """Whatever --retain holds: nobody saw what the command read."""
    given = ("--holdout", "data:test", "--retain", "data", "--report", "quick")
    assert retrain("trains", "stated", *given) == 0
    shown = capfd.readouterr().out
    stated = "without the records as stated by whoever trained it, not checked"
    assert stated in read(place / "stated")["summary"]
    assert "Whether the training left the records out" in shown
    assert (
        "found in the training data"
        not in shown
        + (place / "stated/evidence/report.html").read_text().partition('id="engineers"')[2]
    )


def test_a_training_gets_the_ids_as_plain_lines_too_and_a_dry_run_shows_its_command(
    efface, place, capfd
):
    ids = [row["id"] for row in lines_of(place / "ids.csv")]
    copy = (
        "import shutil as s, sys; s.copy(sys.argv[1], 'seen.txt'); s.copytree('model', sys.argv[2])"
    )
    command = shlex.join([sys.executable, "-c", copy, "{ids}", "{out}"])
    run = (*RUN, "--train-command", command, "--out", "lines", "--report", "quick")
    assert efface(*run, "--dry-run") == 0
    line = next(line for line in capfd.readouterr().out.splitlines() if sys.executable in line)
    folder = place / ".lines.retraining"
    assert shlex.split(line)[-2:] == [str(folder / "ids.txt"), str(folder / "new")]
    assert not (place / "seen.txt").exists()
    assert not (place / "lines").exists()
    efface(*run)
    assert (place / "seen.txt").read_text().splitlines() == ids


@pytest.mark.parametrize(
    ("mode", "code", "words"),
    [
        ("fails", 2, "exit code 1, after one | two 2 | no GPU. Nothing was written."),
        ("half", 2, "no disk. What it wrote is kept: "),
        ("nothing", 2, "Got nothing at {out}."),
        ("overwrites", 1, "Got files that the command wrote. Restore it"),
    ],
)
def test_a_training_that_goes_wrong_says_how_and_writes_nothing(
    retrain, place, capfd, mode, code, words
):
    assert retrain(mode, "wrong") == code
    shown = capfd.readouterr().err
    assert words in shown.splitlines()[-1]
    assert not (place / "wrong").exists()
    # a training is kept where there is one, and what names records is not kept in silence
    kept = mode in {"overwrites", "half"}
    assert (place / ".wrong.retraining").exists() == kept
    assert ("exclude.csv and ids.txt name the records" in shown) == kept


def test_a_retrained_model_is_replayed_by_the_command_that_is_printed(retrain, efface, capfd):
    assert retrain("trains", "to-replay", "--holdout", "data:test", "--report", "quick") == 0
    line = capfd.readouterr().out.splitlines()[-1]
    assert efface(*shlex.split(line)[1:]) == 0


@pytest.mark.usefixtures("retrain")
def test_a_model_that_is_the_working_directory_leaves_what_lies_around_it(
    efface, place, monkeypatch
):
    (place / "exclude.csv").write_text("mine")
    monkeypatch.chdir(place / "model")
    command = f"{sys.executable} ../own_training.py trains {{exclude}} {{out}}"
    given = ("forget", ".", "--data", "../data", "--ids", "../ids.csv", "--report", "quick")
    assert efface(*given, *RUN[-2:], "--train-command", command, "--out", "../of-here") in MADE
    assert (place / "of-here/model/model.safetensors").exists()
    assert (place / "exclude.csv").read_text() == "mine"
    assert not list(place.glob(".of-here*"))


SPARE = ["--setting nonsense=3", "--strength 0", "--selection xyz", "--utility-budget 0"]
SPARE += ["--keep-adapter", "--reference model", "--keep-best 2"]


@pytest.mark.parametrize("words", SPARE)
def test_an_option_that_a_training_of_ones_own_would_not_see_is_refused(retrain, capfd, words):
    assert retrain("trains", "never", *words.split()) == 2
    assert f"Got {words.split()[0]}. Say it in your command" in capfd.readouterr().err


def test_a_dry_run_is_refused_where_the_run_would_be(efface):
    given = ("--train-command", "train {ids} {out}", "--dry-run")
    assert efface(*RUN, *given, "--report", "off") == 2
    assert efface(*RUN, *given, "--out", "data") == 2
    assert efface(*RUN, *given) == 0


def test_a_command_is_split_into_words_and_read_by_no_shell(efface, place, capfd):
    """What a shell would take for two commands is one, with a word that ends in a semicolon."""
    assert efface(*RUN, "--train-command", "train {out}", "--out", "none") == 2
    assert (
        "Wanted {exclude} or {ids} in --train-command." in capfd.readouterr().err.splitlines()[-1]
    )
    assert efface(*RUN, "--train-command", "missing {exclude} {out}", "--out", "none") == 2
    assert "Wanted a training command that can be run." in capfd.readouterr().err.splitlines()[-1]
    touch = "touch canary; {exclude} {out}"
    assert efface(*RUN, "--train-command", touch, "--out", "none") == 4  # an empty file is no model
    assert [path.name for path in place.glob("canary*")] == ["canary;"]
    shutil.rmtree(place / ".none.retraining")


def test_a_command_in_a_file_or_a_variable_is_refused():
    """Nothing is run because a file names it."""
    assert _typed_alone(str, [Token(value="train", source="cli")]) == "train"
    for source in ("efface.toml", "env"):
        with pytest.raises(ValueError, match="command line itself"):
            _typed_alone(str, [Token(value="train", source=source)])

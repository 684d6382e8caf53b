"""``python -m research.geometry``: experiments by name, a folder whole or not at all."""

import inspect
import json

import pytest

from research.geometry import __main__ as command

REFUSED = {
    "three": "Wanted an experiment out of one, two, or all. Got 'three'. Choose one of these.\n",
    "one --seeds 0": "Wanted 1 seed or more. Got 0. Give --seeds 20, as the tables have it.\n",
}


def drawn(out, *, seeds, progress):
    """An experiment that draws nothing."""
    with progress("drawn", len(seeds)) as advance:
        for seed in seeds:
            advance(f"seed {seed}")
    (out / "drawn.svg").write_text("<svg/>")
    return {"seeds": list(seeds)}


@pytest.fixture
def geometry(command_in, tmp_path, monkeypatch):
    """The command with two quick experiments in place of its own; it gives its exit code."""
    monkeypatch.setattr(command, "EXPERIMENTS", {"one": "m", "two": "m"})
    monkeypatch.setattr(command, "experiment_named", lambda _: drawn)
    return command_in(tmp_path, command.app, "geometry")


@pytest.mark.parametrize(("name", "made"), [("two", ["two"]), ("all", ["one", "two"])])
def test_experiments_are_made_with_each_seed_and_say_their_command(geometry, tmp_path, name, made):
    out = tmp_path / "made"
    assert geometry(name, "--out", str(out), "--seeds", "3") == 0
    assert {path.name for path in out.iterdir()} == {"drawn.svg", *(f"{n}.json" for n in made)}
    facts = json.loads((out / "two.json").read_text())
    assert facts["seeds"] == [0, 1, 2]
    assert facts["command"].startswith(f"python -m research.geometry {name} --out ")


@pytest.mark.parametrize("given", REFUSED)
def test_what_cannot_be_made_is_refused(geometry, tmp_path, capsys, given):
    assert geometry(*given.split(), "--out", str(tmp_path / "made")) == 2
    assert capsys.readouterr().err == REFUSED[given]
    assert not (tmp_path / "made").exists()


def test_a_folder_that_holds_something_is_left_alone(geometry, tmp_path):
    (tmp_path / "kept").write_text("mine")
    assert geometry("one", "--out", str(tmp_path)) == 2
    assert [path.name for path in tmp_path.iterdir()] == ["kept"]


@pytest.mark.parametrize("name", command.EXPERIMENTS)
def test_every_experiment_of_the_table_is_there_has_the_form_and_stands_in_the_help(name):
    parameters = inspect.signature(command.experiment_named(name)).parameters
    assert list(parameters) == ["out", "seeds", "progress"]
    assert parameters["seeds"].kind is inspect.Parameter.KEYWORD_ONLY
    assert f"`{name}`" in inspect.getdoc(command.geometry)

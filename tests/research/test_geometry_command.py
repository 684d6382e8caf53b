"""``python -m research.geometry``: experiments by name, a folder whole or not at all."""

import importlib
import inspect
import json
import sys

import pytest

from efface.cli import exits
from research.geometry import __main__ as command

EXPERIMENTS = command.EXPERIMENTS
NOT_MADE = "Wanted an experiment out of one, two, or all. Got 'three'. Choose one of these.\n"
NO_SEED = "Wanted 1 seed or more. Got 0. Give --seeds 20, as the tables have it.\n"


def drawn(out, *, seeds, progress):
    """An experiment that draws nothing."""
    with progress("drawn", len(seeds)) as advance:
        for seed in seeds:
            advance(f"seed {seed}")
    (out / "drawn.svg").write_text("<svg/>")
    return {"seeds": list(seeds)}


@pytest.fixture
def geometry(monkeypatch):
    """The command with two quick experiments in place of its own; it gives its exit code."""
    monkeypatch.setattr(command, "EXPERIMENTS", {"one": "m", "two": "m"})
    monkeypatch.setattr(command, "experiment_named", lambda _: drawn)

    def run(*arguments):
        monkeypatch.setattr(sys, "argv", ["geometry", *arguments])
        try:
            with exits():
                command.app(list(arguments), exit_on_error=False)
        except SystemExit as end:
            return int(end.code or 0)
        return 0

    return run


@pytest.mark.parametrize(("name", "made"), [("two", ["two"]), ("all", ["one", "two"])])
def test_experiments_are_made_with_each_seed_and_say_their_command(geometry, tmp_path, name, made):
    out = tmp_path / "made"
    assert geometry(name, "--out", str(out), "--seeds", "3") == 0
    assert {path.name for path in out.iterdir()} == {"drawn.svg", *(f"{n}.json" for n in made)}
    facts = json.loads((out / "two.json").read_text())
    assert facts["seeds"] == [0, 1, 2]
    assert facts["command"].startswith(f"python -m research.geometry {name} --out ")


@pytest.mark.parametrize(
    ("given", "text"), [(("three",), NOT_MADE), (("one", "--seeds", "0"), NO_SEED)]
)
def test_what_cannot_be_made_is_refused(geometry, tmp_path, capsys, given, text):
    assert geometry(*given, "--out", str(tmp_path / "made")) == 2
    assert capsys.readouterr().err == text
    assert not (tmp_path / "made").exists()


def test_a_folder_that_holds_something_is_left_alone(geometry, tmp_path):
    (tmp_path / "kept").write_text("mine")
    assert geometry("one", "--out", str(tmp_path)) == 2
    assert [path.name for path in tmp_path.iterdir()] == ["kept"]


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_every_experiment_of_the_table_is_there_has_the_form_and_stands_in_the_help(name):
    parameters = inspect.signature(importlib.import_module(EXPERIMENTS[name]).experiment).parameters
    assert list(parameters) == ["out", "seeds", "progress"]
    assert parameters["seeds"].kind is inspect.Parameter.KEYWORD_ONLY
    assert f"`{name}`" in inspect.getdoc(command.geometry)

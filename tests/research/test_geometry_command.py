"""``python -m research.geometry``: experiments by name, a folder whole or not at all."""

import importlib
import inspect
import json
import sys

import pytest

from efface.cli import exits
from research.geometry import __main__ as cli_geometry

EXPERIMENTS = cli_geometry.EXPERIMENTS


def drawn(out, *, seeds, progress):
    """An experiment that draws nothing."""
    with progress("drawn", len(seeds)) as told:
        for seed in seeds:
            told(f"seed {seed}")
    (out / "drawn.svg").write_text("<svg/>")
    return {"seeds": list(seeds)}


@pytest.fixture
def efface(monkeypatch):
    """The command with two quick experiments in place of its own; it gives its exit code."""
    monkeypatch.setattr(cli_geometry, "EXPERIMENTS", {"one": "m", "two": "m"})
    monkeypatch.setattr(cli_geometry, "experiment_named", lambda _: drawn)

    def run(*arguments):
        monkeypatch.setattr(sys, "argv", ["python -m research.geometry", *arguments])
        try:
            with exits():
                cli_geometry.app(list(arguments), exit_on_error=False)
        except SystemExit as end:
            return int(end.code or 0)
        return 0

    return run


def test_a_named_experiment_is_made_with_each_seed(efface, tmp_path):
    """The facts say which command made them."""
    assert efface("two", "--out", str(tmp_path / "made"), "--seeds", "3") == 0
    assert {path.name for path in (tmp_path / "made").iterdir()} == {"two.json", "drawn.svg"}
    facts = json.loads((tmp_path / "made/two.json").read_text())
    assert facts["seeds"] == [0, 1, 2]
    assert facts["command"].startswith("python -m research.geometry two")


def test_all_makes_every_experiment(efface, tmp_path):
    """One folder for all of them."""
    assert efface("all", "--out", str(tmp_path / "made"), "--seeds", "1") == 0
    names = {path.name for path in (tmp_path / "made").iterdir()}
    assert names == {"one.json", "two.json", "drawn.svg"}


def test_an_experiment_that_nobody_made_is_refused_by_name(efface, tmp_path, capsys):
    """The message names those that there are."""
    assert efface("three", "--out", str(tmp_path / "made")) == 2
    assert capsys.readouterr().err == (
        "Wanted an experiment out of one, two, or all. Got 'three'. Choose one of these.\n"
    )
    assert not (tmp_path / "made").exists()


def test_no_seed_is_refused(efface, tmp_path, capsys):
    """An experiment without a seed shows nothing."""
    assert efface("one", "--out", str(tmp_path / "made"), "--seeds", "0") == 2
    assert capsys.readouterr().err == (
        "Wanted 1 seed or more. Got 0. Give --seeds 20, as the tables have it.\n"
    )


def test_a_folder_that_holds_something_is_left_alone(efface, tmp_path):
    """Nothing is overwritten."""
    (tmp_path / "kept").write_text("mine")
    assert efface("one", "--out", str(tmp_path)) == 2
    assert [path.name for path in tmp_path.iterdir()] == ["kept"]


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_every_experiment_of_the_table_is_there_and_has_the_form(name):
    """A row that names nothing fails only when a user asks for it."""
    function = importlib.import_module(EXPERIMENTS[name]).experiment
    parameters = inspect.signature(function).parameters
    assert list(parameters) == ["out", "seeds", "progress"]
    assert parameters["seeds"].kind is inspect.Parameter.KEYWORD_ONLY


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_the_help_names_every_experiment(name):
    """What stands in the help is all that a user knows of."""
    assert f"`{name}`" in inspect.getdoc(cli_geometry.geometry)
